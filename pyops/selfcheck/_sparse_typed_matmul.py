"""Self-check cases of typed and edge-conditioned products."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from ..graph import Graph
from ._common import DTYPES, structure


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    from ..sparse._typed_plan import NOTHING, RelationPlan, TypePlan

    N, M, E, R = 20, 15, 400, 5
    for dtype, itype in itertools.product(DTYPES, (torch.int32, torch.int64)):
        rand = lambda *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) - 0.5).to(dtype)  # noqa: B023
        rowptr, col, eid = structure(g, N, M, E, itype)
        for K, O in ((24, 40), (7, 3)):
            if op.startswith("edge_matmul"):
                s = (rowptr, col, eid, None, None, None)
                x, h, w, y = rand(M, K), rand(E, 6), rand(6, K, O), rand(N, O)
                yield {"edge_matmul": (x, h, w), "edge_matmul_hgrad": (x, y, w), "edge_matmul_wgrad": (x, h, y)}[op] + s
                continue
            kind = torch.randint(0, R - 1, (E,), generator=g)
            gather = torch.randint(0, M, (E,), generator=g)
            rows = TypePlan(kind, R, gather, M)
            graph = Graph(torch.stack([gather, torch.randint(0, N, (E,), generator=g)]), num_src=M, num_dst=N)
            edges = RelationPlan(graph, kind, R)
            scale = edges.mean_scales(torch.float64 if dtype == torch.float64 else torch.float32)[0]
            for lists, c, size in ((rows.lists, None, E), (edges.lists, scale, N)):
                own = tuple(t if t is None else t.to(itype) for t in lists)
                if op == "typed_matmul":
                    yield rand(M, K), rand(R, K, O), rand(R, O) if c is None else None, c, None, *own, *NOTHING, size
                else:
                    yield rand(M, K), rand(size, O), c, None, *own, *NOTHING, R
