"""Reductions and softmax over the elements that share an index."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..kernels import codes as C
from ._groups import EXTREMES, QUICK, as_rows, from_rows, is_plain, no_arg, reduce_groups, widen

# Above this many bytes of output an unsorted scatter no longer fits a core's cache, and sorting the index first wins.
_DIRECT_SCATTER_BYTES = 8 << 20


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
    if (
        isinstance(index, Tensor)
        and type(reduce) is str
        and reduce in QUICK
        and is_plain(src, index, dim, fill_value, return_arg, unbiased, skip_nan)
    ):
        shape = src.shape
        if (
            type(dim_size) is int
            and dim_size >= 0
            and index.shape[0] == shape[0] < 2**24
            and dim_size * (8 if len(shape) == 1 else 8 * shape[1]) <= _DIRECT_SCATTER_BYTES
        ):
            try:
                return ladder.scatter_rows(src, index, dim_size, QUICK[reduce])
            except RuntimeError as error:
                _explain(op, error, index, dim_size)
    check.dense(op, "src", src, integers=True)
    dim = check.axis(op, dim, src.dim())
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    if isinstance(index, ScatterPlan):
        _check_plan(op, index, src, dim, dim_size)
        return reduce_groups(op, src, dim, (index.indptr, index.perm), code, fill_value, return_arg, unbiased, skip_nan)
    check.index(op, "index", index, like=src)
    if index.dim() != 1:
        return _scatter_elements(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)
    if index.shape[0] != src.shape[dim]:
        check.fail(ValueError, op, f"index of shape [{src.shape[dim]}]", list(index.shape))
    index = index.contiguous()
    dim_size = _checked_index(op, index, None) if dim_size is None else check.size(op, "dim_size", dim_size)
    return scatter_rows(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)


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
    return ladder.segment_softmax(as_rows(src, dim), index.indptr, index.perm, log).reshape(src.shape)


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


def scatter_rows(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan):
    """By an index [E]. The kernels check it as they read it, so only a bad one is read twice, to say what is wrong."""
    check.fits(op, src.dtype, *src.shape[:dim], dim_size, *src.shape[dim + 1 :])
    try:
        return _scatter_unchecked(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan)
    except RuntimeError as error:
        _explain(op, error, index, dim_size)


def _explain(op: str, error: RuntimeError, index: Tensor, dim_size: int) -> NoReturn:
    """An IndexError for an index that the kernel refused."""
    if "index out of range" in str(error):
        _checked_index(op, index, dim_size)
    raise error


def _scatter_unchecked(op, src, index, dim_size, code, dim, fill_value, return_arg, unbiased, skip_nan):
    F = math.prod(src.shape[dim + 1 :])
    grad = ladder.wants_derivative(src)
    direct = (
        code <= C.PROD
        and not (code == C.PROD and grad)
        and (code in EXTREMES or F < 8 or dim_size * F * src.element_size() <= _DIRECT_SCATTER_BYTES)
        and src.numel() < 2**31
        and (code != C.MEAN or src.is_floating_point())
    )
    if not direct:
        plan = ladder.csr_build(index, dim_size)
        return reduce_groups(op, src, dim, plan, code, fill_value, return_arg, unbiased, skip_nan)
    wide = widen(src)
    fill = check.fill(op, fill_value, src.dtype, C.EMPTY[code])
    needs_arg = code in EXTREMES and (return_arg or grad)
    out, arg = ladder.scatter(as_rows(wide, dim), index, dim_size, code, needs_arg, fill, skip_nan)
    out = from_rows(out, src, dim, dim_size).to(src.dtype)
    if return_arg:
        no_arg(op, code)
        return out, from_rows(arg, src, dim, dim_size)
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
    result = scatter_rows(op, rows, flat, groups, code, 0, fill_value, return_arg, unbiased, skip_nan)
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
