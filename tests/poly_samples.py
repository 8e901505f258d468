"""Arguments of the raw poly_filter and its gradient, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

from cases import random_coo, to_csr


def poly_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, E = 6, 16
    coo = random_coo(N, N, E, seed=3)
    s = (*to_csr(coo, N), *to_csr(coo.flip(0), N))
    fixed = lambda *shape: leaf(*shape).detach()
    return {
        "poly_filter": [
            (leaf(N, 3), fixed(E), *s, leaf(3, 3), fixed(3, 2, 1), leaf(N, 3), None),
            (leaf(N, 3), leaf(E), *s[:3], None, None, None, leaf(3, 1), leaf(3, 2, 3), None, None),
            (leaf(N, 2), None, *s, leaf(2, 1), fixed(3, 1, 1), None, leaf(3)),
        ],
        "poly_filter_bwd": [
            (fixed(N, 3), fixed(N, 3), fixed(E), *s, fixed(3, 3), fixed(3, 2, 1), None, True),
            (fixed(N, 3), fixed(N, 3), None, *s[:2], None, *s[3:], fixed(3, 1), fixed(3, 2, 3), fixed(4), False),
        ],
    }
