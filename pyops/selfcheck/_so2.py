"""Self-check cases of the so2 family."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    # tensor products, spherical harmonics

    # frames, Wigner matrices, SO(2) convolutions
    raise KeyError(op)
