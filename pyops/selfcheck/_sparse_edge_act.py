"""Self-check cases of edge activations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from .._ladder import with_reverse
from ..kernels import codes as C
from ._common import DTYPES, structure


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    N, M, E, F = 20, 15, 400, 83
    for (n, dtype), act in itertools.product(enumerate(DTYPES), C.EDGE_ACTS.values()):
        rowptr, col, eid = structure(g, N, M, E, (torch.int32, torch.int64)[n % 2])
        rand = lambda *shape, dtype=dtype: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        shapes = (M, F), (N, F), act % 2 and (E, F), act % 3 and (M, F), act % 4 < 2 and (E,), act % 4 < 2 and (F,)
        args = tuple(rand(*s) if s else None for s in shapes)
        if op == "edge_act":
            yield *args, rowptr, col, eid, None, None, None, act, 0.3, act % 2 > 0
        else:
            back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
            yield *args, rand(N, F), rowptr, col, eid, *back, act, 0.3, act % 3 > 0
