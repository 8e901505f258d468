"""pLapGNN: a weighted p-Laplacian regulariser on the observed edges of an attacked graph."""

from __future__ import annotations

import pytest
import torch
from cases import values
from compare import assert_close
from structops import Graph, sddmm, spmm
from structops.sparse import lp_distance, p_laplacian, total_variation
from torch import Tensor

SYSTEM = "pLapGNN: robust graph neural networks with a weighted p-Laplacian"
OPERATORS = (
    "structops.sparse.p_laplacian",
    "structops.sparse.total_variation",
    "structops.sparse.lp_distance",
    "structops.sddmm",
    "structops.spmm",
)

N, F = 6, 3
ONE = torch.tensor([[0, 0, 1, 2, 3, 4], [1, 2, 2, 3, 4, 5]])
EDGES = torch.cat([ONE, ONE.flip(0)], 1)
GRAPH = Graph(EDGES, num_nodes=N)
HALF = values(ONE.shape[1], seed=8).abs()
POWERS = (1.0, 1.5, 2.0, 3.0)


def dense_energy(x: Tensor, half: Tensor, p: float, norm: str) -> Tensor:
    """1/2 sum_ij w_ij ||x_i - x_j||^p over the pairs that are not ties: every edge once."""
    d = x[ONE[0]] - x[ONE[1]]
    size = (d.abs() ** p).sum(1) if norm == "feature" else d.square().sum(1) ** (p / 2)
    return (half * size).sum()


@pytest.mark.parametrize("norm", ["feature", "vector"])
@pytest.mark.parametrize("p", POWERS)
def test_the_laplacian_is_the_gradient_of_the_energy(norm: str, p: float) -> None:
    x, half = values(N, F).requires_grad_(), HALF.clone().requires_grad_()
    energy = dense_energy(x, half, p, norm)
    gradient, slope = torch.autograd.grad(energy, (x, half), create_graph=True)
    assert_close(p * p_laplacian(GRAPH, x, half.repeat(2), p, norm=norm), gradient.detach(), terms=100)
    if norm == "feature":
        ours = total_variation(GRAPH, x, half.repeat(2), p) / 2
    else:
        ours = (half * lp_distance(GRAPH, x)[: ONE.shape[1]] ** p).sum()
    assert_close(ours, energy.detach(), terms=100)
    for a, b in zip(torch.autograd.grad(ours, (x, half)), (gradient, slope), strict=True):
        assert_close(a, b.detach(), terms=100)


def test_two_is_the_graph_laplacian() -> None:
    x, weight = values(N, F), HALF.repeat(2)
    A = torch.zeros(N, N).double().index_put((EDGES[1], EDGES[0]), weight)
    want = (torch.diag(A.sum(1)) - A) @ x
    for norm in ("feature", "vector"):
        assert_close(p_laplacian(GRAPH, x, weight, 2.0, norm=norm), want, terms=32)


def test_one_has_the_weights_of_total_variation() -> None:
    """sum of w (x_v - x_u) / ||x_v - x_u||, and nothing from ties."""
    x = values(N, F)
    x[2] = x[0]
    want = torch.zeros(N, F).double()
    for k, (u, v) in enumerate(EDGES.T.tolist()):
        if {u, v} != {0, 2}:
            want[v] += HALF.repeat(2)[k] * (x[v] - x[u]) / (x[v] - x[u]).norm()
    assert_close(p_laplacian(GRAPH, x, HALF.repeat(2), 1.0, norm="vector"), want, terms=32)


def operator(half: Tensor) -> Tensor:
    """Phi(w), the Laplacian of w, by its product with the identity."""
    weight, identity = half.repeat(2), torch.eye(N).double()
    return spmm(GRAPH, None, weight)[:, None] * identity - spmm(GRAPH, identity, weight[:, None])


def adjoint(Y: Tensor) -> Tensor:
    """(Phi* Y)_ij = Y_ii + Y_jj - Y_ij - Y_ji on the observed edges."""
    own = sddmm(GRAPH, Y.diagonal().contiguous(), Y.diagonal().contiguous(), "add", "u", "v")[: ONE.shape[1]]
    return own - Y[ONE[0], ONE[1]] - Y[ONE[1], ONE[0]]


def test_the_operator_of_weights_and_its_adjoint() -> None:
    Y = values(N, N, seed=4)
    assert_close((operator(HALF) * Y).sum(), (HALF * adjoint(Y)).sum(), terms=100)
    x = values(N, F, seed=5)
    assert_close(adjoint(x @ x.T), lp_distance(GRAPH, x, root=False)[: ONE.shape[1]], terms=32)


@pytest.mark.parametrize("p", POWERS)
def test_descent(p: float) -> None:
    x, weight = values(N, F), HALF.repeat(2)
    before = total_variation(GRAPH, x, weight, p)
    assert total_variation(GRAPH, x - 1e-3 * p_laplacian(GRAPH, x, weight, p), weight, p) < before
