"""BiMMDF: mixed memberships of both sides of a weighted bipartite network from its leading singular vectors."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, graph_and_matrix, randn
from cases import generator
from structops import Graph, spmm

SYSTEM = "BiMMDF: bipartite mixed membership with signed, zero and missing edges, by products with A and its transpose"
OPERATORS = ("structops.spmm",)
R, C, K = 40, 30, 3


def singular(graph: Graph, weight: torch.Tensor, k: int, rounds: int = 200):
    """U, s, V of the k largest singular values, by alternating products and orthonormal bases."""
    weight = weight[:, None]
    V = torch.linalg.qr(randn(graph.num_src, k + 4, seed=5)).Q
    for _ in range(rounds):
        U = torch.linalg.qr(spmm(graph, V, weight)).Q
        V = torch.linalg.qr(spmm(graph.reverse(), U, weight)).Q
    left, s, right = torch.linalg.svd(U.T @ spmm(graph, V, weight))
    return U @ left[:, :k], s[:k], V @ right.T[:, :k]


def memberships(U: torch.Tensor) -> torch.Tensor:
    """Successive projections find k pure rows; all rows in their coordinates, cut at 0 and normalised to sum 1."""
    rest, pure = U.clone(), []
    for _ in range(U.shape[1]):
        pure.append(int(rest.norm(dim=1).argmax()))
        direction = rest[pure[-1]] / rest[pure[-1]].norm()
        rest = rest - (rest @ direction)[:, None] * direction
    weights = (U @ torch.linalg.inv(U[pure])).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def mixed(n: int, seed: int) -> torch.Tensor:
    """Memberships ``[n, K]`` whose first K rows are pure."""
    weights = torch.rand(n, K, generator=generator(seed), dtype=torch.float64)
    return torch.cat([torch.eye(K, dtype=torch.float64), (weights / weights.sum(1, keepdim=True))[K:]])


def test_exact_on_the_expectation() -> None:
    """Of rho Pi_r P Pi_c^T with signed P, stored by its entries, both memberships come back, up to the order of communities."""
    rows, columns = mixed(R, 1), mixed(C, 2)
    P = torch.tensor([[1.0, 0.2, -0.3], [0.1, 0.8, 0.2], [-0.2, 0.3, 0.9]], dtype=torch.float64)
    Omega = 0.7 * rows @ P @ columns.T
    r, c = torch.cartesian_prod(torch.arange(R), torch.arange(C)).T
    U, _, V = singular(Graph(torch.stack([c, r]), num_src=C, num_dst=R), Omega[r, c], K, rounds=3)
    for basis, truth in ((U, rows), (V, columns)):
        found = memberships(basis)
        assert min(float((found[:, list(p)] - truth).abs().max()) for p in itertools.permutations(range(K))) < 1e-10


def test_singular_values() -> None:
    """Of a sparse signed matrix with parallel edges; their gradient to the entries is u_r v_c at the entries alone."""
    graph, _, incidence = graph_and_matrix(C, R, 260, seed=3)
    w = randn(260, seed=4)
    w[::7] = 0.0  # observed zeros
    U, s, V = singular(graph, w, K)
    matrix = lambda w: torch.einsum("rce,e->rc", incidence, w)
    torch.testing.assert_close(s, torch.linalg.svdvals(matrix(w))[:K], rtol=1e-9, atol=1e-9)
    agree(
        lambda w: (U * spmm(graph, V, w[:, None])).sum(0), lambda w: torch.linalg.svdvals(matrix(w))[:K], w, tolerance=1e-8,
    )  # fmt: skip


def test_missing_edges() -> None:
    """A mask over the entries is the matrix without them."""
    graph, coo, _ = graph_and_matrix(C, R, 260, seed=3)
    seen = torch.rand(260, generator=generator(6)) < 0.8
    w = randn(260, seed=4)
    fewer = Graph(coo[:, seen], num_src=C, num_dst=R)
    x, y = randn(C, K), randn(R, K, seed=1)
    torch.testing.assert_close(spmm(graph, x, (w * seen)[:, None]), spmm(fewer, x, w[seen][:, None]))
    torch.testing.assert_close(spmm(graph.reverse(), y, (w * seen)[:, None]), spmm(fewer.reverse(), y, w[seen][:, None]))
