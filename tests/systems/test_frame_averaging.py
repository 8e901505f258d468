"""Frame averaging: the frames are a batch over one edge list, never copies of it."""

from __future__ import annotations

import itertools

import torch
from agreement import randn, simple_graph
from structops import Graph, sddmm, spmm

SYSTEM = "Frame averaging (FA), and the message passing of FAENet"
OPERATORS = ("structops.spmm", "structops.sddmm")
N, C = 10, 6
GRAPH, _ = simple_graph(N, 4.0, seed=9)


def frames(x, proper: bool):
    centred = x - x.mean(0)
    U = torch.linalg.eigh(centred.T @ centred).eigenvectors
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=x.dtype)
    found = U * signs[:, None, :]
    return found[torch.linalg.det(found) > 0] if proper else found


def backbone(graph: Graph, x, w):
    """Coordinates [B, N, 3] to coordinates, not equivariant by itself."""
    h = torch.tanh(x @ w[0] + 0.5)  # neither odd nor even
    length = sddmm(graph, x, x, "sub", batch_dims=1).square().sum(-1, keepdim=True)
    h = h + spmm(graph, h, torch.exp(-length), batch_dims=1)
    return torch.tanh(h) @ w[1]


def averaged(x, w, proper=False):
    F = frames(x, proper)
    out = backbone(GRAPH, (x - x.mean(0)) @ F, w)
    return (out @ F.mT).mean(0) + x.mean(0)


def test_batch_of_frames_equals_a_loop() -> None:
    x, w = randn(N, 3), (randn(3, C, seed=1), randn(C, 3, seed=2))
    one_by_one = [backbone(GRAPH, ((x - x.mean(0)) @ F)[None], w)[0] @ F.T for F in frames(x, False)]
    torch.testing.assert_close(averaged(x, w), torch.stack(one_by_one).mean(0) + x.mean(0), atol=1e-12, rtol=1e-12)


def test_equivariance() -> None:
    x, w = randn(N, 3), (randn(3, C, seed=1), randn(C, 3, seed=2))
    Q = torch.linalg.qr(randn(3, 3, seed=5)).Q
    Q = Q if torch.linalg.det(Q) < 0 else -Q  # a reflection
    for R, proper, equal in ((Q, False, True), (-Q, False, True), (-Q, True, True), (Q, True, False)):
        same = torch.allclose(averaged(x @ R.T + 3.0, w, proper), averaged(x, w, proper) @ R.T + 3.0, atol=1e-10)
        assert same is equal, (torch.linalg.det(R), proper)
