"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import _check as check
from . import _ladder as ladder
from .graph import Graph, checked_indptr
from .kernels import codes as C

__all__ = [
    "ScatterPlan", "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce", "segment_softmax", "spmm",
]  # fmt: skip

_EXTREMES = (C.MIN, C.MAX)
_FLOAT_ONLY = (C.VAR, C.STD, C.LOGSUMEXP)
# Above this many bytes of output an unsorted scatter no longer fits a core's cache, and sorting the index first wins.
_DIRECT_SCATTER_BYTES = 8 << 20


# ---- segments --------------------------------------------------------------------------------------------------------


def segment_reduce(
    src: Tensor,
    indptr: Tensor,
    reduce: str = "sum",
    dim: int = 0,
    *,
    fill_value: float | None = None,
    return_arg: bool = False,
    unbiased: bool = True,
    skip_nan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce consecutive groups along ``dim``: group n is ``src[indptr[n]:indptr[n + 1]]``.

    Args:
        src: ``[*, E, *]`` with E at ``dim``; float32, float64, bfloat16, float16 (accumulated in float32, float64 for float64)
            or an integer type (sum, mean, min, max, prod; mean rounds down; sums wrap).
        indptr: int32 or int64 ``[N + 1]``, non-decreasing from 0 to E. Checked on every call.
        reduce: sum, mean, min, max, prod, var, std or logsumexp.
        fill_value: value of empty groups (default 0; 1 for prod, -inf for logsumexp).
        return_arg: for min and max also return int64 positions along ``dim``, E for empty groups. The first extreme wins ties.
        unbiased: var and std divide by ``max(n - 1, 1)`` rather than n.
        skip_nan: min and max ignore NaN (a group of only NaN is empty) instead of propagating it.

    Returns:
        ``[*, N, *]``, and the positions with ``return_arg``.

    Differentiable in ``src`` to any order (prod: to second order at zeros; std: 0 at zero deviation; min and max: to the winner).
    Deterministic, independent of the number of threads. Saved for backward: nothing of size E but ``src`` itself where the
    reduction is not linear, and the winners ``[*, N, *]`` of min and max.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, order or device, before any kernel runs.

    Convention of ``torch_scatter.segment_csr``.

    >>> import torch, structops
    >>> structops.segment_reduce(torch.tensor([1., 2., 3., 4.]), torch.tensor([0, 3, 3, 4]), "max", return_arg=True)
    (tensor([3., 0., 4.]), tensor([2, 4, 3]))
    """
    op = "segment_reduce"
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = check.axis(op, dim, src.dim())
    if indptr.dim() != 1 or indptr.numel() < 1:
        check.fail(ValueError, op, "indptr of shape [N + 1]", list(indptr.shape))
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    indptr = indptr.contiguous()
    if not torch.compiler.is_compiling():
        checked_indptr(op, "indptr", indptr, src.shape[dim])
    return _reduce_groups(op, src, dim, (indptr, None), code, fill_value, return_arg, unbiased, skip_nan)


def segment_softmax(src: Tensor, indptr: Tensor, dim: int = 0, *, log: bool = False) -> Tensor:
    """Softmax (``log``: its logarithm) over the groups ``src[indptr[n]:indptr[n + 1]]`` along ``dim``, feature by feature.

    Args and errors as in :func:`segment_reduce`; floating dtypes. A group of only -inf gives NaN, as ``torch.softmax``.
    Differentiable to any order; saves the result. Deterministic.

    >>> import torch, structops
    >>> structops.segment_softmax(torch.zeros(4), torch.tensor([0, 1, 3, 4]))
    tensor([1.0000, 0.5000, 0.5000, 1.0000])
    """
    op = "segment_softmax"
    check.flags(op, log=log)
    check.dense(op, "src", src)
    check.index(op, "indptr", indptr, like=src)
    dim = check.axis(op, dim, src.dim())
    if indptr.dim() != 1 or indptr.numel() < 1:
        check.fail(ValueError, op, "indptr of shape [N + 1]", list(indptr.shape))
    indptr = indptr.contiguous()
    if not torch.compiler.is_compiling():
        checked_indptr(op, "indptr", indptr, src.shape[dim])
    return ladder.segment_softmax(_flat(src, dim), indptr, None, log).reshape(src.shape)


def segment_gather(src: Tensor, indptr: Tensor, dim: int = 0) -> Tensor:
    """Copy group values to the group's elements: the transpose of a segment sum.

    Args:
        src: ``[*, N, *]`` with N at ``dim``, any supported dtype.
        indptr: int32 or int64 ``[N + 1]``, non-decreasing from 0.

    Returns:
        ``[*, E, *]``, E = ``indptr[-1]``. Differentiable to any order.

    >>> import torch, structops
    >>> structops.segment_gather(torch.tensor([5., 6., 7.]), torch.tensor([0, 2, 2, 3]))
    tensor([5., 5., 7.])
    """
    op = "segment_gather"
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = check.axis(op, dim, src.dim())
    if indptr.dim() != 1 or indptr.numel() != src.shape[dim] + 1:
        check.fail(ValueError, op, f"indptr of shape [{src.shape[dim] + 1}]", list(indptr.shape))
    indptr = indptr.contiguous()
    edges = int(indptr[-1])
    checked_indptr(op, "indptr", indptr, edges)
    check.fits(op, src.dtype, *src.shape[:dim], edges, *src.shape[dim + 1 :])
    flat = _flat(_widen(src), dim)
    F = 1 if flat.dim() == 1 else flat.shape[-1]
    out = ladder.sddmm(flat, None, indptr, None, None, None, None, None, None, C.EDGE_COPY, C.V, C.V, edges, F, 1)
    return _unflat(out, src, dim, edges).to(src.dtype)


# ---- scatter ---------------------------------------------------------------------------------------------------------


class ScatterPlan:
    """An index sorted once, for repeated scatters: groups ``perm[indptr[n]:indptr[n + 1]]`` of positions.

    Args:
        index: int32 or int64 ``[E]``.
        dim_size: number of groups (default: the largest index + 1).

    Raises:
        IndexError: an index is negative or not below ``dim_size``.
    """

    def __init__(self, index: Tensor, dim_size: int | None = None):
        op = "ScatterPlan"
        check.index(op, "index", index)
        if index.dim() != 1:
            check.fail(ValueError, op, "index of shape [E]", list(index.shape))
        index = index.contiguous()
        dim_size = _checked_index(op, index, dim_size)
        check.fits(op, index.dtype, dim_size)
        self.indptr, self.perm = ladder.csr_build(index, dim_size)
        self.dim_size, self.num_edges = dim_size, index.numel()

    def __repr__(self) -> str:
        return f"ScatterPlan(num_edges={self.num_edges}, dim_size={self.dim_size}, device={self.perm.device})"


def scatter_reduce(
    src: Tensor,
    index: Tensor | ScatterPlan,
    dim_size: int | None = None,
    reduce: str = "sum",
    dim: int = 0,
    *,
    fill_value: float | None = None,
    return_arg: bool = False,
    unbiased: bool = True,
    skip_nan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce the elements of ``src`` that share an index along ``dim``.

    Args:
        src: ``[*, E, *]`` with E at ``dim``; dtypes as in :func:`segment_reduce`.
        index: int32 or int64, in any order: ``[E]``; or any shape that broadcasts to ``src`` after leading and trailing
            dimensions of 1 are added (``torch_scatter``'s rule); or a :class:`ScatterPlan`, which spares the sorting.
        dim_size: number of groups (default: the largest index + 1).
        reduce, fill_value, return_arg, unbiased, skip_nan: as in :func:`segment_reduce`.

    Returns:
        ``[*, dim_size, *]``, and the winners' positions along ``dim`` with ``return_arg``.

    Derivatives and determinism as in :func:`segment_reduce`. Nothing is written outside the result for a bad index.

    Raises:
        IndexError: an index is negative or not below ``dim_size``. TypeError, ValueError: a wrong dtype, shape or device.

    >>> import torch, structops
    >>> structops.scatter_reduce(torch.tensor([1., 2., 3.]), torch.tensor([1, 0, 1]), 3)
    tensor([2., 4., 0.])
    """
    op = "scatter_reduce"
    check.dense(op, "src", src, integers=True)
    dim = check.axis(op, dim, src.dim())
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    if isinstance(index, ScatterPlan):
        _check_plan(op, index, src, dim, dim_size)
        return _reduce_groups(op, src, dim, (index.indptr, index.perm), code, fill_value, return_arg, unbiased, skip_nan)
    check.index(op, "index", index, like=src)
    if index.dim() != 1:
        return _scatter_elements(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)
    if index.shape[0] != src.shape[dim]:
        check.fail(ValueError, op, f"index of shape [{src.shape[dim]}]", list(index.shape))
    index = index.contiguous()
    dim_size = _checked_index(op, index, None) if dim_size is None else check.size(op, "dim_size", dim_size)
    return _scatter_rows(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)


def scatter_softmax(
    src: Tensor, index: Tensor | ScatterPlan, dim_size: int | None = None, dim: int = 0, *, log: bool = False
) -> Tensor:
    """Softmax (``log``: its logarithm) over the elements that share an index along ``dim``, feature by feature.

    Args and errors as in :func:`scatter_reduce`, ``index`` one-dimensional; floating dtypes.

    >>> import torch, structops
    >>> structops.scatter_softmax(torch.zeros(3), torch.tensor([1, 0, 1]))
    tensor([0.5000, 1.0000, 0.5000])
    """
    op = "scatter_softmax"
    check.flags(op, log=log)
    check.dense(op, "src", src)
    dim = check.axis(op, dim, src.dim())
    if isinstance(index, ScatterPlan):
        _check_plan(op, index, src, dim, dim_size)
    else:
        check.index(op, "index", index, like=src)
        index = ScatterPlan(index, dim_size)
    if index.num_edges != src.shape[dim]:
        check.fail(ValueError, op, f"index of shape [{src.shape[dim]}]", [index.num_edges])
    return ladder.segment_softmax(_flat(src, dim), index.indptr, index.perm, log).reshape(src.shape)


def _check_plan(op: str, plan: ScatterPlan, src: Tensor, dim: int, dim_size: int | None) -> None:
    if plan.num_edges != src.shape[dim]:
        check.fail(ValueError, op, f"src with {plan.num_edges} elements along dim {dim}, as the plan", src.shape[dim])
    if dim_size is not None and check.size(op, "dim_size", dim_size) != plan.dim_size:
        check.fail(ValueError, op, f"dim_size {plan.dim_size}, as the plan", dim_size)
    if plan.perm.device != src.device:
        check.fail(ValueError, op, f"src on {plan.perm.device}, as the plan", src.device)


def _checked_index(op: str, index: Tensor, dim_size: int | None) -> int:
    if dim_size is not None:
        check.size(op, "dim_size", dim_size)
        if torch.compiler.is_compiling():
            return dim_size
    low, high, _ = ladder.index_range(index)
    if index.numel() and low < 0:
        check.fail(IndexError, op, "index >= 0", low)
    if dim_size is None:
        return check.size(op, "the largest index + 1", high + 1)
    if high >= dim_size:
        check.fail(IndexError, op, f"index < dim_size = {dim_size}", high)
    return dim_size


def _scatter_rows(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan):
    """By an index [E]. The kernels check it as they read it, so only a bad one is read twice, to say what is wrong."""
    check.fits(op, src.dtype, *src.shape[:dim], dim_size, *src.shape[dim + 1 :])
    try:
        return _scatter_unchecked(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)
    except RuntimeError as error:
        if "index out of range" in str(error):
            _checked_index(op, index, dim_size)
        raise


def _scatter_unchecked(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan):
    F = math.prod(src.shape[dim + 1 :])
    grad = src.requires_grad and torch.is_grad_enabled()
    direct = (
        code <= C.PROD
        and not (code == C.PROD and grad)
        and (code in _EXTREMES or F < 8 or dim_size * F * src.element_size() <= _DIRECT_SCATTER_BYTES)
        and src.numel() < 2**31
        and (code != C.MEAN or src.is_floating_point())
    )
    if not direct:
        plan = ladder.csr_build(index, dim_size)
        return _reduce_groups(op, src, dim, plan, code, fill_value, return_arg, unbiased, skip_nan)
    wide = _widen(src)
    fill = check.fill(op, fill_value, src.dtype, C.EMPTY[code])
    needs_arg = code in _EXTREMES and (return_arg or grad)
    out, arg = ladder.scatter(_flat(wide, dim), index, dim_size, code, needs_arg, fill, skip_nan)
    out = _unflat(out, src, dim, dim_size).to(src.dtype)
    if return_arg:
        _no_arg(op, code)
        return out, _unflat(arg, src, dim, dim_size)
    return out


def _scatter_elements(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan):
    """An index of several dimensions: each (batch, group, feature) becomes a group of its own."""
    index = broadcast_index(op, index, src, dim)
    shape, E = src.shape, src.shape[dim]
    dim_size = _checked_index(op, index.contiguous(), dim_size)
    B, F = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    trailing_varies = any(index.stride(d) != 0 and index.shape[d] > 1 for d in range(dim + 1, index.dim()))
    offset = torch.arange(B, device=src.device)[:, None] * dim_size
    if not trailing_varies:  # one index per (batch, element): rows of F features
        flat = index.reshape(B, E, F)[:, :, 0] if F else index.new_zeros(B, E)
        flat = (flat.long() + offset).reshape(-1)
        rows, groups = src.reshape(B * E, F), B * dim_size
    else:
        flat = ((index.reshape(B, E, F).long() + offset[:, :, None]) * F + torch.arange(F, device=src.device)).reshape(-1)
        rows, groups = src.reshape(-1), B * dim_size * F
    result = _scatter_rows(op, rows, flat, groups, code, 0, fill_value, return_arg, unbiased, skip_nan)
    out_shape = (*shape[:dim], dim_size, *shape[dim + 1 :])
    if not return_arg:
        return result.reshape(out_shape)
    out, arg = result
    step = F if trailing_varies else 1
    arg = torch.where(arg < rows.shape[0], arg // max(step, 1) % max(E, 1), E)
    return out.reshape(out_shape), arg.reshape(out_shape)


def broadcast_index(op: str, index: Tensor, src: Tensor, dim: int) -> Tensor:
    """``index`` expanded to ``src`` by torch_scatter's rule: a vector lies along ``dim``; then 1s are added on the right."""
    if index.dim() > src.dim():
        check.fail(ValueError, op, f"index with at most {src.dim()} dimensions", index.dim())
    view = index
    if view.dim() == 1:
        for _ in range(dim):
            view = view.unsqueeze(0)
    for _ in range(view.dim(), src.dim()):
        view = view.unsqueeze(-1)
    if any(i not in (1, s) for i, s in zip(view.shape, src.shape, strict=True)):
        check.fail(ValueError, op, f"index that broadcasts to {list(src.shape)}", list(index.shape))
    return view.expand_as(src)


# ---- shared by segments and scatter ----------------------------------------------------------------------------------


def _widen(src: Tensor) -> Tensor:
    """8- and 16-bit integers are computed in int32 and wrap on the way back."""
    return src.to(torch.int32) if src.dtype in check.NARROW else src


def _flat(src: Tensor, dim: int) -> Tensor:
    """``[*, E, *]`` as the kernels' [E], [E, F] or [B, E, F]."""
    if src.dim() <= 2 and dim == 0:
        return src.contiguous()
    if dim == 0:
        return src.reshape(src.shape[0], math.prod(src.shape[1:])).contiguous()
    shape = (math.prod(src.shape[:dim]), src.shape[dim], math.prod(src.shape[dim + 1 :]))
    return src.reshape(shape).contiguous()


def _unflat(out: Tensor, src: Tensor, dim: int, size: int) -> Tensor:
    if src.dim() <= 2 and dim == 0:
        return out
    return out.reshape((*src.shape[:dim], size, *src.shape[dim + 1 :]))


def _no_arg(op: str, code: int) -> None:
    if code not in _EXTREMES:
        check.fail(ValueError, op, "return_arg with reduce min or max", "another reduction")


def _reduce_groups(op, src, dim, structure, code, fill_value, return_arg, unbiased, skip_nan):
    """The reduction over the groups of (indptr, perm)."""
    indptr, perm = structure
    if code in _FLOAT_ONLY and not src.is_floating_point():
        check.fail(TypeError, op, f"a floating src for {list(C.REDUCES)[code]}", src.dtype)
    if return_arg:
        _no_arg(op, code)
    fill = check.fill(op, fill_value, src.dtype, C.EMPTY[code])
    wide = _widen(src)
    integer_mean = code == C.MEAN and not src.is_floating_point()
    grad = src.requires_grad and torch.is_grad_enabled()
    arg_kind = C.ARG_EDGE if code in _EXTREMES and (return_arg or grad) else C.ARG_NONE
    N = indptr.shape[0] - 1
    out, arg = ladder.spmm(
        None, _flat(wide, dim), indptr, None, perm, None, None, None, None,
        C.COPY_E, C.SUM if integer_mean else code, arg_kind, fill, skip_nan, unbiased,
    )  # fmt: skip
    out = _unflat(out, src, dim, N)
    if integer_mean:
        count = indptr.diff().view(-1, *(1 for _ in src.shape[dim + 1 :]))
        out = torch.where(count > 0, torch.div(out, count.clamp(min=1), rounding_mode="floor"), int(fill))
    out = out.to(src.dtype)
    return (out, _unflat(arg.to(torch.int64), src, dim, N)) if return_arg else out


# ---- g-SpMM ----------------------------------------------------------------------------------------------------------


def spmm(
    graph: Graph,
    x: Tensor | None = None,
    edge: Tensor | None = None,
    message: str | Callable | None = None,
    reduce: str | tuple = "sum",
    *,
    batch_dims: int = 0,
    fill_value: float | None = None,
    return_arg: bool = False,
    unbiased: bool = True,
    skip_nan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Generalised SpMM: for every destination, reduce the messages of its incoming edges, without storing them.

    ``out[v] = reduce over edges k: u -> v of message(x[u], edge[k])``

    Args:
        graph: the structure.
        x: source values ``[*batch, num_src, *features]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64
            for float64). Not used by copy_e.
        edge: edge values ``[*batch, E, *features]`` or ``[E, *features]``, in the graph's edge order. Not used by copy_u.
        message: copy_u, copy_e, add, sub, mul or div (default: mul with both operands, else a copy). Feature dimensions
            broadcast as in NumPy, so edge values ``[E, H, 1]`` serve ``x [N, H, D]`` as multi-head weights.
            Or a function, see below.
        reduce: sum, mean, min, max, prod, var, std or logsumexp.
        batch_dims: number of leading dimensions of ``x`` that share the structure.
        fill_value: value of destinations without edges (default 0; 1 for prod, -inf for logsumexp).
        return_arg: for min and max also return the winning edges, int64, E where there is none; the first in CSR order wins.
        unbiased: var and std divide by ``max(n - 1, 1)`` rather than n.
        skip_nan: min and max ignore NaN instead of propagating it.

    Returns:
        ``[*batch, num_dst, *features]``, and the winners with ``return_arg``.

    User-defined functions: ``message=fn(x, e)`` and ``reduce=(fn(acc, m), identity)`` are scalar functions compiled by numba;
    ``message.grad = fn(x, e, g) -> (dx, de)`` makes the sum of such messages differentiable.

    Differentiable in ``x`` and ``edge`` to any order (min, max: through the winners; prod: to second order at zeros). The
    backward of logsumexp, and of prod over add or sub, holds messages ``[E, F]`` while it runs; no other does. Saved:
    the operands where the derivative reads them, and winners ``[N, F]`` of 4 or 8 bytes for min and max. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Convention of DGL's g-SpMM (arXiv:1909.01315).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
    >>> structops.spmm(g, torch.tensor([[1.], [2.], [3.]]), torch.tensor([10., 20., 30.])[:, None])
    tensor([[90.],
            [50.],
            [ 0.]])
    """
    op = "spmm"
    if not isinstance(graph, Graph):
        check.fail(TypeError, op, "graph to be a structops.Graph", type(graph).__name__)
    defaults = edge is None and not batch_dims and fill_value is None
    if defaults and _is_plain(graph, x, message, reduce, return_arg, unbiased, skip_nan):
        return _copy_reduce(graph, x, C.REDUCES[reduce])
    if callable(message) or not isinstance(reduce, str):
        from .user_defined import spmm_user

        if batch_dims or return_arg or skip_nan:
            check.fail(ValueError, op, "batch_dims, return_arg and skip_nan unset with user-defined functions", "one of them set")
        return spmm_user(graph, x, edge, message, reduce, fill_value)
    if message is None:
        message = "mul" if x is not None and edge is not None else "copy_u" if edge is None else "copy_e"
    kind = C.MESSAGES[check.choice(op, "message", message, C.MESSAGES)]
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.size(op, "batch_dims", batch_dims)
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    if return_arg:
        _no_arg(op, code)
    x = None if kind == C.COPY_E else _operand(op, "x", x, graph, graph.num_src, batch_dims)
    edge = None if kind == C.COPY_U else _operand(op, "edge", edge, graph, graph.num_edges, batch_dims, optional_batch=True)
    if x is not None and edge is not None and x.dtype != edge.dtype:
        dtype = torch.promote_types(x.dtype, edge.dtype)
        x, edge = x.to(dtype), edge.to(dtype)
    like = x if x is not None else edge
    e_batch = edge is not None and batch_dims > 0 and _has_batch(edge, graph.num_edges, batch_dims, x)
    x_features = None if x is None else tuple(x.shape[batch_dims + 1 :])
    e_features = None if edge is None else tuple(edge.shape[(batch_dims if e_batch else 0) + 1 :])
    if batch_dims and x is not None and edge is not None and not e_batch and edge.shape[0] != graph.num_edges:
        check.fail(ValueError, op, f"edge of shape [{graph.num_edges}, *features], or with the batch of x", list(edge.shape))
    features, expand_x, offsets = _broadcast(op, x_features, e_features)
    check.fits(op, like.dtype, *like.shape[:batch_dims], graph.num_dst, *features)
    batch = tuple((x if x is not None else edge).shape[:batch_dims]) if (x is not None or e_batch) else ()
    F = math.prod(features)
    if x is not None:
        if expand_x:
            pad = (1,) * (len(features) - len(x_features))
            x = x.reshape(*batch, graph.num_src, *pad, *x_features).expand(*batch, graph.num_src, *features)
        x = _kernel_layout(x, batch_dims, F if expand_x else math.prod(x_features))
    if edge is not None:
        edge = _kernel_layout(edge, batch_dims if e_batch else 0, math.prod(e_features))
    fill = check.fill(op, fill_value, like.dtype, C.EMPTY[code])
    grad = torch.is_grad_enabled() and ((x is not None and x.requires_grad) or (edge is not None and edge.requires_grad))
    arg = C.ARG_NONE
    if code in _EXTREMES and (return_arg or grad):
        binary = kind not in (C.COPY_U, C.COPY_E)
        arg = C.ARG_POSITION if binary and grad else C.ARG_EDGE if return_arg else C.ARG_SOURCE if kind == C.COPY_U else C.ARG_EDGE
        if return_arg and grad and kind == C.COPY_U:
            arg = C.ARG_POSITION
    if grad and kind not in (C.COPY_E,) and code not in _EXTREMES:
        graph.reversed_structure  # noqa: B018  built once here rather than in every backward
    bcast = None if offsets is None else torch.tensor([range(F), offsets], dtype=torch.int32, device=graph.device)
    if x is not None and edge is not None and x.dim() != edge.dim():
        x, edge = (x[:, None] if x.dim() == 1 else x), (edge[:, None] if edge.dim() == 1 else edge)
    out, winners = ladder.spmm(x, edge, *graph.structure, bcast, kind, code, arg, fill, skip_nan, unbiased)
    shape = (*batch, graph.num_dst, *features)
    out = out if out.shape == shape else out.reshape(shape)
    if not return_arg:
        return out
    if arg == C.ARG_POSITION and graph.eid is not None:
        winners = ladder.lookup(graph.eid, winners, graph.num_edges)
    return out, winners.to(torch.int64).reshape(shape)


def _is_plain(graph: Graph, x: Any, message, reduce, return_arg, unbiased, skip_nan) -> bool:
    """Whether a call is the common one, already in the kernels' layout: its checks, and nothing to convert."""
    return (
        isinstance(x, Tensor)
        and (message is None or message == "copy_u")
        and isinstance(reduce, str)
        and reduce in C.REDUCES
        and return_arg is False
        and unbiased is True
        and skip_nan is False
        and x.layout is torch.strided
        and x.dim() == 2
        and x.dtype in check.FLOATS
        and x.shape[0] == graph.num_src
        and x.device == graph.rowptr.device
        and x.is_contiguous()
    )


def _copy_reduce(graph: Graph, x: Tensor, code: int) -> Tensor:
    arg = C.ARG_NONE
    if x.requires_grad and torch.is_grad_enabled():
        if code in _EXTREMES:
            arg = C.ARG_SOURCE
        else:
            graph.reversed_structure  # noqa: B018  built once here rather than in every backward
            if code == C.SUM and ladder.is_eager():
                return ladder.CopySum.apply(x, graph.structure)
    return ladder.spmm(x, None, *graph.structure, None, C.COPY_U, code, arg, C.EMPTY[code], False, True)[0]


def _operand(op: str, name: str, t: Any, graph: Graph, rows: int, batch_dims: int, optional_batch: bool = False) -> Tensor:
    check.dense(op, name, t)
    if t.device != graph.device:
        check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", t.device)
    at = batch_dims if t.dim() > batch_dims and t.shape[batch_dims] == rows else 0
    if (not optional_batch and at != batch_dims) or t.dim() <= at or t.shape[at] != rows:
        lead = "*batch, " if batch_dims else ""
        check.fail(ValueError, op, f"{name} of shape [{lead}{rows}, *features]", list(t.shape))
    return t


def _has_batch(edge: Tensor, rows: int, batch_dims: int, x: Tensor | None) -> bool:
    if edge.dim() <= batch_dims or edge.shape[batch_dims] != rows:
        return False
    return x is None or edge.shape[:batch_dims] == x.shape[:batch_dims]


def _kernel_layout(t: Tensor, batch_dims: int, F: int) -> Tensor:
    """[*batch, rows, *features] as [rows], [rows, F] or [B, rows, F]."""
    if t.dim() <= 2 and batch_dims == 0:
        return t.contiguous()
    rows = t.shape[batch_dims]
    shape = (rows, F) if batch_dims == 0 else (math.prod(t.shape[:batch_dims]), rows, F)
    return t.reshape(shape).contiguous()


@lru_cache(maxsize=256)
def _broadcast(op: str, x: tuple | None, e: tuple | None) -> tuple[tuple, bool, tuple | None]:
    """(broadcast features, whether x must be expanded to them, e's offset of each feature where that needs a table)."""
    if x is None or e is None:
        return (x if e is None else e), False, None
    try:
        out = tuple(torch.broadcast_shapes(x, e))
    except RuntimeError:
        check.fail(ValueError, op, "features of x and edge that broadcast", f"{list(x)} and {list(e)}")
    F, Fx, Fe = math.prod(out), math.prod(x), math.prod(e)
    expand_x = Fx not in (1, F)
    if Fe in (1, F):
        return out, expand_x, None
    strides = [0 if n == 1 else math.prod(e[i + 1 :]) for i, n in enumerate(e)]
    strides = [0] * (len(out) - len(e)) + strides
    offsets = tuple(sum(i * s for i, s in zip(at, strides, strict=True)) for at in itertools.product(*map(range, out)))
    return out, True, offsets


# ---- g-SDDMM ---------------------------------------------------------------------------------------------------------


def sddmm(
    graph: Graph,
    lhs: Tensor,
    rhs: Tensor | None = None,
    op: str = "dot",
    lhs_target: str = "u",
    rhs_target: str = "v",
    *,
    batch_dims: int = 0,
) -> Tensor:
    """Generalised SDDMM: one value per edge from its two ends (or from edge values).

    ``out[k] = op(lhs[target of k], rhs[target of k])``

    Args:
        graph: the structure.
        lhs, rhs: ``[*batch, rows, *features]``, rows being num_src for target u, num_dst for v, E for e (in the graph's edge
            order); float32, float64, bfloat16 or float16. Features broadcast as in NumPy. ``rhs`` is not used by copy.
        op: dot (sum over the last feature dimension, kept as size 1), add, sub, mul, div or copy.
        lhs_target, rhs_target: u, v or e.
        batch_dims: number of leading dimensions that share the structure; an operand may leave them out.

    Returns:
        ``[*batch, E, *features]`` in the graph's edge order.

    Differentiable in both operands to any order; saves the operands of dot, mul and div. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Convention of DGL's g-SDDMM (arXiv:1909.01315).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sddmm(g, torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([[1., 1.], [10., 10.]]))
    tensor([[30.],
            [ 7.]])
    """
    name = "sddmm"
    if not isinstance(graph, Graph):
        check.fail(TypeError, name, "graph to be a structops.Graph", type(graph).__name__)
    check.choice(name, "op", op, ("dot", *C.EDGE_OPS))
    lt = C.TARGETS[check.choice(name, "lhs_target", lhs_target, C.TARGETS)]
    rt = C.TARGETS[check.choice(name, "rhs_target", rhs_target, C.TARGETS)]
    check.size(name, "batch_dims", batch_dims)
    rows = (graph.num_src, graph.num_dst, graph.num_edges)
    lhs = _operand(name, "lhs", lhs, graph, rows[lt], batch_dims, optional_batch=True)
    copy = op == "copy"
    if not copy:
        rhs = _operand(name, "rhs", rhs, graph, rows[rt], batch_dims, optional_batch=True)
        if lhs.dtype != rhs.dtype:
            dtype = torch.promote_types(lhs.dtype, rhs.dtype)
            lhs, rhs = lhs.to(dtype), rhs.to(dtype)
    l_batch = lhs.shape[:batch_dims] if lhs.dim() > batch_dims and lhs.shape[batch_dims] == rows[lt] else ()
    r_batch = () if copy else rhs.shape[:batch_dims] if rhs.dim() > batch_dims and rhs.shape[batch_dims] == rows[rt] else ()
    if l_batch and r_batch and l_batch != r_batch:
        check.fail(ValueError, name, f"rhs with batch {list(l_batch)}", list(r_batch))
    l_features = tuple(lhs.shape[len(l_batch) + 1 :])
    if copy:
        features = l_features
    else:
        r_features = tuple(rhs.shape[len(r_batch) + 1 :])
        try:
            features = tuple(torch.broadcast_shapes(l_features, r_features))
        except RuntimeError:
            check.fail(ValueError, name, "features of lhs and rhs that broadcast", f"{list(l_features)} and {list(r_features)}")
        rhs = _full(rhs, len(r_batch), r_features, features)
    lhs = _full(lhs, len(l_batch), l_features, features)
    F, R = math.prod(features), 1
    if op == "dot":
        if not features:
            check.fail(ValueError, name, "at least one feature dimension for dot", "none")
        R = features[-1]
        features = (*features[:-1], 1)
    if F == 0:
        shape = (*(l_batch or r_batch), graph.num_edges, *features)
        nothing = lhs.sum() if copy else lhs.sum() + rhs.sum()  # 0, and part of the graph
        return nothing.expand(shape).contiguous()
    grad = torch.is_grad_enabled() and (lhs.requires_grad or (not copy and rhs.requires_grad))
    if grad and C.U in (lt, None if copy else rt):
        graph.reversed_structure  # noqa: B018  built once here rather than in every backward
    code = C.EDGE_MUL if op == "dot" else C.EDGE_OPS[op]
    out = ladder.sddmm(lhs, None if copy else rhs, *graph.structure, None, code, lt, rt, graph.num_edges, F // R, R)
    return out.reshape((*(l_batch or r_batch), graph.num_edges, *features))


def _full(t: Tensor, batch_dims: int, own: tuple, features: tuple) -> Tensor:
    """An operand with its features broadcast, in the kernels' layout."""
    if own != features:
        lead = t.shape[: batch_dims + 1]
        t = t.reshape(*lead, *(1,) * (len(features) - len(own)), *own).expand(*lead, *features)
    return _kernel_layout(t, batch_dims, math.prod(features))
