"""1-WL Expressiveness Is (Almost) All You Need: colour refinement of all small graphs, and the accuracy it bounds."""

from __future__ import annotations

from functools import cache

import networkx as nx
import pytest
import torch
from networkx.generators.atlas import graph_atlas_g
from structops import Graph, segment_reduce, sparse

SYSTEM = "1-WL expressiveness: colour refinement, graph histograms, and the accuracy that its classes bound"
OPERATORS = ("structops.sparse.weisfeiler_lehman", "structops.sparse.multiset_hash", "structops.segment_reduce")
ROUNDS = 6


def union(graphs):
    """Disjoint union: edge index both ways, and pointers of the graphs' nodes."""
    sizes = torch.tensor([0, *(len(g) for g in graphs)]).cumsum(0)
    pairs = [(u + s, v + s) for g, s in zip(graphs, sizes.tolist(), strict=False) for u, v in g.edges]
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return Graph(torch.cat([index, index.flip(0)], 1), num_nodes=int(sizes[-1])), sizes


def refined(graphs, rounds: int) -> list[list]:
    """Colours as nested tuples, without any hash of ours: equal where the refinements are."""
    names: dict = {}
    number = lambda t: names.setdefault(t, len(names))
    colours = [dict.fromkeys(g, number(())) for g in graphs]
    for _ in range(rounds):
        colours = [
            {v: number((c[v], tuple(sorted(c[u] for u in g[v])))) for v in g} for g, c in zip(graphs, colours, strict=True)
        ]
    return [[c[v] for v in g] for g, c in zip(graphs, colours, strict=True)]


@cache
def small_graphs() -> list[nx.Graph]:
    """All 1,252 graphs of one to seven nodes."""
    return [g for g in graph_atlas_g() if len(g)]


def same_partition(a: list, b: list) -> bool:
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


@pytest.mark.parametrize("rounds", [0, 1, 2, ROUNDS])
def test_all_graphs_to_seven_nodes(rounds: int) -> None:
    graphs = small_graphs()
    graph, _ = union(graphs)
    got = sparse.weisfeiler_lehman(graph, torch.zeros(graph.num_src, dtype=torch.long), rounds)
    assert same_partition(got.tolist(), [c for colours in refined(graphs, rounds) for c in colours])


def histograms(graphs) -> torch.Tensor:
    """A hash of every graph's multiset of colours."""
    graph, ptr = union(graphs)
    return sparse.multiset_hash(ptr, sparse.weisfeiler_lehman(graph, torch.zeros(graph.num_src, dtype=torch.long), ROUNDS))


def shrikhande() -> nx.Graph:
    cells = [(i, j) for i in range(4) for j in range(4)]
    steps = ((0, 1), (1, 0), (1, 1))
    return nx.convert_node_labels_to_integers(
        nx.Graph([((i, j), ((i + a) % 4, (j + b) % 4)) for i, j in cells for a, b in steps])
    )


def test_pairs_that_look_alike() -> None:
    """Two triangles and a hexagon, the rook's graph and Shrikhande's: one histogram; a path and a star: two."""
    rook = nx.convert_node_labels_to_integers(nx.cartesian_product(nx.complete_graph(4), nx.complete_graph(4)))
    assert not nx.is_isomorphic(rook, shrikhande())
    triangles = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    h = histograms([triangles, nx.cycle_graph(6), rook, shrikhande(), nx.path_graph(4), nx.star_graph(3)])
    assert h[0] == h[1] and h[2] == h[3] and len(set(h.tolist())) == 4


def test_bound_on_accuracy() -> None:
    """The share of graphs whose label is their class's majority, here of planarity."""
    graphs = small_graphs()
    label = torch.tensor([nx.is_planar(g) for g in graphs])
    h = histograms(graphs)
    order = torch.sort(h, stable=True).indices
    _, count = torch.unique_consecutive(h[order], return_counts=True)
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), count.cumsum(0)])
    planar = segment_reduce(label[order].long(), ptr)
    got = int(torch.maximum(planar, count - planar).sum())
    classes: dict = {}
    for g_colours, y in zip(refined(graphs, ROUNDS), label.tolist(), strict=True):
        classes.setdefault(tuple(sorted(g_colours)), []).append(y)
    assert got == sum(max(ys.count(True), ys.count(False)) for ys in classes.values()) and got < len(graphs)


def test_order_of_nodes() -> None:
    some = small_graphs()[100:400:3]
    flipped = [nx.relabel_nodes(g, {v: len(g) - 1 - v for v in g}) for g in some]
    assert torch.equal(*histograms([*some, *flipped]).chunk(2))
