"""Reductions over groups of elements, by pointers or by an index: what segments and scatter share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..kernels import codes as C

EXTREMES = (C.MIN, C.MAX)
FLOAT_ONLY = (C.VAR, C.STD, C.LOGSUMEXP)
# Reductions with a short way in eager mode.
QUICK = {"sum": C.SUM, "mean": C.MEAN, "min": C.MIN, "max": C.MAX}
_STRIDED = torch.strided


def is_plain(src: Any, index: Any, dim: Any, fill_value, return_arg, unbiased, skip_nan) -> bool:
    """Whether an eager call is the common one: ``src`` [E] or [E, F] and a vector of indices, as the kernels take them."""
    return (
        fill_value is None
        and return_arg is False
        and unbiased is True
        and skip_nan is False
        and type(dim) is int
        and dim == 0
        and isinstance(src, Tensor)
        and isinstance(index, Tensor)
        and src.dtype in check.FLOATS
        and index.dtype in check.INDICES
        and src.layout is _STRIDED
        and index.layout is _STRIDED
        and 0 < src.dim() <= 2
        and index.dim() == 1
        and src.device == index.device
        and not index.is_meta
        and src.is_contiguous()
        and index.is_contiguous()
        and ladder.is_eager()
    )


def widen(src: Tensor) -> Tensor:
    """8- and 16-bit integers are computed in int32 and wrap on the way back."""
    return src.to(torch.int32) if src.dtype in check.NARROW else src


def as_rows(src: Tensor, dim: int) -> Tensor:
    """``[*, E, *]`` as the kernels' [E], [E, F] or [B, E, F]."""
    if src.dim() <= 2 and dim == 0:
        return src.contiguous()
    if dim == 0:
        return src.reshape(src.shape[0], math.prod(src.shape[1:])).contiguous()
    shape = (math.prod(src.shape[:dim]), src.shape[dim], math.prod(src.shape[dim + 1 :]))
    return src.reshape(shape).contiguous()


def from_rows(out: Tensor, src: Tensor, dim: int, size: int) -> Tensor:
    if src.dim() <= 2 and dim == 0:
        return out
    return out.reshape((*src.shape[:dim], size, *src.shape[dim + 1 :]))


def no_arg(op: str, code: int) -> None:
    if code not in EXTREMES:
        check.fail(ValueError, op, "return_arg with reduce min or max", "another reduction")


def reduce_groups(op, src, dim, structure, code, fill_value, return_arg, unbiased, skip_nan):
    """The reduction over the groups of (indptr, perm)."""
    indptr, perm = structure
    if code in FLOAT_ONLY and not src.is_floating_point():
        check.fail(TypeError, op, f"a floating src for {list(C.REDUCES)[code]}", src.dtype)
    if return_arg:
        no_arg(op, code)
    fill = check.fill(op, fill_value, src.dtype, C.EMPTY[code])
    wide = widen(src)
    integer_mean = code == C.MEAN and not src.is_floating_point()
    grad = ladder.wants_derivative(src)
    arg_kind = C.ARG_EDGE if code in EXTREMES and (return_arg or grad) else C.ARG_NONE
    N = indptr.shape[0] - 1
    out, arg = ladder.spmm(
        None, as_rows(wide, dim), indptr, None, perm, None, None, None, None,
        C.COPY_E, C.SUM if integer_mean else code, arg_kind, fill, skip_nan, unbiased,
    )  # fmt: skip
    out = from_rows(out, src, dim, N)
    if integer_mean:
        count = indptr.diff().view(-1, *(1 for _ in src.shape[dim + 1 :]))
        out = torch.where(count > 0, torch.div(out, count.clamp(min=1), rounding_mode="floor"), int(fill))
    out = out.to(src.dtype)
    return (out, from_rows(arg.to(torch.int64), src, dim, N)) if return_arg else out
