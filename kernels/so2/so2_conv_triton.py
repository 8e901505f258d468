"""GPU SO(2) maps and their weight gradients in tiles on tensor cores. The contract is csrc/so2/so2_conv.h.

A launch per order m. A program owns a tile of edges and outputs, of both signs of m, so that every tile of edges and of weights
that it loads serves two products. Weight gradients: a program owns a tile of both matrices and one slice of the edges; the slices,
whose number follows from the shapes, are then added in order. No atomics.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..sparse import common_triton as ct
from ..sparse.typed_matmul_triton import block, splits
from .common_triton import dot, mode, tiles
from .so2_conv_ref import matrices
from .wigner_ref import order


@triton.jit
def conv_rows(
    x_ptr, w_ptr, bias_ptr, s_ptr, z_ptr, ds_ptr, out_ptr, E, N, K, x_width, out_width, x_at, out_at, w_n, w_k, second, scale_at,
    scales,
    PAIR: tl.constexpr, TRANSPOSE: tl.constexpr, HAS_BIAS: tl.constexpr, SCALED: tl.constexpr, HAS_DS: tl.constexpr,
    MODE: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out[:, out_at + ..] of one order: N outputs (of +m, then as many of -m) from K inputs of each sign.

    SCALED: the result is the gradient of z s; it becomes that of z, and ds that of s, which both signs share.
    """
    columns = tl.cdiv(N, BN)
    k = (tl.program_id(0) // columns).to(tl.int64) * BE + tl.arange(0, BE)
    n = (tl.program_id(0) % columns) * BN + tl.arange(0, BN)
    inside = k < E
    row = x_ptr + k[:, None] * x_width + x_at
    plus = tl.zeros([BE, BN], x_ptr.dtype.element_ty)
    minus = tl.zeros([BE, BN], x_ptr.dtype.element_ty)
    taken = tl.zeros([BE, BN], x_ptr.dtype.element_ty)  # what is subtracted: from -m where transposed, from +m else
    for c0 in range(0, K, BK):
        c = c0 + tl.arange(0, BK)
        ok = inside[:, None] & (c < K)[None, :]
        good = (c < K)[:, None] & (n < N)[None, :]
        a_plus = tl.load(row + c[None, :], ok, 0)  # [BE, BK]
        at = w_ptr + n[None, :] * w_n + c[:, None] * w_k
        w1 = tl.load(at, good, 0)  # [BK, BN]
        plus = dot(a_plus, w1, plus, MODE)
        if PAIR:
            a_minus = tl.load(row + K + c[None, :], ok, 0)
            w2 = tl.load(at + second, good, 0)
            minus = dot(a_minus, w1, minus, MODE)
            if TRANSPOSE:
                plus = dot(a_minus, w2, plus, MODE)
                taken = dot(a_plus, w2, taken, MODE)
            else:
                minus = dot(a_plus, w2, minus, MODE)
                taken = dot(a_minus, w2, taken, MODE)
    if PAIR:
        if TRANSPOSE:
            minus -= taken
        else:
            plus -= taken
    if HAS_BIAS:
        plus += tl.load(bias_ptr + n, n < N, 0)[None, :]
    store = inside[:, None] & (n < N)[None, :]
    place = k[:, None] * out_width + out_at + n[None, :]
    if SCALED:
        scale = k[:, None] * scales + scale_at + n[None, :]
        if HAS_DS:
            ds = plus * tl.load(z_ptr + place, store, 0)
            if PAIR:
                ds += minus * tl.load(z_ptr + place + N, store, 0)
            tl.store(ds_ptr + scale, ds, store)
        s = tl.load(s_ptr + scale, store, 0)
        plus *= s
        minus *= s
    tl.store(out_ptr + place, plus, store)
    if PAIR:
        tl.store(out_ptr + place + N, minus, store)


@triton.jit
def conv_weight_grad(
    x_ptr, g_ptr, out_ptr, E, N, K, x_width, g_width, x_at, g_at, slices,
    PAIR: tl.constexpr, MODE: tl.constexpr, BE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out [slices, N or 2 N, K] of one order."""
    columns, rows = tl.cdiv(K, BK), tl.cdiv(N, BN)
    pid = tl.program_id(0)
    c = (pid % columns) * BK + tl.arange(0, BK)
    n = (pid // columns % rows) * BN + tl.arange(0, BN)
    part = (pid // (columns * rows)).to(tl.int64)
    begin, end = E * part // slices, E * (part + 1) // slices
    first = tl.zeros([BN, BK], x_ptr.dtype.element_ty)
    second = tl.zeros([BN, BK], x_ptr.dtype.element_ty)
    taken = tl.zeros([BN, BK], x_ptr.dtype.element_ty)
    for k0 in range(begin, end, BE):
        k = k0 + tl.arange(0, BE).to(tl.int64)
        ok = (k < end)[:, None] & (c < K)[None, :]
        good = (n < N)[:, None] & (k < end)[None, :]
        x_plus = tl.load(x_ptr + k[:, None] * x_width + x_at + c[None, :], ok, 0)  # [BE, BK]
        g_plus = tl.load(g_ptr + k[None, :] * g_width + g_at + n[:, None], good, 0)  # [BN, BE]
        first = dot(g_plus, x_plus, first, MODE)
        if PAIR:
            x_minus = tl.load(x_ptr + k[:, None] * x_width + x_at + K + c[None, :], ok, 0)
            g_minus = tl.load(g_ptr + k[None, :] * g_width + g_at + N + n[:, None], good, 0)
            first = dot(g_minus, x_minus, first, MODE)
            second = dot(g_minus, x_plus, second, MODE)
            taken = dot(g_plus, x_minus, taken, MODE)
    store = (n < N)[:, None] & (c < K)[None, :]
    if PAIR:
        at = out_ptr + (part * 2 * N + n)[:, None] * K + c[None, :]
        tl.store(at + N * K, second - taken, store)
    else:
        at = out_ptr + (part * N + n)[:, None] * K + c[None, :]
    tl.store(at, first, store)


def _orders(L: int, M: int, Cin: int, Cout: int, extra: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(m, numbers of one sign in a row of x, in a row of y, where those of m begin in x, in y)."""
    x_at = y_at = 0
    for m in range(M + 1):
        K, N = (L + 1 - m) * Cin, (L + 1 - m) * Cout + (0 if m else extra)
        yield m, K, N, x_at, y_at
        x_at, y_at = x_at + (2 if m else 1) * K, y_at + (2 if m else 1) * N


def convolve(x, weight, bias, L, M, Cin, Cout, extra, transpose, s=None, z=None, ds=None) -> Tensor:
    """so2_conv. With scales s [E, scales] the result is multiplied by them; before that, ds is filled from it and from z."""
    E = x.shape[0]
    widths = len(order(L, M)) * Cin, extra + len(order(L, M)) * Cout
    out = x.new_empty(E, widths[0] if transpose else widths[1])
    products = mode("so2_conv", x.dtype)
    tile, step, options = tiles(x.dtype, products)
    scale_at = 0
    given = _orders(L, M, Cin, Cout, extra)
    for (m, K, N, x_at, y_at), w in zip(given, matrices(weight, L, M, Cin, Cout, extra), strict=True):
        outputs, inputs, at, strides = (K, N, (y_at, x_at), (1, K)) if transpose else (N, K, (x_at, y_at), (K, 1))
        BE, BN, BK = block(E, tile), block(outputs, tile), block(inputs, step)
        biased = bias is not None and m == 0
        ct.launch(
            conv_rows, "so2_conv", x, triton.cdiv(E, BE) * triton.cdiv(outputs, BN), x, w, bias if biased else x,
            x if s is None else s, x if z is None else z, x if ds is None else ds, out, E, outputs, inputs, x.shape[1],
            out.shape[1], *at, *strides, N * K, scale_at, 0 if s is None else s.shape[1],
            PAIR=m > 0, TRANSPOSE=transpose, HAS_BIAS=biased, SCALED=s is not None, HAS_DS=ds is not None,
            MODE=products, BE=BE, BN=BN, BK=BK, **options,
        )  # fmt: skip
        scale_at += outputs
    return out


def so2_conv(x, weight, bias, lmax, mmax, in_channels, out_channels, extra, transpose, three):
    """Same signature and results as torch.ops.structops.so2_conv; ``three`` is not used, the products are on tensor cores."""
    ct.check_device("so2_conv", x)
    return convolve(x, weight, None if transpose else bias, lmax, mmax, in_channels, out_channels, extra, transpose)


def so2_conv_wgrad(x, grad, lmax, mmax, in_channels, out_channels, extra):
    """Same signature and results as torch.ops.structops.so2_conv_wgrad."""
    ct.check_device("so2_conv_wgrad", x)
    E, found = x.shape[0], []
    products = mode("so2_conv_wgrad", x.dtype)
    tile, step, options = tiles(x.dtype, products)
    for m, K, N, x_at, y_at in _orders(lmax, mmax, in_channels, out_channels, extra):
        BE, BN, BK = block(E, step), block(N, tile), block(K, tile)
        programs = triton.cdiv(N, BN) * triton.cdiv(K, BK)
        slices = splits(programs, triton.cdiv(E, 256))
        out = x.new_empty(slices, (2 if m else 1) * N * K)
        ct.launch(
            conv_weight_grad, "so2_conv_wgrad", x, slices * programs, x, grad, out, E, N, K, x.shape[1], grad.shape[1], x_at,
            y_at, slices, PAIR=m > 0, MODE=products, BE=BE, BN=BN, BK=BK, **options,
        )  # fmt: skip
        found.append(out.sum(0))
    return torch.cat(found)
