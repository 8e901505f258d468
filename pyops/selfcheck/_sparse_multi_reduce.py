"""Self-check cases of several reductions at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from .._ladder import multi_reduce, with_reverse
from ..kernels import codes as C
from ._common import DTYPES, structure

LISTS = [C.MEAN, C.MIN, C.MAX, C.STD], [C.MAX, C.SUM], [C.VAR, C.STD, C.SUM, C.MEAN], [C.MIN]


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    N, M, E, F = 20, 15, 400, 83
    for (n, dtype), reduces in itertools.product(enumerate(DTYPES), LISTS):
        rowptr, col, eid = structure(g, N, M, E, (torch.int32, torch.int64)[n % 2])
        # Of few digits: sums of two are exact, and there are ties.
        rand = lambda *shape, dtype=dtype: torch.rand(*shape, generator=g).bfloat16().to(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        scale = rand(2, N, dtype=wide) + 0.5 if len(reduces) == 4 else None
        for x, edge in ((rand(M, F), None), (rand(M, F), rand(E, F)), (None, rand(E, F))):
            s = (rowptr, col, eid, *with_reverse((rowptr, col, eid, None, None, None), M)[3:])
            args = (*s, scale, reduces)
            if op == "multi_reduce":
                yield x, edge, rand(N, F), *args, 1e-3, True
            else:
                _, stat, arg = multi_reduce.below(x, edge, None, *args, 1e-3, True)
                yield x, edge, rand(N, (1 if scale is None else 2) * len(reduces), F), stat, arg, *args, 7
