"""Sheaves with connection Laplacians: orthogonal maps from local principal components, aligned, and diffusion along them."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn, simple_graph
from structops import sparse

SYSTEM = "Sheaf networks with connection Laplacians: parallel transport by aligned local principal components"
OPERATORS = ("structops.sparse.block_spmm", "structops.sparse.SheafGraph", "structops.sparse.sheaf_laplacian")
N, FEATURES, C = 12, 6, 3
GRAPH, A = simple_graph(N, 5.0, seed=4)
SRC, DST = GRAPH.edge_index()
SCALE = A.sum(1).clamp(min=1) ** -0.5
WEIGHT = (SCALE[SRC] * SCALE[DST])[:, None, None]
LINKED = A.sum(1) > 0


def bases(x: torch.Tensor, d: int) -> torch.Tensor:
    """[N, FEATURES, d]: principal directions of the neighbours' features; the nearest nodes stand in where there are too few."""
    found = []
    for v in range(N):
        near = torch.sort(torch.where(A[v] > 0, -1.0, (x - x[v]).norm(dim=1)), stable=True).indices
        rows = x[near[: max(int(A[v].sum()), d + 1)]]
        found.append(torch.linalg.svd((rows - rows.mean(0)).T)[0][:, :d])
    return torch.stack(found)


def transport(O: torch.Tensor) -> torch.Tensor:
    """[E, d, d]: the orthogonal map from the source's stalk to the destination's that is nearest to O_dst^T O_src."""
    U, _, Vh = torch.linalg.svd(O[DST].transpose(1, 2) @ O[SRC])
    return U @ Vh


def laplacian(x, maps):
    """x_i - sum_j O_ij x_j / sqrt(d_i d_j), 0 at nodes without edges."""
    return LINKED[:, None, None] * x - sparse.block_spmm(GRAPH, maps * WEIGHT, x)


def dense_laplacian(maps):
    """``[N d, N d]``."""
    d = maps.shape[1]
    L = torch.zeros(N, d, N, d, dtype=maps.dtype)
    for k, (u, v) in enumerate(zip(SRC.tolist(), DST.tolist(), strict=True)):
        L[v, :, u] -= maps[k] * WEIGHT[k]
    for v in range(N):
        L[v, :, v] += torch.eye(d, dtype=maps.dtype) * LINKED[v]
    return L.reshape(N * d, N * d)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_layer(d: int) -> None:
    """X <- (1 + tanh eps) X - act(Delta (I (x) W1) X W2), with gradients to the maps as well."""
    maps = transport(bases(randn(N, FEATURES), d))

    def layer(apply):
        def run(x, maps, w1, w2, eps):
            return (1 + torch.tanh(eps)) * x - torch.tanh(apply(torch.einsum("de,nec->ndc", w1, x) @ w2, maps))

        return run

    dense = lambda x, maps: (dense_laplacian(maps) @ x.reshape(N * d, C)).reshape(N, d, C)
    agree(layer(laplacian), layer(dense), randn(N, d, C), maps, randn(d, d, seed=1), randn(C, C, seed=2), randn(d, 1, seed=3))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_laplacian(d: int) -> None:
    """Maps are orthogonal and opposite ones transposed; the operator is symmetric, with spectrum in [0, 2]; it is the sheaf
    Laplacian of the identity at one end of every edge and the map at the other."""
    maps = transport(bases(randn(N, FEATURES), d))
    torch.testing.assert_close(maps @ maps.transpose(1, 2), torch.eye(d).double().expand(len(maps), d, d))
    sheaf = sparse.SheafGraph(GRAPH.edge_index(), num_nodes=N)
    torch.testing.assert_close(maps[sheaf.pair.long()], maps.transpose(1, 2))
    L = laplacian(torch.eye(N * d, dtype=torch.float64).reshape(N, d, N * d), maps).reshape(N * d, N * d)
    torch.testing.assert_close(L, dense_laplacian(maps))
    torch.testing.assert_close(L, L.T)
    spectrum = torch.linalg.eigvalsh(L)
    assert spectrum.min() > -1e-12 and spectrum.max() < 2 + 1e-12
    # F of edge u -> v acts on v's stalk; where u is the smaller, the edge's own stalk is u's.
    restriction = torch.where((SRC < DST)[:, None, None], maps.transpose(1, 2), torch.eye(d, dtype=torch.float64))
    x = randn(N, d, C, seed=5)
    torch.testing.assert_close(sparse.sheaf_laplacian(sheaf, restriction, x, True, False), laplacian(x, maps))
    plain = laplacian(x, torch.eye(d, dtype=torch.float64).expand(len(maps), d, d).contiguous())
    graph_laplacian = torch.diag(LINKED.double()) - SCALE[:, None] * A * SCALE
    torch.testing.assert_close(plain, torch.einsum("uv,vdc->udc", graph_laplacian, x))


def test_change_of_bases() -> None:
    """Other bases of the same tangent spaces conjugate the operator and leave the energy."""
    d = 3
    O, x = bases(randn(N, FEATURES), d), randn(N, d, C, seed=6)
    turn = torch.linalg.qr(randn(N, d, d, seed=7)).Q
    turned = turn.transpose(1, 2) @ x
    before, after = laplacian(x, transport(O)), laplacian(turned, transport(O @ turn))
    torch.testing.assert_close(after, turn.transpose(1, 2) @ before)
    torch.testing.assert_close((turned * after).sum(), (x * before).sum())


def test_alignment_is_the_best() -> None:
    O = bases(randn(N, FEATURES), 3)
    error = lambda maps: (O[SRC] - O[DST] @ maps).square().sum((1, 2))
    best = error(transport(O))
    for seed in range(20):
        assert (error(torch.linalg.qr(randn(len(SRC), 3, 3, seed=seed)).Q) >= best - 1e-12).all()
