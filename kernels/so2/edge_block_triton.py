"""GPU edge block in tiles of edges on tensor cores. The contract is csrc/so2/edge_block.h.

    K1, per order m   gather both ends, rotate (packed Wigner matrices, |m| rows only), scale, first convolution -> pre
    K2, per order m   gate on load, second convolution -> mid
    K3, per node      envelope, rotate back, sum over the node's edges in blocks of 16: no atomics

The backward is in edge_block_bwd_triton.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .. import backends
from ..sparse import common_triton as ct
from ..sparse.typed_matmul_triton import block
from .common_triton import dot, mode, packed_at, tiles
from .edge_block_bwd_triton import edge_block_bwd
from .edge_block_ref import edges
from .so2_conv_ref import matrices
from .wigner_ref import kept, order, packed_size

__all__ = ["edge_block", "edge_block_bwd"]


@triton.jit
def _conv1_degree(
    plus, minus, x_ptr, d_ptr, s_ptr, w_ptr, src_ptr, dst_ptr, k, n, j, E, C, N, K, scale_at, scales,
    l: tl.constexpr, L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ORDER: tl.constexpr, SCALED: tl.constexpr,
    MODE: tl.constexpr, BE: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """What degree l adds to both signs of one order."""
    inside = k < E
    KL: tl.constexpr = l if l < M else M
    SIZE: tl.constexpr = 2 * l + 1
    AT = packed_at(l, M)
    for side in tl.static_range(2):
        node = tl.load((src_ptr if side == 0 else dst_ptr) + k, inside, 0)
        for c0 in range(0, C, BK):
            c = c0 + tl.arange(0, BK)
            ok = inside[:, None] & (c < C)[None, :]
            a_plus = tl.zeros([BE, BK], x_ptr.dtype.element_ty)  # [BE, BK]
            a_minus = tl.zeros([BE, BK], x_ptr.dtype.element_ty)
            for q in tl.static_range(SIZE):
                v = tl.load(x_ptr + (node * ((L + 1) * (L + 1)) + l * l + q)[:, None] * C + c[None, :], ok, 0)
                a_plus += tl.load(d_ptr + k * R + AT + (KL + ORDER) * SIZE + q, inside, 0)[:, None] * v
                if ORDER > 0:
                    a_minus += tl.load(d_ptr + k * R + AT + (KL - ORDER) * SIZE + q, inside, 0)[:, None] * v
            depth = (l - ORDER) * 2 * C + side * C + c  # [BK] of K
            if SCALED:
                s = tl.load(s_ptr + j[:, None] * scales + scale_at + depth[None, :], ok, 0)
                a_plus *= s
                a_minus *= s
            good = (c < C)[:, None] & (n < N)[None, :]
            w1 = tl.load(w_ptr + n[None, :] * K + depth[:, None], good, 0)  # [BK, BN]
            plus = dot(a_plus, w1, plus, MODE)
            if ORDER > 0:
                w2 = tl.load(w_ptr + (N + n)[None, :] * K + depth[:, None], good, 0)
                plus = dot(-a_minus, w2, plus, MODE)
                minus = dot(a_minus, w1, minus, MODE)
                minus = dot(a_plus, w2, minus, MODE)
    return plus, minus


@triton.jit
def conv1(
    x_ptr, d_ptr, s_ptr, w_ptr, bias_ptr, pre_ptr, src_ptr, dst_ptr, j_ptr, E, C, N, K, width, out_at, scale_at, scales,
    L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ORDER: tl.constexpr, SCALED: tl.constexpr, MODE: tl.constexpr,
    BE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """pre[:, out_at + ..] of one order: N outputs (of +m, then as many of -m) from K inputs."""
    columns = tl.cdiv(N, BN)
    k = (tl.program_id(0) // columns).to(tl.int64) * BE + tl.arange(0, BE)
    n = (tl.program_id(0) % columns) * BN + tl.arange(0, BN)
    inside = k < E
    j = tl.load(j_ptr + k, inside, 0)
    plus = tl.zeros([BE, BN], x_ptr.dtype.element_ty)
    minus = tl.zeros([BE, BN], x_ptr.dtype.element_ty)
    for l in tl.static_range(ORDER, L + 1):
        plus, minus = _conv1_degree(
            plus, minus, x_ptr, d_ptr, s_ptr, w_ptr, src_ptr, dst_ptr, k, n, j, E, C, N, K, scale_at, scales,
            l, L, M, R, ORDER, SCALED, MODE, BE, BK,
        )  # fmt: skip
    out = pre_ptr + k[:, None] * width + out_at + n[None, :]
    store = inside[:, None] & (n < N)[None, :]
    if ORDER == 0:
        plus += tl.load(bias_ptr + n, n < N, 0)[None, :]
    else:
        tl.store(out + N, minus, store)
    tl.store(out, plus, store)


@triton.jit
def conv2(
    pre_ptr, w_ptr, bias_ptr, mid_ptr, E, H, N, K, width, row_at, out_at, out_width,
    L: tl.constexpr, ORDER: tl.constexpr, MODE: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """mid[:, out_at + ..] of one order from gated rows; row_at is the first row of +m in the edge frame."""
    columns = tl.cdiv(N, BN)
    k = (tl.program_id(0) // columns).to(tl.int64) * BE + tl.arange(0, BE)
    n = (tl.program_id(0) % columns) * BN + tl.arange(0, BN)
    inside = k < E
    plus = tl.zeros([BE, BN], pre_ptr.dtype.element_ty)
    minus = tl.zeros([BE, BN], pre_ptr.dtype.element_ty)
    for l in tl.static_range(ORDER, L + 1):
        for c0 in range(0, H, BK):
            c = c0 + tl.arange(0, BK)
            ok = inside[:, None] & (c < H)[None, :]
            row = pre_ptr + k[:, None] * width + c[None, :]
            a_plus = tl.load(row + (L + row_at + l - ORDER) * H, ok, 0)  # [BE, BK]
            gate = a_plus
            if l > 0:
                gate = tl.load(row + (l - 1) * H, ok, 0)
            gate = 1 / (1 + tl.exp(-gate))
            a_plus *= gate
            good = (c < H)[:, None] & (n < N)[None, :]
            depth = (l - ORDER) * H + c
            w1 = tl.load(w_ptr + n[None, :] * K + depth[:, None], good, 0)  # [BK, BN]
            plus = dot(a_plus, w1, plus, MODE)
            if ORDER > 0:
                a_minus = tl.load(row + (L + row_at + (L + 1 - ORDER) + l - ORDER) * H, ok, 0) * gate
                w2 = tl.load(w_ptr + (N + n)[None, :] * K + depth[:, None], good, 0)
                plus = dot(-a_minus, w2, plus, MODE)
                minus = dot(a_minus, w1, minus, MODE)
                minus = dot(a_plus, w2, minus, MODE)
    out = mid_ptr + k[:, None] * out_width + out_at + n[None, :]
    store = inside[:, None] & (n < N)[None, :]
    if ORDER == 0:
        plus += tl.load(bias_ptr + n, n < N, 0)[None, :]
    else:
        tl.store(out + N, minus, store)
    tl.store(out, plus, store)


@triton.jit
def rotate_sum(
    mid_ptr, d_ptr, env_ptr, j_ptr, rowptr_ptr, row_ptr, out_ptr, C, R, n,
    l: tl.constexpr, KL: tl.constexpr, L: tl.constexpr, D_AT: tl.constexpr, HAS_ENV: tl.constexpr, BE: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """A program per node and channel tile: out[v, l^2 + s] = sum_k env D^T mid, for one degree."""
    columns = tl.cdiv(C, BC)
    v = (tl.program_id(0) // columns).to(tl.int64)
    c = (tl.program_id(0) % columns) * BC + tl.arange(0, BC)
    ok = c < C
    size: tl.constexpr = 2 * l + 1
    begin, end = tl.load(rowptr_ptr + v), tl.load(rowptr_ptr + v + 1)
    for s in tl.static_range(size):
        total = tl.zeros([BC], mid_ptr.dtype.element_ty)
        for k0 in range(begin, end, BE):
            k = k0 + tl.arange(0, BE).to(tl.int64)
            inside = k < end
            part = tl.zeros([BE, BC], mid_ptr.dtype.element_ty)
            for r in tl.static_range(2 * KL + 1):
                row = tl.load(row_ptr + r)
                d = tl.load(d_ptr + k * R + D_AT + r * size + s, inside, 0)
                part += d[:, None] * tl.load(mid_ptr + (k * n + row)[:, None] * C + c[None, :], inside[:, None] & ok[None, :], 0)
            if HAS_ENV:
                part *= tl.load(env_ptr + tl.load(j_ptr + k, inside, 0), inside, 0)[:, None]
            total += tl.sum(part, 0)
        tl.store(out_ptr + (v * ((L + 1) * (L + 1)) + l * l + s) * C + c, total, ok)


def edge_block(x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2, rowptr, col, eid, lmax, mmax,
               hidden, three, keep):  # fmt: skip
    """Same signature and results as torch.ops.structops.edge_block; ``three`` is not used, the products are on tensor cores."""
    ct.check_device("edge_block", x)
    L, M, C, H, N, E = lmax, mmax, x.shape[2], hidden, x.shape[0], col.shape[0]
    rows = order(L, M)
    n, R, products = len(rows), packed_size(L, M), mode("edge_block", x.dtype)
    pre, mid, out = x.new_empty(E, (L + n) * H), x.new_empty(E, n * C), torch.zeros_like(x)
    tile, step, options = tiles(x.dtype, products)
    empty = x.new_empty(0, 0)
    if E == 0 or C == 0:
        return (out, pre, mid) if keep else (out, empty, empty)
    src, dst, j = edges(rowptr, col, eid)
    D = backends.implementation("so2_wigner", x.device.type)(vec[j], None, L, M)
    s = radial
    if radial_weight is not None:
        s = torch.nn.functional.linear(radial, radial_weight, radial_bias)
    for m, w1 in enumerate(matrices(weight1, L, M, 2 * C, H, L * H)):
        row = rows.index((m, m)) if m else 0
        scale_at = sum((L + 1 - i) * 2 * C for i in range(m))
        n1 = (L + 1 - m) * H + (0 if m else L * H)
        BE, BN, BK = block(E, tile), block(n1, tile), block(C, step)
        ct.launch(
            conv1, "edge_block", x, triton.cdiv(E, BE) * triton.cdiv(n1, BN), x, D, x if s is None else s, w1, bias1, pre, src,
            dst, j, E, C, n1, w1.shape[1], (L + n) * H, (L + row) * H if m else 0, scale_at, 0 if s is None else s.shape[1],
            L=L, M=M, R=R, ORDER=m, SCALED=s is not None, MODE=products, BE=BE, BN=BN, BK=BK, **{**options, "num_stages": 2},
        )  # fmt: skip
    for m, w2 in enumerate(matrices(weight2, L, M, H, C, 0)):
        row, n2 = rows.index((m, m)) if m else 0, (L + 1 - m) * C
        BE, BN, BK = block(E, tile), block(n2, tile), block(H, step)
        ct.launch(
            conv2, "edge_block", x, triton.cdiv(E, BE) * triton.cdiv(n2, BN), pre, w2, bias2, mid, E, H, n2, w2.shape[1],
            (L + n) * H, row, row * C, n * C, L=L, ORDER=m, MODE=products, BE=BE, BN=BN, BK=BK, **options,
        )  # fmt: skip
    at = 0
    for l in range(L + 1):
        k = min(l, M)
        place = torch.tensor([rows.index((l, m)) for m in range(-k, k + 1)], device=x.device)
        BC = block(C, 128)
        ct.launch(
            rotate_sum, "edge_block", x, N * triton.cdiv(C, BC), mid, D, x if envelope is None else envelope, j, rowptr, place,
            out, C, R, n, l=l, KL=k, L=L, D_AT=at, HAS_ENV=envelope is not None, BE=16, BC=BC,
        )  # fmt: skip
        at += kept(l, M) * (2 * l + 1)
    return (out, pre, mid) if keep else (out, empty, empty)
