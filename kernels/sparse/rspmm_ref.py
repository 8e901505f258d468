"""Reference of relational_spmm and its backward: the specification of csrc/sparse/rspmm.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import codes as C
from .spmm_ref import first_extreme, like_rank, rows_3d


def _wide(t: Tensor | None) -> Tensor | None:
    return None if t is None else rows_3d(t).to(torch.promote_types(t.dtype, torch.float32))


def combine(mul: int, rel: Tensor | None, x: Tensor) -> Tensor:
    """rel (x) x of rows with equal features; differentiable."""
    if mul == C.REL_COPY:
        return x
    assert rel is not None
    if mul == C.REL_MUL:
        return rel * x
    if mul == C.REL_ADD:
        return rel + x
    if mul == C.REL_MIN:
        return torch.minimum(rel, x)
    (a, b), (c, d) = x.chunk(2, -1), rel.chunk(2, -1)
    return torch.cat([a * c - b * d, a * d + b * c], -1)


def _row(m: Tensor, reduce: int) -> tuple[list[Tensor], list[Tensor]]:
    """Results [B, F] and positions of winners of messages [B, n > 0, F]."""
    if reduce == C.REL_SUM:
        return [m.sum(1)], []
    if reduce == C.REL_MEAN:
        return [m.mean(1)], []
    if reduce == C.REL_LSE:
        return [torch.logsumexp(m, 1)], []
    extremes = {C.REL_LEAST: [False], C.REL_LARGEST: [True], C.REL_PNA: [True, False]}[reduce]
    found = [first_extreme(m.detach(), largest, False)[1] for largest in extremes]
    values = [m.gather(1, at[:, None])[:, 0] for at in found]
    if reduce == C.REL_PNA:
        values = [m.mean(1), m.var(1, unbiased=False), *values]
    return values, found


def _rows(x, rel, weight, mask, rowptr, col, eid, type, mul, reduce, fill):
    """(planes of results [B, N, F], planes of winners)."""
    pna = reduce == C.REL_PNA
    B, _, F = x.shape
    N, ptr = rowptr.numel() - 1, rowptr.tolist()
    counts = (4, 2) if pna else (1, int(reduce in (C.REL_LEAST, C.REL_LARGEST)))
    outs: list[list[Tensor]] = [[] for _ in range(counts[0])]
    args: list[list[Tensor]] = [[] for _ in range(counts[1])]
    for v in range(N):
        k = torch.arange(ptr[v], ptr[v + 1], device=x.device)
        if mask is not None:
            k = k[mask[eid[k].long() if eid is not None else k]]
        if k.numel() == 0:
            row = [x.new_full((B, F), 0.0 if pna else fill)] * counts[0]
            where = [torch.full((B, F), col.numel(), device=x.device)] * counts[1]
        else:
            m = combine(mul, rel[:, type[k].long()] if rel is not None else None, x[:, col[k].long()])
            if weight is not None:
                m = m * weight[eid[k].long() if eid is not None else k][:, None]
            row, at = _row(m, reduce)
            where = [k[a] for a in at]
        for found, new in ((outs, row), (args, where)):
            for plane, t in zip(found, new, strict=True):
                plane.append(t)
    stack = lambda planes: [torch.stack(p, 1) if p else x.new_zeros(B, 0, F) for p in planes]
    return stack(outs), stack(args)


def relational_spmm(x, rel, weight, mask, rowptr, col, eid, type, colptr, row_t, eid_t, type_t, mul, reduce, fill):
    """Same signature and results as torch.ops.structops.relational_spmm."""
    dtype = x.dtype
    wide = None if weight is None else weight.to(torch.promote_types(weight.dtype, torch.float32))
    outs, args = _rows(_wide(x), _wide(rel), wide, mask, rowptr, col, eid, type, mul, reduce, fill)
    planes = lambda ts, dtype: (
        torch.stack([like_rank(t, x.dim()) for t in ts]) if len(ts) > 1 else like_rank(ts[0], x.dim())
    ).to(dtype)
    rest = planes([outs[0] - outs[0].to(dtype).to(outs[0].dtype)], dtype) if reduce == C.REL_PNA else x.new_empty(0)
    return planes(outs, dtype), planes(args, rowptr.dtype) if args else rowptr.new_empty(0), rest


def relational_spmm_bwd(
    grad, x, rel, weight, mask, out, arg, rest, rowptr, col, eid, type, colptr, row_t, eid_t, type_t, mul, reduce, wanted
):  # fmt: skip
    """Same signature and results as torch.ops.structops.relational_spmm_bwd."""
    with torch.enable_grad():
        wide = [t if t is None else t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in (x, rel, weight)]
        needs = [bool(wanted & 1), bool(wanted & 2) and mul != C.REL_COPY, bool(wanted & 4)]
        leaves = [t if t is None else t.requires_grad_(n) for t, n in zip(wide, needs, strict=True)]
        wide_rel = None if leaves[1] is None else rows_3d(leaves[1])
        outs, _ = _rows(rows_3d(leaves[0]), wide_rel, leaves[2], mask, rowptr, col, eid, type, mul, reduce, 0.0)
        total = torch.stack(outs)
        tracked = [t for t, n in zip(leaves, needs, strict=True) if n and t is not None]
        if not total.requires_grad:
            found = iter([None] * len(tracked))
        else:
            found = iter(torch.autograd.grad(total, tracked, grad.to(total.dtype).reshape(total.shape), allow_unused=True))
    results = []
    for t, like, need in zip(leaves, (x, rel, weight), needs, strict=True):
        if not need or t is None:
            results.append(x.new_empty(0))
            continue
        d = next(found)
        results.append(torch.zeros_like(like) if d is None else d.to(like.dtype))
    return tuple(results)
