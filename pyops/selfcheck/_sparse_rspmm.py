"""Self-check cases of relational_spmm."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from .. import _ladder as ladder
from .._ladder._rspmm import with_reverse
from ..kernels import codes as C
from ._common import DTYPES, structure


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    N, R, E, F = 20, 5, 300, 22
    for dtype, itype in itertools.product(DTYPES, (torch.int32, torch.int64)):
        rand = lambda *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5).to(dtype)  # noqa: B023
        rowptr, col, eid = structure(g, N, N, E, itype)
        kind = torch.randint(0, R, (E,), generator=g).to(itype)
        s = (rowptr, col, eid, kind, *with_reverse(rowptr, col, eid, kind, N))
        mask = torch.rand(E, generator=g) < 0.7
        for mul, reduce in itertools.product(range(5), range(6)):
            x, weight = rand(N, F), None if reduce in (C.REL_LEAST, C.REL_LARGEST, C.REL_PNA) else rand(E)
            rel = None if mul == C.REL_COPY else rand(R, F)
            args = (x, rel, weight, mask if mul % 2 else None, *s, mul, reduce, 0.0)
            if op == "relational_spmm":
                if reduce < C.REL_LSE or dtype.itemsize > 2:
                    yield args
                continue
            if dtype.itemsize == 2 and reduce > C.REL_MEAN:
                continue  # their backward reads the rounded result
            out, arg, rest = ladder.relational_spmm(*args)
            yield (torch.rand(out.shape, generator=g, dtype=torch.float64).to(dtype), *args[:4], out, arg, rest, *s, mul, reduce, 7)
