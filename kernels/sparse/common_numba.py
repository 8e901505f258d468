"""What the numba kernels share: compilation, threads, row ranges of equal work, tensors to flat arrays and back.

Kernels are sequential, release the GIL and are called on ranges of rows (or groups, or columns) from a pool of Python
threads, as many as torch.get_num_threads(). This needs no threading layer, so calls from several threads are safe, and
compiles in a fraction of the time of numba's parallel mode. A row belongs to one range: no result depends on threads.

Inside kernels arrays are flat and offsets are uint64: signed offsets would cost a test for negatives in every element,
and vectorisation with it.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import llvmlite.ir as ir
import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from .shapes import shape

AHEAD = 8  # edges between a prefetch and its use
PIECE = 2048  # edges that one float accumulator sums before it is added to the row's
_SERIAL = 1 << 16  # elements below which threads cost more than they save
_pool: ThreadPoolExecutor | None = None


def jit(fn: Callable) -> Callable:
    """njit with the GIL released and NumPy's division, cached on disk where a place for it can be found."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(fn)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return njit(nogil=True, error_model="numpy")(fn)


@intrinsic
def prefetch(typingctx, array, i):
    """Ask for the cache line of array[i]; never faults."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        i32, pointer = ir.IntType(32), ir.PointerType(ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        fn = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        address = builder.bitcast(builder.gep(data, [args[1]]), pointer)
        builder.call(fn, [address, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen


# ---- threads ---------------------------------------------------------------------------------------------------------


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads exist in the parent only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run(fn: Callable, ranges: Iterable[tuple]) -> None:
    """``fn(*range)`` for every range, on the caller and up to torch.get_num_threads() - 1 helpers."""
    global _pool
    ranges = list(ranges)
    helpers = min(torch.get_num_threads(), len(ranges)) - 1
    left = iter(ranges)

    def work() -> None:
        for r in left:
            fn(*r)

    if helpers < 1:
        return work()
    if _pool is None:
        _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, 2), "structops-numba")
    futures = [_pool.submit(work) for _ in range(helpers)]
    work()
    for future in futures:
        if not future.cancel():
            future.result()


def equal(n: int, work: int) -> list[tuple[int, int]]:
    """[0, n) in even ranges, one if ``work`` elements are few."""
    parts = 1 if work < _SERIAL else max(min(4 * torch.get_num_threads(), n), 1)
    cuts = [n * p // parts for p in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def rows(rowptr: np.ndarray, work: int) -> list[tuple[int, int]]:
    """[0, N) in ranges of about equal rows + edges, cut between rows. ``work`` elements for each of them."""
    N = len(rowptr) - 1
    total = N + int(rowptr[N])
    threads = torch.get_num_threads()
    if threads == 1 or total * work < _SERIAL:
        return [(0, N)]
    parts, cuts = 4 * threads, [0]
    for p in range(1, parts):
        goal, low, high = total * p // parts, cuts[-1], N
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if middle + int(rowptr[middle]) < goal else (low, middle)
        cuts.append(low)
    cuts.append(N)
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]


# ---- tensors and arrays ----------------------------------------------------------------------------------------------


def fail(op: str, message: str):
    """The error of the compiled operators."""
    raise RuntimeError(f"structops: {op}: {message}")


def flat(op: str, t: Tensor) -> np.ndarray:
    """A CPU tensor as a flat array; bfloat16 and float16 widened to float32."""
    if t.device.type != "cpu":
        fail(op, f"the numba backend runs on the CPU, got a tensor on {t.device}")
    t = t.detach()
    if t.dtype in (torch.bfloat16, torch.float16):
        t = t.float()
    return t.contiguous().numpy().reshape(-1)


def index(op: str, t: Tensor | None, like: Tensor) -> np.ndarray:
    """An index tensor as an array, empty where there is none."""
    if t is None:
        return _none(like.dtype)
    if t.dtype != like.dtype or t.dtype not in (torch.int32, torch.int64):
        fail(op, f"indices must be int32 or int64, all the same, got {t.dtype} and {like.dtype}")
    return flat(op, t)


@functools.cache
def _none(dtype: torch.dtype) -> np.ndarray:
    return torch.empty(0, dtype=dtype, device="cpu").numpy()


def result(array: np.ndarray, rank: int, B: int, N: int, F: int, dtype: torch.dtype) -> Tensor:
    """A flat array as a tensor of the operands' rank and dtype."""
    if rank == 1 and F != 1:
        fail("result", f"a vector has one feature, got {F}")
    return torch.from_numpy(array).to(dtype).reshape(shape(rank, B, N, F))


def batch(op: str, *operands: tuple[int, int, int] | None) -> int:
    """The common batch size."""
    B = max(s[0] for s in operands if s is not None) if all(s is None or s[0] for s in operands) else 0
    if any(s is not None and s[0] not in (1, B) for s in operands):
        fail(op, "batch sizes differ")
    return B


def cells(*extents: int) -> int:
    """Product of sizes."""
    return math.prod(extents)
