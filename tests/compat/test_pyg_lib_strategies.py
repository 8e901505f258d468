"""Sampling by time, by weight and in disjoint trees, against what the graph allows, one row at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from structops.compat import pyg_lib
from torch import Tensor

N, E = 60, 480
sample = pyg_lib.sampler.neighbor_sample


class Graph:
    """A random graph with times of nodes and entries; each row ascends by one of them."""

    def __init__(self, order: str = "node", seed: int = 0, rows: int = N, columns: int = N):
        generator = torch.Generator().manual_seed(seed)
        near, far = torch.randint(rows, (E,), generator=generator), torch.randint(columns, (E,), generator=generator)
        self.node_time = torch.randint(20, (columns,), generator=generator)
        self.edge_time = torch.randint(20, (E,), generator=generator)
        self.weight = torch.rand(E, generator=generator) * (torch.rand(E, generator=generator) < 0.7)
        key = near * 100 + (self.node_time[far] if order == "node" else self.edge_time)
        order_of = key.argsort(stable=True)
        near, self.col, self.edge_time = near[order_of], far[order_of], self.edge_time[order_of]
        self.ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(near, minlength=rows).cumsum(0)])

    def entries(self, v: int) -> range:
        return range(int(self.ptr[v]), int(self.ptr[v + 1]))


SEED = torch.tensor([5, 9, 5, 31, 0, 17])


def by_owner(near: Tensor, edge: Tensor, count: int) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in range(count)]
    for n, e in zip(near.tolist(), edge.tolist(), strict=True):
        out[n].append(e)
    return out


def check(graph: Graph, out: tuple, neighbors: list[int], replace: bool, allowed) -> None:
    """Disjoint, csc: edges of the graph within one tree; of every node sampled from, as many as ``allowed(tree, node, k)`` gives,
    all out of these."""
    row, col, node, edge, nodes, edges = out
    tree, ids = node.t()
    assert torch.equal(node[: SEED.numel()], torch.stack([torch.arange(SEED.numel()), SEED], 1))
    assert len(set(map(tuple, node.tolist()))) == len(node), "a node twice in one tree"
    assert torch.equal(tree[row], tree[col]), "an edge between trees"
    assert torch.equal(graph.col[edge], ids[row])
    assert ((graph.ptr[ids[col]] <= edge) & (edge < graph.ptr[ids[col] + 1])).all()
    assert nodes[0] == SEED.numel() and sum(nodes) == len(node) and sum(edges) == len(edge)
    assert len(nodes) == len(neighbors) + 1 and len(edges) == len(neighbors)
    at = [0, *itertools.accumulate(nodes)]
    first = [0, *itertools.accumulate(edges)]
    for hop, k in enumerate(neighbors):
        span = slice(first[hop], first[hop + 1])
        found = by_owner(col[span], edge[span], len(node))
        for v in range(len(node)):
            if not at[hop] <= v < at[hop + 1]:
                assert not found[v], "sampled from a node of another hop"
                continue
            want = allowed(int(tree[v]), int(ids[v]), k)
            assert set(found[v]) <= set(want)
            if k < 0 or (not replace and len(want) <= k):
                assert sorted(found[v]) == sorted(want)
            else:
                assert len(found[v]) == (k if want else 0)
                assert replace or len(set(found[v])) == k


NEIGHBORS = [([-1, -1], False), ([3, 2, 2], False), ([4, 2], True)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strategy", ["uniform", "last"])
@pytest.mark.parametrize("clock", [None, "node", "edge", "seed"])
@pytest.mark.parametrize(("neighbors", "replace"), NEIGHBORS)
def test_disjoint(neighbors, replace, clock, strategy, weighted) -> None:
    graph = Graph("edge" if clock == "edge" else "node")
    seed_time = torch.tensor([15, 3, 8, 0, 19, 11]) if clock in ("edge", "seed") else None
    limit = graph.node_time[SEED] if seed_time is None else seed_time
    time = graph.edge_time if clock == "edge" else graph.node_time[graph.col]

    def allowed(tree: int, node: int, k: int) -> list[int]:
        found = [e for e in graph.entries(node) if clock is None or time[e] <= limit[tree]]
        if clock is not None and strategy == "last" and k >= 0:
            # the k latest of all, by a full sort; of equal times the later entries
            found = sorted(found, key=lambda e: (int(time[e]), e), reverse=True)[:k]
        return [e for e in found if not weighted or k < 0 or graph.weight[e] > 0]

    times = {"node_time": graph.node_time} if clock in ("node", "seed") else {"edge_time": graph.edge_time} if clock else {}
    torch.manual_seed(3)
    for _ in range(5):
        out = sample(
            graph.ptr, graph.col, SEED, neighbors, **times, seed_time=seed_time, edge_weight=graph.weight if weighted else None,
            csc=True, replace=replace, disjoint=True, temporal_strategy=strategy,
        )  # fmt: skip
        check(graph, out, neighbors, replace, allowed)


def test_the_generator_decides() -> None:
    graph = Graph()
    call = lambda: sample(
        graph.ptr, graph.col, SEED, [2, 2], graph.node_time, None, None, graph.weight, disjoint=True, replace=True
    )
    torch.manual_seed(1)
    first = call()
    torch.manual_seed(1)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(first, call(), strict=True))
    assert any(not torch.equal(call()[3], first[3]) for _ in range(5))


def test_int32_and_rows_are_columns_without_csc() -> None:
    graph = Graph()
    narrow = [t.int() for t in (graph.ptr, graph.col, SEED)]
    row, col, node, edge, *_ = sample(*narrow, [-1, -1], graph.node_time.int(), disjoint=True)
    wide = sample(graph.ptr, graph.col, SEED, [-1, -1], graph.node_time, csc=True, disjoint=True)
    assert node.dtype == torch.int32 and torch.equal(node.long(), wide[2]) and torch.equal(edge, wide[3])
    assert torch.equal(row, wide[1]) and torch.equal(col, wide[0])
    assert sample(graph.ptr, graph.col, SEED, [2], disjoint=True, return_edge_id=False)[3] is None


# ---- frequencies -----------------------------------------------------------------------------------------------------

STAR = torch.tensor([0, 6, *[6] * 5]), torch.tensor([0, 1, 2, 3, 4, 5])
SHARE = torch.tensor([1.0, 2.0, 0.0, 4.0, 8.0, 1.0])
DRAWS = 4000


def chi_square(count: Tensor, probability: Tensor) -> float:
    kept = probability > 0
    want = count.sum() * probability[kept]
    assert count[~kept].sum() == 0
    return float(((count[kept] - want) ** 2 / want).sum())


def star(k: int, replace: bool, weight: Tensor | None) -> Tensor:
    """``[DRAWS, k]`` entries sampled at the hub, by one tree each."""
    hub = torch.zeros(DRAWS, dtype=torch.int64)
    return sample(*STAR, hub, [k], edge_weight=weight, replace=replace, disjoint=True)[3].view(DRAWS, k)


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_frequencies_with_replacement(scale) -> None:
    """Chi-square with 4 degrees of freedom exceeds 24 with probability 8e-5; uniform draws reach thousands."""
    torch.manual_seed(0)
    probability = SHARE.double() / SHARE.sum()
    weighted = torch.bincount(star(3, True, SHARE.double() * scale).flatten(), minlength=6)
    assert chi_square(weighted, probability) < 24
    uniform = torch.bincount(star(3, True, None).flatten(), minlength=6)
    assert chi_square(uniform * (SHARE > 0), probability) > 1000


def test_frequencies_without_replacement() -> None:
    """Pairs against successive draws: p(a, b) = w_a / W * w_b / (W - w_a) in either order; 10 pairs, 9 degrees of freedom exceed
    36 with probability 4e-5."""
    torch.manual_seed(0)
    probability = torch.zeros(6, 6, dtype=torch.float64)
    w, total = SHARE.double(), float(SHARE.sum())
    for a, b in itertools.permutations(range(6), 2):
        probability[min(a, b), max(a, b)] += w[a] / total * w[b] / (total - w[a])
    assert abs(float(probability.sum()) - 1) < 1e-12

    def pairs(weight: Tensor | None) -> Tensor:
        low, high = star(2, False, weight).sort(dim=1)[0].t()
        return torch.bincount(low * 6 + high, minlength=36)

    assert chi_square(pairs(SHARE), probability.flatten()) < 36
    assert chi_square(pairs(None) * (probability.flatten() > 0), probability.flatten()) > 1000


def test_rows_of_weights_of_every_size_stay_apart() -> None:
    """Rows whose weights differ by 600 orders of magnitude are each drawn by their own."""
    ptr, col = torch.tensor([0, 2, 4, 6]), torch.tensor([0, 1, 0, 1, 0, 1])
    weight = torch.tensor([3e300, 1e300, 3e-300, 1e-300, 3.0, 1.0], dtype=torch.float64)
    torch.manual_seed(0)
    seed = torch.arange(3).repeat(DRAWS)
    edge = sample(ptr, col, seed, [1], edge_weight=weight, disjoint=True, replace=True)[3]
    again = sample(ptr, col, seed, [1], edge_weight=weight, disjoint=True)[3]
    for count in (torch.bincount(edge, minlength=6), torch.bincount(again, minlength=6)):
        share = count.view(3, 2)[:, 0] / DRAWS
        assert ((share - 0.75).abs() < 5 * (0.75 * 0.25 / DRAWS) ** 0.5).all()


def test_weights_of_zero() -> None:
    """A node without positive weight gets no neighbour unless all are asked for; one with too few, those it has."""
    weight = torch.tensor([0.0, 1.0, 0.0, 0.0, 2.0, 0.0])
    for replace in (False, True):
        assert sample(*STAR, torch.tensor([0]), [3], edge_weight=0 * weight, replace=replace)[3].numel() == 0
        assert sample(*STAR, torch.tensor([0]), [-1], edge_weight=0 * weight, replace=replace)[3].numel() == 6
    assert sorted(sample(*STAR, torch.tensor([0]), [3], edge_weight=weight)[3].tolist()) == [1, 4]
    assert set(sample(*STAR, torch.tensor([0]), [9], edge_weight=weight, replace=True)[3].tolist()) <= {1, 4}


# ---- heterogeneous ---------------------------------------------------------------------------------------------------

TYPES = [("a", "to", "b"), ("b", "of", "a"), ("a", "by", "a")]
SIZES = {"a": N, "b": 40}


def hetero(order: str) -> dict[str, Graph]:
    """By relation, in CSC: rows are destinations. Sources of one type share their times."""
    graphs = {}
    for n, (source, name, destination) in enumerate(TYPES):
        graph = Graph(order, n, SIZES[destination], SIZES[source])
        graphs[f"{source}__{name}__{destination}"] = graph
    return graphs


@pytest.mark.parametrize("clock", [None, "node", "edge"])
@pytest.mark.parametrize("strategy", ["uniform", "last"])
@pytest.mark.parametrize("weighted", [False, True])
def test_hetero(clock, strategy, weighted) -> None:
    graphs = hetero("edge" if clock == "edge" else "node")
    if clock == "node":  # one relation per source type has that type's times; the third is left without its order
        del graphs["a__by__a"]
    types = [t for t in TYPES if "__".join(t) in graphs]
    node_time = {"a": graphs["a__to__b"].node_time, "b": graphs["b__of__a"].node_time}
    seeds = {"b": torch.tensor([3, 7, 3]), "a": torch.tensor([11, 2])}
    seed_time = {"b": torch.tensor([9, 15, 2]), "a": torch.tensor([19, 6])}
    limit = torch.cat([seed_time["b"], seed_time["a"]])
    torch.manual_seed(5)
    k = [3, 2]
    row, col, node, edge, nodes, edges = torch.ops.pyg.hetero_neighbor_sample(
        ["a", "b"], types, {n: g.ptr for n, g in graphs.items()}, {n: g.col for n, g in graphs.items()}, seeds,
        {n: k for n in graphs}, node_time if clock == "node" else None,
        {n: g.edge_time for n, g in graphs.items()} if clock == "edge" else None, seed_time if clock else None,
        {n: g.weight for n, g in graphs.items()} if weighted else None, True, False, True, True, strategy,
    )  # fmt: skip
    assert node["b"][:3].tolist() == [[0, 3], [1, 7], [2, 3]] and node["a"][:2].tolist() == [[3, 11], [4, 2]]
    assert all(len(set(map(tuple, n.tolist()))) == len(n) for n in node.values())
    assert all(n > 0 for counts in edges.values() for n in counts), "a hop without edges tests nothing"
    for source, name, destination in types:
        key = f"{source}__{name}__{destination}"
        graph, e = graphs[key], edge[key]
        (st, s), (dt, d) = node[source][row[key]].t(), node[destination][col[key]].t()
        assert torch.equal(st, dt) and torch.equal(graph.col[e], s)
        assert ((graph.ptr[d] <= e) & (e < graph.ptr[d + 1])).all()
        time = graph.edge_time if clock == "edge" else node_time[source][graph.col]
        begin = 0
        for hop in range(2):
            start = sum(nodes[destination][:hop])
            found = by_owner(col[key][begin : begin + edges[key][hop]], e[begin : begin + edges[key][hop]], len(node[destination]))
            begin += edges[key][hop]
            for v in range(start, start + nodes[destination][hop]):
                tree, at = node[destination][v].tolist()
                want = [x for x in graph.entries(at) if clock is None or time[x] <= limit[tree]]
                if clock and strategy == "last":
                    want = sorted(want, key=lambda x: (int(time[x]), x))[-k[hop] :]
                want = [x for x in want if not weighted or graph.weight[x] > 0]
                assert set(found[v]) <= set(want) and len(found[v]) == min(k[hop], len(want))


def test_hetero_by_edge_type() -> None:
    """The Python function takes and gives edge types where the operator has names."""
    graphs = hetero("node")
    kinds = {tuple(n.split("__")): g for n, g in graphs.items()}
    seeds = {"a": torch.tensor([4, 2])}
    call = lambda of, *types: (
        {n: g.ptr for n, g in of.items()},
        {n: g.col for n, g in of.items()},
        seeds,
        {n: [-1, -1] for n in of},
    )
    got = pyg_lib.sampler.hetero_neighbor_sample(*call(kinds), csc=True)
    want = torch.ops.pyg.hetero_neighbor_sample(["a", "b"], TYPES, *call(graphs), None, None, None, None, True)
    for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        names = {k if isinstance(k, str) else "__".join(k): v for k, v in ours.items()}
        assert set(names) == set(theirs) and (i in (2, 4)) == all(isinstance(k, str) for k in ours)
        assert all(torch.equal(v, theirs[k]) if isinstance(v, Tensor) else v == theirs[k] for k, v in names.items())


# ---- errors ----------------------------------------------------------------------------------------------------------

BAD = {
    "times without disjoint": (dict(node_time=1), ValueError, "disjoint=True"),
    "edge times without disjoint": (dict(edge_time=1, seed_time=1), ValueError, "disjoint=True"),
    "both times": (dict(node_time=1, edge_time=1, disjoint=True), ValueError, "node_time or edge_time"),
    "no seed times": (dict(edge_time=1, disjoint=True), ValueError, "seed_time"),
    "strategy": (dict(temporal_strategy="first"), ValueError, "uniform, last"),
    "induced": (dict(directed=False), NotImplementedError, "induced"),
    "short node times": (dict(node_time=torch.arange(N - 1), disjoint=True), ValueError, "node_time of shape"),
    "short edge times": (dict(edge_time=torch.arange(E - 1), seed_time=1, disjoint=True), ValueError, "edge_time of shape"),
    "short seed times": (dict(node_time=1, seed_time=torch.arange(2), disjoint=True), ValueError, "seed_time of shape"),
    "NaN times": (dict(node_time=torch.full((N,), float("nan")), disjoint=True), ValueError, "without NaN"),
    "kinds of times": (dict(node_time=1, seed_time=torch.zeros(6), disjoint=True), TypeError, "integer"),
    "short weights": (dict(edge_weight=torch.ones(E + 1)), ValueError, "edge_weight of shape"),
    "negative weight": (dict(edge_weight=-1), ValueError, ">= 0"),
    "NaN weight": (dict(edge_weight=float("nan")), ValueError, ">= 0"),
    "infinite weight": (dict(edge_weight=float("inf")), ValueError, "finite"),
    "complex weight": (dict(edge_weight=torch.ones(E, dtype=torch.complex64)), TypeError, "edge_weight"),
    "weights in a list": (dict(edge_weight=[1.0] * E), TypeError, "edge_weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors(case) -> None:
    graph = Graph()
    given, kind, words = BAD[case]
    given = dict(given)
    for name, value in {"node_time": graph.node_time, "edge_time": graph.edge_time, "seed_time": torch.zeros(6).long()}.items():
        if isinstance(given.get(name), int):
            given[name] = value
    if isinstance(given.get("edge_weight"), (int, float)):
        bad, given["edge_weight"] = given["edge_weight"], torch.ones(E)
        given["edge_weight"][77] = bad
    with pytest.raises(kind, match=words):
        sample(graph.ptr, graph.col, SEED, [2], **given)


@pytest.mark.parametrize("strategy", ["uniform", "last"])
def test_times_out_of_order(strategy) -> None:
    graph = Graph("edge")  # rows are not in order of node_time
    with pytest.raises(ValueError, match="in order of time"):
        sample(graph.ptr, graph.col, SEED, [2], graph.node_time, disjoint=True, temporal_strategy=strategy)


def test_indices_out_of_range() -> None:
    graph = Graph()
    with pytest.raises(IndexError, match="nodes < 60"):
        sample(graph.ptr, graph.col, torch.tensor([60]), [2], disjoint=True)
    with pytest.raises(IndexError, match="row < 60"):
        sample(graph.ptr, graph.col + 1, SEED, [2], disjoint=True)


def test_nothing() -> None:
    graph = Graph()
    none = SEED[:0]
    assert sample(graph.ptr, graph.col, none, [2, 2], graph.node_time, disjoint=True)[2].shape == (0, 2)
    empty = torch.zeros(4, dtype=torch.int64), none
    _, _, node, _, nodes, edges = sample(*empty, SEED[4:5], [2, -1], torch.zeros(3), None, None, torch.ones(0), disjoint=True)
    assert node.tolist() == [[0, 0]] and nodes == [1, 0, 0] and edges == [0, 0]
