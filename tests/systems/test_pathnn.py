"""PathNN: a recurrent network along all paths of a length, on the trie of their prefixes; k-path rooted subgraphs, pooled in turn.

Paths are enumerated in Python.
"""

from __future__ import annotations

import math
from collections import Counter

import networkx as nx
import torch
from agreement import agree, randn
from structops import Graph, scatter_reduce, segment_gather, segment_reduce, spmm

SYSTEM = "PathNN: path neural networks on a trie of prefixes; k-path rooted subgraph networks"
OPERATORS = ("structops.segment_gather", "structops.scatter_reduce", "structops.spmm", "structops.segment_reduce")
D = 3


def paths(g: nx.Graph, k: int, shortest: bool = False) -> list[tuple[int, ...]]:
    """All simple paths of k nodes (all shortest ones) from every node, by depth-first search, in lexicographic order."""
    found = []

    def extend(path):
        if len(path) == k:
            if not shortest or distance[path[0]][path[-1]] == k - 1:
                found.append(path)
            return
        for v in sorted(g[path[-1]]):
            if v not in path:
                extend((*path, v))

    distance = dict(nx.all_pairs_shortest_path_length(g))
    for v in sorted(g):
        extend((v,))
    return found


def trie(found: list[tuple[int, ...]]):
    """For every length the last node of every distinct prefix, and the pointers from prefixes to their extensions."""
    level, steps = [()], []
    for t in range(1, len(found[0]) + 1):
        longer = sorted({p[:t] for p in found})
        count = [0] * len(level)
        place = {p: i for i, p in enumerate(level)}
        for p in longer:
            count[place[p[:-1]]] += 1
        steps.append((torch.tensor([p[-1] for p in longer]), torch.tensor([0, *count]).cumsum(0)))
        level = longer
    return steps, torch.tensor([p[-1] for p in level])


def layer(x, w, u, b, *, steps, ends):
    """relu(x_v + sum of the last states of paths that end at v): the input's product once a node, a step once a prefix."""
    z = x @ w + b
    h = c = x.new_zeros(1, D)
    for nodes, ptr in steps:
        i, f, n, o = (z[nodes] + segment_gather(h @ u, ptr)).chunk(4, 1)
        c = torch.sigmoid(f) * segment_gather(c, ptr) + torch.sigmoid(i) * torch.tanh(n)
        h = torch.sigmoid(o) * torch.tanh(c)
    return torch.relu(x + scatter_reduce(h, ends, len(x)))


def dense(x, w, u, b, *, found):
    """torch's own LSTM over explicit sequences."""
    lstm = torch.nn.LSTM(D, D, batch_first=True, dtype=torch.float64)
    names = {"weight_ih_l0": w.T, "weight_hh_l0": u.T, "bias_ih_l0": b, "bias_hh_l0": torch.zeros_like(b)}
    last = torch.func.functional_call(lstm, names, (x[torch.tensor(found)],))[0][:, -1]
    return torch.relu(x + torch.zeros_like(x).index_add(0, torch.tensor([p[-1] for p in found]), last))


GRAPH = nx.gnp_random_graph(8, 0.4, seed=5)


def test_enumeration() -> None:
    for k in (2, 3, 4):
        every = {
            tuple(p)
            for u in GRAPH
            for v in GRAPH
            if u != v
            for p in nx.all_simple_paths(GRAPH, u, v, cutoff=k - 1)
            if len(p) == k
        }
        assert set(paths(GRAPH, k)) == every and len(paths(GRAPH, k)) == len(every)
        short = {
            tuple(p)
            for u in GRAPH
            for v in GRAPH
            if u != v and nx.has_path(GRAPH, u, v)
            for p in nx.all_shortest_paths(GRAPH, u, v)
        }
        assert set(paths(GRAPH, k, True)) == {p for p in short if len(p) == k}


def parameters():
    return randn(D, 4 * D, seed=1), randn(D, 4 * D, seed=2) / 2, randn(4 * D, seed=3)


def test_layer() -> None:
    """Fewer steps than paths times their length, the same values and gradients; permutations of nodes permute the result."""
    for k in (2, 4):
        for shortest in (False, True):
            found = paths(GRAPH, k, shortest)
            steps, ends = trie(found)
            assert k == 2 or sum(len(nodes) for nodes, _ in steps) < k * len(found)
            x = randn(8, D)
            ours = lambda *t, s=steps, e=ends: layer(*t, steps=s, ends=e)
            want = agree(ours, lambda *t, f=found: dense(*t, found=f), x, *parameters())
            order = [3, 1, 7, 0, 5, 2, 6, 4]  # new node n is old node order[n]
            moved = paths(nx.relabel_nodes(GRAPH, {old: new for new, old in enumerate(order)}), k, shortest)
            steps, ends = trie(moved)
            torch.testing.assert_close(layer(x[order], *parameters(), steps=steps, ends=ends), want[order])


def shrikhande() -> nx.Graph:
    cells = [(i, j) for i in range(4) for j in range(4)]
    edges = [((i, j), ((i + a) % 4, (j + b) % 4)) for i, j in cells for a, b in ((0, 1), (1, 0), (1, 1))]
    return nx.convert_node_labels_to_integers(nx.Graph(edges))


def invariant(g: nx.Graph, K: int, shortest: bool = False) -> float:
    x = torch.ones(len(g), D, dtype=torch.float64)
    for k in range(2, K + 1):
        found = paths(g, k, shortest)
        if found:
            steps, ends = trie(found)
            x = layer(x, *parameters(), steps=steps, ends=ends) / 10
    return float(x.sum())


def test_graphs_that_look_alike_to_message_passing() -> None:
    """Two triangles and a hexagon differ for shortest paths of 3 nodes and simple ones of 4. The rook's graph and Shrikhande's,
    alike to 3-WL, have equal numbers of simple paths to 6 nodes; with distances to the end, paths of 5 nodes differ, no shorter."""
    triangles, hexagon = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.cycle_graph(6)
    for K, shortest in ((3, True), (4, False)):
        assert abs(invariant(triangles, K, shortest) - invariant(hexagon, K, shortest)) > 1e-3
    assert abs(invariant(triangles, 2) - invariant(hexagon, 2)) < 1e-12
    rook = nx.convert_node_labels_to_integers(nx.cartesian_product(nx.complete_graph(4), nx.complete_graph(4)))
    for k in range(2, 7):
        assert len(paths(rook, k)) == len(paths(shrikhande(), k))
    marked = []
    for g in (rook, shrikhande()):
        distance = dict(nx.all_pairs_shortest_path_length(g))
        marked.append([Counter(tuple(distance[p[-1]][v] for v in p) for p in paths(g, k)) for k in (3, 4, 5)])
    assert marked[0][:2] == marked[1][:2] and marked[0][2] != marked[1][2]


def test_rooted_subgraphs() -> None:
    """A message-passing network on copies of the graph labelled by paths, all on one structure; node to path to root to graph."""
    found = [p for p in paths(GRAPH, 3) if p[0] < 6]  # roots without paths too
    distance = torch.full((8, 8), 9)
    for u, row in nx.all_pairs_shortest_path_length(GRAPH):
        for v, d in row.items():
            distance[u, v] = d
    label = torch.nn.functional.one_hot(distance[torch.tensor(found)].transpose(1, 2), 10).double().flatten(2)  # [P, N, 3 * 10]
    index = torch.tensor(list(GRAPH.edges)).T
    graph = Graph(torch.cat([index, index.flip(0)], 1), num_nodes=8)
    A = torch.from_numpy(nx.to_numpy_array(GRAPH, nodelist=range(8)))
    root_ptr = torch.tensor([0, *(sum(p[0] == v for p in found) for v in range(8))]).cumsum(0)

    def ours(x, w1, w2):
        h = torch.tanh(torch.cat([x.expand(len(found), 8, D), label], 2) @ w1)
        h = torch.tanh((h + spmm(graph, h, batch_dims=1)) @ w2)
        return segment_reduce(segment_reduce(h.sum(1), root_ptr, "mean"), torch.tensor([0, 8]))

    def loop(x, w1, w2):
        total = x.new_zeros(1, w2.shape[1])
        for v in range(8):
            rows = []
            for p, one in zip(found, label, strict=True):
                if p[0] == v:
                    h = torch.tanh(torch.cat([x, one], 1) @ w1)
                    rows.append(torch.tanh((h + A @ h) @ w2).sum(0))
            total = total + (torch.stack(rows).mean(0) if rows else 0)
        return total

    agree(ours, loop, randn(8, D), randn(D + 30, 4, seed=1), randn(4, 4, seed=2))


def test_cycles_by_traces() -> None:
    """Closed paths of 3 and 4 nodes count triangles and squares: tr A^3 / 6 and (tr A^4 - 2 m - 4 sum C(d, 2)) / 8."""
    A = torch.from_numpy(nx.to_numpy_array(GRAPH, nodelist=range(8)))
    closed = [sum(GRAPH.has_edge(p[0], p[-1]) for p in paths(GRAPH, k)) / (2 * k) for k in (3, 4)]
    m, pairs = GRAPH.number_of_edges(), sum(math.comb(d, 2) for _, d in GRAPH.degree)
    trace = [float(torch.linalg.matrix_power(A, k).trace()) for k in (3, 4)]
    assert closed == [trace[0] / 6, (trace[1] - 2 * m - 4 * pairs) / 8]
