"""CPU scatter without a compiler. The contract is csrc/sparse/scatter.h: a range of output rows belongs to one thread,
which reads the whole index and takes its own edges in order."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from .. import codes as C
from . import common_numba as nb
from .common_numba import jit
from .csr_numba import index_range
from .shapes import sizes

U = np.uint64
MEAN, MIN, MAX, PROD = C.MEAN, C.MIN, C.MAX, C.PROD


@jit
def kernel(src, index, out, lane, count, B, N, F, reduce, fill, skip_nan, n0, n1):
    """Groups [n0, n1) of every batch. lane [B N F] holds winners, -1 for none (min and max); count [N]."""
    F, E, N = U(F), U(len(index)), U(N)
    start = out.dtype.type(1) if reduce == PROD else out.dtype.type(0)
    extreme = reduce in (MIN, MAX)
    low = reduce == MIN
    for b in range(U(B)):
        for n in range(U(n0), U(n1)):
            count[n] = 0
            for f in range((b * N + n) * F, (b * N + n + U(1)) * F):
                out[f] = start
                if extreme:
                    lane[f] = -1
        for k in range(E):
            if not n0 <= index[k] < n1:
                continue
            n = U(index[k])
            count[n] += 1
            o, s = (b * N + n) * F, (b * E + k) * F
            if extreme:
                for f in range(F):
                    v, old = src[s + f], out[o + f]
                    better = v < old if low else v > old
                    nan, none = v != v, lane[o + f] < 0
                    if (better and not none) or (none and not nan) or (nan and not skip_nan and (none or old == old)):
                        out[o + f] = v
                        lane[o + f] = k
            elif reduce == PROD:
                for f in range(F):
                    out[o + f] *= src[s + f]
            else:
                for f in range(F):
                    out[o + f] += src[s + f]
        for n in range(U(n0), U(n1)):
            o = (b * N + n) * F
            if extreme:
                for f in range(F):
                    if lane[o + f] < 0:
                        out[o + f] = fill
                        lane[o + f] = E
            elif count[n] == 0:
                for f in range(F):
                    out[o + f] = fill
            elif reduce == MEAN:
                divisor = out.dtype.type(count[n])
                for f in range(F):
                    out[o + f] = out[o + f] / divisor


def scatter(src, index, dim_size, reduce, return_arg, fill, skip_nan):
    """Same signature and results as torch.ops.structops.scatter."""
    op = "scatter"
    B, E, F = sizes(src)
    if not 0 <= reduce <= PROD:
        nb.fail(op, "reduce must be sum, mean, min, max or prod")
    if not src.is_floating_point() and reduce == MEAN:
        nb.fail(op, "mean takes floating dtypes")
    if index.dim() != 1 or index.numel() != E or dim_size < 0:
        nb.fail(op, "index must be [E]")
    low, high, _ = index_range(index)
    if low < 0 or high >= dim_size:
        nb.fail(op, "index out of range")
    data, groups = nb.flat(op, src), nb.index(op, index, index)
    size = nb.cells(B, dim_size, F)
    out = np.empty(size, data.dtype)
    lane = np.empty(size if reduce in (MIN, MAX) else 0, np.int64)
    count = np.empty(dim_size, np.int64)
    scalar = data.dtype.type(fill)
    if size:
        # Every task reads the whole index: as many as threads, no more.
        work = data.size + size
        parts = 1 if work < 1 << 16 else min(torch.get_num_threads(), dim_size)
        cuts = [dim_size * p // parts for p in range(parts + 1)]
        fixed = (data, groups, out, lane, count, B, dim_size, F, reduce, scalar, bool(skip_nan))
        nb.run(lambda n0, n1: kernel(*fixed, n0, n1), itertools.pairwise(cuts))
    result = nb.result(out, src.dim(), B, dim_size, F, src.dtype)
    if not return_arg:
        return result, torch.empty(0, dtype=torch.int64, device="cpu")
    lane = lane if reduce in (MIN, MAX) else np.full(size, E, np.int64)
    return result, nb.result(lane, src.dim(), B, dim_size, F, torch.int64)
