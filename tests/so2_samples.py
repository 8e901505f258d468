"""Arguments of every raw operator of the so2 family, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable


def so2_samples(leaf: Callable) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    # tensor products, spherical harmonics

    # frames, Wigner matrices, SO(2) convolutions
    return found
