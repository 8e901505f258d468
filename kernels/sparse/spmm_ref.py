"""Reference of spmm: the specification of csrc/sparse/spmm.h in plain torch, one row and one batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import codes as C
from .copies import copy_reduce_by


def rows_3d(t: Tensor) -> Tensor:
    """An operand [rows], [rows, F] or [B, rows, F] as [B, rows, F]."""
    if t.dim() == 1:
        return t[None, :, None]
    return t[None] if t.dim() == 2 else t


def like_rank(t: Tensor, rank: int) -> Tensor:
    """[B, rows, F] back to the operands' rank."""
    if rank == 3:
        return t
    return t[0] if rank == 2 else t[0, :, 0]


def messages(x: Tensor | None, e: Tensor | None, u: Tensor, j: Tensor, bcast: Tensor | None, message: int) -> Tensor:
    """Messages [B, n, F] of edges with sources u and edge rows j, in at least float32."""
    wide = lambda t: t.float() if t.dtype in (torch.bfloat16, torch.float16) else t
    mx = wide(x[:, u]) if message != C.COPY_E else None
    me = wide(e[:, j]) if message != C.COPY_U else None
    if bcast is not None:
        mx = mx[..., bcast[0].long()] if mx is not None else None
        me = me[..., bcast[1].long()] if me is not None else None
    if message == C.COPY_U:
        return mx
    if message == C.COPY_E:
        return me
    combine: dict[int, Callable] = {C.ADD: torch.add, C.SUB: torch.sub, C.MUL: torch.mul, C.DIV: torch.div}
    return combine[message](mx, me)


def reduce_rows(m: Tensor, reduce: int, unbiased: bool) -> Tensor:
    """[B, n > 0, F] -> [B, F]."""
    n = m.shape[1]
    if reduce == C.SUM:
        return m.sum(1, dtype=m.dtype)
    if reduce == C.MEAN:
        return m.mean(1)
    if reduce == C.PROD:
        return m.prod(1, dtype=m.dtype)
    if reduce == C.LOGSUMEXP:
        return torch.logsumexp(m, 1)
    var = ((m - m.mean(1, keepdim=True)) ** 2).sum(1) / max(n - int(unbiased), 1)
    return var.sqrt() if reduce == C.STD else var


def first_extreme(m: Tensor, largest: bool, skip_nan: bool) -> tuple[Tensor, Tensor]:
    """Value and position of the first extreme of [B, n, F] over n; position -1 where every message was skipped."""
    shown = m.masked_fill(m.isnan(), float("-inf" if largest else "inf")) if skip_nan and m.is_floating_point() else m
    best = shown.amax(1, keepdim=True) if largest else shown.amin(1, keepdim=True)  # NaN if any message shown is
    wins = (m == best) | (m.isnan() & (not skip_nan))
    arg = wins.byte().argmax(1, keepdim=True)  # the first
    there = wins.any(1)
    value = torch.where(there, m.gather(1, arg)[:, 0], m.new_zeros(()))
    return value, torch.where(there, arg[:, 0], -1)


def spmm(
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased
):  # fmt: skip
    """Same signature and results as torch.ops.structops.spmm."""
    like = x if message != C.COPY_E else e
    rank = max(t.dim() for t, used in ((x, message != C.COPY_E), (e, message != C.COPY_U)) if used)
    x3 = rows_3d(x) if message != C.COPY_E else None
    e3 = rows_3d(e) if message != C.COPY_U else None
    N = rowptr.numel() - 1
    index = col if col is not None else eid
    edges = index.numel() if index is not None else rows_3d(like).shape[1]
    B = max(t.shape[0] for t in (x3, e3) if t is not None)
    empty = torch.zeros(0, dtype=torch.int64, device=like.device)
    F = messages(x3, e3, empty, empty, bcast, message).shape[-1]
    out = torch.full((B, N, F), fill, dtype=like.dtype, device=like.device)
    nothing = -1 if arg == C.ARG_SOURCE else edges  # which could be a source
    winners = torch.full((B, N, F), nothing, dtype=rowptr.dtype, device=like.device)
    ptr = rowptr.tolist()
    for v in range(N):
        k = torch.arange(ptr[v], ptr[v + 1], device=like.device)
        if k.numel() == 0:
            continue
        u = col[k].long() if col is not None else k
        j = eid[k].long() if eid is not None else k
        m = messages(x3, e3, u, j, bcast, message)
        if reduce in (C.MIN, C.MAX):
            value, first = first_extreme(m, reduce == C.MAX, skip_nan)
            out[:, v] = torch.where(first >= 0, value, torch.full_like(value, fill)).to(like.dtype)
            where = {C.ARG_EDGE: j, C.ARG_SOURCE: u}.get(arg, k)
            winners[:, v] = torch.where(first >= 0, where[first.clamp(min=0)], nothing).to(rowptr.dtype)
        else:
            out[:, v] = reduce_rows(m, reduce, unbiased).to(like.dtype)
    out = like_rank(out, rank)
    return out, (like_rank(winners, rank) if arg else rowptr.new_empty(0))

copy_reduce = copy_reduce_by(spmm)
