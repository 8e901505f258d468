"""Self-check cases of attention over edges."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .._ladder import with_reverse
from ..kernels import codes as C
from ..kernels.sparse import attention_ref
from ._common import DTYPES, structure


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    N, M, E, H = 20, 15, 400, 3
    for n, dtype in enumerate(DTYPES):
        rowptr, col, eid = structure(g, N, M, E, (torch.int32, torch.int64)[n % 2])
        back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
        rand = lambda *shape, dtype=dtype: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        for score, K in ((C.ADDITIVE, 1), (C.GATV2, 19), (C.DOT, 33)):
            edge = rand(E, H, K) if score == C.GATV2 else rand(E, H)
            args = rand(M, H, K), rand(N, H, K), rand(M, H, 21), edge, rand(H, K) if score == C.GATV2 else None
            tail = score, 0.2, 0.25
            if op == "attention":
                yield *args, rowptr, col, eid, None, None, None, *tail
            else:
                out, lse = attention_ref.attention(*args, rowptr, col, eid, None, None, None, *tail)
                yield *args, out, lse, rand(N, H, 21), rowptr, col, eid, *back, *tail
