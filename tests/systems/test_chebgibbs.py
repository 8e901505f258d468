"""Chebyshev filters with Gibbs damping against the spectrum and the plain recurrence."""

from __future__ import annotations

import pytest
import torch
from cases import random_coo, values
from structops import Graph, sparse

SYSTEM = "ChebGibbsNet: Chebyshev graph filters with Gibbs damping"
OPERATORS = ("structops.sparse.polynomial_filter", "structops.sparse.gibbs_damping", "structops.sparse.normalized_adjacency")


def operator(n: int = 25):
    coo = random_coo(n, n, 90)
    graph, w = sparse.normalized_adjacency(Graph(torch.cat([coo, coo.flip(0)], 1), num_nodes=n), dtype=torch.float64)
    src, dst = graph.edge_index().long()
    return graph, w, torch.zeros(n, n, dtype=torch.float64).index_put((dst, src), w, accumulate=True)


@pytest.mark.parametrize("damping", [None, "fejer", "jackson", "lanczos", "lorentz", "vekic", "wang"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_against_the_spectrum(damping: str | None, sign: float) -> None:
    """U diag(sum theta g T_k(lambda)) U' x, values and gradients; the sign flips for heterophilous graphs."""
    graph, w, matrix = operator()
    K = 6
    x, theta = values(25, 3).requires_grad_(), values(K + 1).requires_grad_()
    out = sparse.polynomial_filter(graph, x, theta, "chebyshev", sign * w, damping=damping)
    g = torch.ones(K + 1, dtype=torch.float64) if damping is None else sparse.gibbs_damping(damping, K)
    assert g[0] == 1
    value, U = torch.linalg.eigh(sign * matrix)
    response = sum(theta[k] * g[k] * torch.cos(k * torch.acos(value.clamp(-1, 1))) for k in range(K + 1))
    want = U @ (response[:, None] * (U.T @ x))
    assert (out - want).abs().max() < 1e-9
    c = values(25, 3, seed=2)
    for a, b in zip(torch.autograd.grad(out, (x, theta), c), torch.autograd.grad(want, (x, theta), c), strict=True):
        assert (a - b).abs().max() < 1e-8


def test_damped_step_does_not_overshoot() -> None:
    K, points = 30, torch.linspace(-1, 1, 4001, dtype=torch.float64)
    k = torch.arange(K + 1, dtype=torch.float64)
    # Chebyshev series of the step 1[p < 0].
    series = torch.where(k == 0, 0.5, -2 * torch.sin(k * torch.pi / 2) / (torch.pi * k.clamp(min=1)))
    T = torch.cos(k[:, None] * torch.acos(points))
    plain, damped = series @ T, (series * sparse.gibbs_damping("jackson", K)) @ T
    assert plain.max() > 1.05 and plain.min() < -0.05
    assert damped.max() < 1 + 1e-9 and damped.min() > -1e-9
