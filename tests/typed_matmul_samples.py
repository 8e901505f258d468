"""Arguments of the raw operators of typed and edge-conditioned products, for opcheck."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import random_coo
from structops import Graph
from structops.sparse import RelationPlan, TypePlan
from structops.sparse._typed_plan import NOTHING


def typed_matmul_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, M, R, E, K, F = 6, 7, 3, 16, 4, 3
    coo = random_coo(M, N, E, seed=3)
    graph = Graph(coo, num_src=M, num_dst=N)
    kind = torch.arange(E) % R
    edges, rows = RelationPlan(graph, kind, R), TypePlan(kind, R, coo[0], M)
    scales = edges.mean_scales(torch.float64)
    ptr = torch.tensor([0, 3, 3, M])
    s = (*graph.structure[:3], *graph.reversed_structure)
    return {
        "typed_matmul": [
            (leaf(M, K), leaf(R, K, F), None, *scales, *edges.lists, *edges.lists_t, N),
            (leaf(M, K), leaf(R, K, F), leaf(R, F), None, None, *rows.lists, *rows.lists_t, E),
            (leaf(M, K), leaf(R, K, F), leaf(R, F), None, None, ptr, *NOTHING[1:], *NOTHING, M),
        ],
        "typed_matmul_wgrad": [
            (leaf(M, K), leaf(N, F), *scales, *edges.lists, *edges.lists_t, R),
            (leaf(M, K), leaf(M, F), None, None, ptr, *NOTHING[1:], *NOTHING, R),
        ],
        "edge_matmul": [
            (leaf(M, K), leaf(E, 2), leaf(2, K, F), *s),
            (leaf(M, K), leaf(E, 2), leaf(2, K, F), *s[:3], None, None, None),
        ],
        "edge_matmul_hgrad": [(leaf(M, K), leaf(N, F), leaf(2, K, F), *s)],
        "edge_matmul_wgrad": [(leaf(M, K), leaf(E, 2), leaf(N, F), *s)],
    }
