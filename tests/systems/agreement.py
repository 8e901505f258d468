"""Graphs and the comparison that the layers of published systems share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import generator, random_coo
from structops import Graph
from torch import Tensor


def graph_and_matrix(num_src: int, num_dst: int, edges: int, seed: int = 0) -> tuple[Graph, Tensor, Tensor]:
    """A multigraph with empty rows, its edge_index, and its dense incidence [num_dst, num_src, E]: row, column, edge."""
    coo = random_coo(num_src, num_dst, edges, seed)
    dense = torch.zeros(num_dst, num_src, edges, dtype=torch.float64)
    dense[coo[1], coo[0], torch.arange(edges)] = 1
    return Graph(coo, num_src=num_src, num_dst=num_dst), coo, dense


def simple_graph(nodes: int, degree: float, seed: int = 0, symmetric: bool = True) -> tuple[Graph, Tensor]:
    """A random graph without loops or parallel edges whose last node is isolated, and its adjacency A [v, u] of edges u -> v."""
    A = (torch.rand(nodes, nodes, generator=generator(seed)) < degree / nodes).double()
    A = torch.triu(A, 1) + torch.triu(A, 1).T if symmetric else A * (1 - torch.eye(nodes, dtype=torch.float64))
    A[-1] = A[:, -1] = 0
    dst, src = A.nonzero(as_tuple=True)
    return Graph(torch.stack([src, dst]), num_nodes=nodes), A


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def agree(ours: Callable[..., Tensor], reference: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-10) -> Tensor:
    """Both functions give the same value and the same gradient of every input, relative to the largest entry; returns the value."""
    found = []
    for function in (ours, reference):
        leaves = [t.detach().clone().requires_grad_() for t in inputs]
        out = function(*leaves)
        weight = randn(*out.shape, seed=99)
        grads = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
        found.append([out.detach(), *(torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True))])
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        assert a.shape == b.shape, (k, a.shape, b.shape)
        scale = max(float(b.abs().max()) if b.numel() else 0.0, 1e-30)
        error = float((a - b).abs().max()) if b.numel() else 0.0
        assert error <= tolerance * scale, f"{'value' if k == 0 else f'gradient of input {k - 1}'}: off by {error} of {scale}"
    return found[0][0]


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of ``hard`` with the gradient of ``soft``: how binary layers are written in floats."""
    return hard.detach() + (soft - soft.detach())


def sign(x: Tensor) -> Tensor:
    """+-1; +1 at 0."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def clipped_sign(x: Tensor) -> Tensor:
    """Sign with the gradient 1[abs(x) <= 1]."""
    return straight_through(sign(x), x.clamp(-1, 1))


def polynomial_sign(x: Tensor) -> Tensor:
    """Sign with the gradient max(0, 2 - 2 abs(x)), the derivative of 2 x - x abs(x) inside [-1, 1]."""
    c = x.clamp(-1, 1)
    return straight_through(sign(x), 2 * c - c * c.abs())
