"""Softmax over the elements that share an index."""

import torch
from torch import Tensor

from ..._scatter import composite as core


def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
    """Softmax ``[*, E, *]`` of a floating ``src [*, E, *]``; a group of only -inf gives NaN."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_scatter.scatter_softmax(src, index, dim, dim_size)
    return core.softmax("scatter_softmax", src, index, dim, dim_size)


def scatter_log_softmax(
    src: Tensor, index: Tensor, dim: int = -1, eps: float = 1e-12, dim_size: int | None = None
) -> Tensor:
    """``src - max - log(sum(exp(src - max)) + eps)`` by group, ``[*, E, *]``; a group of only -inf gives NaN."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_scatter.scatter_log_softmax(src, index, dim, eps, dim_size)
    return core.log_softmax("scatter_log_softmax", src, index, dim, eps, dim_size)
