"""Turns of edge-frame rows about the edge."""

from __future__ import annotations

from structops import so2
from torch import Tensor


def turn(z: Tensor, gamma: Tensor, lmax: int, mmax: int) -> Tensor:
    """Rows ``[E, n, C]`` turned by ``gamma [E]``: (z+, z-) as the complex number z+ + i z- times exp(i m gamma)."""
    out, index = z.clone(), {row: i for i, row in enumerate(so2.frame_order(lmax, mmax))}
    for (l, m), i in index.items():
        if m > 0:
            c, s, j = (m * gamma).cos()[:, None], (m * gamma).sin()[:, None], index[l, -m]
            out[:, i], out[:, j] = c * z[:, i] - s * z[:, j], s * z[:, i] + c * z[:, j]
    return out
