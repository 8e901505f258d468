"""Learned and optimal polynomial bases against dense recurrences."""

from __future__ import annotations

import torch
from cases import random_coo, values
from structops import Graph, sparse

SYSTEM = "FavardGNN and OptBasisGNN: learned and optimal orthonormal polynomial bases"
OPERATORS = ("structops.sparse.three_term_filter", "structops.sparse.optimal_basis_filter", "structops.sparse.normalized_adjacency")
N, C, K = 40, 3, 5


def operator():
    coo = random_coo(N, N, 160)
    graph, w = sparse.normalized_adjacency(Graph(torch.cat([coo, coo.flip(0)], 1), num_nodes=N), dtype=torch.float64)
    src, dst = graph.edge_index().long()
    return graph, w, torch.zeros(N, N, dtype=torch.float64).index_put((dst, src), w, accumulate=True)


def favard(graph, w, x, alpha, gamma, root_beta):
    root = root_beta.clamp(min=1e-2)
    a = 1 / root[1:]
    return sparse.three_term_filter(graph, x, alpha / root[0], a, -gamma * a, -root[:-1] * a, w)


def test_favard() -> None:
    graph, w, matrix = operator()
    leaves = x, alpha, gamma, root = values(N, C), values(K + 1, C), values(K, C) / 4, values(K + 1, C).abs()
    for t in leaves:
        t.requires_grad_()
    h, before, want = x / root[0], torch.zeros_like(x), 0
    for k in range(K + 1):
        want = want + alpha[k] * h
        if k < K:
            h, before = (matrix @ h - gamma[k] * h - root[k] * before) / root[k + 1], h
    out = favard(graph, w, x, alpha, gamma, root)
    assert torch.allclose(out, want, rtol=1e-9, atol=1e-9)
    c = values(N, C, seed=5)
    for a, b in zip(torch.autograd.grad(out, leaves, c), torch.autograd.grad(want, leaves, c), strict=True):
        assert (a - b).abs().max() < 1e-9 * max(1, b.abs().max().item())


def test_favard_with_constants_is_chebyshev() -> None:
    """gamma = 0, sqrt(beta) = 1/2, but 1/sqrt(2) at the first step: T_0 and sqrt(2) T_k."""
    graph, w, _ = operator()
    x, theta = values(N, C), values(K + 1, C)
    root = torch.full((K + 1, C), 0.5, dtype=torch.float64)
    root[0], root[1] = 1.0, 0.5**0.5
    scale = torch.full((K + 1, 1), 2**-0.5, dtype=torch.float64)
    scale[0] = 1
    got = favard(graph, w, x, theta * scale, torch.zeros(K, C, dtype=torch.float64), root)
    assert torch.allclose(got, sparse.polynomial_filter(graph, x, theta, "chebyshev", w), atol=1e-10)


def test_optimal_basis() -> None:
    """Orthonormal by channel, and equal to full Gram-Schmidt of the Krylov space."""
    graph, w, matrix = operator()
    x = values(N, C)
    basis = [sparse.optimal_basis_filter(graph, x, torch.eye(K + 1, dtype=torch.float64)[k], w) for k in range(K + 1)]
    stack = torch.stack(basis)
    gram = torch.einsum("inc,jnc->cij", stack, stack)
    assert (gram - torch.eye(K + 1, dtype=torch.float64)).abs().max() < 1e-8
    for c in range(C):
        krylov = [x[:, c]]
        for _ in range(K):
            krylov.append(matrix @ (krylov[-1] / krylov[-1].norm()))
        Q, R = torch.linalg.qr(torch.stack(krylov, 1))
        assert (Q * R.diagonal().sign() - stack[:, :, c].T).abs().max() < 1e-6
