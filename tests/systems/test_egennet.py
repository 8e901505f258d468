"""Vector-channel layer of E-GenNet on edges instead of pairs."""

from __future__ import annotations

import torch
from agreement import agree, randn, simple_graph
from structops import sddmm, spmm

SYSTEM = "E-GenNet: sparse geometric message passing"
OPERATORS = ("structops.sddmm", "structops.spmm")
N, C, K = 12, 4, 5
GRAPH, A = simple_graph(N, 4.0, seed=3)
PAIRS = A.nonzero(as_tuple=True)


def gate(length, alpha, beta):
    return torch.tanh(length * alpha + beta)


def layer(x, H, theta, alpha, beta):
    """H'_i[:, k] = sum_j phi_k(|x_i - x_j|) (sum_c theta[c, k] H_j[:, c] + theta[C, k] (x_j - x_i))."""
    phi = gate(sddmm(GRAPH, x, x, "sub").norm(dim=1, keepdim=True), alpha, beta)  # [E, K]
    at_nodes = H @ theta[:C] + x[:, :, None] * theta[C]  # the map is linear: once per node
    total = spmm(GRAPH, at_nodes, phi[:, None, :])
    return total - x[:, :, None] * theta[C] * spmm(GRAPH, None, phi)[:, None, :]


def dense(x, H, theta, alpha, beta):
    difference = x[None] - x[:, None]  # [i, j] = x_j - x_i
    phi = (
        gate(torch.where(A[..., None] > 0, difference, torch.ones_like(difference)).norm(dim=2, keepdim=True), alpha, beta)
        * A[..., None]
    )
    message = (H @ theta[:C])[None] + difference[..., None] * theta[C]
    return (phi[:, :, None, :] * message).sum(1)


def inputs():
    return randn(N, 3), randn(N, 3, C, seed=1), randn(C + 1, K, seed=2), randn(K, seed=3), randn(K, seed=4)


def test_layer() -> None:
    agree(layer, dense, *inputs())


def test_equivariance() -> None:
    x, H, *weights = inputs()
    R = torch.linalg.qr(randn(3, 3, seed=8)).Q
    turned = layer(x @ R.T + 2.0, torch.einsum("ab,nbc->nac", R, H), *weights)
    torch.testing.assert_close(turned, torch.einsum("ab,nbk->nak", R, layer(x, H, *weights)), atol=1e-10, rtol=1e-10)
