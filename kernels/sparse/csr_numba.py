"""CPU csr_build and index_range without a compiler. The contract is csrc/sparse/csr.h."""

from __future__ import annotations

import numpy as np
import torch

from . import common_numba as nb
from .common_numba import jit

U = np.uint64


@jit
def extent(index):
    """(min, max, is non-decreasing) of n > 0 indices."""
    low = high = before = index[0]
    ascending = True
    for i in range(U(len(index))):
        v = index[i]
        low, high = min(low, v), max(high, v)
        ascending &= v >= before
        before = v
    return low, high, ascending


@jit
def counting_sort(index, rowptr, perm):
    """Stable. rowptr [N + 1] arrives as zeros."""
    N = U(len(rowptr) - 1)
    for k in range(U(len(index))):
        rowptr[U(index[k])] += 1
    before = rowptr.dtype.type(0)
    for n in range(N):
        count = rowptr[n]
        rowptr[n] = before
        before += count
    for k in range(U(len(index))):
        n = U(index[k])
        perm[U(rowptr[n])] = k
        rowptr[n] += 1
    for n in range(N, U(0), -1):
        rowptr[U(n)] = rowptr[U(n - 1)]
    rowptr[U(0)] = 0


def index_range(index):
    """Same signature and results as torch.ops.structops.index_range."""
    if index.numel() == 0:
        return 0, -1, True
    low, high, ascending = extent(nb.index("index_range", index, index))
    return int(low), int(high), bool(ascending)


def csr_build(index, num_groups):
    """Same signature and results as torch.ops.structops.csr_build."""
    op = "csr_build"
    if index.dim() != 1 or num_groups < 0:
        nb.fail(op, "index must be [E]")
    array = nb.index(op, index, index)
    low, high, _ = index_range(index)
    if low < 0 or high >= num_groups:
        nb.fail(op, "index out of range")
    rowptr, perm = np.zeros(num_groups + 1, array.dtype), np.empty_like(array)
    counting_sort(array, rowptr, perm)
    return torch.from_numpy(rowptr), torch.from_numpy(perm)
