"""Arguments of every raw operator of the so2 family, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch


def so2_samples(leaf: Callable) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    # tensor products, spherical harmonics

    # frames, Wigner matrices, SO(2) convolutions
    found |= frame_samples(leaf)
    return found


def frame_samples(leaf: Callable) -> dict[str, list[tuple]]:
    L, M, E, C, H = 2, 1, 4, 2, 2
    n, S, R, width = 7, 9, 25, 20
    fixed = lambda *shape: leaf(*shape).detach()  # noqa: E731
    ptr, col, eid = torch.tensor([0, 2, 2, 4]), torch.tensor([1, 2, 0, 2]), torch.tensor([3, 0, 1, 2])
    full = (leaf(3, S, C), leaf(E, 3), leaf(E, 3), leaf(width, 3), leaf(width), leaf(E), leaf(184), leaf(10), leaf(68), leaf(6))
    bare = (leaf(3, S, C), leaf(E, 3), None, None, None, None, leaf(184), leaf(10), leaf(68), leaf(6))
    degrees = (L, M, H, False)
    return {
        "so2_wigner": [(leaf(E, 3), None, L, M), (leaf(E, 3), fixed(E), L, M)],
        "so2_rotate": [(leaf(E, S, C), leaf(E, R), L, M)],
        "so2_rotate_back": [(leaf(E, n, C), leaf(E, R), L, M)],
        "so2_rotate_outer": [(leaf(E, n, C), leaf(E, S, C), L, M)],
        "so3_turn": [(leaf(E, S, C), leaf(E, 3), L, -1), (leaf(E, R), leaf(E, 3), L, M)],
        "so3_torque": [(leaf(E, S, C), leaf(E, S, C), L, -1), (leaf(E, R), leaf(E, R), L, M)],
        "so2_conv": [
            (leaf(E, n * C), leaf(74), leaf(7), L, M, C, 2, 1, False, False), (leaf(E, 15), leaf(74), None, L, M, C, 2, 1, True, True),
        ],
        "so2_conv_wgrad": [(leaf(E, n * C), leaf(E, 15), L, M, C, 2, 1)],
        "edge_block": [(*full, ptr, col, eid, *degrees, True), (*bare, ptr.int(), col.int(), None, *degrees, False)],
        "edge_block_bwd": [
            (leaf(3, S, C), *full, ptr, col, eid, None, None, *degrees, 15), (leaf(3, S, C), *bare, ptr, col, None, None, None, *degrees, 1),
        ],
    }  # fmt: skip
