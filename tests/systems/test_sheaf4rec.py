"""Sheaf4Rec: scalar restriction maps from the two ends of an edge, diffusion on the user-item graph, ranking by dot products."""

from __future__ import annotations

import pytest
import torch
from cases import values
from compare import assert_close
from structops import sddmm
from structops.sparse import SheafGraph, sheaf_laplacian
from torch import Tensor
from torch.autograd import gradcheck

SYSTEM = "Sheaf4Rec: sheaf neural networks for graph-based recommender systems"
OPERATORS = ("structops.sparse.SheafGraph", "structops.sparse.sheaf_laplacian", "structops.sddmm")

USERS, ITEMS, F = 3, 4, 5
N = USERS + ITEMS
ONE = torch.tensor([[0, 0, 1, 1, 2, 2], [3, 4, 4, 5, 5, 3]])  # item 6 without ratings
EDGES = torch.cat([ONE, ONE.flip(0)], 1)
GRAPH = SheafGraph(EDGES, N)


def scores(x: Tensor, w: Tensor, d: int) -> Tensor:
    """a_{v <- e} = tanh(w . [x_u ; x_v]), split into two products per node and a sum per edge; d x d maps for d > 1."""
    far, near = x @ w[:F], x @ w[F:]
    raw = torch.tanh(sddmm(GRAPH.graph, far, near, "add", "u", "v"))
    return raw[:, 0] if d == 1 else raw.reshape(-1, d, d)


def layer(x: Tensor, w: Tensor, mix: Tensor, d: int, step: float = 0.5) -> Tensor:
    """x <- x - step L (x W), with the features in d stalks."""
    stalks = (x @ mix).reshape((N, F) if d == 1 else (N, d, -1))
    return x - step * sheaf_laplacian(GRAPH, scores(x, w, d), stalks).reshape(N, F)


def dense_maps(x: Tensor, w: Tensor, d: int) -> Tensor:
    return torch.tanh(torch.cat([x[EDGES[0]], x[EDGES[1]]], 1) @ w).reshape(-1, d, d)


def dense_laplacian(maps: Tensor, d: int) -> Tensor:
    """L = delta^T delta, normalised by (L_vv + 1)^-1/2."""
    half = ONE.shape[1]
    at = torch.nn.functional.one_hot(EDGES[1], N).double()
    delta = torch.einsum("eij,en->einj", maps[:half], at[:half]) - torch.einsum("eij,en->einj", maps[half:], at[half:])
    delta = delta.reshape(half * d, N * d)
    L = delta.T @ delta
    own = torch.stack([L[v * d : v * d + d, v * d : v * d + d] for v in range(N)]) + torch.eye(d).double()
    root, other = own, torch.eye(d).double().expand_as(own)
    for _ in range(30):  # Denman and Beavers: root -> own^1/2, other -> own^-1/2
        root, other = (root + torch.linalg.inv(other)) / 2, (other + torch.linalg.inv(root)) / 2
    S = torch.block_diag(*other)
    return S @ L @ S


def reference(x: Tensor, w: Tensor, mix: Tensor, d: int, step: float = 0.5) -> Tensor:
    L = dense_laplacian(dense_maps(x, w, d), d)
    return x - step * (L @ (x @ mix).reshape(N * d, F // d)).reshape(N, F)


@pytest.mark.parametrize("d", [1, 5])
def test_layers_and_ranking_loss(d: int) -> None:
    """Two layers, concatenated, and the Bayesian personalised ranking loss of three triples."""
    inputs = [
        (0.5 * values(*s, seed=i)).requires_grad_() for i, s in enumerate([(N, F), (2 * F, d * d), (F, F), (2 * F, d * d), (F, F)])
    ]
    users, liked, other = torch.tensor([0, 1, 2]), torch.tensor([3, 5, 3]), torch.tensor([5, 6, 4])

    def loss(step, x, w1, m1, w2, m2):
        one = step(x, w1, m1, d)
        z = torch.cat([x, one, step(one, w2, m2, d)], 1)
        return -torch.nn.functional.logsigmoid((z[users] * (z[liked] - z[other])).sum(1)).mean()

    ours, theirs = loss(layer, *inputs), loss(reference, *inputs)
    assert_close(ours, theirs.detach(), terms=200)
    for a, b in zip(*(torch.autograd.grad(t, inputs) for t in (ours, theirs)), strict=True):
        assert_close(a, b, terms=2000)


def test_positive_semidefinite() -> None:
    for d in (1, 2, 3):
        maps = values(EDGES.shape[1], d, d)
        L = sheaf_laplacian(
            GRAPH, maps[:, 0, 0] if d == 1 else maps, torch.eye(N * d).double().reshape((N, N) if d == 1 else (N, d, -1))
        )
        L = L.reshape(N * d, N * d)
        assert_close(L, dense_laplacian(maps, d), terms=200)
        assert torch.linalg.eigvalsh(L).min() > -1e-12


def test_constant_maps_give_the_graph_laplacian() -> None:
    """c^2 (D - A) with 1 / sqrt(c^2 degree + 1) on both sides."""
    c, x = 0.7, values(N, F)
    A = torch.zeros(N, N).double().index_put((EDGES[1], EDGES[0]), torch.tensor(1.0).double())
    s = (c * c * A.sum(1) + 1).rsqrt()
    want = s[:, None] * (c * c * (torch.diag(A.sum(1)) - A)) @ (s[:, None] * x)
    assert_close(sheaf_laplacian(GRAPH, torch.full((EDGES.shape[1],), c, dtype=torch.float64), x), want, terms=32)


def test_gradcheck() -> None:
    x, w, mix = (0.5 * values(*s, seed=i) for i, s in enumerate([(N, F), (2 * F, 1), (F, F)]))
    assert gradcheck(lambda *a: layer(*a, 1), tuple(t.requires_grad_() for t in (x, w, mix)))
