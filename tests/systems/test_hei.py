"""Estimated neighbour patterns of HEI: edge similarities averaged over each node's neighbours, and homophily counts."""

from __future__ import annotations

import torch
from agreement import agree, randn, simple_graph
from structops import sddmm, segment_reduce, spmm
from torch.autograd import grad
from torch.nn.functional import cross_entropy, one_hot

SYSTEM = "HEI: invariant learning under heterophilic structure shifts"
OPERATORS = ("structops.sddmm", "structops.segment_reduce", "structops.spmm")
GRAPH, A = simple_graph(23, 4.0, seed=1)
DEGREE = A.sum(1).clamp(min=1)


def test_similarity_of_neighbours() -> None:
    """z_i = mean over neighbours of <x_i, x_j>; a node without neighbours gets 0."""
    ours = lambda x: segment_reduce(sddmm(GRAPH, x, x, "dot")[:, 0], GRAPH.rowptr, "mean")
    assert bool((A.sum(1) == 0).any())
    z = agree(ours, lambda x: ((x @ x.T) * A).sum(1) / DEGREE, randn(23, 6))
    assert bool((z[A.sum(1) == 0] == 0).all())


def test_homophily_and_compatibility() -> None:
    label = torch.arange(23) % 3
    Y = one_hot(label, 3).double()
    counts = spmm(GRAPH, Y)
    assert torch.equal(counts.gather(1, label[:, None])[:, 0] / DEGREE, ((label[:, None] == label) * A).sum(1) / DEGREE)
    assert torch.equal(Y.T @ counts, Y.T @ A @ Y)


def test_first_layer_of_linkx() -> None:
    agree(lambda w: spmm(GRAPH, w), lambda w: A @ w, randn(23, 5))


def test_invariance_penalty() -> None:
    """The penalty differentiates with respect to a scalar after the model, and then with respect to the model."""
    q, label = torch.rand(23, 2, dtype=torch.float64), torch.arange(23) % 4

    def penalty(logits):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        nll = cross_entropy(logits * scale, label, reduction="none")
        return sum(grad((q[:, e] * nll).mean(), scale, create_graph=True)[0] ** 2 for e in range(2))

    agree(lambda x, w: penalty(spmm(GRAPH, x) @ w), lambda x, w: penalty(A @ x @ w), randn(23, 6), randn(6, 4, seed=1))
