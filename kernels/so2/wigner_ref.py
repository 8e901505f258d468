"""Reference of the frames, Wigner matrices and rotations: the specification of csrc/so2/wigner.h in plain torch."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

SEAM = -0.85


def kept(l: int, M: int) -> int:
    return 2 * min(l, M) + 1


def packed_size(L: int, M: int) -> int:
    """Numbers of a packed Wigner matrix."""
    return sum(kept(l, M) * (2 * l + 1) for l in range(L + 1))


def order(L: int, M: int) -> list[tuple[int, int]]:
    """(l, m) of every row of the edge frame, m-primary."""
    rows = [(l, 0) for l in range(L + 1)]
    for m in range(1, M + 1):
        rows += [(l, m) for l in range(m, L + 1)] + [(l, -m) for l in range(m, L + 1)]
    return rows


def frame(vec: Tensor, gamma: Tensor | None = None) -> Tensor:
    """The rotation [E, 3, 3] that turns every vector onto the y axis."""
    e = vec / vec.norm(dim=1, keepdim=True)
    below = e[:, 1] < SEAM
    s = torch.where(below, -1.0, 1.0).to(e.dtype)
    x, y, z = e[:, 0], s * e[:, 1], s * e[:, 2]
    # The other chart's denominator is never 0 where it is not used.
    t = 1 / (1 + y)
    rows = [1 - x * x * t, -x * s, -x * z * t * s, x, y * s, z * s, -x * z * t, -z * s, (1 - z * z * t) * s]
    R = torch.stack(rows, 1).reshape(-1, 3, 3)
    if gamma is not None:
        c, g, o, i = gamma.cos(), gamma.sin(), torch.zeros_like(gamma), torch.ones_like(gamma)
        R = torch.stack([c, o, g, o, i, o, -g, o, c], 1).reshape(-1, 3, 3) @ R
    return R


def wigner_full(R: Tensor, L: int) -> list[Tensor]:
    """D^0..D^L of rotation matrices [E, 3, 3], by the recursion of Ivanic and Ruedenberg, entry by entry."""
    D = [R.new_ones(R.shape[0], 1, 1) + 0 * R[:, :1, :1], R]
    for l in range(2, L + 1):
        last = D[-1]

        def P(i: int, mu: int, k: int, l: int = l, last: Tensor = last) -> Tensor:
            r = R[:, i + 1]
            row = last[:, mu + l - 1]
            if k == l:
                return r[:, 2] * row[:, 2 * l - 2] - r[:, 0] * row[:, 0]
            if k == -l:
                return r[:, 2] * row[:, 0] + r[:, 0] * row[:, 2 * l - 2]
            return r[:, 1] * row[:, k + l - 1]

        entries = []
        for m in range(-l, l + 1):
            a, d = abs(m), float(m == 0)
            for k in range(-l, l + 1):
                den = 2 * l * (2 * l - 1) if abs(k) == l else (l + k) * (l - k)
                u = math.sqrt((l + m) * (l - m) / den)
                v = 0.5 * math.sqrt((1 + d) * (l + a - 1) * (l + a) / den) * (1 - 2 * d)
                w = -0.5 * math.sqrt(max((l - a - 1) * (l - a), 0) / den) * (1 - d)
                total = torch.zeros_like(R[:, 0, 0])
                if u:
                    total = total + u * P(0, m, k)
                if m == 0:
                    total = total + v * (P(1, 1, k) + P(-1, -1, k))
                elif m > 0:
                    total = total + v * P(1, m - 1, k) * math.sqrt(2 if m == 1 else 1)
                    total = total - v * P(-1, 1 - m, k) if m > 1 else total
                else:
                    total = total + v * P(-1, -m - 1, k) * math.sqrt(2 if m == -1 else 1)
                    total = total + v * P(1, m + 1, k) if m < -1 else total
                if w:
                    total = total + (w * (P(1, m + 1, k) + P(-1, -m - 1, k)) if m > 0 else w * (P(1, m - 1, k) - P(-1, 1 - m, k)))
                entries.append(total)
        D.append(torch.stack(entries, 1).reshape(-1, 2 * l + 1, 2 * l + 1))
    return D[: L + 1]


def pack(D: list[Tensor], M: int) -> Tensor:
    """Full matrices to packed ones: the rows |m| <= M of every degree."""
    blocks = []
    for l, d in enumerate(D):
        k = min(l, M)
        blocks.append(d[:, l - k : l + k + 1].flatten(1))
    return torch.cat(blocks, 1)


def dense(packed: Tensor, L: int, M: int) -> Tensor:
    """[E, n, S] with rows in m-primary order."""
    place = {row: i for i, row in enumerate(order(L, M))}
    out = packed.new_zeros(packed.shape[0], len(place), (L + 1) ** 2)
    at = 0
    for l in range(L + 1):
        k, size = min(l, M), 2 * l + 1
        for m in range(-k, k + 1):
            out[:, place[l, m], l * l : l * l + size] = packed[:, at : at + size]
            at += size
    return out


def _sparse(full: Tensor, L: int, M: int) -> Tensor:
    """The entries of [E, n, S] that a packed matrix holds."""
    place = {row: i for i, row in enumerate(order(L, M))}
    blocks = []
    for l in range(L + 1):
        k = min(l, M)
        blocks += [full[:, place[l, m], l * l : (l + 1) ** 2] for m in range(-k, k + 1)]
    return torch.cat(blocks, 1)


@cache
def generators(L: int) -> Tensor:
    """G_x, G_y, G_z on degrees 0..L, float64 [3, S, S]: the derivative of D along rotations about an axis, at the identity."""
    with torch.inference_mode(False), torch.device("cpu"):  # kept, whatever the process's defaults
        return _generators(L)


def _generators(L: int) -> Tensor:
    eye = torch.eye(3, dtype=torch.float64)
    levi = torch.stack([torch.linalg.cross(eye[j].expand(3, 3), eye, dim=1).T for j in range(3)])

    def full(R: Tensor) -> Tensor:
        D = [d[0] for d in wigner_full(R[None], max(L, 1))][: L + 1]
        return torch.block_diag(*D)

    turn = lambda t, j: full(torch.linalg.matrix_exp(t * levi[j]))
    found = [torch.func.jacfwd(turn)(torch.zeros((), dtype=torch.float64), j) for j in range(3)]
    G = torch.stack(found)
    return torch.where(G.abs() < 1e-9, 0.0, G)


def so2_wigner(vec, gamma, lmax, mmax):
    """Same signature and results as torch.ops.structops.so2_wigner."""
    big = vec.double() / vec.double().abs().amax(1, keepdim=True)
    return pack(wigner_full(frame(big, None if gamma is None else gamma.double()), lmax), mmax).to(vec.dtype)


def so2_rotate(x, wigner, lmax, mmax):
    """Same signature and results as torch.ops.structops.so2_rotate."""
    return dense(wigner, lmax, mmax) @ x


def so2_rotate_back(z, wigner, lmax, mmax):
    """Same signature and results as torch.ops.structops.so2_rotate_back."""
    return dense(wigner, lmax, mmax).mT @ z


def so2_rotate_outer(z, x, lmax, mmax):
    """Same signature and results as torch.ops.structops.so2_rotate_outer."""
    return _sparse(z @ x.mT, lmax, mmax)


def so3_turn(x, v, lmax, mmax):
    """Same signature and results as torch.ops.structops.so3_turn."""
    G = torch.einsum("ej,jst->est", v, generators(lmax).to(v))
    if mmax < 0:
        return G @ x
    return _sparse(dense(x, lmax, mmax) @ G, lmax, mmax)


def so3_torque(grad, x, lmax, mmax):
    """Same signature and results as torch.ops.structops.so3_torque."""
    G = generators(lmax).to(x)
    if mmax < 0:
        return torch.einsum("esc,jst,etc->ej", grad, G, x)
    return torch.einsum("ers,jts,ert->ej", dense(grad, lmax, mmax), G, dense(x, lmax, mmax))
