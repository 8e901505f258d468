"""TOGL and RePHINE: learned filtrations, their persistence diagrams, and set functions of the diagrams.

The pairs come from a union-find over sorted edges in Python; they are indices, and values are gathered at them.
"""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from agreement import agree, randn
from structops import Graph, segment_gather, segment_reduce, spmm

SYSTEM = "TOGL: topological graph layers; RePHINE (TopNets): diagrams of vertices and edges"
OPERATORS = ("structops.segment_reduce", "structops.segment_gather", "structops.spmm")
GRAPHS = [nx.gnp_random_graph(9, 0.35, seed=4), nx.empty_graph(2), nx.cycle_graph(5), nx.gnp_random_graph(7, 0.2, seed=1)]
PTR = torch.tensor([0, *(len(g) for g in GRAPHS)]).cumsum(0)
EDGES = torch.tensor([(u + s, v + s) for g, s in zip(GRAPHS, PTR.tolist(), strict=False) for u, v in g.edges])
EDGE_PTR = torch.tensor([0, *(g.number_of_edges() for g in GRAPHS)]).cumsum(0)
N, F, C = int(PTR[-1]), 3, 4


def pairs(f: torch.Tensor, edge_value: torch.Tensor, edges: torch.Tensor):
    """One filtration: for every vertex the edge that kills its component (-1: none), and which edges close a cycle. Edges in
    order of value, of equal ones in theirs; of two components the one born later dies, of equal ones that of the larger number."""
    parent = list(range(len(f)))

    def root(v):
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    death, cycle = torch.full((len(f),), -1), torch.zeros(len(edges), dtype=torch.bool)
    for k in torch.sort(edge_value, stable=True).indices.tolist():
        a, b = (root(v) for v in edges[k].tolist())
        if a == b:
            cycle[k] = True
            continue
        old, young = sorted((a, b), key=lambda v: (float(f[v]), v))
        death[young], parent[young] = k, old
    return death, cycle


def diagrams(f, edge_value):
    """Of every filtration: (birth, death) ``[N, F, 2]`` of vertices, death of the undying at the largest value of all, and
    (birth, death) ``[E, F, 2]`` of cycles, both 0 for other edges."""
    top = segment_reduce(torch.cat([f, edge_value]), torch.tensor([0, N, N + len(EDGES)]), "max").amax(0)
    zero, one = [], []
    for k in range(f.shape[1]):
        death, cycle = pairs(f[:, k].detach(), edge_value[:, k].detach(), EDGES)
        dies = torch.where(death >= 0, edge_value[death.clamp(min=0), k], top[k])
        zero.append(torch.stack([f[:, k], dies], 1))
        born = torch.where(cycle, edge_value[:, k], 0)
        one.append(torch.stack([born, torch.where(cycle, top[k], 0)], 1))
    return torch.stack(zero, 1), torch.stack(one, 1)


def sublevel_betti(f, edge_value, at):
    """(components, independent cycles) of the vertices and edges at most ``at``."""
    g = nx.Graph()
    g.add_nodes_from(v for v in range(N) if f[v] <= at)
    g.add_edges_from(EDGES[k].tolist() for k in range(len(EDGES)) if edge_value[k] <= at)
    c = nx.number_connected_components(g) if len(g) else 0
    return c, g.number_of_edges() - len(g) + c


@pytest.mark.parametrize("ties", [False, True])
def test_diagrams_count_components_and_cycles(ties: bool) -> None:
    """At every threshold; of the whole, as many undying vertices as components and E - V + components cycles."""
    f = randn(N, 1).round() if ties else randn(N, 1)
    value = f[EDGES].amax(1)
    zero, one = diagrams(f, value)
    death, cycle = pairs(f[:, 0], value[:, 0], EDGES)
    whole = nx.Graph(EDGES.tolist())
    whole.add_nodes_from(range(N))
    assert int((death < 0).sum()) == nx.number_connected_components(whole)
    assert int(cycle.sum()) == len(EDGES) - N + nx.number_connected_components(whole)
    for at in f.flatten().unique().tolist():
        alive = (zero[:, 0, 0] <= at) & ((zero[:, 0, 1] > at) | (death < 0))
        assert (int(alive.sum()), int((cycle & (value[:, 0] <= at)).sum())) == sublevel_betti(f[:, 0], value[:, 0], at)
    assert torch.equal(one[~cycle], torch.zeros_like(one[~cycle]))


def set_layer(t, ptr, w, lam):
    """A permutation-equivariant function of every graph's tuples: relu(t W - sum over the set Lambda)."""
    return torch.relu(t @ w - segment_gather(segment_reduce(t, ptr) @ lam, ptr))


def layer(x, w_f, w0, l0, w1, l1, *, reduce=set_layer):
    """Filtrations from features, diagrams, set functions of both, added to nodes and pooled by graph."""
    f = torch.tanh(x @ w_f)
    zero, one = diagrams(f, f[EDGES].amax(1))
    nodes = reduce(zero.flatten(1), PTR, w0, l0)
    cycles = reduce(one.flatten(1), EDGE_PTR, w1, l1)
    return torch.cat([x + nodes, segment_reduce(cycles, EDGE_PTR)])


def loop(t, ptr, w, lam):
    parts = [t[a:b] for a, b in zip(ptr.tolist(), ptr.tolist()[1:], strict=False)]
    return torch.cat([torch.relu(p @ w - p.sum(0) @ lam) for p in parts])


def test_layer() -> None:
    """Gradients pass through the gathered values to the filtrations; graphs without edges in the batch."""
    weights = randn(C, F, seed=1), *(randn(2 * F, C, seed=2 + i) / 2 for i in range(4))
    agree(layer, lambda *t: layer(*t, reduce=loop), randn(N, C), *weights)
    assert torch.autograd.gradcheck(lambda x: layer(x, *weights), randn(N, C).requires_grad_(), fast_mode=True)


def test_rephine() -> None:
    """Vertices with colours of their own, edges with another filtration: (birth, death, colour, earliest edge) of every vertex, the
    last by a minimum over its edges, pooled by sum."""
    both = Graph(torch.cat([EDGES.T, EDGES.T.flip(0)], 1), num_nodes=N)

    def tuples(colour, value, earliest):
        death, _ = pairs(torch.zeros(N), value.detach(), EDGES)  # all vertices are born at once
        dies = torch.where(death >= 0, value[death.clamp(min=0)], 1.0)
        return segment_reduce(torch.sin(torch.stack([dies, colour, earliest], 1)), PTR)

    def ours(colour, value):
        return tuples(colour, value, spmm(both, None, torch.cat([value, value])[:, None], reduce="min")[:, 0])

    def dense(colour, value):
        rows = []
        for v in range(N):
            mine = EDGES.eq(v).any(1)
            rows.append(value[mine].min() if mine.any() else value.new_zeros(()))
        return tuples(colour, value, torch.stack(rows))

    agree(ours, dense, randn(N), torch.rand(len(EDGES), dtype=torch.float64))


def test_graphs_that_look_alike_to_message_passing() -> None:
    """Two triangles and a hexagon under a constant filtration: two components and two cycles against one and one."""
    for g, (components, cycles) in (
        (nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), (2, 2)),
        (nx.cycle_graph(6), (1, 1)),
    ):
        death, cycle = pairs(torch.zeros(6), torch.zeros(6), torch.tensor(list(g.edges)))
        assert (int((death < 0).sum()), int(cycle.sum())) == (components, cycles)
