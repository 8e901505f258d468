"""CPU spmm without a compiler. The contract is csrc/sparse/spmm.h.

One kernel a dtype. Switches on message and reducer stand outside the loops over features, which LLVM vectorises.
A row is summed in pieces of PIECE edges, so that float32 sums of long rows stay accurate; threads never share a row.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .. import codes as C
from . import common_numba as nb
from .common_numba import AHEAD, PIECE, jit, prefetch
from .copies import copy_reduce_by
from .shapes import sizes

U = np.uint64
SUM, MEAN, MIN, MAX, PROD, VAR, STD, LSE = range(8)
ADD, SUB, MUL, DIV = C.ADD, C.SUB, C.MUL, C.DIV
ARG_EDGE, ARG_SOURCE = C.ARG_EDGE, C.ARG_SOURCE


@jit
def message(m, x, xo, xs, e, eo, es, F, kind):
    """m[f] = x[xo + f xs] op e[eo + f es]; xs, es 0 or 1."""
    for f in range(F):
        m[f] = x[xo + f] if xs != U(0) else x[xo]
    if es != U(0):
        if kind == MUL:
            for f in range(F):
                m[f] *= e[eo + f]
        elif kind == ADD:
            for f in range(F):
                m[f] += e[eo + f]
        elif kind == SUB:
            for f in range(F):
                m[f] -= e[eo + f]
        else:
            for f in range(F):
                m[f] /= e[eo + f]
    else:
        w = e[eo]
        if kind == MUL:
            for f in range(F):
                m[f] *= w
        elif kind == ADD:
            for f in range(F):
                m[f] += w
        elif kind == SUB:
            for f in range(F):
                m[f] -= w
        else:
            for f in range(F):
                m[f] /= w


@jit
def message_by_table(m, x, xo, xt, e, eo, et, F, kind):
    """m[f] = x[xo + xt[f]] op e[eo + et[f]]."""
    for f in range(F):
        a, b = x[xo + U(xt[f])], e[eo + U(et[f])]
        if kind == MUL:
            m[f] = a * b
        elif kind == ADD:
            m[f] = a + b
        elif kind == SUB:
            m[f] = a - b
        else:
            m[f] = a / b


@jit
def accumulate(s, m, o, F):
    for f in range(F):
        s[f] += m[o + f]


@jit
def multiply_add(s, x, xo, e, eo, F):
    for f in range(F):
        s[f] += x[xo + f] * e[eo + f]


@jit
def scale_add(s, x, xo, scale, F):
    for f in range(F):
        s[f] += x[xo + f] * scale


@jit
def extreme(s, m, o, F, low):
    """Minimum or maximum without winners, to which s is the first message or more; NaN propagates."""
    if low:
        for f in range(F):
            v, old = m[o + f], s[f]
            s[f] = v if v < old or v != v else old
    else:
        for f in range(F):
            v, old = m[o + f], s[f]
            s[f] = v if v > old or v != v else old


@jit
def step(s, t, lane, m, o, F, i, reduce, track, skip_nan):
    """Adds messages m[o : o + F], the i-th of the row, to the state (s, t, lane)."""
    if reduce in (SUM, MEAN):
        for f in range(F):
            s[f] += m[o + f]
    elif reduce in (MIN, MAX):
        low = reduce == MIN
        if track:
            for f in range(F):
                v, old = m[o + f], s[f]
                better = v < old if low else v > old
                nan, none = v != v, lane[f] < 0
                if (better and not none) or (none and not nan) or (nan and not skip_nan and (none or old == old)):
                    s[f] = v
                    lane[f] = i
        elif i == 0:
            for f in range(F):
                s[f] = m[o + f]
        else:
            extreme(s, m, o, F, low)
    elif reduce == PROD:
        for f in range(F):
            s[f] *= m[o + f]
    elif reduce == LSE:
        for f in range(F):
            v, top = m[o + f], s[f]
            if v > top:
                t[f] = t[f] * math.exp(top - v) + s.dtype.type(1)
                s[f] = v
            elif v == top:
                t[f] += s.dtype.type(1)
            else:
                t[f] += math.exp(v - top)
    else:
        one = s.dtype.type(1)
        inverse = one / s.dtype.type(i + 1)
        for f in range(F):
            d = m[o + f] - s[f]
            s[f] += d * inverse
            t[f] += d * (m[o + f] - s[f])


@jit
def finish(s, t, F, n, reduce, unbiased):
    """The value of a row of n > 0 messages, left in s."""
    count = s.dtype.type(n)
    if reduce == MEAN:
        for f in range(F):
            s[f] = s[f] / count
    elif reduce == LSE:
        for f in range(F):
            s[f] = s[f] + math.log(t[f])
    elif reduce in (VAR, STD):
        d = s.dtype.type(max(n - 1, 1) if unbiased else n)
        for f in range(F):
            r = t[f] / d
            s[f] = math.sqrt(r) if reduce == STD else r


@jit
def kernel(
    x, e, rowptr, col, eid, xt, et, out, winners, B, F, Fx, Fe, x_batch, e_batch, edges,
    copy, table, kind, reduce, arg, fill, skip_nan, unbiased, v0, v1,
):  # fmt: skip
    """Rows [v0, v1) of every batch. A copy message has one operand, given as x, with its index as col."""
    F, Fx, Fe = U(F), U(Fx), U(Fe)
    xs = U(0) if Fx == U(1) and Fx < F else U(1)
    es = U(0) if Fe == U(1) else U(1)
    N, total = U(len(rowptr) - 1), U(edges)
    has_col, has_eid = len(col) > 0, len(eid) > 0
    track = reduce in (MIN, MAX) and (arg != 0 or skip_nan)
    untracked = reduce in (MIN, MAX) and not track
    additive = reduce in (SUM, MEAN)
    zero = out.dtype.type(0)
    start = out.dtype.type(-np.inf) if reduce == LSE else out.dtype.type(1) if reduce == PROD else zero
    s, t, m, whole = np.empty(F, out.dtype), np.empty(F, out.dtype), np.empty(F, out.dtype), np.empty(F, out.dtype)
    lane = np.empty(F, np.int32)
    line = U(64 // x.itemsize)
    for b in range(B):
        xb, eb, ob = U(b) * U(x_batch), U(b) * U(e_batch), U(b) * N
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            n = np.int64(end - begin)
            long = additive and n > PIECE
            for f in range(F):
                s[f] = start
            if not additive:
                for f in range(F):
                    t[f] = zero
                    lane[f] = -1
            if long:
                for f in range(F):
                    whole[f] = zero
            for k in range(begin, end):
                i = np.int64(k - begin)
                u = U(col[k]) if has_col else k
                if has_col and k + U(AHEAD) < total:
                    ahead = xb + U(col[k + U(AHEAD)]) * Fx
                    for f in range(U(0), Fx, line):
                        prefetch(x, ahead + f)
                if not copy and has_eid and k + U(AHEAD) < total:
                    prefetch(e, eb + U(eid[k + U(AHEAD)]) * Fe)
                xo = xb + u * Fx
                if copy and additive:
                    accumulate(s, x, xo, F)
                elif copy and untracked and i > 0:
                    extreme(s, x, xo, F, reduce == MIN)
                elif copy:
                    step(s, t, lane, x, xo, F, i, reduce, track, skip_nan)
                else:
                    eo = eb + (U(eid[k]) if has_eid else k) * Fe
                    if table:
                        message_by_table(m, x, xo, xt, e, eo, et, F, kind)
                        step(s, t, lane, m, U(0), F, i, reduce, track, skip_nan)
                    elif kind == MUL and additive and es == U(0):
                        scale_add(s, x, xo, e[eo], F)
                    elif kind == MUL and additive and xs != U(0):
                        multiply_add(s, x, xo, e, eo, F)
                    else:
                        message(m, x, xo, xs, e, eo, es, F, kind)
                        step(s, t, lane, m, U(0), F, i, reduce, track, skip_nan)
                if long and (i + 1) % PIECE == 0:
                    for f in range(F):
                        whole[f] += s[f]
                        s[f] = zero
            if long:
                for f in range(F):
                    s[f] += whole[f]
            o = (ob + v) * F
            if n > 0:
                finish(s, t, F, n, reduce, unbiased)
                for f in range(F):
                    out[o + f] = s[f]
            else:
                for f in range(F):
                    out[o + f] = fill
            if track:
                for f in range(F):
                    if lane[f] < 0:
                        out[o + f] = fill
            if arg != 0:
                for f in range(F):
                    if n > 0 and lane[f] >= 0:
                        k = begin + U(lane[f])
                        mapped = (arg == ARG_EDGE and has_eid) or (arg == ARG_SOURCE and has_col)
                        winners[o + f] = (eid[k] if arg == ARG_EDGE else col[k]) if mapped else k


def spmm(
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased
):  # fmt: skip
    """Same signature and results as torch.ops.structops.spmm."""
    op = "spmm"
    if not (0 <= message <= 5 and 0 <= reduce <= 7 and 0 <= arg <= 3):
        nb.fail(op, "unknown code")
    x = None if message == C.COPY_E else x
    e = None if message == C.COPY_U else e
    if (x is None and message != C.COPY_E) or (e is None and message != C.COPY_U):
        nb.fail(op, "the message needs an operand that is missing")
    like = x if x is not None else e
    copy = x is None or e is None
    if not copy and x.dtype != e.dtype:
        nb.fail(op, "x and e differ in dtype")
    if not like.is_floating_point() and not (copy and reduce in (SUM, MIN, MAX, PROD)):
        nb.fail(op, "integer dtypes take copy messages with sum, min, max, prod")
    x_sizes = sizes(x) if x is not None else None
    e_sizes = sizes(e) if e is not None else None
    B = nb.batch(op, x_sizes, e_sizes)
    rank = max(t.dim() for t in (x, e) if t is not None)
    Fx, Fe = (x_sizes or e_sizes)[2], (e_sizes or x_sizes)[2]
    if not copy and bcast is None and Fx != Fe and 1 not in (Fx, Fe):
        nb.fail(op, "features of x and e do not broadcast")
    F = bcast.shape[1] if bcast is not None else Fe if Fx == 1 else Fx
    tables = nb.flat(op, bcast).reshape(2, -1) if bcast is not None else np.zeros((2, 0), np.int32)
    N = rowptr.numel() - 1
    ptr, columns, ids = (nb.index(op, t, rowptr) for t in (rowptr, col, eid))
    given = col if col is not None else eid
    edges = given.numel() if given is not None else (e_sizes or x_sizes)[1]
    data = nb.flat(op, like)
    edge_data = data if copy else nb.flat(op, e)
    # The one operand of copy_e is read through eid: its winners by edge are those by source.
    kernel_arg = arg
    if x is None:
        columns, ids = ids, columns
        kernel_arg = {C.ARG_EDGE: C.ARG_SOURCE, C.ARG_SOURCE: C.ARG_EDGE}.get(arg, arg)
    strides = [0 if s is None or s[0] == 1 else s[1] * s[2] for s in (x_sizes or e_sizes, e_sizes)]
    out = np.empty(nb.cells(B, N, F), data.dtype)
    nothing = -1 if arg == C.ARG_SOURCE else edges  # which could be a source
    winners = np.full(nb.cells(B, N, F) if arg else 0, nothing, ptr.dtype)
    scalar = data.dtype.type(fill)
    fixed = (data, edge_data, ptr, columns, ids, tables[0], tables[1], out, winners, B, F, Fx, Fe, *strides, edges)
    kernel_arg = kernel_arg if reduce in (MIN, MAX) else C.ARG_NONE
    codes = (copy, bcast is not None, message, reduce, kernel_arg, scalar, bool(skip_nan), bool(unbiased))
    if out.size:
        nb.run(lambda v0, v1: kernel(*fixed, *codes, v0, v1), nb.rows(ptr, B * F))
    out = nb.result(out, rank, B, N, F, like.dtype)
    return out, (nb.result(winners, rank, B, N, F, rowptr.dtype) if arg else torch.empty(0, dtype=rowptr.dtype, device="cpu"))

copy_reduce = copy_reduce_by(spmm)
