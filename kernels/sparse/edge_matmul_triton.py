"""GPU products with a matrix per edge, in tiles on tensor cores. The contract is csrc/sparse/edge_matmul.h.

A program owns a tile of rows and sums the outer products h x of their edges for a range of (k, i), edge by edge in CSR order. A hub
row makes its tile walk as many edges. No atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import common_triton as ct
from .typed_matmul_triton import block, mode, splits, wide

BV = 16


@triton.jit
def _edge(col_ptr, eid_ptr, j, ok, HAS_EID: tl.constexpr):
    """(source, edge row) of the CSR positions j."""
    e = j
    if HAS_EID:
        e = tl.load(eid_ptr + j, ok, 0).to(tl.int64)
    return tl.load(col_ptr + j, ok, 0).to(tl.int64), e


@triton.jit
def _outer(
    x_ptr,
    h_ptr,
    col_ptr,
    eid_ptr,
    begin,
    end,
    c,
    K,
    I,
    HAS_EID: tl.constexpr,
    WIDE: tl.constexpr,
    BV: tl.constexpr,
    BC: tl.constexpr,
):
    """Sums of outer products [BV, BC] at the flat positions c of (k, i)."""
    k, i = c // I, c % I
    a = tl.zeros([BV, BC], WIDE)
    for d in range(0, tl.max(end - begin, 0)):
        j = begin + d
        ok = j < end
        u, e = _edge(col_ptr, eid_ptr, j, ok, HAS_EID)
        inside = ok[:, None] & (c < K * I)[None, :]
        h = tl.load(h_ptr + e[:, None] * K + k[None, :], inside, 0).to(WIDE)
        a += h * tl.load(x_ptr + u[:, None] * I + i[None, :], inside, 0).to(WIDE)
    return a


@triton.jit
def _rows(rowptr_ptr, v, N):
    ok = v < N
    return tl.load(rowptr_ptr + v, ok, 0).to(tl.int64), tl.load(rowptr_ptr + v + 1, ok, 0).to(tl.int64)


@triton.jit
def edge_fwd(
    x_ptr, h_ptr, w_ptr, rowptr_ptr, col_ptr, eid_ptr, out_ptr, N, K, I, O, columns,
    HAS_EID: tl.constexpr, WIDE: tl.constexpr, MODE: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    v = pid // columns * BV + tl.arange(0, BV)
    o = pid % columns * BO + tl.arange(0, BO)
    begin, end = _rows(rowptr_ptr, v, N)
    acc = tl.zeros([BV, BO], WIDE)
    for c0 in range(0, K * I, BC):
        c = c0 + tl.arange(0, BC)
        a = _outer(x_ptr, h_ptr, col_ptr, eid_ptr, begin, end, c, K, I, HAS_EID, WIDE, BV, BC)
        b = tl.load(w_ptr + c[:, None].to(tl.int64) * O + o[None, :], (c < K * I)[:, None] & (o < O)[None, :], 0).to(WIDE)
        acc = tl.dot(a, b, acc, input_precision=MODE, out_dtype=WIDE)
    tl.store(out_ptr + v[:, None] * O + o[None, :], acc.to(out_ptr.dtype.element_ty), (v < N)[:, None] & (o < O)[None, :])


@triton.jit
def edge_hgrad(
    x_ptr, y_ptr, w_ptr, rowptr_ptr, col_ptr, eid_ptr, out_ptr, N, K, I, O,
    HAS_EID: tl.constexpr, WIDE: tl.constexpr, MODE: tl.constexpr, BV: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """A tile of rows and one k; out [E, K] starts at 0 and is added to tile by tile of i."""
    pid = tl.program_id(0).to(tl.int64)
    v, k = pid // K * BV + tl.arange(0, BV), pid % K
    begin, end = _rows(rowptr_ptr, v, N)
    for i0 in range(0, I, BI):
        i = i0 + tl.arange(0, BI)
        product = tl.zeros([BV, BI], WIDE)
        for o0 in range(0, O, BO):
            o = o0 + tl.arange(0, BO)
            y = tl.load(y_ptr + v[:, None] * O + o[None, :], (v < N)[:, None] & (o < O)[None, :], 0).to(WIDE)
            w = tl.load(w_ptr + (k * I + i)[None, :] * O + o[:, None], (i < I)[None, :] & (o < O)[:, None], 0).to(WIDE)
            product = tl.dot(y, w, product, input_precision=MODE, out_dtype=WIDE)
        for d in range(0, tl.max(end - begin, 0)):
            j = begin + d
            ok = j < end
            u, e = _edge(col_ptr, eid_ptr, j, ok, HAS_EID)
            x = tl.load(x_ptr + u[:, None] * I + i[None, :], ok[:, None] & (i < I)[None, :], 0).to(WIDE)
            at = out_ptr + e * K + k
            tl.store(at, tl.load(at, ok, 0) + tl.sum(x * product, 1), ok)


@triton.jit
def edge_wgrad(
    x_ptr, h_ptr, y_ptr, rowptr_ptr, col_ptr, eid_ptr, out_ptr, N, K, I, O, depth, columns, splits,
    HAS_EID: tl.constexpr, WIDE: tl.constexpr, MODE: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    o = pid % columns * BO + tl.arange(0, BO)
    c = pid // columns % depth * BC + tl.arange(0, BC)
    split = pid // (columns * depth)
    acc = tl.zeros([BC, BO], WIDE)
    tiles = (N + BV - 1) // BV
    for t in range(tiles * split // splits, tiles * (split + 1) // splits):
        v = t * BV + tl.arange(0, BV).to(tl.int64)
        begin, end = _rows(rowptr_ptr, v, N)
        a = _outer(x_ptr, h_ptr, col_ptr, eid_ptr, begin, end, c, K, I, HAS_EID, WIDE, BV, BC)
        y = tl.load(y_ptr + v[:, None] * O + o[None, :], (v < N)[:, None] & (o < O)[None, :], 0).to(WIDE)
        acc = tl.dot(tl.trans(a), y, acc, input_precision=MODE, out_dtype=WIDE)
    tl.store(out_ptr + (split * K * I + c)[:, None] * O + o[None, :], acc, (c < K * I)[:, None] & (o < O)[None, :])


def _common(op, x, rowptr, eid):
    ct.check_device(op, x)
    dtype, WIDE = wide(x)
    return rowptr.numel() - 1, dtype, {"HAS_EID": eid is not None, "WIDE": WIDE, "MODE": mode(x, False), "BV": BV}


def edge_matmul(x, h, weight, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul."""
    N, _, constants = _common("edge_matmul", x, rowptr, eid)
    K, I, O = weight.shape
    out = x.new_empty(N, O)
    if K * I == 0:
        return out.zero_()
    BO = block(O, 64)
    columns = triton.cdiv(O, BO)
    ct.launch(
        edge_fwd, "edge_matmul", x, triton.cdiv(N, BV) * columns, x, h, weight, rowptr, col, col if eid is None else eid, out, N, K,
        I, O, columns, **constants, BC=block(K * I, 32), BO=BO,
    )  # fmt: skip
    return out


def edge_matmul_hgrad(x, y, weight, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul_hgrad."""
    N, dtype, constants = _common("edge_matmul_hgrad", x, rowptr, eid)
    K, I, O = weight.shape
    out = x.new_zeros(col.numel(), K, dtype=dtype)
    ct.launch(
        edge_hgrad, "edge_matmul_hgrad", x, triton.cdiv(N, BV) * K if out.numel() else 0, x, y, weight, rowptr, col,
        col if eid is None else eid, out, N, K, I, O, **constants, BI=block(I, 32), BO=block(O, 32),
    )  # fmt: skip
    return out.to(x.dtype)


def edge_matmul_wgrad(x, h, y, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul_wgrad."""
    N, dtype, constants = _common("edge_matmul_wgrad", x, rowptr, eid)
    K, I, O = h.shape[1], x.shape[1], y.shape[1]
    BC, BO = block(K * I, 64), block(O, 64)
    depth, columns = triton.cdiv(K * I, BC), triton.cdiv(O, BO)
    Q = splits(depth * columns, triton.cdiv(N, 8 * BV))
    out = x.new_empty(Q, K, I, O, dtype=dtype)
    ct.launch(
        edge_wgrad, "edge_matmul_wgrad", x, Q * depth * columns, x, h, y, rowptr, col, col if eid is None else eid, out, N, K, I,
        O, depth, columns, Q, **constants, BC=BC, BO=BO,
    )  # fmt: skip
    return out.sum(0).to(x.dtype)
