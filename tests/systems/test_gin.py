"""Graph isomorphism networks: sums tell multisets apart that means and maxima do not; populations share one structure."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn, simple_graph
from structops import Graph, sddmm, segment_reduce, spmm

SYSTEM = "GIN, and its weighted form in HDLMF (bi-level network design)"
OPERATORS = ("structops.spmm", "structops.segment_reduce", "structops.sddmm")


def mlp(h, w1, w2):
    return torch.relu(h @ w1) @ w2


def test_layer_and_readout() -> None:
    graph, A = simple_graph(17, 3.0)
    ptr = torch.tensor([0, 6, 6, 17])
    ours = lambda x, eps, w1, w2: segment_reduce(mlp((1 + eps) * x + spmm(graph, x), w1, w2), ptr, "sum")

    def dense(x, eps, w1, w2):
        h = mlp((1 + eps) * x + A @ x, w1, w2)
        return torch.stack([h[:6].sum(0), h[6:6].sum(0), h[6:].sum(0)])

    agree(ours, dense, randn(17, 4), randn(1, seed=1), randn(4, 8, seed=2), randn(8, 3, seed=3))


def test_which_multisets_are_told_apart() -> None:
    """{a, b} against {a, a, b, b} and {a, b, b}."""

    def star(colours):
        src = torch.arange(len(colours))
        graph = Graph(torch.stack([src, torch.zeros_like(src)]), num_src=len(colours), num_dst=1)
        x = torch.eye(2)[torch.tensor(colours)]
        return {reduce: spmm(graph, x, reduce=reduce).tolist() for reduce in ("sum", "mean", "max")}

    pair, double, skewed = star([0, 1]), star([0, 0, 1, 1]), star([0, 1, 1])
    assert pair["sum"] != double["sum"] and pair["sum"] != skewed["sum"]
    assert pair["mean"] == double["mean"] and pair["mean"] != skewed["mean"]
    assert pair["max"] == double["max"] == skewed["max"]


def test_population_on_one_structure() -> None:
    """A batch of edge weights [population, E] over one graph equals a loop over individuals, and the edge readout too."""
    graph, coo, incidence = graph_and_matrix(11, 11, 30, seed=5)

    def ours(x, w, out):
        h = spmm(graph, x.expand(3, *x.shape), w[..., None], batch_dims=1) + x
        return (sddmm(graph, h @ out, h @ out, "add", batch_dims=1)).relu()

    def dense(x, w, out):
        h = torch.stack([torch.einsum("vue,e,uf->vf", incidence, individual, x) + x for individual in w])
        return ((h @ out)[:, coo[0]] + (h @ out)[:, coo[1]]).relu()

    agree(ours, dense, randn(11, 4), randn(3, 30, seed=1), randn(4, 2, seed=2))
