"""GPU spmm where the library was built without nvcc. The contract is csrc/sparse/spmm.h, for sum, mean, min and max.

A program owns one row and one tile of features, and takes the row's edges in blocks [BK, BF], so no atomics are needed
and the order of a sum is fixed by the structure. bfloat16 and float16 are widened to float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .. import codes as C
from . import common_triton as ct
from .copies import copy_reduce_by
from .shapes import shape, sizes


@triton.jit
def spmm_fwd(
    x_ptr, e_ptr,  # [B, Nx, Fx], [B, *, Fe]
    rowptr_ptr, col_ptr, eid_ptr,  # [N + 1], [E], [E]
    x_off_ptr, e_off_ptr,  # [F], [F]
    fill_ptr, out_ptr, arg_ptr,  # [1], [B, N, F], [B, N, F]
    N, F, Fx, Fe, x_batch, e_batch, nothing, tiles,
    MESSAGE: tl.constexpr, REDUCE: tl.constexpr, ARG: tl.constexpr, SKIP_NAN: tl.constexpr,
    HAS_COL: tl.constexpr, HAS_EID: tl.constexpr, TABLE: tl.constexpr, X_ONE: tl.constexpr, E_ONE: tl.constexpr,
    WIDE: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """MESSAGE, REDUCE and ARG are the codes of kernels/codes.py."""
    pid = tl.program_id(0).to(tl.int64)
    f = (pid % tiles) * BF + tl.arange(0, BF)  # [BF]
    row = pid // tiles
    v = row % N
    b = row // N
    f_in = f < F
    begin = tl.load(rowptr_ptr + v).to(tl.int64)
    end = tl.load(rowptr_ptr + v + 1).to(tl.int64)
    if TABLE:
        fx = tl.load(x_off_ptr + f, f_in, 0)
        fe = tl.load(e_off_ptr + f, f_in, 0)
    else:
        fx = f * 0 if X_ONE else f
        fe = f * 0 if E_ONE else f
    none = 0x7FFFFFFFFFFFFFFF
    value = tl.zeros([BF], WIDE)
    winner = tl.full([BF], none, tl.int64)
    for k0 in range(begin, end, BK):
        k = k0 + tl.arange(0, BK)  # [BK]
        k_in = k < end
        inside = k_in[:, None] & f_in[None, :]  # [BK, BF]
        m = tl.zeros([BK, BF], WIDE)
        if MESSAGE != 1:  # anything but copy_e
            u = k
            if HAS_COL:
                u = tl.load(col_ptr + k, k_in, 0).to(tl.int64)
            m = tl.load(x_ptr + b * x_batch + u[:, None] * Fx + fx[None, :], inside, 0).to(WIDE)
        if MESSAGE != 0:  # anything but copy_u
            j = k
            if HAS_EID:
                j = tl.load(eid_ptr + k, k_in, 0).to(tl.int64)
            w = tl.load(e_ptr + b * e_batch + j[:, None] * Fe + fe[None, :], inside, 1).to(WIDE)
            if MESSAGE == 1:
                m = w
            elif MESSAGE == 2:
                m = m + w
            elif MESSAGE == 3:
                m = m - w
            elif MESSAGE == 4:
                m = m * w
            else:
                m = tl.div_rn(m, w) if tl.float32 == WIDE else m / w
        if REDUCE <= 1:  # sum, mean
            value += tl.sum(tl.where(inside, m, 0.0), 0)
        else:
            worst = float("inf") if REDUCE == 2 else float("-inf")
            number = inside & (m == m)
            kept = tl.where(number, m, worst)
            best = tl.min(kept, 0) if REDUCE == 2 else tl.max(kept, 0)
            first = tl.min(tl.where(number & (m == best[None, :]), k[:, None], none), 0)
            better = best < value if REDUCE == 2 else best > value
            take = (first != none) & ((winner == none) | better)
            value = tl.where(take, best, value)
            winner = tl.where(take, first, winner)
            if not SKIP_NAN:
                nan = tl.min(tl.where(inside & (m != m), k[:, None], none), 0)
                take = (nan != none) & ((winner == none) | (value == value))
                value = tl.where(take, float("nan"), value)
                winner = tl.where(take, nan, winner)
    if REDUCE == 1:
        value = value / tl.maximum(end - begin, 1).to(WIDE)
    empty = begin == end
    if REDUCE > 1:
        empty = winner == none
    value = tl.where(empty, tl.load(fill_ptr), value)
    out = row * F + f
    tl.store(out_ptr + out, value.to(out_ptr.dtype.element_ty), f_in)
    if ARG != 0:
        result = winner
        if ARG == 2 and HAS_EID:
            result = tl.load(eid_ptr + winner, f_in & (winner != none), 0).to(tl.int64)
        if ARG == 3 and HAS_COL:
            result = tl.load(col_ptr + winner, f_in & (winner != none), 0).to(tl.int64)
        result = tl.where(winner == none, tl.zeros([BF], tl.int64) + nothing, result)
        tl.store(arg_ptr + out, result.to(arg_ptr.dtype.element_ty), f_in)


def spmm(
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased
):  # fmt: skip
    """Same signature and results as torch.ops.structops.spmm, for reduce sum, mean, min and max of floating dtypes."""
    op = "spmm"
    x = None if message == C.COPY_E else x
    e = None if message == C.COPY_U else e
    like = x if x is not None else e
    ct.check_device(op, like)
    if reduce not in (C.SUM, C.MEAN, C.MIN, C.MAX):
        name = next(n for n, code in C.REDUCES.items() if code == reduce)
        raise NotImplementedError(f"{op}: the triton backend has no reduce {name}; it has sum, mean, min and max")
    if not like.is_floating_point():
        raise NotImplementedError(f"{op}: the triton backend has floating dtypes only, got {like.dtype}")
    # An operand that the message does not use is never read: any pointer will do.
    operands = [t if t is not None else like for t in (x, e)]
    (Bx, _, Fx), (Be, _, Fe) = map(sizes, operands)
    if bcast is None and Fx != Fe and 1 not in (Fx, Fe):
        raise NotImplementedError(f"{op}: the triton backend broadcasts {Fx} and {Fe} features by a table only")
    B = 0 if 0 in (Bx, Be) else max(Bx, Be)
    F = bcast.shape[1] if bcast is not None else Fe if Fx == 1 else Fx
    N = rowptr.numel() - 1
    rank = max(t.dim() for t in (x, e) if t is not None)
    given = col if col is not None else eid
    edges = given.numel() if given is not None else sizes(operands[1])[1]
    extreme = reduce in (C.MIN, C.MAX)
    out = like.new_empty(shape(rank, B, N, F))
    nothing = -1 if arg == C.ARG_SOURCE else edges  # which could be a source
    winners = torch.full(out.shape if arg else (0,), nothing, dtype=rowptr.dtype, device=like.device)
    BK, BF = ct.tile(max(F, 1))
    tiles = triton.cdiv(F, BF)
    tables = bcast if bcast is not None else rowptr.new_empty((2, 0))
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    ct.launch(
        spmm_fwd, op, like, B * N * tiles,
        *(t.contiguous() for t in operands), rowptr, *(t if t is not None else rowptr for t in (col, eid)),
        tables[0], tables[1], like.new_full((1,), fill, dtype=wide), out, winners,
        N, F, Fx, Fe, *(t.stride(0) if t.dim() == 3 and t.shape[0] > 1 else 0 for t in operands),
        nothing, tiles,
        MESSAGE=message, REDUCE=reduce, ARG=arg if extreme else C.ARG_NONE, SKIP_NAN=bool(skip_nan),
        HAS_COL=col is not None, HAS_EID=eid is not None, TABLE=bcast is not None, X_ONE=Fx == 1, E_ONE=Fe == 1,
        WIDE=tl.float64 if wide == torch.float64 else tl.float32, BK=BK, BF=BF,
    )  # fmt: skip
    return out, winners

copy_reduce = copy_reduce_by(spmm)
