"""The layer zoo of "Benchmarking Graph Neural Networks": GCN, GraphSAGE, MoNet, GatedGCN, and random-walk encodings."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn, simple_graph
from structops import sddmm, spmm

SYSTEM = "Benchmarking GNNs: GCN, GraphSAGE, MoNet, GatedGCN, random-walk encodings"
OPERATORS = ("structops.spmm", "structops.sddmm")
N, E, C = 13, 34, 5
GRAPH, COO, INCIDENCE = graph_and_matrix(N, N, E, seed=6)
SRC, DST = COO


def to_nodes(messages):
    return torch.einsum("vue,ef->vf", INCIDENCE, messages)


def test_gcn() -> None:
    graph, A = simple_graph(N, 3.0)
    scale = A.sum(1).clamp(min=1) ** -0.5

    def ours(x, w):
        return scale[:, None] * spmm(graph, scale[:, None] * (x @ w))

    agree(ours, lambda x, w: (scale[:, None] * A * scale) @ x @ w, randn(N, 4), randn(4, C, seed=1))


def test_graphsage() -> None:
    count = to_nodes(torch.ones(E, 1, dtype=torch.float64)).clamp(min=1)
    agree(
        lambda x, a, b: x @ a + spmm(GRAPH, x, reduce="mean") @ b,
        lambda x, a, b: x @ a + to_nodes(x[SRC]) / count @ b,
        *(randn(N, 4), randn(4, C, seed=1), randn(4, C, seed=2)),
    )


def test_monet() -> None:
    """K Gaussian kernels of pseudo-coordinates weight the K heads of W h."""
    K = 3

    def weights(u, mu, sigma):
        return torch.exp(-0.5 * ((u[:, None] - mu) ** 2 * sigma**2).sum(2))  # [E, K]

    def ours(h, u, mu, sigma):
        return spmm(GRAPH, h, weights(u, mu, sigma)[..., None]).sum(1)

    def dense(h, u, mu, sigma):
        return torch.einsum("vue,ek,ukf->vf", INCIDENCE, weights(u, mu, sigma), h)

    agree(ours, dense, randn(N, K, C), randn(E, 2, seed=1), randn(K, 2, seed=2), randn(K, 2, seed=3))


def test_gated_gcn() -> None:
    """eta = sigmoid(e), h_i = A h_i + sum eta B h_j / (sum eta + 1e-6); the new edge features leave too."""

    def ours(h, e, a, b, c, d, f):
        edge = e @ c + sddmm(GRAPH, h @ d, h @ f, "add")
        eta = torch.sigmoid(edge)
        gathered = spmm(GRAPH, h @ b, eta) / (spmm(GRAPH, None, eta) + 1e-6)
        return torch.cat([h @ a + gathered, edge])

    def dense(h, e, a, b, c, d, f):
        edge = e @ c + (h @ d)[SRC] + (h @ f)[DST]
        eta = torch.sigmoid(edge)
        return torch.cat([h @ a + to_nodes(eta * (h @ b)[SRC]) / (to_nodes(eta) + 1e-6), edge])

    agree(ours, dense, randn(N, C), randn(E, C, seed=1), *(0.5 * randn(C, C, seed=k) for k in range(2, 7)))


def test_random_walk_encodings() -> None:
    """diag(P^k), k = 1..4, from one-hot columns."""
    graph, A = simple_graph(N, 3.0)
    P = A / A.sum(0).clamp(min=1)
    walk, columns = torch.eye(N, dtype=torch.float64), []
    for k in range(1, 5):
        walk = spmm(graph, walk / A.sum(0).clamp(min=1)[:, None])
        columns.append((walk.diagonal(), torch.linalg.matrix_power(P, k).diagonal()))
    for got, want in columns:
        torch.testing.assert_close(got, want)
