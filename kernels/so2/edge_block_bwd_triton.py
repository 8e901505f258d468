"""GPU gradient of the edge block, its products on tensor cores. The contract is csrc/so2/edge_block.h.

Chunks of edges in order of k, so that scratch does not grow with E:

    rotate      both ends into the edge frame: z, and z s; grad of the destination: u = env D grad
    gate_rows   h, and from dh = conv2^T u the gradient of pre
    convolve    the products (so2_conv_triton.py); conv1^T also multiplies by the scales and finds their gradient
    pull_back   D^T dz of both ends, and the torque for the gradient of vec
    sum_rows    what D^T dz adds to the nodes: a program per group of the chunk's edges that share one, no atomics

Edges are grouped by destination as they come, by source after one stable sort of (chunk, source) for all chunks.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import backends
from ..sparse import common_triton as ct
from .common_triton import frame_row, packed_at, scale_row
from .edge_block_ref import edges
from .so2_conv_triton import convolve, so2_conv_wgrad
from .wigner_ref import generators, order, packed_size

SCRATCH = 1 << 30  # bytes that a chunk of edges may take
BITS = (1, 1, 2, 8, 8, 4, 8, 8, 8, 8)  # of ``wanted``, for x to bias2


@triton.jit
def _rotate_degree(
    x_ptr, d_ptr, s_ptr, raw_ptr, out_ptr, node, k, c, ok, inside, side, C, sides, scales,
    l: tl.constexpr, L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, SCALE: tl.constexpr, RAW: tl.constexpr,
    BE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    KL: tl.constexpr = l if l < M else M
    SIZE: tl.constexpr = 2 * l + 1
    for r in tl.static_range(2 * KL + 1):
        a = tl.zeros([BE, BC], x_ptr.dtype.element_ty)
        for q in tl.static_range(SIZE):
            d = tl.load(d_ptr + k * R + packed_at(l, M) + r * SIZE + q, inside, 0)
            a += d[:, None] * tl.load(x_ptr + (node * ((L + 1) * (L + 1)) + l * l + q)[:, None] * C + c[None, :], ok, 0)
        place = (k * ROWS + frame_row(l, r - KL, L))[:, None] * (sides * C) + side * C + c[None, :]
        if RAW:
            tl.store(raw_ptr + place, a, ok)
        if SCALE == "edge":
            a *= tl.load(s_ptr + k, inside, 0)[:, None]
        elif SCALE == "radial":
            at = scale_row(l, r - KL, L) * (2 * C) + side * C + c
            a *= tl.load(s_ptr + k[:, None] * scales + at[None, :], ok, 0)
        tl.store(out_ptr + place, a, ok)


@triton.jit
def rotate(
    x_ptr, d_ptr, s_ptr, node_ptr, raw_ptr, out_ptr, T, E, C, sides, scales,
    L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, SCALE: tl.constexpr, RAW: tl.constexpr, BE: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """out [T, ROWS, sides C] = D x[node], times s; raw, the same before s. node [sides, E]: T edges of each side are read."""
    tiles = tl.cdiv(C, BC)
    pid = tl.program_id(0)
    c = (pid % tiles) * BC + tl.arange(0, BC)
    side = pid // tiles % sides
    k = (pid // (tiles * sides)).to(tl.int64) * BE + tl.arange(0, BE)
    inside = k < T
    ok = inside[:, None] & (c < C)[None, :]
    node = tl.load(node_ptr + side.to(tl.int64) * E + k, inside, 0)
    for l in tl.static_range(L + 1):
        _rotate_degree(
            x_ptr, d_ptr, s_ptr, raw_ptr, out_ptr, node, k, c, ok, inside, side, C, sides, scales,
            l, L, M, R, ROWS, SCALE, RAW, BE, BC,
        )  # fmt: skip


@triton.jit
def _gate_degree(
    pre_ptr, dh_ptr, h_ptr, dp_ptr, k, c, ok, H,
    l: tl.constexpr, L: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, HAS_H: tl.constexpr, HAS_DH: tl.constexpr,
):  # fmt: skip
    KL: tl.constexpr = l if l < M else M
    GATE: tl.constexpr = l - 1 if l > 0 else L  # l = 0 is its own gate
    gate = (k * (L + ROWS) + GATE)[:, None] * H + c[None, :]
    y = 1 / (1 + tl.exp(-tl.load(pre_ptr + gate, ok, 0)))
    total = tl.zeros_like(y)
    for r in tl.static_range(2 * KL + 1):
        row = frame_row(l, r - KL, L)
        place = (k * (L + ROWS) + L + row)[:, None] * H + c[None, :]
        at = (k * ROWS + row)[:, None] * H + c[None, :]
        v = tl.load(pre_ptr + place, ok, 0)
        if HAS_H:
            tl.store(h_ptr + at, v * y, ok)
        if HAS_DH:
            g = tl.load(dh_ptr + at, ok, 0)
            total += g * v
            d = g * y
            if l == 0:
                d += g * v * y * (1 - y)
            tl.store(dp_ptr + place, d, ok)
    if HAS_DH and l > 0:
        tl.store(dp_ptr + gate, total * y * (1 - y), ok)


@triton.jit
def gate_rows(
    pre_ptr, dh_ptr, h_ptr, dp_ptr, T, H,
    L: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, HAS_H: tl.constexpr, HAS_DH: tl.constexpr, BE: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """h = gate(pre), and dp, the pullback of dh."""
    tiles = tl.cdiv(H, BC)
    c = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    k = (tl.program_id(0) // tiles).to(tl.int64) * BE + tl.arange(0, BE)
    ok = (k < T)[:, None] & (c < H)[None, :]
    for l in tl.static_range(L + 1):
        _gate_degree(pre_ptr, dh_ptr, h_ptr, dp_ptr, k, c, ok, H, l, L, M, ROWS, HAS_H, HAS_DH)


@triton.jit
def _pull_degree(
    t_x, t_y, t_z, z_ptr, x_ptr, d_ptr, g_ptr, back_ptr, node, k, c, ok, inside, side, sides, C,
    l: tl.constexpr, L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, STORE: tl.constexpr, BE: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """X = D^T z of one degree, kept with STORE; adds the terms of <X, G_j x[node]> to t_j [BE, BC]."""
    KL: tl.constexpr = l if l < M else M
    SIZE: tl.constexpr = 2 * l + 1
    S: tl.constexpr = (L + 1) * (L + 1)
    for s in range(SIZE):
        a = tl.zeros([BE, BC], x_ptr.dtype.element_ty)
        for r in tl.static_range(2 * KL + 1):
            d = tl.load(d_ptr + k * R + packed_at(l, M) + r * SIZE + s, inside, 0)
            place = (k * ROWS + frame_row(l, r - KL, L))[:, None] * (sides * C) + side * C + c[None, :]
            a += d[:, None] * tl.load(z_ptr + place, ok, 0)
        if STORE:
            tl.store(back_ptr + (k * S + l * l + s)[:, None] * (sides * C) + side * C + c[None, :], a, ok)
        if l > 0:
            for t in range(SIZE):
                v = a * tl.load(x_ptr + (node * S + l * l + t)[:, None] * C + c[None, :], ok, 0)
                g = g_ptr + (l * l + s) * S + l * l + t
                t_x += v * tl.load(g)
                t_y += v * tl.load(g + S * S)
                t_z += v * tl.load(g + 2 * S * S)
    return t_x, t_y, t_z


@triton.jit
def pull_back(
    dz_ptr, o_ptr, x_ptr, grad_ptr, d_ptr, g_ptr, env_ptr, node_ptr, back_ptr, torque_ptr, T, E, C,
    L: tl.constexpr, M: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, HAS_ENV: tl.constexpr, BE: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """back [T, S, 2 C] = D^T dz; torque [T, 3] = -env <D^T o, G_j grad[dst]> - <back, G_j x>: G_j is antisymmetric. node [2, E]."""
    k = tl.program_id(0).to(tl.int64) * BE + tl.arange(0, BE)
    inside = k < T
    t_x = tl.zeros([BE, BC], x_ptr.dtype.element_ty)
    t_y = tl.zeros([BE, BC], x_ptr.dtype.element_ty)
    t_z = tl.zeros([BE, BC], x_ptr.dtype.element_ty)
    dst = tl.load(node_ptr + E + k, inside, 0)
    for c0 in range(0, C, BC):
        c = c0 + tl.arange(0, BC)
        ok = inside[:, None] & (c < C)[None, :]
        for l in tl.static_range(1, L + 1):
            t_x, t_y, t_z = _pull_degree(
                t_x, t_y, t_z, o_ptr, grad_ptr, d_ptr, g_ptr, back_ptr, dst, k, c, ok, inside, 0, 1, C,
                l, L, M, R, ROWS, False, BE, BC,
            )  # fmt: skip
    if HAS_ENV:
        env = tl.load(env_ptr + k, inside, 0)[:, None]
        t_x *= env
        t_y *= env
        t_z *= env
    for side in tl.static_range(2):
        node = tl.load(node_ptr + side * E + k, inside, 0)
        for c0 in range(0, C, BC):
            c = c0 + tl.arange(0, BC)
            ok = inside[:, None] & (c < C)[None, :]
            for l in tl.static_range(L + 1):
                t_x, t_y, t_z = _pull_degree(
                    t_x, t_y, t_z, dz_ptr, x_ptr, d_ptr, g_ptr, back_ptr, node, k, c, ok, inside, side, 2, C,
                    l, L, M, R, ROWS, True, BE, BC,
                )  # fmt: skip
    tl.store(torque_ptr + k * 3, -tl.sum(t_x, 1), inside)
    tl.store(torque_ptr + k * 3 + 1, -tl.sum(t_y, 1), inside)
    tl.store(torque_ptr + k * 3 + 2, -tl.sum(t_z, 1), inside)


@triton.jit
def sum_rows(
    rows_ptr, key_ptr, end_ptr, order_ptr, out_ptr, first, N, S, C, side,
    HAS_ORDER: tl.constexpr, BE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[key % N] += rows[.., side], over equal keys by the program of the first of them; rows [T, S, 2 C] begin at edge first."""
    tiles = tl.cdiv(S * C, BC)
    f = (tl.program_id(0) % tiles) * BC + tl.arange(0, BC)
    q = first + (tl.program_id(0) // tiles).to(tl.int64)
    key = tl.load(key_ptr + q)
    head = (q == first) | (tl.load(key_ptr + q - 1, q > first, 0) != key)
    ok = f < tl.where(head, S * C, 0)
    out = out_ptr + key % N * (S * C) + f
    total = tl.load(out, ok, 0)
    end = tl.where(head, tl.load(end_ptr + q), q)
    for q0 in range(q, end, BE):
        at = q0 + tl.arange(0, BE).to(tl.int64)
        inside = at < end
        if HAS_ORDER:
            at = tl.load(order_ptr + at, inside, 0)
        place = ((at - first) * S)[:, None] * (2 * C) + (f // C * (2 * C) + side * C + f % C)[None, :]
        total += tl.sum(tl.load(rows_ptr + place, inside[:, None] & ok[None, :], 0), 0)
    tl.store(out, total, ok)


@cache
def _generators(L: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return generators(L).to(device, dtype)


class _Chunk:
    """Launches for some edges of a block, in their frames D."""

    def __init__(self, D: Tensor, L: int, M: int):
        self.D, self.L, self.M, self.n = D, L, M, len(order(L, M))

    def rotate(self, x: Tensor, nodes: Tensor, s: Tensor | None, raw: bool) -> tuple[Tensor | None, Tensor]:
        """(D x of every side, or None; the same times s, which is per edge or per row)."""
        sides, E, T, C = nodes.shape[0], nodes.stride(0), nodes.shape[1], x.shape[2]
        out = x.new_empty(T, self.n * sides * C)
        before = torch.empty_like(out) if raw and s is not None else out
        BE, BC = ct.tile(C)
        scale = "none" if s is None else "edge" if s.dim() == 1 else "radial"
        ct.launch(
            rotate, "edge_block_bwd", x, triton.cdiv(T, BE) * triton.cdiv(C, BC) * sides, x, self.D, x if s is None else s, nodes,
            before, out, T, E, C, sides, s.shape[1] if scale == "radial" else 0,
            L=self.L, M=self.M, R=packed_size(self.L, self.M), ROWS=self.n, SCALE=scale, RAW=before is not out, BE=BE, BC=BC,
        )  # fmt: skip
        return (before if raw else None), out

    def gate(self, pre: Tensor, H: int, dh: Tensor | None, want_h: bool) -> tuple[Tensor | None, Tensor | None]:
        h = pre.new_empty(pre.shape[0], self.n * H) if want_h else None
        dp = None if dh is None else torch.empty_like(pre)
        BE, BC = ct.tile(max(H, 1))
        ct.launch(
            gate_rows, "edge_block_bwd", pre, triton.cdiv(pre.shape[0], BE) * triton.cdiv(H, BC), pre, pre if dh is None else dh,
            pre if h is None else h, pre if dp is None else dp, pre.shape[0], H,
            L=self.L, M=self.M, ROWS=self.n, HAS_H=want_h, HAS_DH=dh is not None, BE=BE, BC=BC,
        )  # fmt: skip
        return h, dp

    def pull_back(self, dz: Tensor, o: Tensor, x: Tensor, grad: Tensor, env: Tensor | None, ends: Tensor, torque: Tensor) -> Tensor:
        """D^T dz; fills torque."""
        T, C = ends.shape[1], x.shape[2]
        back = x.new_empty(T, x.shape[1], 2 * C)
        BE, BC = ct.tile(C)
        BE //= 2  # three sums of a tile stay in registers
        ct.launch(
            pull_back, "edge_block_bwd", x, triton.cdiv(T, BE), dz, o, x, grad, self.D,
            _generators(self.L, x.dtype, x.device), x if env is None else env, ends, back, torque, T, ends.stride(0), C,
            L=self.L, M=self.M, R=packed_size(self.L, self.M), ROWS=self.n, HAS_ENV=env is not None, BE=BE, BC=BC,
        )  # fmt: skip
        return back


def _sum_rows(rows: Tensor, key: Tensor, end: Tensor, position: Tensor | None, out: Tensor, first: int, side: int) -> None:
    N, S, C = out.shape
    BC = max(16, min(triton.next_power_of_2(S * C), 256))
    ct.launch(
        sum_rows, "edge_block_bwd", rows, rows.shape[0] * triton.cdiv(S * C, BC), rows, key, end,
        key if position is None else position, out, first, N, S, C, side, HAS_ORDER=position is not None, BE=8, BC=BC,
    )  # fmt: skip


def _step(E: int, L: int, M: int, C: int, H: int, size: int) -> int:
    """Edges of a chunk: as few chunks as SCRATCH allows, of one length."""
    n = len(order(L, M))
    chunks = triton.cdiv(E, max(8, SCRATCH // (size * max(1, 10 * n * C + 4 * (L + n) * H))))
    return triton.cdiv(E, chunks)


def _across(torque: Tensor, vec: Tensor) -> Tensor:
    """torque x e / |vec|, in double as the frames."""
    big = vec.double() / vec.double().abs().amax(1, keepdim=True)
    e = big / big.norm(dim=1, keepdim=True)
    return (torch.linalg.cross(torque.double(), e) / (e * vec).sum(1, keepdim=True)).to(vec.dtype)


def edge_block_bwd(grad, x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2, rowptr, col, eid,
                   pre, mid, lmax, mmax, hidden, three, wanted):  # fmt: skip
    """Same signature and results as torch.ops.structops.edge_block_bwd; ``three`` is not used, the products are on tensor cores."""
    ct.check_device("edge_block_bwd", x)
    L, M, N, C, H, E = lmax, mmax, x.shape[0], x.shape[2], hidden, col.shape[0]
    leaves = (x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2)
    results = tuple(
        torch.zeros_like(t) if t is not None and wanted & bit else x.new_empty(0) for t, bit in zip(leaves, BITS, strict=True)
    )
    d_x, d_vec, d_radial, d_wr, d_br, d_env, d_w1, d_b1, d_w2, d_b2 = results
    nodes, weights = bool(wanted & 1), bool(wanted & 8)
    want_env = bool(wanted & 4) and envelope is not None
    want_s = radial is not None and (bool(wanted & 2) or (weights and radial_weight is not None))
    through = nodes or want_s or weights  # whether anything before the second convolution has a gradient
    if E == 0 or C == 0 or not (through or want_env):
        return results
    pre, mid = (None if t is None or t.numel() == 0 else t for t in (pre, mid))
    need_o = nodes or want_env
    need_pre = through or (need_o and mid is None)
    conv1, conv2 = (L, M, 2 * C, H, L * H), (L, M, H, C, 0)
    src, dst, j = edges(rowptr, col, eid)
    ends = torch.stack([src, dst])
    wigner = backends.implementation("so2_wigner", x.device.type)
    step = _step(E, L, M, C, H, x.element_size())
    if nodes:
        torque = x.new_empty(E, 3)
        chunk = torch.arange(E, device=x.device) // step * N
        into, (out_of, position) = chunk + dst, torch.sort(chunk + src, stable=True)
        into_end, out_end = (torch.searchsorted(key, key, right=True) for key in (into, out_of))
    for first in range(0, E, step):
        part = slice(first, first + step)
        now = j[part]
        c = _Chunk(wigner(vec[now], None, L, M), L, M)
        env, s = None if envelope is None else envelope[now], None
        if radial is not None and need_pre:
            near = radial[now]
            s = near if radial_weight is None else torch.nn.functional.linear(near, radial_weight, radial_bias)
        z = zs = h = None
        if want_s or weights or (need_pre and pre is None):
            z, zs = c.rotate(x, ends[:, part], s, want_s)
        if need_pre:
            p = convolve(zs, weight1, bias1, *conv1, False) if pre is None else pre[part]
        if need_o:
            if mid is None:
                h = c.gate(p, H, None, True)[0]
            o = convolve(h, weight2, bias2, *conv2, False) if mid is None else mid[part]
        raw, u = c.rotate(grad, ends[1:, part], env, want_env)
        if want_env:
            d_env[now] = (raw * o).sum(1)
        if through:
            given, dp = c.gate(p, H, convolve(u, weight2, None, *conv2, True), weights and h is None)
            if weights:
                d_w2 += so2_conv_wgrad(given if h is None else h, u, *conv2)
                d_b2 += u[:, : d_b2.numel()].sum(0)
                d_w1 += so2_conv_wgrad(zs, dp, *conv1)
                d_b1 += dp[:, : d_b1.numel()].sum(0)
        if nodes or want_s:
            ds = torch.empty_like(s) if want_s else None
            dz = convolve(dp, weight1, None, *conv1, True, s, z, ds)
        if want_s:
            if wanted & 2:
                d_radial[now] = ds if radial_weight is None else ds @ radial_weight
            if weights and radial_weight is not None:
                d_wr += ds.T @ near
                if radial_bias is not None:
                    d_br += ds.sum(0)
        if nodes:
            back = c.pull_back(dz, o, x, grad, env, ends[:, part], torque[part])
            _sum_rows(back, into, into_end, None, d_x, first, 1)
            _sum_rows(back, out_of, out_end, position, d_x, first, 0)
    if nodes:
        d_vec[j] = _across(torque, vec[j])
    return results
