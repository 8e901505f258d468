"""Adaptive propagation with a gate per node and hop."""

from __future__ import annotations

import torch
from cases import random_coo, values
from structops import Graph, sparse

SYSTEM = "DAGNN: deep propagation with adaptive gates per node and hop"
OPERATORS = ("structops.sparse.gated_filter", "structops.sparse.normalized_adjacency")
N, C = 30, 7


def operator():
    coo = random_coo(N, N, 90)
    graph, w = sparse.normalized_adjacency(
        Graph(torch.cat([coo, coo.flip(0)], 1), num_nodes=N), self_loops=1.0, dtype=torch.float64
    )
    src, dst = graph.edge_index().long()
    return graph, w, torch.zeros(N, N, dtype=torch.float64).index_put((dst, src), w, accumulate=True)


def test_against_dense_powers() -> None:
    graph, w, matrix = operator()
    leaves = z, p, b = values(N, C), values(C), torch.tensor(0.2, dtype=torch.float64)
    for t in leaves:
        t.requires_grad_()
    for hops in (0, 1, 12):
        h, want = z, 0
        for _ in range(hops + 1):
            want = want + torch.sigmoid(h @ p + b)[:, None] * h
            h = matrix @ h
        out = sparse.gated_filter(graph, z, p, b, hops, w)
        assert (out - want).abs().max() < 1e-10
        c = values(N, C, seed=3)
        for u, v in zip(torch.autograd.grad(out, leaves, c), torch.autograd.grad(want, leaves, c), strict=True):
            assert (u - v).abs().max() < 1e-9


def test_powers_tend_to_rank_one() -> None:
    """On a connected graph with loops: P^k -> d^(1/2) d^(1/2)' / sum(d)."""
    ring = torch.stack([torch.arange(9), (torch.arange(9) + 1) % 9])
    extra = torch.tensor([[0, 2], [4, 7]])
    one = torch.cat([ring, extra], 1)
    graph, w = sparse.normalized_adjacency(
        Graph(torch.cat([one, one.flip(0)], 1), num_nodes=9), self_loops=1.0, dtype=torch.float64
    )
    pick = torch.zeros(401, dtype=torch.float64)
    pick[-1] = 1
    limit = sparse.polynomial_filter(graph, torch.eye(9, dtype=torch.float64), pick, weight=w)
    d = graph.in_degrees().double()
    assert (limit - torch.outer(d.sqrt(), d.sqrt()) / d.sum()).abs().max() < 1e-9
