"""Neural Sheaf Diffusion: learned restriction maps, one diffusion step with their normalised sheaf Laplacian."""

from __future__ import annotations

import torch
from cases import values
from compare import assert_close
from structops.sparse import SheafGraph, inverse_sqrt_psd, sheaf_laplacian
from torch import Tensor
from torch.autograd import gradcheck

SYSTEM = "Neural Sheaf Diffusion: layers of sheaf Laplacians with learned restriction maps"
OPERATORS = ("structops.sparse.SheafGraph", "structops.sparse.sheaf_laplacian", "structops.sparse.inverse_sqrt_psd")

N, D, F = 6, 2, 3
ONE = torch.tensor([[0, 0, 1, 2, 3, 2], [1, 2, 2, 3, 4, 4]])  # node 5 isolated
EDGES = torch.stack([ONE, ONE.flip(0)], 2).reshape(2, -1)  # (u, v), (v, u), (u, v), ...
GRAPH = SheafGraph(EDGES, N)


def maps_of(x: Tensor, weight: Tensor, orthogonal: bool) -> Tensor:
    """F_k = tanh(W [x_v ; x_u]) for k: u -> v; orthogonal maps by the Cayley transform of its skew part."""
    h = x.reshape(N, -1)
    raw = torch.tanh(torch.cat([h[EDGES[1]], h[EDGES[0]]], 1) @ weight).reshape(-1, D, D)
    if not orthogonal:
        return raw
    skew, identity = raw - raw.mT, torch.eye(D).double()
    return torch.linalg.solve(identity + skew, identity - skew)


def layer(x: Tensor, weight: Tensor, w1: Tensor, w2: Tensor, eps: Tensor, orthogonal: bool) -> Tensor:
    """x [N, d, f] <- (1 + tanh eps) x - sigma(Delta (I (x) W1) x W2)."""
    mixed = torch.einsum("ij,njf->nif", w1, x) @ w2
    return (1 + eps.tanh())[:, None] * x - torch.nn.functional.elu(sheaf_laplacian(GRAPH, maps_of(x, weight, orthogonal), mixed))


def dense_laplacian(maps: Tensor, normalised: bool = True) -> Tensor:
    """delta^T delta, normalised by the roots of its 2 x 2 diagonal blocks plus the identity."""
    delta = torch.zeros(ONE.shape[1], D, N, D).double()
    for e, (u, v) in enumerate(ONE.T.tolist()):
        delta = delta.index_put((torch.tensor(e), torch.arange(D)[:, None], torch.tensor(v), torch.arange(D)), maps[2 * e])
        delta = delta.index_put((torch.tensor(e), torch.arange(D)[:, None], torch.tensor(u), torch.arange(D)), -maps[2 * e + 1])
    delta = delta.reshape(-1, N * D)
    L = delta.T @ delta
    if not normalised:
        return L
    roots = []
    for n in range(N):  # A^1/2 = (A + s) / sqrt(tr A + 2 s), s = sqrt(det A), of a 2 x 2 matrix
        A = L[n * D : n * D + D, n * D : n * D + D] + torch.eye(D).double()
        s = torch.linalg.det(A).sqrt()
        half = (A + s * torch.eye(D).double()) / (A.trace() + 2 * s).sqrt()
        roots.append(torch.linalg.inv(half))
    S = torch.block_diag(*roots)
    return S @ L @ S


def reference(x, weight, w1, w2, eps, orthogonal):
    L = dense_laplacian(maps_of(x, weight, orthogonal))
    mixed = torch.kron(torch.eye(N).double(), w1) @ x.reshape(N * D, F) @ w2
    return (1 + eps.tanh())[:, None] * x - torch.nn.functional.elu((L @ mixed).reshape(N, D, F))


def test_layer() -> None:
    for orthogonal in (False, True):
        shapes = [(N, D, F), (2 * D * F, D * D), (D, D), (F, F), (D,)]
        inputs = [(0.3 * values(*s, seed=i)).requires_grad_() for i, s in enumerate(shapes)]
        ours, theirs = layer(*inputs, orthogonal), reference(*inputs, orthogonal)
        assert_close(ours, theirs.detach(), terms=200)
        c = values(N, D, F, seed=9)
        for a, b in zip(*(torch.autograd.grad((t * c).sum(), inputs) for t in (ours, theirs)), strict=True):
            assert_close(a, b, terms=2000)


def test_spectrum() -> None:
    """Symmetric, positive semidefinite, eigenvalues in [0, 2]."""
    maps = values(EDGES.shape[1], D, D)
    L = sheaf_laplacian(GRAPH, maps, torch.eye(N * D).double().reshape(N, D, N * D)).reshape(N * D, N * D)
    assert_close(L, dense_laplacian(maps), terms=64)
    w = torch.linalg.eigvalsh(L)
    assert w.min() > -1e-12 and w.max() <= 2


def rotations(n: int, seed: int) -> Tensor:
    angle = values(n, seed=seed)
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(n, 2, 2)


def test_gauge_change() -> None:
    """x_v -> Q_v x_v with F -> F Q_v^T turns the result by Q."""
    maps, q, x = rotations(EDGES.shape[1], 0), rotations(N, 1), values(N, D, F, seed=2)
    turned = sheaf_laplacian(GRAPH, maps @ q[EDGES[1]].mT, q @ x)
    assert_close(turned, q @ sheaf_laplacian(GRAPH, maps, x), terms=64)


def test_harmonic_space_of_a_flat_bundle_on_a_tree() -> None:
    """It has dimension d, whatever the rotations."""
    one = torch.tensor([[0, 0, 1, 1], [1, 2, 3, 4]])
    tree = SheafGraph(torch.cat([one, one.flip(0)], 1), 5)
    L = sheaf_laplacian(tree, rotations(8, 3), torch.eye(10).double().reshape(5, 2, 10), normalised=False).reshape(10, 10)
    assert int((torch.linalg.eigvalsh(L) < 1e-10).sum()) == 2


def test_gradient_with_repeated_eigenvalues() -> None:
    """Blocks of orthogonal maps are multiples of the identity."""
    maps, x = rotations(EDGES.shape[1], 4).requires_grad_(), values(N, D, 2, seed=5).requires_grad_()
    assert gradcheck(lambda m, t: sheaf_laplacian(GRAPH, m, t), (maps, x))
    assert gradcheck(inverse_sqrt_psd, (3 * torch.eye(3).double()[None].requires_grad_(),))
