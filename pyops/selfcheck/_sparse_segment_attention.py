"""Self-check cases of attention within segments."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..kernels.sparse import segment_attention_ref
from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator: empty segments, one longer than a tile and a block, several in a tile."""
    queries, keys = torch.tensor([0, 3, 3, 100, 104, 130]), torch.tensor([0, 5, 7, 150, 150, 161])
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), (queries.diff() * keys.diff()).cumsum(0)])
    Nq, Nk, P, H = int(queries[-1]), int(keys[-1]), int(offset[-1]), 3
    for n, dtype in enumerate(DTYPES):
        rand = lambda *shape, dtype=dtype: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
        index = (torch.int32, torch.int64)[n % 2]
        for K, D, biased in ((33, 21, True), (8, 40, False)):
            args = rand(Nq, H, K), rand(Nk, H, K), rand(Nk, H, D), rand(P, H) if biased else None
            tail = queries.to(index), keys.to(index), offset if biased else None, 0.2
            if op == "segment_attention":
                yield *args, *tail
            else:
                out, lse = segment_attention_ref.segment_attention(*args, *tail)
                yield *args, out, lse, rand(Nq, H, D), *tail
