"""GPU typed matmul and the gradient of its matrices, in tiles on tensor cores. The contract is csrc/sparse/typed_matmul.h.

A program owns a tile of stored rows, or one block of rows that it adds to, and some columns; it gathers, sums and multiplies
tile by tile. Weight gradients: a program owns a tile of one type's matrix and a fixed part of the rows of every segment. No
atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common_triton as ct

BM = 32


@triton.jit
def _left(
    x_ptr, scale_ptr, gptr_ptr, gather_ptr, p, inside, k, K,
    HAS_GPTR: tl.constexpr, HAS_GATHER: tl.constexpr, HAS_SCALE: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """The (sums of) gathered rows p and columns k, [BM, BK]."""
    begin, end = p, p + 1
    if HAS_GPTR:
        begin = tl.load(gptr_ptr + p, inside, 0).to(tl.int64)
        end = tl.load(gptr_ptr + p + 1, inside, 0).to(tl.int64)
    a = tl.zeros([BM, BK], WIDE)
    for d in range(0, tl.max(tl.where(inside, end - begin, 0), 0)):
        j = begin + d
        ok = inside & (j < end)
        g = j
        if HAS_GATHER:
            g = tl.load(gather_ptr + j, ok, 0).to(tl.int64)
        row = tl.load(x_ptr + g[:, None] * K + k[None, :], ok[:, None] & (k < K)[None, :], 0).to(WIDE)
        if HAS_SCALE:
            row = row * tl.load(scale_ptr + j, ok, 0).to(WIDE)[:, None]
        a += row
    return a


@triton.jit
def typed_fwd(
    x_ptr, w_ptr, bias_ptr, scale_ptr, ptr_ptr, types_ptr, first_ptr, last_ptr, low_ptr, gptr_ptr, gather_ptr, scatter_ptr, out_ptr,
    K, N, columns,
    ADD: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_TYPES: tl.constexpr, HAS_GPTR: tl.constexpr, HAS_GATHER: tl.constexpr,
    HAS_SCATTER: tl.constexpr, HAS_SCALE: tl.constexpr, WIDE: tl.constexpr, MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Item: segments [first, last); without ADD only the BM rows from low."""
    item = tl.program_id(0) // columns
    n = (tl.program_id(0) % columns) * BN + tl.arange(0, BN)
    for s in range(tl.load(first_ptr + item).to(tl.int64), tl.load(last_ptr + item).to(tl.int64)):
        begin, end = tl.load(ptr_ptr + s).to(tl.int64), tl.load(ptr_ptr + s + 1).to(tl.int64)
        kind = s
        if HAS_TYPES:
            kind = tl.load(types_ptr + s).to(tl.int64)
        if not ADD:
            begin = tl.load(low_ptr + item).to(tl.int64)
            end = tl.minimum(end, begin + BM)
        for p0 in range(begin, end, BM):
            p = p0 + tl.arange(0, BM).to(tl.int64)
            inside = p < end
            acc = tl.zeros([BM, BN], WIDE)
            for k0 in range(0, K, BK):
                k = k0 + tl.arange(0, BK)
                a = _left(x_ptr, scale_ptr, gptr_ptr, gather_ptr, p, inside, k, K, HAS_GPTR, HAS_GATHER, HAS_SCALE, WIDE, BM, BK)
                b = tl.load(w_ptr + (kind * K + k)[:, None] * N + n[None, :], (k < K)[:, None] & (n < N)[None, :], 0).to(WIDE)
                acc = tl.dot(a, b, acc, input_precision=MODE, out_dtype=WIDE)
            if HAS_BIAS:
                acc += tl.load(bias_ptr + kind * N + n, n < N, 0).to(WIDE)[None, :]
            row = p
            if HAS_SCATTER:
                row = tl.load(scatter_ptr + p, inside, 0).to(tl.int64)
            at = out_ptr + row[:, None] * N + n[None, :]
            ok = inside[:, None] & (n < N)[None, :]
            if ADD:
                tl.debug_barrier()  # the next segment's rows may be held by other threads
                acc += tl.load(at, ok, 0)
                tl.debug_barrier()
            tl.store(at, acc.to(out_ptr.dtype.element_ty), ok)


@triton.jit
def typed_wgrad(
    x_ptr, grad_ptr, scale_ptr, ptr_ptr, order_ptr, first_ptr, gptr_ptr, gather_ptr, scatter_ptr, out_ptr,
    R, K, N, depth, columns, splits,
    HAS_GPTR: tl.constexpr, HAS_GATHER: tl.constexpr, HAS_SCATTER: tl.constexpr, HAS_SCALE: tl.constexpr, WIDE: tl.constexpr,
    MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    n = (pid % columns) * BN + tl.arange(0, BN)
    k = (pid // columns % depth) * BK + tl.arange(0, BK)
    split = pid // (columns * depth) % splits
    kind = pid // (columns * depth * splits)
    acc = tl.zeros([BK, BN], WIDE)
    for i in range(tl.load(first_ptr + kind).to(tl.int64), tl.load(first_ptr + kind + 1).to(tl.int64)):
        s = tl.load(order_ptr + i).to(tl.int64)
        low, high = tl.load(ptr_ptr + s).to(tl.int64), tl.load(ptr_ptr + s + 1).to(tl.int64)
        begin, end = low + (high - low) * split // splits, low + (high - low) * (split + 1) // splits
        for p0 in range(begin, end, BM):
            p = p0 + tl.arange(0, BM).to(tl.int64)
            inside = p < end
            a = _left(x_ptr, scale_ptr, gptr_ptr, gather_ptr, p, inside, k, K, HAS_GPTR, HAS_GATHER, HAS_SCALE, WIDE, BM, BK)
            row = p
            if HAS_SCATTER:
                row = tl.load(scatter_ptr + p, inside, 0).to(tl.int64)
            b = tl.load(grad_ptr + row[:, None] * N + n[None, :], inside[:, None] & (n < N)[None, :], 0).to(WIDE)
            acc = tl.dot(tl.trans(a), b, acc, input_precision=MODE, out_dtype=WIDE)
    at = out_ptr + ((split * R + kind) * K + k)[:, None] * N + n[None, :]
    tl.store(at, acc, (k < K)[:, None] & (n < N)[None, :])


def wide(t: Tensor) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if t.dtype == torch.float64 else (torch.float32, tl.float32)


def mode(t: Tensor, exact: bool) -> str:
    """How products read their operands; ``exact``: 16-bit operands come as they are, and TF32 holds all their bits."""
    tf32 = t.dtype != torch.float64 and (torch.backends.cuda.matmul.allow_tf32 or (exact and t.dtype.itemsize == 2))
    return "tf32" if tf32 else "ieee"


def block(n: int, most: int) -> int:
    return max(16, min(triton.next_power_of_2(max(n, 1)), most))


def splits(programs: int, most: int) -> int:
    """Parts of the rows that are summed apart: by sizes only."""
    return max(1, min(16, 512 // max(programs, 1), most))


def _lists(x, scale, gptr, gather, scatter) -> tuple[tuple, dict]:
    given = (scale, gptr, gather, scatter)
    flags = {f"HAS_{n}": t is not None for n, t in zip(("SCALE", "GPTR", "GATHER", "SCATTER"), given, strict=True)}
    return tuple(x if t is None else t for t in given), flags


def typed_matmul(x, weight, bias, scale, scale_t, ptr, types, blocks, block_rows, gptr, gather, scatter, ptr_t, types_t, blocks_t,
                 block_rows_t, gptr_t, gather_t, scatter_t, rows):  # fmt: skip
    """Same signature and results as torch.ops.structops.typed_matmul."""
    ct.check_device("typed_matmul", x)
    K, N = weight.shape[1:]
    dtype, WIDE = wide(x)
    (scale_, gptr_, gather_, scatter_), flags = _lists(x, scale, gptr, gather, scatter)
    if blocks is not None:
        out = x.new_zeros(rows, N, dtype=dtype)
        first, last, low = blocks[:-1], blocks[1:], blocks[:-1]
    else:
        out = x.new_empty(rows, N)
        count = (ptr.diff() + BM - 1) // BM
        first = torch.arange(count.numel(), device=x.device).repeat_interleave(count.long())
        last = first + 1
        tile = torch.arange(first.numel(), device=x.device) - (count.cumsum(0) - count)[first]
        low = ptr[:-1][first] + tile * BM
    BN, BK = block(N, 64), block(K, 32)
    columns = triton.cdiv(N, BN)
    ct.launch(
        typed_fwd, "typed_matmul", x, first.numel() * columns, x, weight, x if bias is None else bias, scale_, ptr,
        ptr if types is None else types, first.contiguous(), last.contiguous(), low.contiguous(), gptr_, gather_, scatter_, out, K,
        N, columns, ADD=blocks is not None, HAS_BIAS=bias is not None, HAS_TYPES=types is not None, **flags, WIDE=WIDE,
        MODE=mode(x, scale is None and gptr is None), BM=BM, BN=BN, BK=BK,
    )  # fmt: skip
    return out.to(x.dtype)


def typed_matmul_wgrad(x, grad, scale, scale_t, ptr, types, blocks, block_rows, gptr, gather, scatter, ptr_t, types_t, blocks_t,
                       block_rows_t, gptr_t, gather_t, scatter_t, num_types):  # fmt: skip
    """Same signature and results as torch.ops.structops.typed_matmul_wgrad."""
    ct.check_device("typed_matmul_wgrad", x)
    R, K, N = num_types, x.shape[1], grad.shape[1]
    dtype, WIDE = wide(x)
    (scale_, gptr_, gather_, scatter_), flags = _lists(x, scale, gptr, gather, scatter)
    if types is None:
        order, first = torch.arange(R, device=x.device), torch.arange(R + 1, device=x.device)
    else:
        kind, order = torch.sort(types, stable=True)
        first = torch.searchsorted(kind, torch.arange(R + 1, device=x.device, dtype=kind.dtype))
    BN, BK = block(N, 64), block(K, 64)
    columns, depth = triton.cdiv(N, BN), triton.cdiv(K, BK)
    Q = splits(R * columns * depth, triton.cdiv(grad.shape[0], 256))
    out = x.new_empty(Q, R, K, N, dtype=dtype)
    ct.launch(
        typed_wgrad, "typed_matmul_wgrad", x, R * Q * columns * depth, x, grad, scale_, ptr, order, first, gptr_, gather_, scatter_,
        out, R, K, N, depth, columns, Q, **flags, WIDE=WIDE, MODE=mode(x, scale is None and gptr is None), BM=BM, BN=BN, BK=BK,
    )  # fmt: skip
    return out.sum(0).to(x.dtype)
