"""scatter_*: reduce the elements of ``src`` that share an index along ``dim``."""

import torch
from torch import Tensor

from ...kernels import codes as C
from .._scatter import scatter as core


def scatter_sum(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sums ``[*, dim_size, *]`` of ``src [*, E, *]``; added to ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.scatter_sum(src, index, dim, out, dim_size)
    return core.scatter_reduce("scatter_sum", C.SUM, src, index, dim, out, dim_size)


def scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """:func:`scatter_sum`."""
    return scatter_sum(src, index, dim, out, dim_size)


def scatter_mul(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Products ``[*, dim_size, *]``, 1 for empty groups; multiplied into ``out`` if given. Exact gradient at zeros."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.scatter_mul(src, index, dim, out, dim_size)
    return core.scatter_reduce("scatter_mul", C.PROD, src, index, dim, out, dim_size)


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Means ``[*, dim_size, *]``; ``(out + sum) / count`` in ``out`` if given. Integers round down."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.scatter_mean(src, index, dim, out, dim_size)
    return core.scatter_reduce("scatter_mean", C.MEAN, src, index, dim, out, dim_size)


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minima and their positions along ``dim``, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.scatter_min(src, index, dim, out, dim_size)
    return core.scatter_extreme("scatter_min", C.MIN, src, index, dim, out, dim_size)


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maxima and their positions along ``dim``, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.scatter_max(src, index, dim, out, dim_size)
    return core.scatter_extreme("scatter_max", C.MAX, src, index, dim, out, dim_size)


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """The reduction named ``reduce``: sum, add, mul, mean, min or max; values only."""
    if reduce == "sum" or reduce == "add":
        return scatter_sum(src, index, dim, out, dim_size)
    if reduce == "mul":
        return scatter_mul(src, index, dim, out, dim_size)
    if reduce == "mean":
        return scatter_mean(src, index, dim, out, dim_size)
    if reduce == "min":
        return scatter_min(src, index, dim, out, dim_size)[0]
    if reduce == "max":
        return scatter_max(src, index, dim, out, dim_size)[0]
    raise ValueError("scatter: expected reduce to be one of sum, add, mul, mean, min, max")
