"""Attention pooling of segments."""

from __future__ import annotations

from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ._segment import segment_reduce, segment_softmax


@autocast.promotes
def attention_pool(values: Tensor, logits: Tensor, indptr: Tensor) -> Tensor:
    """Attention pooling of every group: the mean of its rows, weighted by the softmax of their logits.

    Args:
        values: ``[L, F]`` or ``[L, H, D]``.
        logits: ``[L]`` or ``[L, 1]`` for ``[L, F]``, ``[L, H]`` for ``[L, H, D]``.
        indptr: int32 or int64 ``[G + 1]``, non-decreasing from 0 to L.

    Returns:
        ``[G, F]`` or ``[G, H, D]``; 0 for empty groups. Differentiable to any order. Deterministic. Saved: values and weights.

    Convention of DGL's GlobalAttentionPooling, the gate's logits given. A composition of :func:`segment_softmax` and
    :func:`segment_reduce`.

    >>> import torch
    >>> from structops.sparse import attention_pool
    >>> attention_pool(torch.tensor([[1.], [3.], [7.]]), torch.zeros(3), torch.tensor([0, 2, 3]))
    tensor([[2.],
            [7.]])
    """
    op = "attention_pool"
    check.dense(op, "values", values)
    check.dense(op, "logits", logits)
    if values.dim() not in (2, 3):
        check.fail(ValueError, op, "values of shape [L, F] or [L, H, D]", list(values.shape))
    if values.dim() == 2 and logits.dim() == 1:
        logits = logits[:, None]
    heads = values.shape[1] if values.dim() == 3 else 1
    if tuple(logits.shape) != (values.shape[0], heads):
        check.fail(ValueError, op, f"logits of shape [{values.shape[0]}, {heads}]", list(logits.shape))
    weight = segment_softmax(logits, indptr)
    out = segment_reduce(values * (weight[..., None] if values.dim() == 3 else weight), indptr)
    assert isinstance(out, Tensor)
    return out
