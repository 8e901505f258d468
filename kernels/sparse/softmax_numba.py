"""CPU segment_softmax and its gradient without a compiler. The contract is csrc/sparse/softmax.h."""

from __future__ import annotations

import math

import numpy as np

from . import common_numba as nb
from .common_numba import jit
from .shapes import sizes

U = np.uint64


@jit
def forward(src, rowptr, eid, out, B, E, F, log, v0, v1):
    F = U(F)
    has_eid = len(eid) > 0
    top, total = np.empty(F, src.dtype), np.empty(F, src.dtype)
    for b in range(U(B)):
        base = b * U(E) * F
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                top[f] = -np.inf
                total[f] = 0
            for k in range(begin, end):
                o = base + (U(eid[k]) if has_eid else k) * F
                for f in range(F):
                    top[f] = src[o + f] if src[o + f] > top[f] else top[f]
            for k in range(begin, end):
                o = base + (U(eid[k]) if has_eid else k) * F
                for f in range(F):
                    y = math.exp(src[o + f] - top[f])
                    total[f] += y
                    out[o + f] = y
            if log:
                for f in range(F):
                    total[f] = math.log(total[f])
            for k in range(begin, end):
                o = base + (U(eid[k]) if has_eid else k) * F
                if log:
                    for f in range(F):
                        out[o + f] = src[o + f] - top[f] - total[f]
                else:
                    for f in range(F):
                        out[o + f] = out[o + f] / total[f]


@jit
def backward(y, g, rowptr, eid, out, B, E, F, log, v0, v1):
    F = U(F)
    has_eid = len(eid) > 0
    total = np.empty(F, y.dtype)
    for b in range(U(B)):
        base = b * U(E) * F
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                total[f] = 0
            for k in range(begin, end):
                o = base + (U(eid[k]) if has_eid else k) * F
                if log:
                    for f in range(F):
                        total[f] += g[o + f]
                else:
                    for f in range(F):
                        total[f] += y[o + f] * g[o + f]
            for k in range(begin, end):
                o = base + (U(eid[k]) if has_eid else k) * F
                if log:
                    for f in range(F):
                        out[o + f] = g[o + f] - math.exp(y[o + f]) * total[f]
                else:
                    for f in range(F):
                        out[o + f] = y[o + f] * (g[o + f] - total[f])


def _launch(op, kernel, tensors, rowptr, eid, log):
    first = tensors[0]
    B, E, F = sizes(first)
    if not first.is_floating_point():
        nb.fail(op, "floating dtypes only")
    if any(t.dtype != first.dtype or t.numel() != first.numel() for t in tensors):
        nb.fail(op, "grad must match out in shape and dtype")
    arrays = [nb.flat(op, t) for t in tensors]
    ptr, ids = nb.index(op, rowptr, rowptr), nb.index(op, eid, rowptr)
    out = np.empty_like(arrays[0])
    if out.size:
        nb.run(lambda v0, v1: kernel(*arrays, ptr, ids, out, B, E, F, bool(log), v0, v1), nb.rows(ptr, 8 * B * F))
    return nb.result(out, first.dim(), B, E, F, first.dtype)


def segment_softmax(src, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax."""
    return _launch("segment_softmax", forward, [src], rowptr, eid, log)


def segment_softmax_bwd(out, grad, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax_bwd."""
    return _launch("segment_softmax_bwd", backward, [out, grad], rowptr, eid, log)
