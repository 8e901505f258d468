"""The short way: a small contiguous [E] or [E, F] with a vector of indices or pointers goes straight to the kernels."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ..._dispatch import is_eager
from ...kernels import codes as C

is_compiling = torch.compiler.is_compiling
# Larger operands take the general way, where the kernel is chosen by size and the overhead of a call does not show.
_SMALL = 1 << 18
# Up to here, on a CPU, a derivative written in Python costs more than the sums: torch's own, written in C++, is taken.
_TINY = 1 << 12


def plain(src: Tensor, index: Tensor, dim: int) -> bool:
    """Whether the kernels take ``src`` [E] or [E, F] and ``index`` [E] as they are."""
    if not (isinstance(src, Tensor) and isinstance(index, Tensor)):
        return False
    shape, rank = src.shape, src.dim()
    return (
        0 < rank <= 2
        and (dim == 0 or dim == -rank)
        and index.shape == shape[:1]
        and src.dtype in check.FLOATS
        and index.dtype in check.INDICES
        and src.numel() < _SMALL
        and src.is_contiguous()
        and index.is_contiguous()
        and src.device == index.device
        and is_eager()
    )


def plain_rows(src: Tensor, indptr: Tensor) -> bool:
    """Whether the kernels take ``src`` [rows] or [rows, F] and a vector of pointers or indices as they are."""
    return (
        isinstance(src, Tensor)
        and isinstance(indptr, Tensor)
        and indptr.dim() == 1
        and 0 < src.dim() <= 2
        and src.dtype in check.FLOATS
        and indptr.dtype in check.INDICES
        and src.is_contiguous()
        and indptr.is_contiguous()
        and src.device == indptr.device
        and not is_compiling()
    )


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size):
        ctx.save_for_backward(index)
        return ladder.scatter(src, index, size, C.SUM, False, 0.0, False)[0]

    @staticmethod
    def backward(ctx, g):
        return gather(g, ctx.saved_tensors[0]), None, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size):
        ctx.save_for_backward(index)
        return ladder.scatter(src, index, size, C.MEAN, False, 0.0, False)[0]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return gather((g / _counts(index, g.shape[0], g)).to(g.dtype), index), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index):
        ctx.save_for_backward(index)
        ctx.rows = src.shape[0]
        return src.index_select(0, index)

    @staticmethod
    def backward(ctx, g):
        return ladder.scatter(g.contiguous(), ctx.saved_tensors[0], ctx.rows, C.SUM, False, 0.0, False)[0], None


def gather(src: Tensor, index: Tensor) -> Tensor:
    """Rows of src [N] or [N, F] by index [E]. (index_select's derivative is serial on a CPU, unordered on a GPU.)"""
    if max(src.shape[0], index.shape[0]) * math.prod(src.shape[1:]) < _TINY and src.device.type == "cpu":
        return src.index_select(0, index)
    return wanting_grad(_Gather, _index_select, src, index)


def _index_select(src: Tensor, index: Tensor) -> Tensor:
    return src.index_select(0, index)


class _Mul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size):
        out = ladder.scatter(src, index, size, C.PROD, False, 1.0, False)[0]
        ctx.save_for_backward(src, index, out)
        return out

    @staticmethod
    def backward(ctx, g):
        src, index, out = ctx.saved_tensors
        if bool((src == 0).any()):
            indptr, perm = ladder.csr_build(index, out.shape[0])
            structure = (indptr, None, perm, None, None, None)
            return ladder.copy_product_grad(structure, C.COPY_E, src, g.contiguous()), None, None
        return gather(g * out, index) / src, None, None


def segment_sum(src: Tensor, indptr: Tensor, code: int = C.SUM) -> Tensor:
    return ladder.spmm(None, src, indptr, None, None, None, None, None, None, C.COPY_E, code, 0, 0.0, True, True)[0]


def segment_gather(src: Tensor, indptr: Tensor, elements: int) -> Tensor:
    F = 1 if src.dim() == 1 else src.shape[-1]
    return ladder.sddmm(
        src, None, indptr, None, None, None, None, None, None, C.EDGE_COPY, C.V, C.V, elements, F, 1
    )


class SegmentLinear(torch.autograd.Function):
    """Sum or mean of the ranges of indptr, which cover src [E] or [E, F]."""

    @staticmethod
    def forward(ctx, src, indptr, code):
        ctx.save_for_backward(indptr)
        ctx.elements, ctx.code = src.shape[0], code
        return segment_sum(src, indptr, code)

    @staticmethod
    def backward(ctx, g):
        (indptr,) = ctx.saved_tensors
        if ctx.code == C.MEAN:
            count = indptr.diff().clamp_(min=1)
            g = g / (count if g.dim() == 1 else count[:, None])
        return wanting_grad(SegmentGather, segment_gather, g.contiguous(), indptr, ctx.elements), None, None


class SegmentGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, indptr, elements):
        ctx.save_for_backward(indptr)
        return segment_gather(src, indptr, elements)

    @staticmethod
    def backward(ctx, g):
        return wanting_grad(SegmentLinear, segment_sum, g.contiguous(), ctx.saved_tensors[0], C.SUM), None, None


def wanting_grad(function, below, src: Tensor, *args) -> Tensor:
    """``function.apply`` where a gradient will be asked for, else ``below``, with the same arguments."""
    if src.requires_grad and torch.is_grad_enabled() and is_eager():
        return function.apply(src, *args)
    return below(src, *args)


_LINEAR = {C.SUM: _Sum, C.MEAN: _Mean, C.PROD: _Mul}


def with_grad(code: int, src: Tensor, index: Tensor, size: int) -> Tensor:
    if code == C.PROD or src.numel() >= _TINY or src.dtype.itemsize < 4 or src.device.type != "cpu":
        return _LINEAR[code].apply(src, index, size)
    wide = index if src.dim() == 1 else index[:, None].expand_as(src)
    total = src.new_zeros(size, *src.shape[1:]).scatter_add_(0, wide, src)
    return total if code == C.SUM else total / _counts(index, size, total)


def _counts(index: Tensor, size: int, like: Tensor) -> Tensor:
    """Group sizes, at least 1, as a column that divides ``like`` [N] or [N, F]; float32, float64 for float64."""
    ones = torch.ones(index.shape[0], dtype=torch.promote_types(like.dtype, torch.float32), device=index.device)
    count = ladder.scatter(ones, index, size, C.SUM, False, 0.0, False)[0].clamp_(min=1)
    return count if like.dim() == 1 else count[:, None]


def group_count(op: str, index: Tensor, dim_size: int | None) -> int:
    """The number of groups; the kernels themselves refuse an index that is not below it."""
    if dim_size is None:
        low, high, _ = ladder.index_range(index)
        if low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        return high + 1
    return as_size(op, dim_size)


def as_size(op: str, dim_size) -> int:
    if not isinstance(dim_size, (int, torch.SymInt)):
        try:
            dim_size = operator.index(dim_size)
        except TypeError:
            check.fail(TypeError, op, "dim_size to be an int", type(dim_size).__name__)
    return check.size(op, "dim_size", dim_size)


def explain(op: str, error: RuntimeError, index: Tensor, size: int):
    """An IndexError for an index that the kernel refused."""
    low, high, _ = ladder.index_range(index)
    if low < 0:
        check.fail(IndexError, op, "index >= 0", low)
    if high >= size:
        check.fail(IndexError, op, f"index < {size}", high)
    raise error
