"""Loops over rows, compiled around a pair of functions.

Operands are flat; one that is absent has stride 0 and is read at 0. xt, et [F] hold the feature of the operand that
feature f of the result reads; where `same` they are not needed, the strides xs, es (0 or 1) say as much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ._numba import CACHED, numba

U = np.uint64


@lru_cache(maxsize=CACHED)
def fold_kernel(message: Callable, step: Callable) -> Callable:
    """Rows [v0, v1) of a reduction by step(acc, m), in the precision of the array ``acc``."""

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, rowptr, col, eid, xt, et, same, xs, es, Fx, Fe, out, F, like, identity, fill, mean, v0, v1):
        acc = np.empty(F, like.dtype)
        rounded = out.dtype.type
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                acc[f] = identity
            for k in range(begin, end):
                xo = U(col[k]) * Fx
                eo = (U(eid[k]) if len(eid) > 0 else k) * Fe
                if same:
                    for f in range(F):
                        acc[f] = step(acc[f], rounded(message(x[xo + f * xs], e[eo + f * es])))
                else:
                    for f in range(F):
                        acc[f] = step(acc[f], rounded(message(x[xo + U(xt[f])], e[eo + U(et[f])])))
            for f in range(F):
                out[v * F + f] = fill if begin == end else acc[f] / (end - begin) if mean else acc[f]

    return kernel


@lru_cache(maxsize=CACHED)
def extreme_kernel(message: Callable) -> Callable:
    """Rows [v0, v1) of a min or max; winners [N, F] are edge numbers, -1 for none. The first wins; NaN propagates."""

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, rowptr, col, eid, xt, et, Fx, Fe, out, winners, F, low, fill, v0, v1):
        rounded = out.dtype.type
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                out[v * F + f] = fill
                winners[v * F + f] = -1
            for k in range(begin, end):
                j = U(eid[k]) if len(eid) > 0 else k
                xo, eo = U(col[k]) * Fx, j * Fe
                for f in range(F):
                    m, old = rounded(message(x[xo + U(xt[f])], e[eo + U(et[f])])), out[v * F + f]
                    if k == begin or (m < old if low else m > old) or (m != m and old == old):
                        out[v * F + f] = m
                        winners[v * F + f] = j

    return kernel


@lru_cache(maxsize=CACHED)
def pull_kernel(message: Callable, grad: Callable, step_grad: Callable | None, toward_x: bool) -> Callable:
    """The gradient of x, walked over the reversed edges, or of e, walked over the edges.

    ``ptr, other, eid`` are the structure, its rows [r0, r1) being sources or destinations; ``winners`` is empty except
    for min and max. Sums in float64; an entry of the result belongs to one row.
    """
    side = 0 if toward_x else 1
    with_step = step_grad is not None

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, g, final, winners, ptr, other, eid, xt, et, Fx, Fe, F, width, out, r0, r1):
        acc = np.zeros(width)
        rounded = out.dtype.type
        by_winner = len(winners) > 0
        for r in range(U(r0), U(r1)):
            for f in range(width):
                acc[f] = 0
            for k in range(U(ptr[r]), U(ptr[r + U(1)])):
                u, v = (r, U(other[k])) if toward_x else (U(other[k]), r)
                j = U(eid[k]) if len(eid) > 0 else k
                for f in range(F):
                    at = v * F + f
                    if by_winner and winners[at] != np.int64(j):
                        continue
                    a, b, c = x[u * Fx + U(xt[f])], e[j * Fe + U(et[f])], g[at]
                    if with_step:
                        c = rounded(step_grad(final[at], rounded(message(a, b)), c))
                    acc[U(xt[f]) if toward_x else U(et[f])] += grad(a, b, c)[side]
                if not toward_x:
                    for f in range(width):
                        out[j * Fe + f] = acc[f]
                        acc[f] = 0
            if toward_x:
                for f in range(width):
                    out[r * Fx + f] = acc[f]

    return kernel
