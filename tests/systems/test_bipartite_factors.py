"""Sparse steps of latent factor clustering (DFNMF) and of closeness propagation (GTE)."""

from __future__ import annotations

import torch
from agreement import agree, randn, simple_graph
from cases import generator
from structops import Graph, scatter_reduce, spmm
from torch.nn.functional import one_hot

SYSTEM = "DFNMF: deep fair factor clustering; GTE: closeness propagation for recommendation"
OPERATORS = ("structops.spmm", "structops.scatter_reduce")


def test_fair_multiplicative_updates() -> None:
    """num and den of H <- H sqrt(num / den) on edges and groups equal those on N x N matrices, step after step."""
    N, k, strength = 24, 3, 0.7
    graph, A = simple_graph(N, 5.0, seed=4)
    group = torch.arange(N) % 3
    Z = one_hot(group, 3).double()
    F = (Z - Z.mean(0))[:, :2]
    FF = F @ F.T
    within = torch.linalg.pinv(Z) @ FF @ torch.linalg.pinv(Z).T  # FF^T is constant on pairs of groups
    positive, negative = within.clamp(min=0), (-within).clamp(min=0)
    assert torch.allclose(Z @ positive @ Z.T, FF.clamp(min=0)) and torch.allclose(Z @ negative @ Z.T, (-FF).clamp(min=0))

    def by_groups(H, sign):
        return (sign @ scatter_reduce(H, group, 3, "sum"))[group]

    def update(H, product, plus, minus):
        gram = H.T @ H
        num, den = product(H) + strength * minus(H), H @ gram + strength * plus(H)
        return H * (num / den.clamp(min=1e-10)).sqrt()

    sparse = full = torch.rand(N, k, generator=generator(1), dtype=torch.float64)
    for _ in range(20):
        sparse = update(sparse, lambda H: spmm(graph, H), lambda H: by_groups(H, positive), lambda H: by_groups(H, negative))
        full = update(full, lambda H: A @ H, lambda H: FF.clamp(min=0) @ H, lambda H: (-FF).clamp(min=0) @ H)
        torch.testing.assert_close(sparse, full, rtol=1e-10, atol=1e-12)
    G = sparse.T @ sparse
    loss = A.square().sum() - 2 * (sparse * spmm(graph, sparse)).sum() + (G * G).sum()
    torch.testing.assert_close(loss, (A - sparse @ sparse.T).square().sum(), rtol=1e-10, atol=1e-12)


def test_closeness_propagation() -> None:
    """Three steps give A A^T A + 3 A exactly, column block by column block."""
    A = (torch.rand(12, 15, generator=generator(2)) < 0.2).double()
    user, item = A.nonzero(as_tuple=True)
    graph = Graph(torch.stack([item, user]), num_src=15, num_dst=12)
    back = graph.reverse()

    def block(columns):
        U, items = torch.zeros(12, len(columns), dtype=torch.float64), torch.eye(15, dtype=torch.float64)[:, columns]
        for _ in range(3):
            U, items = spmm(graph, items) + U, spmm(back, U) + items
        return U

    score = torch.cat([block(c) for c in torch.arange(15).split(4)], 1)
    assert torch.equal(score, A @ A.T @ A + 3 * A)


def test_gradient_of_the_loss() -> None:
    graph, A = simple_graph(14, 4.0)
    agree(
        lambda H: (H.T @ H).square().sum() - 2 * (H * spmm(graph, H)).sum(),
        lambda H: (A - H @ H.T).square().sum() - A.square().sum(),
        randn(14, 3),
    )
