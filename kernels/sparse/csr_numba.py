"""CPU csr_build, csr_from_coo, csr_transpose and index_range without a compiler. The contract is csrc/sparse/csr.h."""

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
def counting_sort(key, ptr, place):
    """place[k]: where element k goes. Stable. ptr [N + 1] arrives as zeros."""
    N = U(len(ptr) - 1)
    for k in range(U(len(key))):
        ptr[U(key[k])] += 1
    before = ptr.dtype.type(0)
    for n in range(N):
        count = ptr[n]
        ptr[n] = before
        before += count
    for k in range(U(len(key))):
        n = U(key[k])
        place[k] = ptr[n]
        ptr[n] += 1
    for n in range(N, U(0), -1):
        ptr[U(n)] = ptr[U(n - 1)]
    ptr[U(0)] = 0


@jit
def put(place, value, out):
    for k in range(U(len(place))):
        out[U(place[k])] = value[k]


@jit
def put_numbers(place, out):
    for k in range(U(len(place))):
        out[U(place[k])] = k


@jit
def put_rows(place, rowptr, out):
    row = U(0)
    for k in range(U(len(place))):
        while row + U(2) < U(len(rowptr)) and rowptr[row + U(1)] <= k:
            row += U(1)
        out[U(place[k])] = row


def index_range(index):
    """Same signature and results as torch.ops.structops.index_range."""
    if index.numel() == 0:
        return 0, -1, True
    low, high, ascending = extent(nb.index("index_range", index, index))
    return int(low), int(high), bool(ascending)


def sorted_by(op, key, num_groups, dtype):
    """(ptr, place of every element) of a key [E]."""
    array = nb.index(op, key, key)
    low, high, _ = index_range(key)
    if low < 0 or high >= num_groups:
        nb.fail(op, "index out of range")
    ptr, place = np.zeros(num_groups + 1, dtype), np.empty(len(array), dtype)
    counting_sort(array, ptr, place)
    return ptr, place


def results(*arrays):
    return tuple(torch.from_numpy(a) for a in arrays)


def csr_build(index, num_groups):
    """Same signature and results as torch.ops.structops.csr_build."""
    op = "csr_build"
    if index.dim() != 1 or num_groups < 0:
        nb.fail(op, "index must be [E]")
    ptr, place = sorted_by(op, index, num_groups, nb.index(op, index, index).dtype)
    perm = np.empty_like(place)
    put_numbers(place, perm)
    return results(ptr, perm)


def csr_from_coo(row, col, num_rows, wide):
    """Same signature and results as torch.ops.structops.csr_from_coo."""
    op = "csr_from_coo"
    if row.dim() != 1 or col.shape != row.shape or num_rows < 0:
        nb.fail(op, "row and col must be [E]")
    if not wide and max(num_rows, row.numel()) >= np.iinfo(np.int32).max:
        nb.fail(op, "too many rows or edges for int32")
    ptr, place = sorted_by(op, row, num_rows, np.int64 if wide else np.int32)
    perm, carried = np.empty_like(place), np.empty_like(place)
    put_numbers(place, perm)
    put(place, nb.index(op, col, row), carried)
    return results(ptr, carried, perm)


def csr_transpose(rowptr, col, eid, num_cols):
    """Same signature and results as torch.ops.structops.csr_transpose."""
    op = "csr_transpose"
    if rowptr.dim() != 1 or rowptr.numel() < 1 or col.dim() != 1 or num_cols < 0 or (eid is not None and eid.shape != col.shape):
        nb.fail(op, "rowptr must be [N + 1], col and eid [E]")
    array = nb.index(op, rowptr, col)
    ptr, place = sorted_by(op, col, num_cols, array.dtype)
    row, perm = np.empty_like(place), np.empty_like(place)
    put_rows(place, array, row)
    if eid is None:
        put_numbers(place, perm)
    else:
        put(place, nb.index(op, eid, col), perm)
    return results(ptr, row, perm)
