"""A matrix per type (typed_matmul, typed_matmul_wgrad) and per edge (edge_matmul, edge_matmul_hgrad, edge_matmul_wgrad)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from structops import Graph
from structops.sparse import (
    RelationPlan,
    TypePlan,
    edge_conditioned_matmul,
    rgcn_aggregate,
    segment_matmul,
    typed_matmul,
)  # fmt: skip
from torch import Tensor

from .bench_sparse_rspmm import LARGE, UMLS, triples
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .data import gradient, short
from .models import Traffic
from .peers import load

SEGMENTS, GATHERED, RGCN, NNCONV = "segment matmul", "typed matmul with gather", "RGCN aggregation", "edge-conditioned matmul"
RANDOM, MOLECULES = "random relations", "molecules"
TARGETS = {"best": 1.3}


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(SEGMENTS, (3, 40, 16, 24)), (GATHERED, (3, 90, 16, 24)), (RGCN, (UMLS, 8, 12)), (NNCONV, (60, 4, 8, 12))],
        quick=[(RGCN, (UMLS, 64, 64)), (RGCN, (RANDOM, 64, 64))],
        default=[
            (SEGMENTS, (10, 20_000, 128, 128)), (SEGMENTS, (500, 200, 64, 64)), (GATHERED, (50, 200_000, 64, 64)),
            (GATHERED, (20, 200_000, 32, 32)), (RGCN, (UMLS, 64, 64)), (RGCN, (RANDOM, 64, 64)), (RGCN, (LARGE, 64, 64)),
            (NNCONV, (60_000, 16, 32, 32)),
        ],
        full=[
            *((SEGMENTS, s) for s in ((10, 20_000, 128, 128), (500, 200, 64, 64), (4000, 20, 32, 32))),
            *((GATHERED, s) for s in ((50, 200_000, 64, 64), (20, 200_000, 32, 32))),
            *((RGCN, (g, F, F)) for g in (UMLS, RANDOM, LARGE) for F in (16, 64, 128)),
            *((NNCONV, s) for s in ((60_000, 16, 32, 32), (60_000, 5, 64, 64), (60_000, 64, 32, 32))),
        ],
    )  # fmt: skip
    for op, size in grid:
        for direction in (FWD, BOTH):
            yield {SEGMENTS: _segments, GATHERED: _gathered, RGCN: _rgcn, NNCONV: _nnconv}[op](size, direction, level == "smoke")


def _rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _case(op: str, direction: str, name: str, shape: str, features: int, build, least: int, most: int, flops: int) -> Case:
    passes = 1 if direction == FWD else 3
    return Case(op, direction, name, shape, features, build, Traffic(passes * least, passes * most, passes * flops), TARGETS)


def _providers(
    named: list[tuple[str, Callable | None, str]], direction: str, leaves: tuple[Tensor, ...], grad: Tensor
) -> list[Provider]:
    do = lambda f: None if f is None else runner(lambda: f(*leaves), direction, leaves, grad)
    return [Provider(name, do(f), reason) for name, f, reason in named]


def _prepared(
    ours: Callable, peers: list, plain: Callable, direction: str, leaves: tuple[Tensor, ...], grad: Tensor, plan=None
) -> Prepared:
    """``plain``: the function that is also the reference, in float64."""
    leaves = tuple(t.detach().requires_grad_(direction == BOTH) for t in leaves)

    def reference() -> tuple[Tensor, ...]:
        wide = tuple(t.detach().double().requires_grad_(direction == BOTH) for t in leaves)
        return runner(lambda: plain(*wide), direction, wide, grad.double())()

    mine, *theirs = _providers([(OURS, ours, ""), *peers], direction, leaves, grad)
    mine.plan = plan
    return Prepared(mine, theirs, reference)


# ---- rows grouped by type --------------------------------------------------------------------------------------------


def _loop(ptr: list[int], x: Tensor, w: Tensor) -> Tensor:
    sizes = [b - a for a, b in zip(ptr, ptr[1:], strict=False)]
    return torch.cat([rows @ matrix for rows, matrix in zip(x.split(sizes), w.unbind(0), strict=True)])


def _segments(size: tuple, direction: str, small: bool) -> Case:
    R, rows, K, N = size
    M = R * rows
    build = partial(_build_segments, size, direction)
    shape = f"{R} types x {short(rows)} rows, {K}->{N}"
    least = 4 * (M * (K + N) + R * K * N)
    return _case(SEGMENTS, direction, f"{R} segments", shape, N, build, least, least, 2 * M * K * N)


def _build_segments(size: tuple, direction: str, device: str) -> Prepared:
    R, rows, K, N = size
    leaves = _rand(R * rows, K).to(device), _rand(R, K, N, seed=1).to(device)
    ptr = torch.arange(R + 1, device=device) * rows
    peers = [
        ("loop of matmul", partial(_loop, ptr.tolist()), ""),
        ("bmm of equal segments", lambda x, w: (x.view(R, rows, K) @ w).flatten(0, 1), ""),
    ]
    peers.append(_hetero_linear(torch.arange(R, device=device).repeat_interleave(rows), R, K, N))
    return _prepared(
        lambda x, w: segment_matmul(x, ptr, w),
        peers,
        partial(_loop, ptr.tolist()),
        direction,
        leaves,
        gradient(R * rows, N, device=device),
    )


def _hetero_linear(types: Tensor, R: int, K: int, N: int) -> tuple[str, Callable | None, str]:
    module, reason = load("torch_geometric")
    if not module:
        return "PyG HeteroLinear", None, reason
    from torch_geometric.nn import HeteroLinear

    layer = HeteroLinear(K, N, R, is_sorted=bool((types.diff() >= 0).all()), bias=False)
    return "PyG HeteroLinear", lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x, types)), ""


def _gathered(size: tuple, direction: str, small: bool) -> Case:
    R, M, K, N = size
    build = partial(_build_gathered, size, direction)
    least = 4 * (M // 10 * K + M * N + R * K * N) + 8 * M
    return _case(
        GATHERED, direction, f"{R} types", f"{short(M)} rows of {short(M // 10)}, {R} types, {K}->{N}", N, build, least,
        least + 4 * M * K, 2 * M * K * N,
    )  # fmt: skip


def _build_gathered(size: tuple, direction: str, device: str) -> Prepared:
    R, M, K, N = size
    g = torch.Generator().manual_seed(3)
    gather, types = (torch.randint(0, n, (M,), generator=g).to(device) for n in (M // 10, R))
    leaves = _rand(M // 10, K).to(device), _rand(R, K, N, seed=1).to(device)
    plan = TypePlan(types, R, gather, M // 10)
    order = torch.sort(types, stable=True).indices
    ptr, back = [0, *torch.bincount(types, minlength=R).cumsum(0).tolist()], torch.argsort(order)
    sorted_gather = gather[order]
    loop = lambda x, w: _loop(ptr, x.index_select(0, sorted_gather), w).index_select(0, back)
    name, linear, reason = _hetero_linear(types, R, K, N)
    peers = [("loop of matmul", loop, ""), (name, linear and (lambda x, w: linear(x.index_select(0, gather), w)), reason)]
    new = lambda: TypePlan(types, R, gather, M // 10)
    return _prepared(lambda x, w: typed_matmul(x, w, plan), peers, loop, direction, leaves, gradient(M, N, device=device), new)


# ---- layers ----------------------------------------------------------------------------------------------------------


def _relations(name: str, small: bool) -> tuple[Tensor, Tensor, int, int]:
    if name != RANDOM:
        return triples(name, small)
    g = torch.Generator().manual_seed(4)
    return torch.randint(0, 20_000, (2, 200_000), generator=g), torch.randint(0, 50, (200_000,), generator=g), 20_000, 50


def _rgcn(size: tuple, direction: str, small: bool) -> Case:
    name, K, N = size
    edges, _, nodes, R = _relations(name, small)
    E = edges.shape[1]
    least = 4 * (nodes * (K + N) + R * K * N) + 8 * E
    shape = f"{short(nodes)} nodes, {short(E)} edges, {R} relations, {K}->{N}"
    return _case(
        RGCN, direction, name, shape, N, partial(_build_rgcn, size, direction, small), least, least + 4 * E * K, 2 * E * K * N
    )


def _build_rgcn(size: tuple, direction: str, small: bool, device: str) -> Prepared:
    name, K, N = size
    edges, kind, nodes, R = (t.to(device) if isinstance(t, Tensor) else t for t in _relations(name, small))
    graph = Graph(edges, num_nodes=nodes)
    plan = RelationPlan(graph, kind, R)
    src, dst = edges
    key = dst * R + kind
    c = 1 / torch.bincount(key)[key].float()
    order = torch.sort(kind, stable=True).indices
    ptr = [0, *torch.bincount(kind, minlength=R).cumsum(0).tolist()]
    s, d, coefficient = src[order], dst[order], c[order][:, None]
    rows = lambda x: x.index_select(0, s)
    loop = lambda x, w: x.new_zeros(nodes, N).index_add(0, d, _loop(ptr, rows(x), w) * coefficient.to(x.dtype))
    peers = [("grouped loop of matmul", loop, "")]
    module, reason = load("torch_geometric")
    for title, cls in (("PyG RGCNConv", "RGCNConv"), ("PyG FastRGCNConv", "FastRGCNConv")):
        run = None
        if module and cls == "FastRGCNConv" and edges.shape[1] * K * N > 2**28:
            reason = "a matrix for every edge: too large"
        elif module:
            from torch_geometric import nn

            conv = getattr(nn, cls)(K, N, R, root_weight=False, bias=False)
            run = lambda x, w, conv=conv: torch.func.functional_call(conv, {"weight": w}, (x, edges, kind))
        peers.append((title, run, reason))
    leaves = _rand(nodes, K).to(device), _rand(R, K, N, seed=1).to(device)
    new = lambda: RelationPlan(Graph(edges, num_nodes=nodes), kind, R)
    ours = lambda x, w: rgcn_aggregate(graph, x, plan, w)
    return _prepared(ours, peers, loop, direction, leaves, gradient(nodes, N, device=device), new)


def _nnconv(size: tuple, direction: str, small: bool) -> Case:
    E, J, K, N = size
    nodes = E // 2
    least = 4 * (nodes * (K + N) + E * J + J * K * N) + 8 * E
    shape = f"{short(nodes)} atoms, {short(E)} bonds, {J} features, {K}->{N}"
    build = partial(_build_nnconv, size, direction)
    return _case(NNCONV, direction, MOLECULES, shape, N, build, least, least + 4 * E * K, 2 * E * J * K + 2 * nodes * J * K * N)


def _build_nnconv(size: tuple, direction: str, device: str) -> Prepared:
    """Rings of twenty atoms, both directions of every bond."""
    E, J, K, N = size
    nodes = E // 2
    atom = torch.arange(nodes)
    after = atom // 20 * 20 + (atom + 1) % 20
    after = torch.where(after < nodes, after, atom // 20 * 20)
    edges = torch.cat([torch.stack([atom, after]), torch.stack([after, atom])], 1).to(device)
    graph = Graph(edges, num_nodes=nodes)
    graph.reversed_structure  # noqa: B018
    src, dst = edges

    def plain(x: Tensor, h: Tensor, w: Tensor) -> Tensor:
        out = x.new_zeros(nodes, N)
        for at in torch.arange(edges.shape[1]).split(20_000):  # the matrices of all edges would not fit
            matrices = (h[at] @ w.flatten(1)).view(-1, K, N)
            out = out.index_add(0, dst[at], (x[src[at]][:, None] @ matrices)[:, 0])
        return out

    peers: list = [("torch composed", plain, "")]
    module, reason = load("torch_geometric")
    conv = None
    if module:
        from torch_geometric.nn import NNConv

        layer = NNConv(K, N, torch.nn.Linear(J, K * N, bias=False), aggr="add", root_weight=False, bias=False)
        conv = lambda x, h, w: torch.func.functional_call(layer, {"nn.weight": w.flatten(1).T}, (x, edges, h))
    peers.append(("PyG NNConv", conv, reason))
    leaves = _rand(nodes, K).to(device), _rand(edges.shape[1], J, seed=1).to(device), _rand(J, K, N, seed=2).to(device)
    ours = lambda x, h, w: edge_conditioned_matmul(graph, x, h, w)
    return _prepared(ours, peers, plain, direction, leaves, gradient(nodes, N, device=device))


def test_typed(case, bench_case):
    bench_case(case)
