"""Softmax, logsumexp and std over the elements that share an index."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ...kernels import codes as C
from .groups import Groups, checked_out


def floating(op: str, src: Tensor) -> None:
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
    floating(op, src)
    g = Groups(op, src, index, dim, dim_size)
    return ladder.segment_softmax(g.rows, *g.plan(), False).reshape(src.shape)


def log_softmax(op: str, src: Tensor, index: Tensor, dim: int, eps: float, dim_size: int | None) -> Tensor:
    floating(op, src)
    g = Groups(op, src, index, dim, dim_size)
    plan = g.plan()
    result = ladder.segment_softmax(g.rows, *plan, True).reshape(src.shape)
    if _negligible(eps, src.dtype):
        return result
    return result - g.spread(_log_sum(g, plan, eps)[1])


def log_sum(
    op: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, eps: float
) -> Tensor:
    """log(sum(exp(src - max)) + eps) + max by group in the size of ``out``; -inf for empty groups."""
    floating(op, src)
    if out is not None:
        dim_size = checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size)
    total, term = _log_sum(g, g.plan(), eps)
    return g.values(total if term is None else total + term)


def logsumexp(
    op: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, eps: float
) -> Tensor:
    result = log_sum(op, src, index, dim, out, dim_size, eps)
    if out is not None:
        result = torch.logaddexp(out, result)
    result = result.nan_to_num(nan=float("nan"), neginf=0.0)
    return result if out is None else out.copy_(result)


def std(
    op: str, src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None, unbiased: bool, eps: float = 1e-6
) -> Tensor:
    if not src.is_floating_point():
        src = src.to(torch.get_default_dtype())
    if out is not None:
        dim_size = checked_out(op, out, src, dim)
    g = Groups(op, src, index, dim, dim_size)
    plan = g.plan()
    n = g.counts(plan)
    d = (n - 1 if unbiased else n).clamp(min=1).double()
    if out is None:
        deviation = g.values(g.reduce_plan(plan, C.STD, 0.0, unbiased))
        return deviation * torch.sqrt(d / (d + eps)).to(src.dtype) if eps else deviation
    out.add_(g.values(g.reduce_plan(plan, C.VAR, 0.0, unbiased)) * d.to(src.dtype))
    mean_square = out / (d + eps).to(src.dtype)
    return torch.where(mean_square > 0, torch.where(mean_square > 0, mean_square, 1.0).sqrt(), mean_square.clamp(max=0))
