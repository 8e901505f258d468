"""TVGNN: diffusion with weights 1 / ||difference||_1, and the total-variation clustering loss."""

from __future__ import annotations

import torch
from cases import values
from compare import assert_close
from structops import Graph
from structops.sparse import difference_step, total_variation
from torch import Tensor

SYSTEM = "TVGNN: total variation graph neural networks (Hansen and Bianchi, 2023)"
OPERATORS = ("structops.sparse.difference_step", "structops.sparse.total_variation")

N, F, K, STEP, EPS = 7, 4, 3, 0.3, 0.5
ONE = torch.tensor([[0, 0, 1, 2, 3, 4, 5], [1, 2, 2, 3, 4, 5, 3]])
EDGES = torch.cat([ONE, ONE.flip(0)], 1)
GRAPH = Graph(EDGES, num_nodes=N)
WEIGHT = values(ONE.shape[1], seed=8).abs().repeat(2)


def layer(x: Tensor, weight: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.relu(difference_step(GRAPH, x @ w, weight, step=STEP, p=1.0, eps=EPS) + b)


def adjacency(weight: Tensor) -> Tensor:
    return torch.zeros(N, N).double().index_put((EDGES[1], EDGES[0]), weight)


def reference_layer(x: Tensor, weight: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """relu((I - step (D_Gamma - Gamma)) X W + b) with a dense Gamma."""
    h = x @ w
    gamma = adjacency(weight) / (h[:, None] - h[None]).abs().sum(2).clamp(min=EPS)
    return torch.relu(h - STEP * (gamma.sum(1, keepdim=True) * h - gamma @ h) + b)


def quantile(s: Tensor) -> Tensor:
    """Of every column, the value at position n - n / K of its order."""
    return s.sort(0).values[N - 1 - N // K]


def losses(variation: Tensor, s: Tensor) -> Tensor:
    """Total variation per edge, and the asymmetric distance to the quantile, which an even split of the nodes makes largest."""
    d = s - quantile(s)
    balance = torch.where(d >= 0, (K - 1) * d, -d).sum()
    largest = N * (K - 1)
    return variation / (2 * EDGES.shape[1]) + (largest - balance) / largest


def test_layer() -> None:
    shapes = [(N, F), (F, F), (F,)]
    x, w, b = (values(*s, seed=i).requires_grad_() for i, s in enumerate(shapes))
    weight = WEIGHT.clone().requires_grad_()
    ours, theirs = layer(x, weight, w, b), reference_layer(x, weight, w, b)
    assert_close(ours, theirs.detach(), terms=100)
    c = values(N, F, seed=5)
    leaves = (x, weight, w, b)
    for a, e in zip(*(torch.autograd.grad((t * c).sum(), leaves) for t in (ours, theirs)), strict=True):
        assert_close(a, e, terms=1000)


def test_clustering_loss() -> None:
    """The loss of the edge list is that of the dense broadcast [N, N, K]."""
    logits = values(N, K, seed=3).requires_grad_()
    s = logits.softmax(1)
    ours = losses(total_variation(GRAPH, s, WEIGHT), s)
    dense = losses((adjacency(WEIGHT)[:, :, None] * (s[:, None] - s[None]).abs()).sum(), s)
    assert_close(ours, dense.detach(), terms=100)
    (a,), (b,) = (torch.autograd.grad(t, logits, retain_graph=True) for t in (ours, dense))
    assert_close(a, b, terms=200)


def test_short_edges_count_as_eps_long() -> None:
    x = torch.zeros(N, F).double()
    x[1, 0] = EPS / 4
    want = torch.zeros(N, F).double()
    for k, (u, v) in enumerate(EDGES.T.tolist()):
        want[v] += WEIGHT[k] / EPS * (x[v] - x[u])
    assert_close(difference_step(GRAPH, x, WEIGHT, step=STEP, eps=EPS), x - STEP * want, terms=16)


def test_constants_are_fixed_points_without_slope_in_the_weights() -> None:
    x, weight = torch.full((N, F), 2.5).double().requires_grad_(), WEIGHT.clone().requires_grad_()
    out = difference_step(GRAPH, x, weight, step=STEP, eps=EPS)
    assert torch.equal(out, x)
    (slope,) = torch.autograd.grad(out.sum(), weight)
    assert torch.equal(slope, torch.zeros_like(slope))
    variation = total_variation(GRAPH, x, WEIGHT)
    (slope,) = torch.autograd.grad(variation, x)
    assert variation == 0 and torch.equal(slope, torch.zeros_like(slope))
