"""Layer-wise training of ForwardGNN: aggregation of a fixed input is computed once, virtual class nodes are hubs."""

from __future__ import annotations

import torch
from agreement import agree, randn, simple_graph
from structops import Graph, sddmm, spmm
from torch.nn.functional import cross_entropy, normalize

SYSTEM = "ForwardGNN: layer-wise learning with virtual class nodes"
OPERATORS = ("structops.spmm", "structops.sddmm")
N, C = 30, 3
BASE, A = simple_graph(N, 3.0, seed=2)
LABEL = torch.arange(N) % C


def with_virtual_nodes() -> tuple[Graph, torch.Tensor]:
    """Every node joined to its class's virtual node, both ways."""
    full = torch.zeros(N + C, N + C, dtype=torch.float64)
    full[:N, :N] = A
    full[torch.arange(N), N + LABEL] = full[N + LABEL, torch.arange(N)] = 1
    dst, src = full.nonzero(as_tuple=True)
    return Graph(torch.stack([src, dst]), num_nodes=N + C), full


GRAPH, FULL = with_virtual_nodes()


def loss(aggregated, w):
    z = normalize(torch.relu(aggregated @ w))
    return cross_entropy(z[:N] @ z[N:].T / 0.5, LABEL)


def test_layer_loss() -> None:
    degree = FULL.sum(1, keepdim=True)
    agree(
        lambda x, w: loss(spmm(GRAPH, x, reduce="mean"), w),
        lambda x, w: loss(FULL @ x / degree, w),
        randn(N + C, 5),
        randn(5, 8, seed=1),
    )


def test_cached_aggregation() -> None:
    """With a detached input the aggregation is a constant: cached, it gives the same bits."""
    x, w = randn(N + C, 5), randn(5, 8, seed=1).requires_grad_()
    cached = spmm(GRAPH, x, reduce="mean")
    once = torch.autograd.grad(loss(cached, w), w)[0]
    again = torch.autograd.grad(loss(spmm(GRAPH, x, reduce="mean"), w), w)[0]
    assert torch.equal(once, again)


def test_link_goodness() -> None:
    dst, src = FULL.nonzero(as_tuple=True)
    agree(lambda z: torch.sigmoid(sddmm(GRAPH, z, z, "dot")[:, 0]), lambda z: torch.sigmoid((z @ z.T)[dst, src]), randn(N + C, 4))


def test_hub_of_many_edges() -> None:
    """A row of 10^5 integers sums exactly."""
    src = torch.arange(100_000)
    hub = Graph(torch.stack([src, torch.zeros_like(src)]), num_src=100_000, num_dst=2)
    x = (src % 7).float()[:, None]
    assert spmm(hub, x).tolist() == [[float((src % 7).sum())], [0.0]]
