"""Frame averaging: the frames are a batch over one edge list, never copies of it."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, randn, simple_graph
from structops import Graph, sddmm, spmm
from structops.so2 import frame_average, frames

SYSTEM = "Frame averaging (FA): a network without symmetry, averaged over the frames of its points"
OPERATORS = ("structops.so2.frames", "structops.so2.frame_average", "structops.spmm", "structops.sddmm")
N, C = 10, 6
GRAPH, _ = simple_graph(N, 4.0, seed=9)


def backbone(graph: Graph, x, w1, w2):
    """Coordinates [B, N, 3] to coordinates, not equivariant by itself."""
    h = torch.tanh(x @ w1 + 0.5)  # neither odd nor even
    length = sddmm(graph, x, x, "sub", batch_dims=1).square().sum(-1, keepdim=True)
    h = h + spmm(graph, h, torch.exp(-length), batch_dims=1)
    return torch.tanh(h) @ w2


def averaged(x, w1, w2, proper=False):
    f = frames(x, group="SO(3)" if proper else "O(3)")
    return frame_average(f, backbone(GRAPH, f.pos, w1, w2), "position")


def by_hand(x, w1, w2):
    """A loop over the frames, each on its own."""
    centred = x - x.mean(0)
    U = torch.linalg.eigh(centred.T @ centred).eigenvectors
    turned = [U * torch.tensor(signs, dtype=x.dtype) for signs in itertools.product((1.0, -1.0), repeat=3)]
    return torch.stack([backbone(GRAPH, (centred @ F)[None], w1, w2)[0] @ F.T for F in turned]).mean(0) + x.mean(0)


def inputs():
    return randn(N, 3), randn(3, C, seed=1), randn(C, 3, seed=2)


def test_batch_of_frames_equals_a_loop() -> None:
    agree(averaged, by_hand, *inputs())


def test_equivariance() -> None:
    x, *w = inputs()
    Q = torch.linalg.qr(randn(3, 3, seed=5)).Q
    Q = Q if torch.linalg.det(Q) < 0 else -Q  # a reflection
    for R, proper, equal in ((Q, False, True), (-Q, False, True), (-Q, True, True), (Q, True, False)):
        same = torch.allclose(averaged(x @ R.T + 3.0, *w, proper), averaged(x, *w, proper) @ R.T + 3.0, atol=1e-10)
        assert same is equal, (torch.linalg.det(R), proper)
