"""EquiHGNN's hypergraph layers MHNN and MHNNS, means over incidences with the linear maps of pairs split."""

from __future__ import annotations

import torch
from cases import values
from compare import assert_close
from structops import spmm
from structops.sparse import Hypergraph

SYSTEM = "EquiHGNN: molecular hypergraph convolution (MHNN, MHNNS)"
OPERATORS = ("structops.sparse.Hypergraph", "structops.spmm")
C, N, M = 3, 7, 4
NODE = torch.tensor([0, 1, 2, 2, 3, 5, 6, 0, 5])
EDGE = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 1])


def mhnn(h: Hypergraph, x, y, W1, W2, W3, W4):
    """W [x_v ; y_e] = A x_v + B y_e: the mean over incidences is an spmm of A x, and B y once a hyperedge where there are any."""
    some_e = (h.edge_degrees() > 0).to(x.dtype)[:, None]
    some_v = (h.node_degrees() > 0).to(x.dtype)[:, None]
    y = torch.cat([y, spmm(h.to_edges, x @ W1[:C], reduce="mean") + some_e * (y @ W1[C:])], 1) @ W2
    x = torch.cat([x, some_v * (x @ W3[:C]) + spmm(h.to_nodes, y @ W3[C:], reduce="mean")], 1) @ W4
    return x, y


def dense(x, y, W1, W2, W3, W4):
    H = torch.zeros(N, M, dtype=torch.float64)
    H[NODE, EDGE] = 1
    pair = lambda a, b: torch.cat([a[:, None].expand(N, M, C), b[None].expand(N, M, C)], 2)
    mean = lambda t, d: (H[..., None] * t).sum(d) / H.sum(d).clamp(min=1)[:, None]
    y = torch.cat([y, mean(pair(x, y) @ W1, 0)], 1) @ W2
    return torch.cat([x, mean(pair(x, y) @ W3, 1)], 1) @ W4, y


def mhnns(h: Hypergraph, x, x0, W1, W2, W3, a):
    """X' = W3((1 - a) mean over e of W2 [x_v ; mean over u in e of W1 x_u] + a X0)."""
    y = spmm(h.to_edges, x @ W1, reduce="mean")
    some = (h.node_degrees() > 0).to(x.dtype)[:, None]
    return ((1 - a) * (some * (x @ W2[:C]) + spmm(h.to_nodes, y @ W2[C:], reduce="mean")) + a * x0) @ W3


def test_mhnn() -> None:
    h = Hypergraph(NODE, EDGE, num_nodes=N, num_hyperedges=M)
    leaves = [values(N, C), values(M, C, seed=1), *(values(2 * C, C, seed=s) for s in range(2, 6))]
    leaves = [t.requires_grad_() for t in leaves]
    ours, theirs = mhnn(h, *leaves), dense(*leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, terms=256, magnitude=10.0)
    total = lambda r: r[0].sin().sum() + r[1].cos().sum()
    for a, b in zip(torch.autograd.grad(total(ours), leaves), torch.autograd.grad(total(theirs), leaves), strict=True):
        assert_close(a, b, terms=2000, magnitude=100.0)


def test_mhnns() -> None:
    h = Hypergraph(NODE, EDGE, num_nodes=N, num_hyperedges=M)
    H = torch.zeros(N, M, dtype=torch.float64)
    H[NODE, EDGE] = 1
    x, x0, W1, W2, W3 = values(N, C), values(N, C, seed=1), values(C, C, seed=2), values(2 * C, C, seed=3), values(C, C, seed=4)
    y = H.T @ (x @ W1) / H.sum(0).clamp(min=1)[:, None]
    pair = torch.cat([x[:, None].expand(N, M, C), y[None].expand(N, M, C)], 2) @ W2
    mean = (H[..., None] * pair).sum(1) / H.sum(1).clamp(min=1)[:, None]
    assert_close(mhnns(h, x, x0, W1, W2, W3, 0.3), (0.7 * mean + 0.3 * x0) @ W3, terms=256, magnitude=10.0)
