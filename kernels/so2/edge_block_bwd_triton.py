"""GPU gradient of the edge block, its products on tensor cores. The contract is csrc/so2/edge_block.h.

Chunks of edges in order of k, so that scratch does not grow with E:

    rotate      both ends into the edge frame: z, and z s; grad of the destination: u = env D grad
    gate_rows   h, and from dh = conv2^T u the gradient of pre
    convolve    the products (so2_conv_triton.py); conv1^T also multiplies by the scales and finds their gradient
    sum_rows    what D^T dz adds to the nodes: a program per group of the chunk's edges that share one, no atomics

Edges are grouped by destination as they come, by source after one stable sort of (chunk, source) for all chunks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import backends
from ..sparse import common_triton as ct
from .common_triton import frame_row, packed_at, scale_row
from .edge_block_ref import edges
from .so2_conv_triton import convolve, so2_conv_wgrad
from .wigner_ref import order, packed_size

CHUNK = 8192
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


class _Chunk:
    """Launches for the edges first..last of a block."""

    def __init__(self, like: Tensor, D: Tensor, L: int, M: int):
        self.like, self.D, self.L, self.M, self.n = like, D, L, M, len(order(L, M))

    def rotate(self, x: Tensor, nodes: Tensor, s: Tensor | None, raw: bool) -> tuple[Tensor | None, Tensor]:
        """(D x of every side, or None; the same times s, which is per edge or per row)."""
        sides, E, T, C = nodes.shape[0], nodes.stride(0), nodes.shape[1], x.shape[2]
        out = x.new_empty(T, self.n * sides * C)
        before = torch.empty_like(out) if raw and s is not None else out
        BE, BC = ct.tile(max(C, 1))
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


def _sum_rows(rows: Tensor, key: Tensor, end: Tensor, position: Tensor | None, out: Tensor, first: int, side: int) -> None:
    N, S, C = out.shape
    BC = max(16, min(triton.next_power_of_2(S * C), 256))
    ct.launch(
        sum_rows, "edge_block_bwd", rows, rows.shape[0] * triton.cdiv(S * C, BC), rows, key, end,
        key if position is None else position, out, first, N, S, C, side, HAS_ORDER=position is not None, BE=8, BC=BC,
    )  # fmt: skip


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
    wigner, rotate_back, torque_of = (
        backends.implementation(op, x.device.type) for op in ("so2_wigner", "so2_rotate_back", "so3_torque")
    )
    if nodes:
        torque = x.new_empty(E, 3)
        chunk = torch.arange(E, device=x.device) // CHUNK * N
        into, (out_of, position) = chunk + dst, torch.sort(chunk + src, stable=True)
        into_end, out_end = (torch.searchsorted(key, key, right=True) for key in (into, out_of))
    for first in range(0, E, CHUNK):
        part = slice(first, min(first + CHUNK, E))
        now, T = j[part], min(CHUNK, E - first)
        D = wigner(vec[now], None, L, M)
        c = _Chunk(x, D, L, M)
        env, s = None if envelope is None else envelope[now], None
        if radial is not None:
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
            turned = torque_of(grad[dst[part]], rotate_back(o.reshape(T, c.n, C), D, L, M), L, -1)
            back = rotate_back(dz.reshape(T, c.n, 2 * C), D, L, M)
            both = torch.cat([x[src[part]], x[dst[part]]], 2)
            torque[part] = (turned if env is None else turned * env[:, None]) - torque_of(back, both, L, -1)
            _sum_rows(back, into, into_end, None, d_x, first, 1)
            _sum_rows(back, out_of, out_end, position, d_x, first, 0)
    if nodes:
        d_vec[j] = _across(torque, vec[j])
    return results
