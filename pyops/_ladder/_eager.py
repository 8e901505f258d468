"""Short ways through autograd for the most frequent eager calls.

A small graph pays for every argument of a ``torch.autograd.Function`` and for every tensor it saves. The functions below take
what the kernels take (contiguous [rows] or [rows, F], a vector of indices), pass the few arguments that vary, and use the
kernels and derivatives of the full operators. They may only be called where ``is_eager()`` holds; their backward may run
anywhere, and takes the full operators where a gradient of the gradient, a transform or a compiler is looking on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import bare_apply, is_eager
from ..kernels import backends
from ..kernels import codes as C
from . import _common as common
from ._csr import index_range
from ._scatter import scatter
from ._sddmm import sddmm, to_edges
from ._select import select_bwd
from ._spmm import aggregate, spmm
from ._spmm import copy_reduce as _rows

_grad_enabled = torch.is_grad_enabled
# Up to so many elements on a CPU, a derivative in Python costs more than the sums: torch's own, in C++, is taken.
_TINY = 1 << 12
_EXACT = (torch.float32, torch.float64)


def _alone() -> bool:
    """Whether a backward may call the kernels themselves."""
    return not _grad_enabled() and is_eager()


def copy_reduce(x: Tensor, structure: tuple, code: int) -> Tensor:
    """spmm of copied sources, by sum, mean, min or max."""
    if x.requires_grad and _grad_enabled():
        if code == C.SUM:
            return _copy_sum(x, structure)
        return _copy_mean(x, structure) if code == C.MEAN else _extreme(x, _copy_extreme, structure, code)
    return _rows(x, structure[0], structure[1], code)


def segment_rows(src: Tensor, indptr: Tensor, code: int) -> Tensor:
    """Reduction of the ranges of ``indptr``, which cover ``src``, by sum, mean, min or max."""
    if src.requires_grad and _grad_enabled():
        return _extreme(src, _segment_extreme, indptr, code) if code > C.MEAN else _segment_linear(src, indptr, code)
    return _rows(src, indptr, None, code)


def scatter_rows(src: Tensor, index: Tensor, size: int, code: int) -> Tensor:
    """Reduction of the rows of ``src`` by ``index``, by sum, mean, min or max."""
    if src.requires_grad and _grad_enabled():
        if code > C.MEAN:
            return _extreme(src, scatter.below, index, size, code, True, 0.0, False)
        if code == C.SUM and src.is_cpu and src.numel() < _TINY and src.dtype in _EXACT and not backends.overridden():
            return src.new_zeros((size, *src.shape[1:])).index_add_(0, index, src)
        return _scatter_linear(src, index, size, code)
    return scatter.below(src, index, size, code, False, 0.0, False)[0]


def covers(indptr: Tensor, total: int) -> bool:
    """Whether ``indptr`` runs from 0 to ``total`` in order."""
    return index_range.below(indptr) == (0, total, True)


def _counts(indptr: Tensor, g: Tensor) -> Tensor:
    """Group sizes, at least 1, shaped to divide ``g``."""
    return common.column(indptr.diff().clamp_(min=1).to(g.dtype), g)


def _copy_extreme(x, structure, code):
    return spmm.below(x, None, *structure, None, C.COPY_U, code, C.ARG_SOURCE, 0.0, False, True)


def _segment_extreme(src, indptr, code):
    return spmm.below(None, src, indptr, None, None, None, None, None, None, C.COPY_E, code, C.ARG_EDGE, 0.0, False, True)


class CopySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, structure):
        ctx.structure = structure
        return _rows(x, structure[0], structure[1], C.SUM)

    @staticmethod
    def backward(ctx, g):
        rowptr, col, eid, colptr, row_t, eid_t = ctx.structure
        g = g.contiguous()
        if _alone():
            return _rows(g, colptr, row_t, C.SUM), None
        back = (colptr, row_t, eid_t, rowptr, col, eid)
        return (copy_reduce(g, back, C.SUM) if is_eager() else aggregate(back, g, None, C.COPY_U)), None


class CopyMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, structure):
        ctx.structure = structure
        return _rows(x, structure[0], structure[1], C.MEAN)

    @staticmethod
    def backward(ctx, g):
        g, back = g.contiguous(), common.reverse(ctx.structure)
        count = _counts(back[3], g)
        if _alone():  # weights 1 / n of the rows, read through row_t, spare a scaled copy of g
            colptr, row_t, *_ = back
            return aggregate((colptr, row_t, row_t, None, None, None), g, count.reciprocal_(), C.MUL), None
        return aggregate(back, g / count, None, C.COPY_U), None


class SegmentLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, indptr, code):
        ctx.save_for_backward(indptr)
        ctx.elements, ctx.code = src.shape[0], code
        return _rows(src, indptr, None, code)

    @staticmethod
    def backward(ctx, g):
        (indptr,) = ctx.saved_tensors
        g = g.contiguous() if ctx.code == C.SUM else g / _counts(indptr, g)
        if not _alone():
            return to_edges((indptr, None, None, None, None, None), g.contiguous(), ctx.elements), None, None
        copies = sddmm.below(
            g, None, indptr, None, None, None, None, None, None, C.EDGE_COPY, C.V, C.V, ctx.elements, common.features(g), 1
        )
        return copies, None, None


class ScatterLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size, code):
        ctx.save_for_backward(index)
        ctx.code = code
        return scatter.below(src, index, size, code, False, 0.0, False)[0]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        if ctx.code == C.MEAN:
            ones = index.new_ones(index.shape[0], dtype=torch.int64)
            count = scatter(ones, index, g.shape[0], C.SUM, False, 0.0, False)[0]
            g = g / common.column(count.clamp_(min=1).to(g.dtype), g)
        return g.index_select(0, index), None, None, None


class Extreme(torch.autograd.Function):
    """``run(x, *args)`` gives the values and their winners, rows of x."""

    @staticmethod
    def forward(ctx, x, run, *args):
        out, winners = run(x, *args)
        ctx.save_for_backward(winners)
        ctx.rows, ctx.others = x.shape[0], len(args) + 1
        return out

    @staticmethod
    def backward(ctx, g):
        run = select_bwd.below if _alone() else select_bwd
        return run(g.contiguous(), ctx.saved_tensors[0], ctx.rows), *(None,) * ctx.others


_copy_sum, _copy_mean, _segment_linear, _scatter_linear, _extreme = map(
    bare_apply, (CopySum, CopyMean, SegmentLinear, ScatterLinear, Extreme)
)
