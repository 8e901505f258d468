"""Block-sparse products and sheaf Laplacians; total variation (difference_edges) and p-Laplacian (difference_rows).

Peers: the expanded (N d) x (N d) matrix in CSR through torch and SciPy, and gather, compute, scatter. Every graph is made
undirected: a bipartite one gets its edges in both directions over the union of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops import sparse
from torch import Tensor

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import I, S, Traffic

CHANNELS = 64
ALL = (data.HPO, data.SKEWED, data.UNIFORM, data.TINY)


def cases(level: str) -> Iterator[Case]:
    small = level == "smoke"
    blocks = at_level(
        level,
        smoke=[(g, d) for g in (data.HPO, data.TINY) for d in (2, 3)],
        quick=[(data.TINY, 3)],
        default=[(data.TINY, d) for d in (2, 3, 4, 5)] + [(data.HPO, 3)],
        full=[(g, d) for g in ALL for d in (2, 3, 4, 5)],
    )
    for graph, d in blocks:
        for direction in (FWD, BOTH):
            yield _sheaf_case("block_spmm", graph, d, direction, small)
        yield _sheaf_case("sheaf Laplacian", graph, d, FWD, small)
    differences = at_level(
        level,
        smoke=[(g, p) for g in (data.HPO, data.TINY) for p in (1.0, 1.5)],
        quick=[(data.HPO, 1.0)],
        default=[(data.HPO, 1.0), (data.HPO, 1.5), (data.TINY, 1.0)],
        full=[(g, p) for g in ALL for p in (1.0, 1.5, 2.0, 3.0)],
    )
    for graph, p in differences:
        for direction in (FWD, BOTH):
            yield _difference_case("total variation", graph, p, direction, small)
            yield _difference_case("p-Laplacian", graph, p, direction, small)


@lru_cache(maxsize=1)
def _graph(name: str, small: bool, device: str) -> tuple[sparse.SheafGraph, Tensor]:
    e = data.edges(name, small, device)
    shift = e.num_src if e.num_src != e.num_dst else 0
    src, dst = e.src, e.dst + shift
    keep = src != dst
    low, high = torch.minimum(src, dst)[keep], torch.maximum(src, dst)[keep]
    n = e.num_dst + shift
    key = torch.unique(low * n + high)
    one = torch.stack([key // n, key % n])
    index = torch.cat([one, one.flip(0)], 1)
    index = index[:, torch.sort(index[1], stable=True).indices]
    return sparse.SheafGraph(index, n), index


def _shape(name: str, small: bool, text: str) -> str:
    g = _graph(name, small, "cpu")[0].graph
    return f"{data.edges(name, small).title} undirected {data.short(g.num_dst)} nodes, {data.short(g.num_edges)} edges, {text}"


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _sheaf_case(op: str, graph: str, d: int, direction: str, small: bool) -> Case:
    g = _graph(graph, small, "cpu")[0].graph
    E, N, width = g.num_edges, g.num_dst, d * CHANNELS
    rest = E * (d * d * S + I) + N * I
    traffic = Traffic(rest + 2 * N * width * S, rest + (E + N) * width * S, 2 * E * d * width)
    if direction == BOTH:  # the same on the reversed edges, and a dot product for every entry of a block
        traffic = traffic + traffic + traffic
    build = partial(_build_blocks, op, graph, d, direction, small)
    target = {} if direction == BOTH else {"torch CSR": 3.0} if op == "block_spmm" else {"torch CSR rebuilt": 3.0}
    shape = _shape(graph, small, f"d={d}, F={CHANNELS}")
    return Case(op, direction, f"{graph} d={d}", shape, CHANNELS, build, traffic, target)


@lru_cache(maxsize=1)
def _inputs(graph: str, d: int, small: bool, device: str):
    s, index = _graph(graph, small, device)
    gen = torch.Generator().manual_seed(3)
    maps = torch.randn(s.graph.num_edges, d, d, generator=gen).to(device)
    x, grad = (torch.randn(s.graph.num_dst, d, CHANNELS, generator=gen).to(device) for _ in range(2))
    return s, index, maps, x, grad


def _expanded(index: Tensor, N: int, blocks: Tensor, own: Tensor | None = None) -> Tensor:
    """The block matrix in CSR, as torch builds it from entries."""
    d = blocks.shape[-1]
    src, dst = index
    if own is not None:
        loop = torch.arange(N, device=src.device)
        src, dst, blocks = torch.cat([src, loop]), torch.cat([dst, loop]), torch.cat([blocks, own])
    i = torch.arange(d, device=src.device)
    row = (dst[:, None, None] * d + i[:, None]).expand(-1, d, d).reshape(-1)
    col = (src[:, None, None] * d + i).expand(-1, d, d).reshape(-1)
    return torch.sparse_coo_tensor(torch.stack([row, col]), blocks.reshape(-1), (N * d, N * d)).coalesce().to_sparse_csr()


def _normalised(index: Tensor, pair: Tensor, maps: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Blocks of the normalised augmented Laplacian at the edges and at the nodes, by batched matrix products."""
    dst, d = index[1], maps.shape[2]
    own = maps.new_zeros(N, d, d).index_add(0, dst, maps.mT @ maps)
    w, U = torch.linalg.eigh(own + torch.eye(d, dtype=maps.dtype, device=maps.device))
    root = (U * w.rsqrt()[:, None]) @ U.mT
    maps = maps @ root[dst]
    return -(maps.mT @ maps[pair.long()]), root @ own @ root


def _build_blocks(op: str, graph: str, d: int, direction: str, small: bool, device: str) -> Prepared:
    s, index, maps, x, grad = _inputs(graph, d, small, device)
    N, flat = s.graph.num_dst, (-1, CHANNELS)
    if op == "block_spmm":
        maps, x = (t.detach().requires_grad_(direction == BOTH) for t in (maps, x))
        do = lambda forward: runner(forward, direction, (maps, x), grad)
        ours = Provider(OURS, do(lambda: sparse.block_spmm(s.graph, maps, x)))
        blocks, own = maps.detach(), None
    else:
        do = lambda forward: runner(forward, direction)
        ours = Provider(OURS, do(lambda: sparse.sheaf_laplacian(s, maps, x)))
        blocks, own = _normalised(index, s.pair, maps, N)
    matrix = _expanded(index, N, blocks, own)
    # The maps of a layer change at every step: its matrix is built anew each time.
    plan = lambda: _expanded(index, N, *(_normalised(index, s.pair, maps, N) if own is not None else (blocks, None)))
    wide = x.detach().reshape(flat)
    alone = direction == FWD
    why = "" if alone else "no gradient of blocks"
    peers = [Provider("torch CSR", do(lambda: (matrix @ wide).reshape(x.shape)) if alone else None, why, plan)]
    if own is not None:
        peers.append(Provider("torch CSR rebuilt", do(lambda: (plan() @ wide).reshape(x.shape))))
    composed = None
    if op == "block_spmm":
        src, dst = index
        composed = do(lambda: x.new_zeros(x.shape).index_add(0, dst, maps @ x.index_select(0, src)))
    peers.append(Provider("gather-bmm-scatter", composed, "" if composed else "as torch CSR"))
    scipy_matrix = _scipy(matrix) if alone and device == "cpu" else None
    array = wide.cpu().numpy()
    run = scipy_matrix is not None and do(lambda: torch.from_numpy(scipy_matrix @ array).reshape(x.shape))
    peers.append(Provider("SciPy CSR", run or None, why))
    return Prepared(ours, peers, lambda: _reference_blocks(op, graph, d, direction, small, device), tolerance=1e-3)


def _scipy(matrix: Tensor):
    from scipy.sparse import csr_array

    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return csr_array(tuple(t.numpy() for t in parts), shape=tuple(matrix.shape))


@lru_cache(maxsize=1)
def _reference_blocks(op: str, graph: str, d: int, direction: str, small: bool, device: str) -> tuple[Tensor, ...]:
    s, index, maps, x, grad = _inputs(graph, d, small, device)
    N, (src, dst) = s.graph.num_dst, index
    maps, x, grad = maps.double(), x.double(), grad.double()
    if op != "block_spmm":
        between, own = _normalised(index, s.pair, maps, N)
        return ((own @ x).index_add(0, dst, between @ x[src]),)
    out = torch.zeros_like(x).index_add(0, dst, maps @ x[src])
    if direction == FWD:
        return (out,)
    return out, grad[dst] @ x[src].mT, torch.zeros_like(x).index_add(0, src, maps.mT @ grad[dst])


# ---- differences -----------------------------------------------------------------------------------------------------


def _difference_case(op: str, graph: str, p: float, direction: str, small: bool) -> Case:
    g = _graph(graph, small, "cpu")[0].graph
    E, N, F = g.num_edges, g.num_dst, CHANNELS
    rest = E * (I + S) + N * I
    traffic = Traffic(rest + 2 * N * F * S, rest + (E + N) * F * S, 3 * E * F)
    if direction == BOTH:  # to both ends and to the weights
        traffic = traffic + traffic + traffic + traffic
    build = partial(_build_differences, op, graph, p, direction, small)
    return Case(
        op, direction, f"{graph} p={p:g}", _shape(graph, small, f"F={F}, p={p:g}"), F, build, traffic, {"gather-scatter": 4.0}
    )


@lru_cache(maxsize=1)
def _difference_inputs(graph: str, small: bool, device: str):
    s, index = _graph(graph, small, device)
    N, E = s.graph.num_dst, s.graph.num_edges
    weight = torch.rand(E, generator=torch.Generator().manual_seed(5)).to(device) + 0.5
    return s.graph, index, data.features(N, CHANNELS, device=device), weight, data.gradient(N, CHANNELS, device=device)


def _stored(op: str, index: Tensor, x: Tensor, weight: Tensor, p: float) -> Tensor:
    src, dst = index
    d = x.index_select(0, dst) - x.index_select(0, src)
    if op == "total variation":
        return (weight[:, None] * (d.abs() if p == 1 else d.abs() ** p)).sum()
    flux = d.sign() if p == 1 else d if p == 2 else d.abs() ** (p - 1) * d.sign()
    return torch.zeros_like(x).index_add(0, dst, weight[:, None] * flux)


def _build_differences(op: str, graph: str, p: float, direction: str, small: bool, device: str) -> Prepared:
    g, index, x, weight, grad = _difference_inputs(graph, small, device)
    x, weight = (t.detach().requires_grad_(direction == BOTH) for t in (x, weight))
    if op == "total variation":
        grad = grad.new_ones(())
        forward = lambda: structops.sparse.total_variation(g, x, weight, p)
    else:
        forward = lambda: structops.sparse.p_laplacian(g, x, weight, p)
    leaves = (weight,) if op == "p-Laplacian" and p == 1 else (x, weight)  # the sign has no slope
    do = lambda fn: runner(fn, direction, leaves, grad)
    peers = [Provider("gather-scatter", do(lambda: _stored(op, index, x, weight, p)))]

    def reference() -> tuple[Tensor, ...]:
        wide = [t.detach().double().requires_grad_(direction == BOTH) for t in (x, weight)]
        run = runner(lambda: _stored(op, index, *wide, p), direction, tuple(wide[2 - len(leaves) :]), grad.double())
        return run()

    return Prepared(Provider(OURS, do(forward)), peers, reference)


def test_sheaf(case, bench_case):
    bench_case(case)
