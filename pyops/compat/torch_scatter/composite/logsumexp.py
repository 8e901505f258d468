"""Logarithm of the sum of exponentials over the elements that share an index."""

import torch
from torch import Tensor

from ..._scatter import composite as core


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """``max + log(sum(exp(src - max)) + eps)`` by group, ``[*, dim_size, *]``; ``out`` joins its group.

    0 where there is nothing but -inf, the dtype's largest number where the result would be inf.
    """
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_scatter.scatter_logsumexp(src, index, dim, out, dim_size, eps)
    return core.logsumexp("scatter_logsumexp", src, index, dim, out, dim_size, eps)
