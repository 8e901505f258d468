"""Attention within ragged segments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import checked_pointer


@autocast.lowers
def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    q_indptr: Tensor,
    k_indptr: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention within ragged segments: every query of segment i attends to all keys of segment i, with scores
    ``scale * <query[v, h], key[u, h]> + bias[pair, h]``.

    Args:
        query: ``[Nq, H, K]``; key: ``[Nk, H, K]``; value: ``[Nk, H, D]``; float32, float64, bfloat16 or float16 (accumulated in
            float32, float64 for float64).
        q_indptr: int32 or int64 ``[S + 1]``: the queries of segment i are ``query[q_indptr[i]:q_indptr[i + 1]]``. Checked on every
            call.
        k_indptr: the same for keys and values (default: ``q_indptr``).
        bias: ``[P, H]``, one number for every pair: segment by segment, its queries as rows, its keys as columns; -inf masks a
            pair.
        scale: default ``1 / sqrt(K)``.

    Returns:
        ``[Nq, H, D]``; 0 for queries without keys or whose scores are all -inf.

    Differentiable in query, key, value and bias to any order. Kept for the backward beyond the operands: the result and ``[Nq, H]``
    float32; scores are computed again. No list of pairs is made; higher orders hold ``[P, H, K]`` and ``[P, H, D]`` while
    they run. Deterministic, independent of the number of threads.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, order or device, before any kernel runs.

    Source: FlashAttention (arXiv:2205.14135), its form for variable lengths; the same as ``scaled_dot_product_attention`` of nested
    tensors.

    >>> import torch
    >>> from structops.sparse import segment_attention
    >>> q, v = torch.zeros(3, 1, 4), torch.tensor([[[1.]], [[3.]], [[7.]]])
    >>> segment_attention(q, q, v, torch.tensor([0, 2, 3])).flatten().tolist()
    [2.0, 2.0, 7.0]
    """
    op = "segment_attention"
    query = check.shaped(op, "query", query, (None, None, None)).contiguous()
    Nq, H, K = query.shape
    key = check.shaped(op, "key", key, (None, H, K), query).contiguous()
    value = check.shaped(op, "value", value, (key.shape[0], H, None), query).contiguous()
    q_indptr = checked_pointer(op, "q_indptr", q_indptr, query, Nq)
    if k_indptr is None and key.shape[0] == Nq:
        k_indptr = q_indptr
    k_indptr = k_indptr if k_indptr is q_indptr else checked_pointer(op, "k_indptr", k_indptr, query, key.shape[0])
    if k_indptr.numel() != q_indptr.numel():
        check.fail(ValueError, op, f"k_indptr of shape [{q_indptr.numel()}], as q_indptr", list(k_indptr.shape))
    check.fits(op, query.dtype, Nq, H, value.shape[2])
    offset = None
    if bias is not None:
        count = q_indptr.diff().long() * k_indptr.diff()
        offset = torch.cat([count.new_zeros(1), count.cumsum(0)])
        total = None if torch.compiler.is_compiling() else int(offset[-1])
        bias = check.shaped(op, "bias", bias, (total, H), query).contiguous()
    scale = 1 / math.sqrt(max(K, 1)) if scale is None else scale
    return ladder.segment_attention(query, key, value, bias, q_indptr, k_indptr, offset, float(scale))[0]
