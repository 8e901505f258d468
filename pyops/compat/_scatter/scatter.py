"""scatter_* by torch_scatter's argument rules."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ...kernels import codes as C
from ...sparse._scatter import broadcast_index
from .groups import Groups, checked_out
from .short import explain, group_count, plain, with_grad


def scatter_reduce(
    op: str, code: int, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> Tensor:
    if out is None and plain(src, index, dim):
        size = group_count(op, index, dim_size)
        try:
            if src.requires_grad and torch.is_grad_enabled():
                return with_grad(code, src, index, size)
            return ladder.scatter(src, index, size, code, False, C.EMPTY[code], False)[0]
        except RuntimeError as error:
            explain(op, error, index, size)
    if code == C.PROD:
        return _product(op, src, index, dim, out, dim_size)
    return linear(op, code, src, index, dim, out, dim_size, "floor", False)


def linear(op, code, src, index, dim, out, dim_size, rounding, ascending):
    if code == C.SUM and isinstance(src, Tensor) and (src.dtype == torch.bool or src.is_complex()):
        return _sum_of_pairs(op, src, index, dim, out, dim_size, ascending)
    if out is not None:
        dim_size = checked_out(op, out, src, dim)
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
        dim_size = checked_out(op, out, src, dim)
    dim = check.axis(op, dim, src.dim())
    check.index(op, "index", index, like=src)
    if src.dtype == torch.bool:
        total = Groups(op, src.to(torch.int32), index, dim, dim_size, ascending).reduce(C.SUM) != 0
        return total if out is None else out.logical_or_(total)
    parts = torch.view_as_real(src.resolve_conj())
    index = broadcast_index(op, index, src, dim).unsqueeze(-1)
    total = torch.view_as_complex(Groups(op, parts, index, dim, dim_size, ascending).reduce(C.SUM))
    return total if out is None else out.add_(total)


def _product(op, src, index, dim, out, dim_size):
    if out is not None:
        dim_size = checked_out(op, out, src, dim)
    product = Groups(op, src, index, dim, dim_size).reduce(C.PROD)
    return product if out is None else out.mul_(product)


def scatter_extreme(
    op: str, code: int, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    if out is None and plain(src, index, dim):
        size = group_count(op, index, dim_size)
        try:
            return ladder.scatter(src, index, size, code, True, 0.0, True)
        except RuntimeError as error:
            explain(op, error, index, size)
    return extreme(op, code, src, index, dim, out, dim_size, False)


def extreme(op, code, src, index, dim, out, dim_size, ascending):
    if out is not None:
        dim_size = checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size, ascending)
    value, arg = g.reduce(code, return_arg=True)
    if out is None:
        return value, arg
    better = (arg < g.elements) & ((value > out) if code == C.MAX else (value < out))
    out.copy_(torch.where(better, value, out))
    return out, torch.where(better, arg, g.elements)
