"""Levy flights: fractional powers of a Laplacian as Chebyshev filters."""

from __future__ import annotations

import torch
from cases import random_coo
from structops import Graph, sparse

SYSTEM = "LFGCN: graph convolution on Levy flights, by fractional powers of the Laplacian"
OPERATORS = ("structops.sparse.polynomial_filter", "structops.sparse.levy_coefficients")
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
