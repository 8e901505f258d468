"""Reference of multi_reduce. The contract is csrc/sparse/multi_reduce.h."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import codes as C

EXTREMES = {C.MIN: "amin", C.MAX: "amax"}


def _row(rowptr: Tensor, edges: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(rowptr.numel() - 1, device=rowptr.device), rowptr.diff().long(), output_size=edges)


def _messages(x, edge, col, eid) -> Tensor:
    m = None if x is None else x[col.long()]
    e = None if edge is None else edge if eid is None else edge[eid.long()]
    return e if m is None else m if e is None else m + e


def _values(m: Tensor, y, rowptr: Tensor, position: dict[int, Tensor], reduces, eps: float) -> dict[int, Tensor]:
    """Every reduction of ``m`` [E, F]; ``position``: winning edges of min and max."""
    row, count = _row(rowptr, m.shape[0]), rowptr.diff()[:, None].to(m.dtype)
    add = lambda t: t.new_zeros(count.shape[0], t.shape[1]).index_add(0, row, t)
    y = torch.zeros_like(m[:1]) if y is None else torch.where(count > 0, y, 0)
    total = add(m)
    mean = total / count.clamp(min=1)
    var = add((m - mean[row]) ** 2) / count.clamp(min=1)
    found = {C.SUM: total + count * y, C.MEAN: mean + y, C.VAR: var}
    if C.STD in reduces:
        found[C.STD] = (var + eps).sqrt()
    for code, k in position.items():
        value = m.gather(0, k.clamp(min=0)) if m.shape[0] else k.to(m.dtype)
        found[code] = torch.where(k >= 0, value, 0) + y
    return found


def _position(m: Tensor, rowptr: Tensor, how: str) -> Tensor:
    """The first edge of the extreme value of every row, -1 without edges."""
    N, (E, F) = rowptr.numel() - 1, m.shape
    row = _row(rowptr, E)[:, None].expand(E, F)
    value = m.new_zeros(N, F).scatter_reduce(0, row, m, how, include_self=False)
    wins = (m == value.gather(0, row)) | m.isnan()
    k = torch.where(wins, torch.arange(E, device=m.device)[:, None], E)
    first = k.new_full((N, F), E).scatter_reduce(0, row, k, "amin")
    return torch.where(first == E, -1, first)


def _scaled(found: dict[int, Tensor], scale, reduces) -> Tensor:
    together = torch.stack([found[r] for r in reduces], 1)
    every = together[:, None] if scale is None else scale.T[:, :, None, None] * together[:, None]
    return every.flatten(1, 2)


def multi_reduce(x, edge, y, rowptr, col, eid, colptr, row_t, eid_t, scale, reduces, eps, keep):
    like = x if x is not None else edge
    accumulator = torch.float64 if like.dtype == torch.float64 else torch.float32
    x, edge, y, scale = (None if t is None else t.double() for t in (x, edge, y, scale))
    m = _messages(x, edge, col, eid)
    position = {code: _position(m, rowptr, how) for code, how in EXTREMES.items() if code in reduces}
    found = _values(m, y, rowptr, position, reduces, eps)
    out = _scaled(found, scale, reduces).to(like.dtype)
    stat, arg = [], []
    if keep and (C.VAR in reduces or C.STD in reduces):
        plain = _values(m, None, rowptr, {}, (), eps)[C.MEAN]
        centre = sum(t[0].where(t[0].isfinite(), 0) for t in (x, edge) if t is not None and t.shape[0])
        stat.append(torch.where(rowptr.diff()[:, None] > 0, plain - centre, 0))
        if C.STD in reduces:
            stat.append(found[C.STD])
    if keep:
        sources = edge is None and m.shape[0] > 0
        arg = [torch.where(k < 0, k, col.long()[k.clamp(min=0)]) if sources else k for k in position.values()]
    empty = m.new_empty(0, rowptr.numel() - 1, m.shape[1])
    return out, (torch.stack(stat) if stat else empty).to(accumulator), (torch.stack(arg) if arg else empty).to(rowptr.dtype)


def multi_reduce_bwd(x, edge, grad, stat, arg, rowptr, col, eid, colptr, row_t, eid_t, scale, reduces, wanted):
    like = x if x is not None else edge
    N, F = rowptr.numel() - 1, like.shape[1]
    leaves = [None if t is None else t.detach().double().requires_grad_() for t in (x, edge)]
    y = torch.zeros(N, F, dtype=torch.float64, device=like.device, requires_grad=True)
    std = stat[1].double() if C.STD in reduces else None
    with torch.enable_grad():
        m = _messages(*leaves, col, eid)
        position = {code: _position(m.detach(), rowptr, how) for code, how in EXTREMES.items() if code in reduces}
        # The root's slope is that of the std kept, which knows eps.
        found = _values(m, y, rowptr, position, [r for r in reduces if r != C.STD], 0.0)
        if std is not None:
            found[C.STD] = found[C.VAR] / (2 * std)
        out = _scaled(found, None if scale is None else scale.double(), reduces)
        kept = [t for t, bit in ((leaves[0], 1), (y, 2), (leaves[1], 4)) if t is not None and wanted & bit]
        grads = iter(torch.autograd.grad(out, kept, grad.double(), allow_unused=True, materialize_grads=True) if kept else ())
    wants = (x is not None and wanted & 1, wanted & 2, edge is not None and wanted & 4)
    return tuple(next(grads).to(like.dtype) if w else like.new_zeros(0) for w in wants)
