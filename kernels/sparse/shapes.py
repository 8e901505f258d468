"""Shapes of operands and results, as every backend reads them."""

from __future__ import annotations

from torch import Tensor


def sizes(t: Tensor) -> tuple[int, int, int]:
    """(B, rows, F) of [rows], [rows, F] or [B, rows, F]."""
    if t.dim() == 1:
        return 1, t.shape[0], 1
    B = 1 if t.dim() == 2 else t.shape[0]
    return B, t.shape[-2], t.shape[-1]


def shape(rank: int, B: int, N: int, F: int) -> tuple[int, ...]:
    """The shape of a result of that rank."""
    return ((N,), (N, F), (B, N, F))[rank - 1]
