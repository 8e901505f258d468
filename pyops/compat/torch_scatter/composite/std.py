"""Standard deviation over the elements that share an index."""

import torch
from torch import Tensor

from ..._scatter import composite as core


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """``sqrt(sum((src - mean)^2) / (n + 1e-6))`` by group, ``[*, dim_size, *]``.

    n is the count (one less if ``unbiased``), at least 1. ``out`` collects the sums of squares instead of the result.
    The gradient at zero deviation is 0.
    """
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_scatter.scatter_std(src, index, dim, out, dim_size, unbiased)
    return core.std("scatter_std", src, index, dim, out, dim_size, unbiased)
