"""Reference of tp_conv and tp_conv_edge: edge by edge, every path, every coefficient; float64."""

from __future__ import annotations

import torch
from torch import Tensor


def _paths(plan: Tensor, cg: Tensor, sizes: list[int]):
    """(block of x, block of out, w, w_stride, [(i, k, column of y, coefficient)]) for each path."""
    nx, _, paths = sizes[:3]
    blocks_at, paths_at, ptr_at, y_at, runs_at, items_at = sizes[9:15]
    data, coefficient = plan.tolist(), cg.tolist()
    block = lambda i: data[blocks_at + 5 * i : blocks_at + 5 * i + 5]
    for p in range(paths):
        x, o, w, w_stride, run, run_end, _, _ = data[paths_at + 8 * p : paths_at + 8 * p + 8]
        entries = []
        for r in range(run, run_end):
            k, begin, end = data[runs_at + 3 * r : runs_at + 3 * r + 3]
            for item in range(begin, end):
                i, q = data[items_at + 2 * item : items_at + 2 * item + 2]
                for n in range(data[ptr_at + q], data[ptr_at + q + 1]):
                    entries.append((i, k, data[y_at + n], coefficient[n]))
        yield block(x), block(nx + o), w, w_stride, entries


def _columns(block: list[int], component: int) -> Tensor:
    mul, _, offset, channel, step = block
    return offset + component * step + channel * torch.arange(mul)


def _edges(y: Tensor, rowptr, col, eid) -> tuple[Tensor, Tensor, Tensor, int]:
    """(id, row of x, receiver) of every position, and the number of receivers."""
    E = y.shape[0]
    position = torch.arange(E)
    e = position if eid is None else eid.long()
    if rowptr is None:
        return e, e if col is None else col.long(), e, E
    receiver = torch.repeat_interleave(torch.arange(rowptr.numel() - 1), rowptr.long().diff())
    return e, e if col is None else col.long(), receiver, rowptr.numel() - 1


def tp_conv(x, y, w, rowptr, col, eid, colptr, row_t, eid_t, plan, cg, sizes, transpose) -> Tensor:
    e, row, receiver, N = _edges(y, rowptr, col, eid)
    xs, ys = x.double()[row], y.double()[e]
    ws = None if w is None else w.double()[e]
    out = torch.zeros(N, sizes[5] if transpose else sizes[7], dtype=torch.float64)
    for xb, ob, w_at, w_stride, entries in _paths(plan, cg, sizes):
        weight = torch.ones((), dtype=torch.float64)
        if ws is not None and w_at >= 0:
            weight = ws[:, w_at + w_stride * torch.arange(xb[0])]
        for i, k, j, c in entries:
            source, target = (_columns(ob, k), _columns(xb, i)) if transpose else (_columns(xb, i), _columns(ob, k))
            message = c * weight * xs[:, source] * ys[:, j, None]
            out[:, target] += torch.zeros(N, len(target), dtype=torch.float64).index_add_(0, receiver, message)
    return out.to(x.dtype)


def tp_conv_edge(x, g, y, w, rowptr, col, eid, colptr, row_t, eid_t, plan, cg, sizes, want_y, want_w) -> tuple[Tensor, Tensor]:
    e, row, receiver, _ = _edges(y, rowptr, col, eid)
    xs, ys, gs = x.double()[row], y.double()[e], g.double()[receiver]
    ws = None if w is None else w.double()[e]
    gy = torch.zeros(y.shape, dtype=torch.float64)
    gw = torch.zeros(y.shape[0], sizes[8], dtype=torch.float64)
    for xb, ob, w_at, w_stride, entries in _paths(plan, cg, sizes):
        columns = w_at + w_stride * torch.arange(xb[0])
        weighted = ws is not None and w_at >= 0
        for i, k, j, c in entries:
            product = c * xs[:, _columns(xb, i)] * gs[:, _columns(ob, k)]
            gy[e, j] += ((ws[:, columns] * product) if weighted else product).sum(1)
            if w_at >= 0:
                gw[e[:, None], columns] += product * ys[:, j, None]
    empty = x.new_empty(0)
    return gy.to(x.dtype) if want_y else empty, gw.to(x.dtype) if want_w else empty.clone()
