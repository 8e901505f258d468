"""Embeddings whose rows are signs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import _check as check
from ..graph import Graph, checked_pointer
from ..sparse import segment_reduce, spmm
from . import _ops as ops
from ._bits import BitTensor, unpack_words
from ._signs import sign

REDUCES = ("sum", "mean", "max")


def _checked(op: str, index: Any, weight: Any) -> None:
    """index within a table [N, D] of floats or of bits."""
    check.index(op, "index", index)
    if isinstance(weight, BitTensor):
        if weight.words.dim() != 2 or weight.dim != 1:
            check.fail(ValueError, op, "weight [N, D] packed along dimension 1", f"{list(weight.shape)} along {weight.dim}")
    else:
        check.dense(op, "weight", weight)
        if weight.dim() != 2:
            check.fail(ValueError, op, "weight [N, D]", list(weight.shape))
    N, device = weight.shape[0], weight.device
    if index.device != device:
        check.fail(ValueError, op, f"index on {device}, as weight", index.device)
    if index.numel() and not torch.compiler.is_compiling():
        low, high = (int(v) for v in index.aminmax())
        if low < 0 or high >= N:
            check.fail(IndexError, op, f"index within 0..{N - 1}", low if low < 0 else high)


def _values(bits: BitTensor) -> tuple[int, int]:
    """What bits 0 and 1 stand for."""
    return (0, 1) if bits.values == "01" else (-bits.polarity, bits.polarity)


def _signs(rows: Tensor, sign_zero: int, clip: float | None) -> Tensor:
    return sign(rows, "identity", sign_zero=sign_zero) if clip is None else sign(rows, clip=clip, sign_zero=sign_zero)


def binary_embedding(index: Tensor, weight: Tensor | BitTensor, *, sign_zero: int = 1, clip: float | None = 1.0) -> Tensor:
    """The signs of the rows of ``weight`` that ``index`` names.

    Args:
        index: int32 or int64 ``[*]``. weight: ``[N, D]`` floating, or a :class:`BitTensor` packed along dimension 1 (of values
            "01": the bits themselves), of which the rows that are named are read: N * D / 8 bytes in all.
        clip: the gradient of a float weight passes where abs(weight) <= clip; None: everywhere.

    Returns:
        ``[*, D]`` in the dtype of the weight, float32 of bits. Saves one bit a value and the index.

    >>> import torch, structops
    >>> structops.binary.binary_embedding(torch.tensor([1]), torch.tensor([[1.0, 2.0], [-3.0, 4.0]]))
    tensor([[-1.,  1.]])
    """
    _checked("binary_embedding", index, weight)
    if not isinstance(weight, BitTensor):
        return _signs(F.embedding(index, weight), sign_zero, clip)
    zero, one = _values(weight)
    words = weight.words.index_select(0, index.reshape(-1))
    return unpack_words(words, weight.K, 1, torch.float32, zero, one).reshape(*index.shape, weight.K)


def binary_embedding_bag(
    index: Tensor,
    offsets: Tensor,
    weight: Tensor | BitTensor,
    reduce: str = "mean",
    *,
    sign_zero: int = 1,
    clip: float | None = 1.0,
) -> Tensor:
    """Sum, mean or max over bags of the signs of rows: bag n is ``index[offsets[n]:offsets[n + 1]]``, the last to the end.

    Args:
        index: int32 or int64 ``[E]``. offsets: int64 ``[B]``, non-decreasing from 0, as in ``torch.nn.functional.embedding_bag``.
        weight, sign_zero, clip: as in :func:`binary_embedding`.

    Returns:
        ``[B, D]`` in the dtype of the weight, float32 of bits; 0 for empty bags. Deterministic. A packed table is summed on its
        bits, by carry-save counters: nothing of size E * D is made, and sums below 2**24 are exact. Of a float table the signs
        are taken once, or where the bags name less than half as many rows as it has (and in compiled code) of those rows.

    >>> import torch, structops
    >>> w = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    >>> structops.binary.binary_embedding_bag(torch.tensor([0, 1, 1]), torch.tensor([0, 2]), w, "sum")
    tensor([[ 0.,  2.],
            [-1.,  1.]])
    """
    op = "binary_embedding_bag"
    check.choice(op, "reduce", reduce, REDUCES)
    check.index(op, "index", index)
    check.index(op, "offsets", offsets, like=index)
    if index.dim() != 1 or offsets.dim() != 1:
        check.fail(ValueError, op, "index [E] and offsets [B]", f"{list(index.shape)} and {list(offsets.shape)}")
    _checked(op, index, weight)
    ends = torch.cat([offsets.long(), offsets.new_full((1,), index.numel(), dtype=torch.int64)])
    ends, (N, D), E = checked_pointer(op, "offsets", ends, index, index.numel()), weight.shape, index.numel()
    if not isinstance(weight, BitTensor):
        if torch.compiler.is_compiling() or 2 * E <= N:  # few of many rows, or no structure to be analysed
            return cast(Tensor, segment_reduce(_signs(F.embedding(index, weight), sign_zero, clip), ends, reduce))
        table = _signs(weight, sign_zero, clip)
        return cast(Tensor, spmm(Graph.from_csr(ends, index, N), table, None, "copy_u", reduce))
    return ops.bits_bag(weight.words, index.contiguous(), ends, D, *_values(weight), REDUCES.index(reduce))
