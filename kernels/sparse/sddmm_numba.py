"""CPU sddmm without a compiler. The contract is csrc/sparse/sddmm.h."""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import codes as C
from . import common_numba as nb
from .common_numba import AHEAD, jit, prefetch
from .shapes import sizes

U = np.uint64
ADD, SUB, MUL, DIV = C.EDGE_ADD, C.EDGE_SUB, C.EDGE_MUL, C.EDGE_DIV


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def dot(l, lo, r, ro, n):
    """Sum of l[lo + f] * r[ro + f], in an order that suits the vector length."""
    s = l.dtype.type(0)
    for f in range(n):
        s += l[lo + f] * r[ro + f]
    return s


@jit
def elementwise(out, o, l, lo, ls, r, ro, rs, F, op):
    """out[o + f] = l[lo + f ls] op r[ro + f rs]."""
    if op == MUL:
        for f in range(F):
            out[o + f] = l[lo + f * ls] * r[ro + f * rs]
    elif op == ADD:
        for f in range(F):
            out[o + f] = l[lo + f * ls] + r[ro + f * rs]
    elif op == SUB:
        for f in range(F):
            out[o + f] = l[lo + f * ls] - r[ro + f * rs]
    elif op == DIV:
        for f in range(F):
            out[o + f] = l[lo + f * ls] / r[ro + f * rs]
    else:
        for f in range(F):
            out[o + f] = l[lo + f * ls]


@jit
def reduced(out, o, l, lo, lt, r, ro, rt, Fo, R, op):
    """out[o + fo] = sum over i of l[lo + lt[f]] op r[ro + rt[f]], f = fo R + i."""
    for fo in range(Fo):
        s = out.dtype.type(0)
        for f in range(fo * R, (fo + U(1)) * R):
            a, b = l[lo + U(lt[f])], r[ro + U(rt[f])]
            if op == MUL:
                s += a * b
            elif op == ADD:
                s += a + b
            elif op == SUB:
                s += a - b
            elif op == DIV:
                s += a / b
            else:
                s += a
        out[o + fo] = s


@jit
def kernel(
    l, r, rowptr, col, eid, lt, rt, out, B, E, Fo, R, Fl, Fr, l_batch, r_batch, table, op, l_target, r_target, v0, v1
):  # fmt: skip
    """Edges of rows [v0, v1) of every batch. Targets: 0 u, 1 v, 2 e. copy has r = l."""
    Fo, R, Fl, Fr, E = U(Fo), U(R), U(Fl), U(Fr), U(E)
    ls = U(0) if Fl == U(1) else U(1)
    rs = U(0) if Fr == U(1) else U(1)
    has_col, has_eid = len(col) > 0, len(eid) > 0
    gathers_l, gathers_r = has_col and l_target == 0, has_col and r_target == 0
    dots = op == MUL and not table and U(1) < R and Fl == Fr and Fl > U(1)
    line = U(64 // l.itemsize)
    for b in range(U(B)):
        lb, rb, ob = b * U(l_batch), b * U(r_batch), b * E * Fo
        for v in range(U(v0), U(v1)):
            for k in range(U(rowptr[v]), U(rowptr[v + U(1)])):
                j = U(eid[k]) if has_eid else k
                u = U(col[k]) if has_col else k
                if (gathers_l or gathers_r) and k + U(AHEAD) < E:
                    ahead = U(col[k + U(AHEAD)])
                    if gathers_l:
                        for f in range(U(0), Fl, line):
                            prefetch(l, lb + ahead * Fl + f)
                    else:
                        for f in range(U(0), Fr, line):
                            prefetch(r, rb + ahead * Fr + f)
                lo = lb + (u if l_target == 0 else v if l_target == 1 else j) * Fl
                ro = rb + (u if r_target == 0 else v if r_target == 1 else j) * Fr
                o = ob + j * Fo
                if dots:
                    for fo in range(Fo):
                        out[o + fo] = dot(l, lo + fo * R, r, ro + fo * R, R)
                elif table:
                    reduced(out, o, l, lo, lt, r, ro, rt, Fo, R, op)
                else:
                    elementwise(out, o, l, lo, ls, r, ro, rs, Fo, op)


def sddmm(
    lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, bcast, op, lhs_target, rhs_target,
    num_edges, out_features, reduce_features,
):  # fmt: skip
    """Same signature and results as torch.ops.structops.sddmm."""
    name = "sddmm"
    if not (0 <= op <= 4 and 0 <= lhs_target <= 2 and 0 <= rhs_target <= 2):
        nb.fail(name, "unknown code")
    copy = op == C.EDGE_COPY
    if not copy and rhs is None:
        nb.fail(name, "rhs is missing")
    if not copy and rhs.dtype != lhs.dtype:
        nb.fail(name, "lhs and rhs differ in dtype")
    right = lhs if copy else rhs
    if copy:
        rhs_target = lhs_target
    l_sizes, r_sizes = sizes(lhs), sizes(right)
    B = nb.batch(name, l_sizes, r_sizes)
    F, Fl, Fr = out_features * reduce_features, l_sizes[2], r_sizes[2]
    if (bcast.shape[1] != F) if bcast is not None else (Fl not in (1, F) or Fr not in (1, F)):
        nb.fail(name, "feature sizes do not match")
    table = bcast is not None or (reduce_features != 1 and not (op == C.EDGE_MUL and Fl == Fr == F > 1))
    if bcast is not None:
        tables = nb.flat(name, bcast).reshape(2, -1)
    else:
        tables = np.stack([np.arange(F if table else 0, dtype=np.int32) * np.int32(n != 1) for n in (Fl, Fr)])
    ptr, columns, ids = (nb.index(name, t, rowptr) for t in (rowptr, col, eid))
    left = nb.flat(name, lhs)
    other = left if copy else nb.flat(name, rhs)
    strides = [0 if s[0] == 1 else s[1] * s[2] for s in (l_sizes, r_sizes)]
    out = np.empty(nb.cells(B, num_edges, out_features), left.dtype)
    arrays = (left, other, ptr, columns, ids, tables[0], tables[1], out)
    fixed = (*arrays, B, num_edges, out_features, reduce_features, Fl, Fr, *strides, table, op, lhs_target, rhs_target)
    if out.size:
        nb.run(lambda v0, v1: kernel(*fixed, v0, v1), nb.rows(ptr, B * F))
    rank = max(lhs.dim(), 0 if copy else rhs.dim())
    return nb.result(out, rank, B, num_edges, out_features, lhs.dtype)
