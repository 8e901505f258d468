"""torch_scatter's argument rules, brought to the operators of structops.

Shapes: ``src [*, E, *]`` with E at ``dim``, N groups. A small contiguous [E] or [E, F] with a vector index goes
straight to the kernels; everything else through :class:`Groups`.
"""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ... import sparse
from ..._dispatch import _functorch_level
from ...kernels import codes as C

_is_compiling = torch.compiler.is_compiling
# Larger operands take the general way, where the kernel is chosen by size and the overhead of a call does not show.
_SMALL = 1 << 18
# Up to here, on a CPU, a derivative written in Python costs more than the sums: torch's own, written in C++, is taken.
_TINY = 1 << 12


# ---- the short way ---------------------------------------------------------------------------------------------------


def _plain(src: Tensor, index: Tensor, dim: int) -> bool:
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
        and not _is_compiling()
        and _functorch_level() is None
    )


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size):
        ctx.save_for_backward(index)
        return ladder.scatter(src, index, size, C.SUM, False, 0.0, False)[0]

    @staticmethod
    def backward(ctx, g):
        return _gather(g, ctx.saved_tensors[0]), None, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index, size):
        ctx.save_for_backward(index)
        return ladder.scatter(src, index, size, C.MEAN, False, 0.0, False)[0]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return _gather((g / _counts(index, g.shape[0], g)).to(g.dtype), index), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, index):
        ctx.save_for_backward(index)
        ctx.rows = src.shape[0]
        return src.index_select(0, index)

    @staticmethod
    def backward(ctx, g):
        return ladder.scatter(g.contiguous(), ctx.saved_tensors[0], ctx.rows, C.SUM, False, 0.0, False)[0], None


def _gather(src: Tensor, index: Tensor) -> Tensor:
    """Rows of src [N] or [N, F] by index [E]. (index_select's derivative is serial on a CPU, unordered on a GPU.)"""
    if max(src.shape[0], index.shape[0]) * math.prod(src.shape[1:]) < _TINY and src.device.type == "cpu":
        return src.index_select(0, index)
    return _wanting_grad(_Gather, _index_select, src, index)


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
            return ladder._copy_product_grad(structure, C.COPY_E, src, g.contiguous()), None, None
        return _gather(g * out, index) / src, None, None


def _segment_sum(src: Tensor, indptr: Tensor, code: int = C.SUM) -> Tensor:
    return ladder.spmm(None, src, indptr, None, None, None, None, None, None, C.COPY_E, code, 0, 0.0, True, True)[0]


def _segment_gather(src: Tensor, indptr: Tensor, elements: int) -> Tensor:
    F = 1 if src.dim() == 1 else src.shape[-1]
    return ladder.sddmm(src, None, indptr, None, None, None, None, None, None, C.EDGE_COPY, C.V, C.V, elements, F, 1)


class _SegmentLinear(torch.autograd.Function):
    """Sum or mean of the ranges of indptr, which cover src [E] or [E, F]."""

    @staticmethod
    def forward(ctx, src, indptr, code):
        ctx.save_for_backward(indptr)
        ctx.elements, ctx.code = src.shape[0], code
        return _segment_sum(src, indptr, code)

    @staticmethod
    def backward(ctx, g):
        (indptr,) = ctx.saved_tensors
        if ctx.code == C.MEAN:
            count = indptr.diff().clamp_(min=1)
            g = g / (count if g.dim() == 1 else count[:, None])
        return _wanting_grad(_SegmentGather, _segment_gather, g.contiguous(), indptr, ctx.elements), None, None


class _SegmentGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, src, indptr, elements):
        ctx.save_for_backward(indptr)
        return _segment_gather(src, indptr, elements)

    @staticmethod
    def backward(ctx, g):
        return _wanting_grad(_SegmentLinear, _segment_sum, g.contiguous(), ctx.saved_tensors[0], C.SUM), None, None


def _wanting_grad(function, below, src: Tensor, *args) -> Tensor:
    """``function.apply`` where a gradient will be asked for, else ``below``, with the same arguments."""
    if src.requires_grad and torch.is_grad_enabled() and not _is_compiling() and _functorch_level() is None:
        return function.apply(src, *args)
    return below(src, *args)


_LINEAR = {C.SUM: _Sum, C.MEAN: _Mean, C.PROD: _Mul}


def _with_grad(code: int, src: Tensor, index: Tensor, size: int) -> Tensor:
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


def _size(op: str, index: Tensor, dim_size: int | None) -> int:
    """The number of groups; the kernels themselves refuse an index that is not below it."""
    if dim_size is None:
        low, high, _ = ladder.index_range(index)
        if low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        return high + 1
    return _dim_size(op, dim_size)


def _dim_size(op: str, dim_size) -> int:
    if not isinstance(dim_size, (int, torch.SymInt)):
        try:
            dim_size = operator.index(dim_size)
        except TypeError:
            check.fail(TypeError, op, "dim_size to be an int", type(dim_size).__name__)
    return check.size(op, "dim_size", dim_size)


def _explain(op: str, error: RuntimeError, index: Tensor, size: int):
    """An IndexError for an index that the kernel refused."""
    low, high, _ = ladder.index_range(index)
    if low < 0:
        check.fail(IndexError, op, "index >= 0", low)
    if high >= size:
        check.fail(IndexError, op, f"index < {size}", high)
    raise error


# ---- the general way -------------------------------------------------------------------------------------------------


class Groups:
    """``src`` and ``index`` as rows [R], [R, F] or [B, E, F] with one index per row of ``axis``, checked.

    An index that differs along other dimensions than ``dim`` makes every combination of those a group of its own.
    """

    def __init__(self, op: str, src: Tensor, index: Tensor, dim: int, dim_size: int | None, ascending: bool = False):
        check.dense(op, "src", src, integers=True)
        check.index(op, "index", index, like=src)
        self.op, self.dim = op, check.axis(op, dim, src.dim())
        dim, shape = self.dim, src.shape
        self.elements = shape[dim]
        index = _essential(op, index, src, dim)
        self.size = self._checked(op, index, dim_size, ascending)
        self.shape = (*shape[:dim], self.size, *shape[dim + 1 :])
        self.src_shape = shape
        self.step = 0
        if index.dim() == 1:
            self.index, self.groups = index, self.size
            self.axis = min(dim, 1)
            lead, width = shape[:dim], shape[dim + 1 :]
            if dim or len(width) > 1:
                src = src.reshape(*((math.prod(lead),) if dim else ()), shape[dim], math.prod(width))
            self.rows = src.contiguous()
            self.count_shape = (self.size, *(1 for _ in shape[dim + 1 :]))
            return
        self.axis = 0
        B, E, F = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
        offset = torch.arange(B, device=src.device)[:, None] * self.size
        if any(s != 1 for s in index.shape[dim + 1 :]):
            feature = torch.arange(F, device=src.device)
            flat = (index.expand_as(src).reshape(B, E, F).long() + offset[:, :, None]) * F + feature
            self.rows, self.groups, self.step = src.reshape(-1).contiguous(), B * self.size * F, F
            self.count_shape = self.shape
        else:
            flat = index.expand(*shape[: dim + 1], *index.shape[dim + 1 :]).reshape(B, E).long() + offset
            self.rows, self.groups, self.step = src.reshape(B * E, F).contiguous(), B * self.size, 1
            self.count_shape = (*shape[:dim], self.size, *(1 for _ in shape[dim + 1 :]))
        self.index = flat.reshape(-1)

    def _checked(self, op: str, index: Tensor, dim_size: int | None, ascending: bool) -> int:
        if dim_size is not None:
            dim_size = _dim_size(op, dim_size)
            if _is_compiling():
                return dim_size
        vector = index if index.dim() == 1 else index.movedim(self.dim, -1)
        low, high, ordered = ladder.index_range(vector.contiguous())
        if index.numel() and low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        if dim_size is not None and high >= dim_size:
            check.fail(IndexError, op, f"index < {dim_size}", high)
        if ascending and not ordered and (index.dim() == 1 or bool((vector.diff() < 0).any())):
            check.fail(ValueError, op, "an ascending index", "a decreasing pair")
        return high + 1 if dim_size is None else dim_size

    def reduce(self, code: int, return_arg: bool = False):
        result = sparse._scatter_rows(self.op, self.rows, self.index, self.groups, code, self.axis, None, return_arg, True, True)
        return (self.values(result[0]), self.positions(result[1])) if return_arg else self.values(result)

    def plan(self) -> tuple[Tensor, Tensor]:
        return ladder.csr_build(self.index, self.groups)

    def reduce_plan(self, plan: tuple[Tensor, Tensor], code: int, fill: float, unbiased: bool = True) -> Tensor:
        """Per group in the rows' layout."""
        return sparse._reduce_groups(self.op, self.rows, self.axis, plan, code, fill, False, unbiased, False)

    def counts(self, plan: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """int64, in a shape that broadcasts to the result."""
        if plan is not None:
            return plan[0].diff().reshape(self.count_shape)
        ones = torch.ones(self.index.shape[0], dtype=torch.int64, device=self.index.device)
        return ladder.scatter(ones, self.index, self.groups, C.SUM, False, 0.0, False)[0].reshape(self.count_shape)

    def values(self, t: Tensor) -> Tensor:
        return t.reshape(self.shape)

    def positions(self, arg: Tensor) -> Tensor:
        if self.step:
            inside = arg < self.rows.shape[0]
            arg = torch.where(inside, arg // max(self.step, 1) % max(self.elements, 1), self.elements)
        return arg.reshape(self.shape)

    def spread(self, t: Tensor) -> Tensor:
        """Group values [*, N, *] on the elements [*, E, *]."""
        shape = list(self.rows.shape)
        shape[self.axis] = self.groups
        return t.reshape(shape).index_select(self.axis, self.index).reshape(self.src_shape)


def _essential(op: str, index: Tensor, src: Tensor, dim: int) -> Tensor:
    """``index`` as a contiguous vector [E] if it varies along ``dim`` only, else with size 1 where it does not vary."""
    if index.dim() == 1 and index.shape[0] == src.shape[dim]:
        return index.contiguous()
    view = sparse.broadcast_index(op, index, src, dim)
    for d in range(view.dim()):
        if d != dim and view.shape[d] > 1 and view.stride(d) == 0:
            view = view.narrow(d, 0, 1)
    if all(s == 1 for d, s in enumerate(view.shape) if d != dim):
        return view.reshape(-1).contiguous()
    return view


def _checked_out(op: str, out: Tensor, src: Tensor, dim: int) -> int:
    """``out`` must be ``src`` with another size along ``dim``; that size."""
    check.tensor(op, "out", out)
    if out.dtype != src.dtype:
        check.fail(TypeError, op, f"out of dtype {src.dtype}, as src", out.dtype)
    if out.device != src.device:
        check.fail(ValueError, op, f"out on {src.device}", out.device)
    dim = check.axis(op, dim, src.dim())
    if out.dim() != src.dim() or out.shape[:dim] != src.shape[:dim] or out.shape[dim + 1 :] != src.shape[dim + 1 :]:
        check.fail(ValueError, op, f"out of shape {[*src.shape[:dim], 'N', *src.shape[dim + 1 :]]}", list(out.shape))
    return out.shape[dim]


# ---- scatter ---------------------------------------------------------------------------------------------------------


def scatter_reduce(op: str, code: int, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> Tensor:
    if out is None and _plain(src, index, dim):
        size = _size(op, index, dim_size)
        try:
            if src.requires_grad and torch.is_grad_enabled():
                return _with_grad(code, src, index, size)
            return ladder.scatter(src, index, size, code, False, C.EMPTY[code], False)[0]
        except RuntimeError as error:
            _explain(op, error, index, size)
    if code == C.PROD:
        return _product(op, src, index, dim, out, dim_size)
    return _linear(op, code, src, index, dim, out, dim_size, "floor", False)


def _linear(op, code, src, index, dim, out, dim_size, rounding, ascending):
    if code == C.SUM and isinstance(src, Tensor) and (src.dtype == torch.bool or src.is_complex()):
        return _sum_of_pairs(op, src, index, dim, out, dim_size, ascending)
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size, ascending)
    if out is None and (code == C.SUM or src.is_floating_point()):
        return g.reduce(code)
    total = g.reduce(C.SUM)
    out = total if out is None else out.add_(total)
    if code == C.SUM:
        return out
    count = g.counts().clamp_(min=1)
    return out.div_(count) if src.is_floating_point() else out.div_(count, rounding_mode=rounding)


def _sum_of_pairs(op, src, index, dim, out, dim_size, ascending):
    """Sums of complex numbers, by parts, and of booleans: whether any is true."""
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    dim = check.axis(op, dim, src.dim())
    check.index(op, "index", index, like=src)
    if src.dtype == torch.bool:
        total = Groups(op, src.to(torch.int32), index, dim, dim_size, ascending).reduce(C.SUM) != 0
        return total if out is None else out.logical_or_(total)
    parts = torch.view_as_real(src.resolve_conj())
    index = sparse.broadcast_index(op, index, src, dim).unsqueeze(-1)
    total = torch.view_as_complex(Groups(op, parts, index, dim, dim_size, ascending).reduce(C.SUM))
    return total if out is None else out.add_(total)


def _product(op, src, index, dim, out, dim_size):
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    product = Groups(op, src, index, dim, dim_size).reduce(C.PROD)
    return product if out is None else out.mul_(product)


def scatter_extreme(
    op: str, code: int, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    if out is None and _plain(src, index, dim):
        size = _size(op, index, dim_size)
        try:
            return ladder.scatter(src, index, size, code, True, 0.0, True)
        except RuntimeError as error:
            _explain(op, error, index, size)
    return _extreme(op, code, src, index, dim, out, dim_size, False)


def _extreme(op, code, src, index, dim, out, dim_size, ascending):
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size, ascending)
    value, arg = g.reduce(code, return_arg=True)
    if out is None:
        return value, arg
    better = (arg < g.elements) & ((value > out) if code == C.MAX else (value < out))
    out.copy_(torch.where(better, value, out))
    return out, torch.where(better, arg, g.elements)


# ---- segments by index -----------------------------------------------------------------------------------------------


def _coo_plain(src: Tensor, index: Tensor) -> bool:
    return _plain(src, index, 0)


def _coo_size(op: str, index: Tensor, dim_size: int | None) -> int:
    low, high, ascending = ladder.index_range(index)
    if not ascending:
        check.fail(ValueError, op, "an ascending index", "a decreasing pair")
    if index.shape[0] and low < 0:
        check.fail(IndexError, op, "index >= 0", low)
    if dim_size is None:
        return high + 1
    dim_size = _dim_size(op, dim_size)
    if high >= dim_size:
        check.fail(IndexError, op, f"index < {dim_size}", high)
    return dim_size


def _index_dim(op: str, name: str, index: Tensor) -> int:
    check.index(op, name, index)
    if index.dim() == 0:
        check.fail(ValueError, op, f"{name} with at least one dimension", "a scalar")
    return index.dim() - 1


def segment_coo_linear(op: str, code: int, src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None) -> Tensor:
    if out is None and _coo_plain(src, index):
        size = _coo_size(op, index, dim_size)
        if src.requires_grad and torch.is_grad_enabled():
            return _with_grad(code, src, index, size)
        return ladder.scatter(src, index, size, code, False, 0.0, False)[0]
    return _linear(op, code, src, index, _index_dim(op, "index", index), out, dim_size, "trunc", True)


def segment_coo_extreme(
    op: str, code: int, src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    if out is None and _coo_plain(src, index):
        return ladder.scatter(src, index, _coo_size(op, index, dim_size), code, True, 0.0, True)
    return _extreme(op, code, src, index, _index_dim(op, "index", index), out, dim_size, True)


def gather_coo(op: str, src: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    check.tensor(op, "src", src)
    check.index(op, "index", index, like=src)
    if out is None and _csr_plain(src, index):
        low, high, ordered = ladder.index_range(index)
        if ordered and low >= 0 and high < src.shape[0]:
            return _gather(src, index)
    dim = _index_dim(op, "index", index)
    if dim >= src.dim():
        check.fail(ValueError, op, f"index with at most {src.dim()} dimensions", index.dim())
    lead, trail, E, N = src.shape[:dim], src.shape[dim + 1 :], index.shape[-1], src.shape[dim]
    if any(i not in (1, s) for i, s in zip(index.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"index that broadcasts to {[*lead, 'E']}", list(index.shape))
    if not _is_compiling():
        low, high, ordered = ladder.index_range(index.contiguous())
        if index.numel() and low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        if high >= N:
            check.fail(IndexError, op, f"index < {N}", high)
        if not ordered and (dim == 0 or bool((index.diff() < 0).any())):
            check.fail(ValueError, op, "an ascending index", "a decreasing pair")
    flat, B = index, math.prod(lead)
    if dim:
        starts = torch.arange(B, device=src.device)[:, None] * N
        flat = (index.expand(*lead, E).reshape(B, E).long() + starts).reshape(-1)
    result = _gather(src.reshape(B * N, math.prod(trail)), flat.contiguous())
    return _written(op, result.reshape(*lead, E, *trail), src, dim, out)


# ---- segments by pointers --------------------------------------------------------------------------------------------


def _csr_plain(src: Tensor, indptr: Tensor) -> bool:
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
        and not _is_compiling()
    )


def segment_csr(op: str, code: int, src: Tensor, indptr: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values, and for min and max positions (else any tensor)."""
    if out is None and _csr_plain(src, indptr):
        low, high, ordered = ladder.index_range(indptr)
        if ordered and low == 0 and high == src.shape[0]:
            if code in (C.SUM, C.MEAN):
                return _wanting_grad(_SegmentLinear, _segment_sum, src, indptr, code), indptr
            value, arg = ladder.spmm(
                None, src, indptr, None, None, None, None, None, None, C.COPY_E, code, C.ARG_EDGE, 0.0, True, True
            )
            return value, arg if arg.dtype == torch.int64 else arg.to(torch.int64)
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = _index_dim(op, "indptr", indptr)
    if dim >= src.dim():
        check.fail(ValueError, op, f"indptr with at most {src.dim()} dimensions", indptr.dim())
    if indptr.shape[-1] == 0:
        indptr = indptr.new_zeros(*indptr.shape[:-1], 1)
    lead, trail, E, N = src.shape[:dim], src.shape[dim + 1 :], src.shape[dim], indptr.shape[-1] - 1
    if any(i not in (1, s) for i, s in zip(indptr.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"indptr that broadcasts to {[*lead, 'N + 1']}", list(indptr.shape))
    if out is not None and _checked_out(op, out, src, dim) != N:
        check.fail(ValueError, op, f"out of size {N} along dim {dim}", out.shape[dim])
    B, F = math.prod(lead), math.prod(trail)
    pointers, gaps = indptr.contiguous(), False
    if not _whole(pointers, E):
        pointers, gaps = _with_gaps(op, indptr, lead, E), True
    rows = src.reshape(B * E, F).contiguous() if src.dim() > 1 else src.contiguous()
    if code == C.MEAN and not src.is_floating_point():
        total = sparse._reduce_groups(op, rows, 0, (pointers, None), C.SUM, None, False, True, True)
        count = pointers.diff().clamp_(min=1).reshape(-1, *(1 for _ in total.shape[1:]))
        value, arg = total.div(count, rounding_mode="trunc").to(src.dtype), indptr.new_empty(0)
    else:
        extreme = code in (C.MIN, C.MAX)
        value = sparse._reduce_groups(op, rows, 0, (pointers, None), code, None, extreme, True, True)
        value, arg = value if extreme else (value, indptr.new_empty(0))
    if gaps:
        inner = lambda t: t.reshape(B, N + 2, F)[:, 1:-1]  # noqa: E731
        value = inner(value)
        if arg.numel():
            arg = inner(arg)
            arg = torch.where(arg < B * E, arg % max(E, 1), E)
    shape = (*lead, N, *trail)
    value = value.reshape(shape) if out is None else out.copy_(value.reshape(shape))
    return value, arg.reshape(shape) if code in (C.MIN, C.MAX) else arg


def _whole(indptr: Tensor, E: int) -> bool:
    """Whether a vector ``indptr`` runs from 0 to E in order. Taken for granted under torch.compile."""
    if indptr.dim() != 1 or _is_compiling():
        return indptr.dim() == 1
    return ladder.index_range(indptr) == (0, E, True)


def _with_gaps(op: str, indptr: Tensor, lead, E: int) -> Tensor:
    """Pointers over B rows of E elements: each row's ranges, with one before and one after for what they leave out."""
    B, N = math.prod(lead), indptr.shape[-1] - 1
    starts = torch.arange(B, device=indptr.device)[:, None] * E
    ranges = indptr.expand(*lead, N + 1).reshape(B, N + 1).long()
    bounded = torch.cat([starts, ranges + starts], 1).reshape(-1)
    pointers = torch.cat([bounded, bounded.new_full((1,), B * E)])
    if not _is_compiling() and ladder.index_range(pointers) != (0, B * E, True):
        low, high, _ = ladder.index_range(indptr.contiguous())
        if low < 0 or high > E:
            check.fail(IndexError, op, f"indptr from 0 to {E}", f"[{low}, {high}]")
        check.fail(ValueError, op, "indptr to be non-decreasing", "a decreasing pair")
    return pointers


def gather_csr(op: str, src: Tensor, indptr: Tensor, out: Tensor | None) -> Tensor:
    if out is None and _csr_plain(src, indptr) and indptr.shape[0] == src.shape[0] + 1:
        low, high, ordered = ladder.index_range(indptr)
        if ordered and low == 0:
            return _wanting_grad(_SegmentGather, _segment_gather, src, indptr, high)
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = _index_dim(op, "indptr", indptr)
    if dim >= src.dim():
        check.fail(ValueError, op, f"indptr with at most {src.dim()} dimensions", indptr.dim())
    if indptr.shape[-1] == 0:
        indptr = indptr.new_zeros(*indptr.shape[:-1], 1)
    lead, trail, N = src.shape[:dim], src.shape[dim + 1 :], src.shape[dim]
    if indptr.shape[-1] != N + 1 or any(i not in (1, s) for i, s in zip(indptr.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"indptr that broadcasts to {[*lead, N + 1]}", list(indptr.shape))
    B, F = math.prod(lead), math.prod(trail)
    E = int(indptr.reshape(-1)[-1]) if indptr.numel() else 0
    pointers = indptr.contiguous()
    if dim:
        starts = torch.arange(B, device=src.device)[:, None] * E
        ranges = indptr.expand(*lead, N + 1).reshape(B, N + 1).long()
        if not bool(((ranges[:, 0] == 0) & (ranges[:, -1] == E)).all()):
            check.fail(ValueError, op, f"every indptr to run from 0 to {E}", "one that does not")
        pointers = torch.cat([(ranges[:, :-1] + starts).reshape(-1), ranges.new_full((1,), B * E)])
    if ladder.index_range(pointers) != (0, B * E, True):
        check.fail(ValueError, op, f"indptr to be non-decreasing from 0 to {E}", "another order or range")
    rows = sparse._widen(src).reshape(B * N, F).contiguous() if src.dim() > 1 else sparse._widen(src).contiguous()
    result = _wanting_grad(_SegmentGather, _segment_gather, rows, pointers, B * E)
    return _written(op, result.to(src.dtype).reshape(*lead, E, *trail), src, dim, out)


def _written(op: str, result: Tensor, src: Tensor, dim: int, out: Tensor | None) -> Tensor:
    """``result``, or ``out`` with ``result`` at its beginning along ``dim``."""
    if out is None:
        return result
    E = result.shape[dim]
    if _checked_out(op, out, src, dim) < E:
        check.fail(ValueError, op, f"out of size {E} along dim {dim}", out.shape[dim])
    out.narrow(dim, 0, E).copy_(result)
    return out


# ---- composites ------------------------------------------------------------------------------------------------------


def _floating(op: str, src: Tensor) -> None:
    if not src.is_floating_point():
        check.fail(ValueError, op, "a floating src", src.dtype)


def _negligible(eps: float, dtype: torch.dtype) -> bool:
    """Whether adding ``eps`` to a number not below 1 changes nothing."""
    return 0 <= eps < torch.finfo(dtype).eps / 2


def _log_sum(g: Groups, plan: tuple[Tensor, Tensor], eps: float) -> tuple[Tensor, Tensor | None]:
    """logsumexp per group in the rows' layout, -inf for empty groups, and what ``eps`` adds to it (None: nothing)."""
    total = g.reduce_plan(plan, C.LOGSUMEXP, float("-inf"))
    return total, None if _negligible(eps, g.rows.dtype) else _eps_term(g, plan, total, eps)


def _eps_term(g: Groups, plan: tuple[Tensor, Tensor], total: Tensor, eps: float) -> Tensor:
    """log(S + eps) - log(S) with S the sum of exp(src - max), 0 where S is not finite."""
    largest = g.reduce_plan(plan, C.MAX, 0.0)
    finite = total.isfinite()
    return torch.log1p(eps * torch.exp(torch.where(finite, largest - total, 0.0)))


def softmax(op: str, src: Tensor, index: Tensor, dim: int, dim_size: int | None) -> Tensor:
    _floating(op, src)
    g = Groups(op, src, index, dim, dim_size)
    return ladder.segment_softmax(g.rows, *g.plan(), False).reshape(src.shape)


def log_softmax(op: str, src: Tensor, index: Tensor, dim: int, eps: float, dim_size: int | None) -> Tensor:
    _floating(op, src)
    g = Groups(op, src, index, dim, dim_size)
    plan = g.plan()
    result = ladder.segment_softmax(g.rows, *plan, True).reshape(src.shape)
    if _negligible(eps, src.dtype):
        return result
    return result - g.spread(_log_sum(g, plan, eps)[1])


def logsumexp(op: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, eps: float) -> Tensor:
    _floating(op, src)
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size)
    total, term = _log_sum(g, g.plan(), eps)
    result = g.values(total if term is None else total + term)
    if out is not None:
        result = torch.logaddexp(out, result)
    result = result.nan_to_num(nan=float("nan"), neginf=0.0)
    return result if out is None else out.copy_(result)


def std(op: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, unbiased: bool) -> Tensor:
    if not src.is_floating_point():
        src = src.to(torch.get_default_dtype())
    if out is not None:
        dim_size = _checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size)
    plan = g.plan()
    n = g.counts(plan)
    d = (n - 1 if unbiased else n).clamp(min=1).double()
    if out is None:
        deviation = g.values(g.reduce_plan(plan, C.STD, 0.0, unbiased))
        return deviation * torch.sqrt(d / (d + 1e-6)).to(src.dtype)
    out.add_(g.values(g.reduce_plan(plan, C.VAR, 0.0, unbiased)) * d.to(src.dtype))
    mean_square = out / (d + 1e-6).to(src.dtype)
    return torch.where(mean_square > 0, torch.where(mean_square > 0, mean_square, 1.0).sqrt(), mean_square.clamp(max=0))
