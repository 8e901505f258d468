"""segment_*_coo: reduce elements that share a sorted index along its last dimension; gather_coo is the transpose."""

import torch
from torch import Tensor

from ...kernels import codes as C
from .._scatter import coo as core


def segment_sum_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sums ``[*, dim_size, *]`` of ``src [*, E, *]`` by sorted ``index [*, E]``; added to ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_sum_coo(src, index, out, dim_size)
    return core.segment_coo_linear("segment_sum_coo", C.SUM, src, index, out, dim_size)


def segment_add_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """:func:`segment_sum_coo`."""
    return segment_sum_coo(src, index, out, dim_size)


def segment_mean_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Means ``[*, dim_size, *]``; ``(out + sum) / count`` in ``out`` if given. Integers truncate."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_mean_coo(src, index, out, dim_size)
    return core.segment_coo_linear("segment_mean_coo", C.MEAN, src, index, out, dim_size)


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minima and their positions, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_min_coo(src, index, out, dim_size)
    return core.segment_coo_extreme("segment_min_coo", C.MIN, src, index, out, dim_size)


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maxima and their positions, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_max_coo(src, index, out, dim_size)
    return core.segment_coo_extreme("segment_max_coo", C.MAX, src, index, out, dim_size)


def segment_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """The reduction named ``reduce``: sum, add, mean, min or max; values only."""
    if reduce == "sum" or reduce == "add":
        return segment_sum_coo(src, index, out, dim_size)
    if reduce == "mean":
        return segment_mean_coo(src, index, out, dim_size)
    if reduce == "min":
        return segment_min_coo(src, index, out, dim_size)[0]
    if reduce == "max":
        return segment_max_coo(src, index, out, dim_size)[0]
    raise ValueError("segment_coo: expected reduce to be one of sum, add, mean, min, max")


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """``src [*, N, *]`` read by sorted ``index [*, E]``, as ``[*, E, *]``; written to ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.gather_coo(src, index, out)
    return core.gather_coo("gather_coo", src, index, out)
