"""Edge-updating layer of graph metanetworks: the edge network's first map is split, parallel edges stay apart."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn
from structops import Graph, sddmm, spmm

SYSTEM = "GMN: graph metanetworks on parameter multigraphs"
OPERATORS = ("structops.sddmm", "structops.spmm")
N, E, C = 9, 30, 4
GRAPH, (SRC, DST), INCIDENCE = graph_and_matrix(N, N, E, seed=2)
COUNT = INCIDENCE.sum((1, 2)).clamp(min=1)[:, None]


def ours(x, e, a, b, c, out, up):
    e2 = torch.relu(sddmm(GRAPH, x @ a, x @ b, "add") + e @ c) @ out
    return torch.cat([x @ up + spmm(GRAPH, None, torch.relu(e2), reduce="mean"), e2])


def dense(x, e, a, b, c, out, up):
    e2 = torch.relu(torch.cat([x[SRC], x[DST], e], 1) @ torch.cat([a, b, c])) @ out
    return torch.cat([x @ up + torch.einsum("vue,ef->vf", INCIDENCE, torch.relu(e2)) / COUNT, e2])


def weights():
    return [randn(C, C, seed=k) for k in range(2, 7)]


def test_layer() -> None:
    assert len({tuple(k) for k in torch.stack([SRC, DST]).T.tolist()}) < E  # there are parallel edges
    agree(ours, dense, randn(N, C), randn(E, C, seed=1), *weights())


def test_permuting_hidden_neurons() -> None:
    """Relabelled nodes give permuted node features and the same edge features."""
    x, e, w = randn(N, C), randn(E, C, seed=1), weights()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    place = torch.argsort(order)
    other = Graph(torch.stack([place[SRC], place[DST]]), num_nodes=N)
    e2 = torch.relu(sddmm(other, x[order] @ w[0], x[order] @ w[1], "add") + e @ w[2]) @ w[3]
    torch.testing.assert_close(e2, ours(x, e, *w)[N:], atol=1e-12, rtol=1e-12)
