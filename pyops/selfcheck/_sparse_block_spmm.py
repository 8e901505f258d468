"""Self-check cases of the block-sparse products and of the powers of differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from ._common import DTYPES, structure


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    rand = lambda dtype, *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5).to(dtype)
    N, M, E = 20, 15, 200
    none = (None, None, None)
    for dtype, itype in itertools.product(DTYPES, (torch.int32, torch.int64)):
        s = (*structure(g, N, M, E, itype), *none)
        if op == "block_spmm":
            for p, q, f in ((2, 2, 64), (5, 5, 19), (9, 3, 4)):
                yield rand(dtype, M, q, f), rand(dtype, E, p, q), None, *s, 1.0, False, False
                yield rand(dtype, M, q, f), rand(dtype, E, q, p), None, *s, -2.0, True, False
                yield rand(dtype, f, M, q), rand(dtype, E, p, q), None, *s, 1.0, False, True
        elif op == "block_sddmm":
            for p, q, f in ((2, 2, 64), (5, 6, 19)):
                yield rand(dtype, N, p, f), rand(dtype, M, q, f), *s, E, 1.0, False, False
                yield rand(dtype, N, p, f), rand(dtype, M, q, f), *s, E, 0.5, True, False
                yield rand(dtype, f, N, p), rand(dtype, f, M, q), *s, E, 0.5, True, True
        elif op == "block_matmul":
            pair = torch.arange(E).reshape(-1, 2).flip(1).reshape(-1).to(itype)
            for d in (2, 3, 6):
                yield rand(dtype, E, d, d), rand(dtype, E, d, d), pair, False, True, True, False
        elif op in ("difference_rows", "difference_edges"):
            for F, power in itertools.product((3, 64), (0.0, 1.0, 2.0, 1.5)):
                # y > x: terms of one sign, so that nothing cancels.
                x = torch.randint(0, 9, (M, F), generator=g).to(dtype) / 4
                y = torch.randint(9, 18, (N, F), generator=g).to(dtype) / 4
                if op == "difference_rows":
                    yield x, y, rand(dtype, E), rand(dtype, M, F), *s, power, F == 3
                else:
                    yield x, y, rand(dtype, N, F), None, *s, E, power, F == 3
