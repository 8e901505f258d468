"""poly_filter: a Chebyshev filter of degree 10 (poly_filter_bwd: the gradient of its edge weights), against loops of products."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from . import data, models
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .peers import load

K = 10


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(data.HPO, 8), (data.UNIFORM, 8)],
        quick=[(data.HPO, 16)],
        default=[(data.HPO, 128), (data.SKEWED, 128), (data.UNIFORM, 128)],
        full=[(g, F) for g in (data.HPO, data.SKEWED, data.UNIFORM, data.TINY) for F in (16, 128)],
    )
    for graph, F in grid:
        for direction in (FWD, BOTH):
            yield _case(graph, F, direction, level == "smoke", False)
        yield _case(graph, F, BOTH, level == "smoke", True)


def _case(graph: str, F: int, direction: str, small: bool, weights: bool) -> Case:
    g, _, shape = _graph(graph, small)
    N, E = g.num_dst, g.num_edges
    step = models.spmm(E, N, N, F, weighted=True)
    # Once over every step: structure and features; the recurrence reads and writes two more rows of a node.
    once = models.Traffic(step.min_bytes + N * F * 4, K * step.max_bytes, K * (step.flops + 5 * N * F))
    traffic = sum([once] * (0 if direction == FWD else 2 if weights else 1), once)
    build = partial(_build, graph, F, direction, small, weights)
    targets = {"PyG ChebConv core": 12.0, "torch.sparse.mm loop": 4.0}
    name = "polynomial filter, weight gradient" if weights else "polynomial filter"
    return Case(name, direction, graph, f"{shape}, K={K}, F={F}", F, build, traffic, {} if weights else targets)


@lru_cache(maxsize=2)
def _graph(name: str, small: bool, device: str = "cpu") -> tuple[structops.Graph, Tensor, str]:
    """A square graph, sorted by destination, and the weights of its normalised adjacency; bipartite ones become undirected."""
    e = data.edges(name, small, device)
    src, dst, n = e.src, e.dst, e.num_dst
    if name == data.HPO:
        n = e.num_src + e.num_dst
        src, dst = torch.cat([e.src, e.dst + e.num_src]), torch.cat([e.dst + e.num_src, e.src])
    order = torch.argsort(dst, stable=True)
    graph = structops.Graph(torch.stack([src, dst])[:, order], num_nodes=n)
    graph, weight = structops.sparse.normalized_adjacency(graph)
    return graph, weight, f"{e.title} {data.short(n)} nodes, {data.short(graph.num_edges)} edges"


@lru_cache(maxsize=1)
def _inputs(name: str, F: int, small: bool, device: str):
    graph, _, _ = _graph(name, small, device)
    make = torch.Generator().manual_seed(3)
    theta = torch.randn(K + 1, F, generator=make).to(device)
    return data.features(graph.num_dst, F, device=device), theta, data.gradient(graph.num_dst, F, device=device)


def _loop(product, x: Tensor, theta: Tensor) -> Tensor:
    before, h = x, product(x)
    out = theta[0] * before + theta[1] * h
    for k in range(2, K + 1):
        before, h = h, 2 * product(h) - before
        out = out + theta[k] * h
    return out


@lru_cache(maxsize=1)
def _reference(name: str, F: int, small: bool, device: str) -> tuple[Tensor, ...]:
    """In float64 by SciPy; gradients by the adjoint sums."""
    from scipy.sparse import csr_array

    graph, w, _ = _graph(name, small, device)
    x, theta, grad = (t.detach().double().cpu().numpy() for t in _inputs(name, F, small, device))
    n = graph.num_dst
    src, dst = (t.cpu().numpy() for t in graph.edge_index())
    matrix = csr_array((w.double().cpu().numpy(), (dst, src)), shape=(n, n))
    stack = [x, matrix @ x]
    adjoint = [grad, matrix.T @ grad]
    for _ in range(2, K + 1):
        stack.append(2 * (matrix @ stack[-1]) - stack[-2])
        adjoint.append(2 * (matrix.T @ adjoint[-1]) - adjoint[-2])
    out = sum(theta[k] * h for k, h in enumerate(stack))
    dx = sum(theta[k] * h for k, h in enumerate(adjoint))
    d_theta = [(grad * h).sum(0) for h in stack]
    found = (out, dx, torch.stack([torch.from_numpy(d) for d in d_theta]).numpy())
    return tuple(torch.from_numpy(f) for f in found)


def _build(name: str, F: int, direction: str, small: bool, weights: bool, device: str) -> Prepared:
    graph, w, _ = _graph(name, small, device)
    x, theta, grad = _inputs(name, F, small, device)
    both = direction == BOTH
    x, theta, w = x.detach().requires_grad_(both), theta.detach().requires_grad_(both), w.detach().requires_grad_(weights)
    src, dst = graph.edge_index().long()
    leaves = (x, theta, w) if weights else (x, theta)
    do = lambda forward: runner(forward, direction, leaves, grad)
    ours = Provider(OURS, do(lambda: structops.sparse.polynomial_filter(graph, x, theta, "chebyshev", w)))
    peers = []
    if not weights:
        matrix = torch.sparse_csr_tensor(graph.rowptr, graph.col, w.detach(), (x.shape[0],) * 2)
        peers.append(Provider("torch.sparse.mm loop", do(lambda: _loop(lambda h: torch.sparse.mm(matrix, h), x, theta))))
    pyg, reason = load("torch_geometric.nn")
    conv = pyg and pyg.ChebConv(1, 1, 1)
    index = torch.stack([src, dst])
    core = pyg and do(lambda: _loop(lambda h: conv.propagate(index, x=h, norm=w), x, theta))
    peers.append(Provider("PyG ChebConv core", core, reason))
    module, reason = load("torch_scatter")
    product = lambda h: module.scatter_add(w[:, None] * h.index_select(0, src), dst, 0, dim_size=h.shape[0])
    peers.append(Provider("torch_scatter loop", module and do(lambda: _loop(product, x, theta)), reason))
    if weights:
        return Prepared(ours, peers, lambda: (*_reference(name, F, small, device), _weight_gradient(name, F, small, device)))
    return Prepared(ours, peers, lambda: _reference(name, F, small, device))


def _weight_gradient(name: str, F: int, small: bool, device: str) -> Tensor:
    """By autograd in float64, a few features at a time."""
    graph, w, _ = _graph(name, small, device)
    x, theta, grad = (t.detach().double() for t in _inputs(name, F, small, device))
    src, dst = graph.edge_index().long()
    total = torch.zeros(graph.num_edges, dtype=torch.float64, device=device)
    for f in range(0, F, 4):
        leaf = w.detach().double().requires_grad_()
        product = lambda h: torch.zeros_like(h).index_add(0, dst, leaf[:, None] * h[src])
        out = _loop(product, x[:, f : f + 4], theta[:, f : f + 4])
        total += torch.autograd.grad(out, leaf, grad[:, f : f + 4])[0]
    return total


def test_poly(case, bench_case):
    bench_case(case)
