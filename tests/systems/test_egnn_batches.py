"""Equivariant layers on batches of complete graphs, as in GeoBFN: segments keep molecules apart."""

from __future__ import annotations

import torch
from agreement import agree, randn
from structops import Graph, sddmm, segment_gather, segment_reduce, spmm

SYSTEM = "GeoBFN: EGNN on complete graphs, zero centre of mass per molecule"
OPERATORS = ("structops.sddmm", "structops.spmm", "structops.segment_reduce", "structops.segment_gather")
PTR = torch.tensor([0, 4, 5, 10])
SIZES = PTR.diff().tolist()
N, C = 10, 5


def complete() -> torch.Tensor:
    """Edges of all ordered pairs within each molecule."""
    parts = []
    for start, n in zip(PTR.tolist(), SIZES, strict=False):
        dst, src = (1 - torch.eye(n)).nonzero(as_tuple=True)
        parts.append(torch.stack([src, dst]) + start)
    return torch.cat(parts, 1)


EDGES = complete()
GRAPH = Graph(EDGES, num_nodes=N)
PAIR = torch.zeros(N, N, dtype=torch.float64)
PAIR[EDGES[1], EDGES[0]] = 1


def layer(x, h, ws, wd, w2, wx):
    difference = -sddmm(GRAPH, x, x, "sub")  # x_i - x_j
    squared = difference.square().sum(1, keepdim=True)
    m = torch.tanh(sddmm(GRAPH, h @ ws, h @ wd, "add") + squared)
    h2 = h + spmm(GRAPH, None, m) @ w2
    step = difference / (squared.sqrt() + 1) * torch.tanh(m @ wx)
    moved = x + spmm(GRAPH, None, step)
    return torch.cat([moved - segment_gather(segment_reduce(moved, PTR, "mean"), PTR), h2], 1)


def dense(x, h, ws, wd, w2, wx):
    difference = x[:, None] - x[None]
    squared = (difference + 1e-300).square().sum(2, keepdim=True)
    m = torch.tanh((h @ ws)[None] + (h @ wd)[:, None] + squared) * PAIR[..., None]
    h2 = h + m.sum(1) @ w2
    length = torch.where(PAIR[..., None] > 0, squared, torch.ones_like(squared)).sqrt()
    moved = x + (difference / (length + 1) * torch.tanh(m @ wx) * PAIR[..., None]).sum(1)
    centred = torch.cat([p - p.mean(0) for p in moved.split(SIZES)])
    return torch.cat([centred, h2], 1)


def inputs():
    return randn(N, 3), randn(N, C, seed=1), *(randn(C, C, seed=k) for k in (2, 3, 4)), randn(C, 1, seed=5)


def test_layer() -> None:
    agree(layer, dense, *inputs())


def test_rotation_and_separation() -> None:
    x, h, *w = inputs()
    R = torch.linalg.qr(randn(3, 3, seed=7)).Q
    base = layer(x, h, *w)
    turned = layer(x @ R.T + 4.0, h, *w)
    torch.testing.assert_close(turned, torch.cat([base[:, :3] @ R.T, base[:, 3:]], 1), atol=1e-10, rtol=1e-10)
    far = x.clone()
    far[5:] = far[5:] @ R.T * 2 + 1
    assert torch.equal(layer(far, h, *w)[:5], base[:5])
