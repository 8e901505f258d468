"""Arguments of the block-sparse products and of the powers of differences, for opcheck. ``leaf(*shape)`` makes an operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import random_coo, to_csr


def block_spmm_samples(leaf: Callable) -> dict[str, list[tuple]]:
    M, N, E = 7, 6, 16
    none = (None, None, None)
    s = (*to_csr(random_coo(M, N, E, seed=3), N), *none)
    pair = torch.arange(E).reshape(-1, 2).flip(1).reshape(-1)
    return {
        "block_spmm": [
            (leaf(M, 3, 4), leaf(E, 2, 3), None, *s, 1.0, False, False), (leaf(M, 3, 4), leaf(E, 3, 2), None, *s, -1.0, True, False),
            (leaf(E, 2, 4), leaf(E, 2, 2), None, s[0], None, None, *none, 1.0, False, False), (leaf(4, M, 3), leaf(E, 2, 3), None, *s, 1.0, False, True),
        ],
        "block_sddmm": [
            (leaf(N, 3, 4), leaf(M, 2, 4), *s, E, 1.0, False, False), (leaf(N, 3, 4), leaf(M, 2, 4), *s, E, -1.0, True, False),
            (leaf(4, N, 3), leaf(4, M, 2), *s, E, -1.0, True, True),
        ],
        "block_matmul": [
            (leaf(E, 3, 2), leaf(E, 3, 2), pair, False, True, True, False), (leaf(E, 3, 2), leaf(E, 4, 2), None, False, False, False, True),
        ],
        "difference_rows": [
            (leaf(M, 3), leaf(N, 3), None, None, *s, 1.0, True), (leaf(M, 3), leaf(N, 3), leaf(E), leaf(M, 3), *s, 1.5, False),
        ],
        "difference_edges": [
            (leaf(M, 3), leaf(N, 3), None, None, *s, E, 1.0, False), (leaf(M, 3), leaf(N, 3), leaf(N, 3), leaf(M, 3), *s, E, 3.0, True),
        ],
    }  # fmt: skip
