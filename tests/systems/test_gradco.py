"""GRADCO: adjacencies of graphlet orbits from products on the edges and sums over wedges, against all induced 4-node subgraphs.

The sums over wedges need common neighbours: here by rows of a dense matrix; intersecting sorted lists is not an operator.
"""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
import torch
from structops import Graph, scatter_reduce, sddmm, spmm

SYSTEM = "GRADCO: graphlet orbit adjacencies to four nodes, closed forms in integers"
OPERATORS = ("structops.sddmm", "structops.spmm", "structops.scatter_reduce")
GRAPHS = {
    "random": nx.gnp_random_graph(11, 0.45, seed=3), "scale-free": nx.barabasi_albert_graph(12, 3, seed=1),
    "star": nx.star_graph(6), "complete": nx.complete_graph(6), "cycle": nx.cycle_graph(7), "Petersen": nx.petersen_graph(),
}  # fmt: skip
# Orbits of the connected graphs of 3 and 4 nodes: graph, then the orbit of each of its nodes.
PATH, TRIANGLE = (nx.path_graph(3), (1, 2, 1)), (nx.complete_graph(3), (3, 3, 3))
PAW, DIAMOND = nx.Graph([(0, 1), (1, 2), (1, 3), (2, 3)]), nx.Graph([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])
FOUR = [
    (nx.path_graph(4), (4, 5, 5, 4)), (nx.star_graph(3), (7, 6, 6, 6)), (nx.cycle_graph(4), (8, 8, 8, 8)), (PAW, (9, 11, 10, 10)),
    (DIAMOND, (12, 13, 13, 12)), (nx.complete_graph(4), (14, 14, 14, 14)),
]  # fmt: skip


def brute_force(g: nx.Graph) -> dict[tuple[int, int], torch.Tensor]:
    """A[o1, o2][u, v]: induced graphlets with u at o1 and v at o2; of the 4-cycle only its edges count here."""
    n, found = len(g), {}
    for size, patterns in ((3, (PATH, TRIANGLE)), (4, FOUR)):
        for nodes in itertools.combinations(range(n), size):
            part = g.subgraph(nodes)
            for pattern, orbits in patterns:
                if part.number_of_edges() != pattern.number_of_edges() or not nx.is_isomorphic(part, pattern):
                    continue
                match = next(nx.isomorphism.GraphMatcher(part, pattern).isomorphisms_iter())
                for u, v in itertools.permutations(nodes, 2):
                    key = orbits[match[u]], orbits[match[v]]
                    if key == (8, 8) and not g.has_edge(u, v):
                        continue
                    found.setdefault(key, torch.zeros(n, n, dtype=torch.float64))[u, v] += 1
    return found


def orbit_adjacencies(g: nx.Graph) -> dict[tuple[int, int], torch.Tensor]:
    n = len(g)
    A = torch.from_numpy(nx.to_numpy_array(g, nodelist=range(n)))
    dst, src = A.nonzero(as_tuple=True)
    graph = Graph(torch.stack([src, dst]), num_nodes=n)
    place = dst * n + src
    full = lambda values, at: scatter_reduce(values, at, n * n).reshape(n, n)
    degree = spmm(graph, torch.ones(n, 1, dtype=torch.float64))[:, 0]
    common = sddmm(graph, A, A, "dot")[:, 0]  # of the ends of every edge
    triangle = full(common, place)
    path_end = full(degree[src] - 1 - common, place)  # u at an end, v in the middle
    squares = spmm(graph, A)
    free = (1 - A) * (1 - torch.eye(n, dtype=torch.float64))
    ends = squares * free
    # Wedges u - x - v: u, v all ordered pairs of neighbours of x.
    u, x, v = ((A[:, :, None] * A[None]) * (1 - torch.eye(n, dtype=torch.float64))[:, None]).nonzero(as_tuple=True)
    three = (A[u] * A[x] * A[v]).sum(1)  # common neighbours of all three
    both = (A[x] * A[v]).sum(1)
    joined, uv = A[u, v], u * n + v
    diamond_ends = full(three * (1 - joined), uv) / 2
    clique = full(three * joined, uv) / 2
    tail = full((1 - joined) * (both - three), uv)  # m next to x and v, not to u: u is the tail of x, m, v
    # u - m - x - v with u and m apart: the rest of A11 A, by whether u and v are neighbours.
    walks = spmm(graph, ends).T  # ends is symmetric: [u, v] = sum over m next to v of ends[u, m]
    diamond = full(joined * (both - 1 - three), uv)  # u and m apart, both next to x and v: u ends, v is in the middle
    cycle = walks * A - path_end - diamond
    return {
        (1, 1): ends, (1, 2): path_end, (3, 3): triangle, (12, 12): diamond_ends, (14, 14): clique, (9, 10): tail,
        (12, 13): diamond, (8, 8): cycle, (4, 4): walks - cycle - diamond - tail - path_end,
    }  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_adjacencies(name: str) -> None:
    """Every one exactly, and none for graphlets that do not occur."""
    g = nx.convert_node_labels_to_integers(GRAPHS[name])
    want = brute_force(g)
    for key, got in orbit_adjacencies(g).items():
        got = got - torch.diag(got.diagonal())
        assert torch.equal(got, want.get(key, torch.zeros_like(got))), key


def test_degrees_and_relabelling() -> None:
    """Rows sum to fixed multiples of the orbits' degrees; another order of nodes permutes rows and columns."""
    g = GRAPHS["random"]
    found, want = orbit_adjacencies(g), brute_force(g)
    off = lambda t: t - torch.diag(t.diagonal())
    torch.testing.assert_close(off(found[4, 4]).sum(1), want[4, 5].sum(1) / 2)  # one other end, two inner nodes
    torch.testing.assert_close(off(found[9, 10]).sum(1), 2 * want[9, 11].sum(1))
    torch.testing.assert_close(off(found[14, 14]).sum(1) % 3, torch.zeros(11).double())
    order = torch.tensor([4, 2, 9, 0, 10, 7, 1, 3, 8, 5, 6])
    moved = nx.relabel_nodes(g, {int(o): k for k, o in enumerate(order)})
    for key, t in orbit_adjacencies(moved).items():
        assert torch.equal(off(t), off(found[key])[order][:, order])
