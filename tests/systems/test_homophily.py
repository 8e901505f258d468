"""Is homophily a necessity: mean aggregation concentrates on the mean of a class's neighbourhood, and so tells classes apart."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn
from cases import generator
from structops import Graph, spmm
from torch.nn.functional import cosine_similarity, one_hot

SYSTEM = "Is Homophily a Necessity: class neighbourhood histograms and the concentration of mean aggregation"
OPERATORS = ("structops.spmm",)
K, D = 3, 4
NEAR = torch.tensor([[0.0, 0.8, 0.2], [0.7, 0.1, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)  # neighbours' classes by class
MEANS = randn(K, D, seed=1)


def generated(nodes: int, degree: int, seed: int):
    """Labels, features and a graph in which every node draws ``degree`` neighbours by its class's distribution."""
    g = generator(seed)
    label = torch.arange(nodes) % K
    kinds = torch.multinomial(NEAR[label], degree, replacement=True, generator=g)  # [nodes, degree]
    of_kind = torch.randint(nodes // K, kinds.shape, generator=g) * K + kinds
    dst = torch.arange(nodes).repeat_interleave(degree)
    x = MEANS[label] + torch.randn(nodes, D, generator=g, dtype=torch.float64)
    return label, x, Graph(torch.stack([of_kind.reshape(-1), dst]), num_nodes=nodes)


def test_layer() -> None:
    """D^-1 A X W with parallel edges and nodes without any."""
    graph, _, incidence = graph_and_matrix(12, 12, 40, seed=2)
    A = incidence.sum(2)
    mean = A / A.sum(1, keepdim=True).clamp(min=1)
    agree(lambda x, w: spmm(graph, x, reduce="mean") @ w, lambda x, w: mean @ x @ w, randn(12, D), randn(D, 3, seed=3))


def test_histograms() -> None:
    """Neighbours' classes of every class in integers, by a loop; and the similarity of classes' neighbourhoods."""
    label, _, graph = generated(60, 7, 4)
    histogram = spmm(graph, one_hot(label, K))
    by_class = torch.stack([histogram[label == c].sum(0) for c in range(K)])
    slow = torch.zeros(K, K, dtype=torch.long)
    for u, v in graph.edge_index().T.tolist():
        slow[label[v], label[u]] += 1
    assert torch.equal(by_class, slow) and int(by_class.sum()) == 60 * 7
    share = histogram.double() / 7
    pairs = cosine_similarity(share[:, None], share[None], dim=2)
    within = torch.stack([torch.stack([pairs[label == a][:, label == b].mean() for b in range(K)]) for a in range(K)])
    assert (within.diagonal() >= within.amax(1) - 1e-12).all()  # a class is most like itself


def test_concentration() -> None:
    """E[h_v] = sum_c D_y(c) E_c[x], and the distance to it falls as 1 / sqrt(degree)."""
    spread = []
    for degree in (10, 40, 160):
        label, x, graph = generated(900, degree, 5)
        h = spmm(graph, x, reduce="mean")
        expected = NEAR @ torch.stack([x[label == c].mean(0) for c in range(K)])
        spread.append(float((h - expected[label]).square().sum(1).mean().sqrt()))
        centre = torch.stack([h[label == c].mean(0) for c in range(K)])
        assert (centre - expected).abs().max() < 6 * spread[-1] / 300**0.5
    assert all(1.8 < a / b < 2.2 for a, b in zip(spread, spread[1:], strict=False))


def test_heterophilous_classes_are_separated() -> None:
    """Features that hardly tell the classes become linearly separable after one aggregation, though neighbours mostly differ."""
    label, x, graph = generated(900, 60, 6)
    src, dst = graph.edge_index()
    assert (label[src] == label[dst]).double().mean() < 0.35
    accuracy = []
    for h in (x, spmm(graph, x, reduce="mean")):
        rows = torch.cat([h, torch.ones(900, 1, dtype=torch.float64)], 1)
        fitted = rows @ torch.linalg.lstsq(rows, one_hot(label, K).double()).solution
        accuracy.append(float((fitted.argmax(1) == label).double().mean()))
    assert accuracy[1] > 0.97 > 0.9 > accuracy[0]
