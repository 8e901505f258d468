"""Self-check cases of the polynomial filters."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    N, E, K = 20, 120, 3
    src, dst = torch.randint(0, N, (2, E), generator=g)

    def csr(row, col):
        order = torch.argsort(row, stable=True)
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(row, minlength=N).cumsum(0)])
        return [t.int() for t in (ptr, col[order], order)]

    s = (*csr(dst, src), *csr(src, dst))
    for dtype in DTYPES:
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        rand = lambda t, *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) + 0.1).to(t)
        for C in (1, 19):
            x, y, weight = rand(dtype, N, C), rand(dtype, N, C), (rand(torch.float64, E) / 10).to(dtype)
            alpha, recur, gate = rand(acc, K + 1, C), rand(acc, 3, K, C) / 2, rand(acc, C + 1) / 8
            if op == "poly_filter":
                yield x, weight, *s, alpha, recur, y, None
                yield x, None, *s, alpha, recur / 8, None, gate
            else:
                yield y, x, weight, *s, alpha, recur, None, True
                yield y, x, weight, *s, alpha, recur, gate, False
