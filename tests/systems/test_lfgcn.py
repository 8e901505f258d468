"""Levy flights: fractional powers of a Laplacian as Chebyshev filters, and the edge betweenness by which edges are dropped."""

from __future__ import annotations

import networkx as nx
import torch
from cases import random_coo
from structops import Graph, sddmm, sparse, spmm

SYSTEM = "LFGCN: graph convolution on Levy flights, by fractional powers of the Laplacian"
OPERATORS = ("structops.sparse.polynomial_filter", "structops.sparse.levy_coefficients", "structops.spmm", "structops.sddmm")
N = 24


def operator():
    coo = random_coo(N, N, 120)
    both = torch.cat([coo, coo.flip(0)], 1)
    graph, w = sparse.normalized_adjacency(Graph(both, num_nodes=N), self_loops=1.0, dtype=torch.float64)
    src, dst = graph.edge_index().long()
    return graph, w, torch.zeros(N, N, dtype=torch.float64).index_put((dst, src), w, accumulate=True)


def test_fractional_powers() -> None:
    graph, w, matrix = operator()
    eye = torch.eye(N, dtype=torch.float64)
    value, U = torch.linalg.eigh(eye - matrix)
    error = []
    for order in (8, 32, 128):
        exact = U @ torch.diag(value.clamp(min=0) ** 0.5) @ U.T
        got = sparse.polynomial_filter(graph, eye, sparse.levy_coefficients(0.5, order), "chebyshev", w)
        error.append((got - exact).abs().max().item())
    assert error[1] < error[0] and error[2] < error[1] and error[2] < 2e-2  # algebraic: the function is not smooth at 0
    assert (got @ got - (eye - matrix)).abs().max() < 5e-2


def test_transition_matrix() -> None:
    """P_ij = delta_ij - (L^gamma)_ij / (L^gamma)_ii: gamma = 1 gives the walk without loops; off-diagonals are not negative."""
    graph, w, matrix = operator()
    eye = torch.eye(N, dtype=torch.float64)
    for gamma in (1.0, 0.6):
        power = sparse.polynomial_filter(graph, eye, sparse.levy_coefficients(gamma, 200), "chebyshev", w)
        P = eye - power / power.diagonal()[:, None]
        off = P - torch.diag(P.diagonal())
        assert off.min() > -2e-3 and P.diagonal().abs().max() < 1e-12
        # The normalised Laplacian annihilates sqrt(d): so do its powers, and P keeps it.
        root = graph.in_degrees().double().sqrt()
        assert (P @ root - root).abs().max() < 5e-2 * root.max()
        if gamma == 1:
            plain = matrix / (1 - matrix.diagonal())[:, None]
            assert (off - (plain - torch.diag(plain.diagonal()))).abs().max() < 1e-10


def test_edge_betweenness() -> None:
    """Brandes by levels, all sources at once: path counts forward, dependencies backward, and a dot over sources on every edge."""
    g = nx.gnp_random_graph(N, 0.12, seed=3)
    index = torch.tensor(list(g.edges)).T
    graph = Graph(torch.cat([index, index.flip(0)], 1), num_nodes=N)
    frontier = paths = torch.eye(N, dtype=torch.float64)  # [node, source]
    levels = [frontier]
    while frontier.any():
        frontier = spmm(graph, frontier) * (paths == 0)
        paths = paths + frontier
        levels.append(frontier)
    share = torch.where(paths > 0, 1 / paths.clamp(min=1), 0)
    dependency, total = torch.zeros_like(paths), torch.zeros(graph.num_edges, 1, dtype=torch.float64)
    for nearer, farther in zip(levels[-2::-1], levels[:0:-1], strict=True):
        passed = (farther > 0) * share * (1 + dependency)
        total = total + sddmm(graph, nearer, passed, "dot")
        dependency = dependency + nearer * spmm(graph.reverse(), passed)
    got = (total[: len(g.edges), 0] + total[len(g.edges) :, 0]) / 2  # both directions, every pair of nodes twice
    want = nx.edge_betweenness_centrality(g, normalized=False)
    torch.testing.assert_close(got, torch.tensor([want[tuple(e)] for e in index.T.tolist()], dtype=torch.float64))
