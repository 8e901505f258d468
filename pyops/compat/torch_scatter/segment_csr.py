"""segment_*_csr: reduce the ranges between the pointers of ``indptr``'s last dimension; gather_csr is the transpose."""

import torch
from torch import Tensor

from ...kernels import codes as C
from .._scatter import csr as core


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sums ``[*, N, *]`` of ``src [*, E, *]`` by ``indptr [*, N + 1]``; written over ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_sum_csr(src, indptr, out)
    return core.segment_csr("segment_sum_csr", C.SUM, src, indptr, out)[0]


def segment_add_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """:func:`segment_sum_csr`."""
    return segment_sum_csr(src, indptr, out)


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Means ``[*, N, *]``; written over ``out`` if given. Integers truncate."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_mean_csr(src, indptr, out)
    return core.segment_csr("segment_mean_csr", C.MEAN, src, indptr, out)[0]


def segment_min_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Minima and their positions, both ``[*, N, *]``; the minima are written over ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_min_csr(src, indptr, out)
    return core.segment_csr("segment_min_csr", C.MIN, src, indptr, out)


def segment_max_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Maxima and their positions, both ``[*, N, *]``; the maxima are written over ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.segment_max_csr(src, indptr, out)
    return core.segment_csr("segment_max_csr", C.MAX, src, indptr, out)


def segment_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """The reduction named ``reduce``: sum, add, mean, min or max; values only."""
    if reduce == "sum" or reduce == "add":
        return segment_sum_csr(src, indptr, out)
    if reduce == "mean":
        return segment_mean_csr(src, indptr, out)
    if reduce == "min":
        return segment_min_csr(src, indptr, out)[0]
    if reduce == "max":
        return segment_max_csr(src, indptr, out)[0]
    raise ValueError("segment_csr: expected reduce to be one of sum, add, mean, min, max")


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """``src [*, N, *]`` copied to the elements of its range, as ``[*, indptr[-1], *]``; written to ``out`` if given."""
    if torch.jit.is_scripting():
        return torch.ops.torch_scatter.gather_csr(src, indptr, out)
    return core.gather_csr("gather_csr", src, indptr, out)
