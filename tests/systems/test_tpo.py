"""Multi-hop smoothing on an attributed bipartite graph."""

from __future__ import annotations

import torch
from cases import values
from structops import Graph, sparse, spmm

SYSTEM = "TPO: multi-hop feature propagation for clustering of attributed bipartite graphs"
OPERATORS = ("structops.sparse.normalized_adjacency", "structops.spmm", "structops.sparse.polynomial_filter")
U, V, D, HOPS, ALPHA = 15, 11, 4, 5, 0.6


def test_propagation() -> None:
    """X_{t+1} = X + alpha B B' X_t: by two products a hop, and as one even polynomial of the undirected graph."""
    pairs = torch.stack([torch.randint(V, (60,)), torch.randint(U, (60,))])
    graph, w = sparse.normalized_adjacency(Graph(pairs, num_src=V, num_dst=U), dtype=torch.float64)
    B = torch.zeros(U, V, dtype=torch.float64).index_put((pairs[1], pairs[0]), w, accumulate=True)
    x = values(U, D).requires_grad_()
    want = x
    for _ in range(HOPS):
        want = x + ALPHA * B @ (B.T @ want)
    hops = x
    for _ in range(HOPS):
        hops = x + ALPHA * spmm(graph, spmm(graph.reverse(), hops, w[:, None]), w[:, None])
    index = torch.stack([pairs[0] + U, pairs[1]])
    both = Graph(torch.cat([index, index.flip(0)], 1), num_nodes=U + V)
    theta = torch.zeros(2 * HOPS + 1, dtype=torch.float64)
    theta[::2] = ALPHA ** torch.arange(HOPS + 1, dtype=torch.float64)
    padded = torch.cat([x, x.new_zeros(V, D)])
    one = sparse.polynomial_filter(both, padded, theta, weight=torch.cat([w, w]))[:U]
    c = values(U, D, seed=1)
    (dx,) = torch.autograd.grad(want, x, c)
    for got in (hops, one):
        assert (got - want).abs().max() < 1e-10
        assert (torch.autograd.grad(got, x, c)[0] - dx).abs().max() < 1e-10
    order = torch.randperm(U)
    inverse = torch.argsort(order)
    moved, mw = sparse.normalized_adjacency(
        Graph(torch.stack([pairs[0], inverse[pairs[1]]]), num_src=V, num_dst=U), dtype=torch.float64
    )
    y = x.detach()[order]
    for _ in range(HOPS):
        y = x.detach()[order] + ALPHA * spmm(moved, spmm(moved.reverse(), y, mw[:, None]), mw[:, None])
    assert (y - want.detach()[order]).abs().max() < 1e-10
