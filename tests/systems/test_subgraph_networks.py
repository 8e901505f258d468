"""Labelled tuples, rewired versions and structural features: k,l-GNN, LASER, FireGNN, Aut(G) layers."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, randn, simple_graph
from structops import Graph, sddmm, spmm

SYSTEM = "k,l-GNN: labelled subgraph GNNs; LASER: rewired versions; FireGNN: structural features; Aut(G)-equivariant layers"
OPERATORS = ("structops.spmm", "structops.sddmm")
N = 12
GRAPH, A = simple_graph(N, 4.0, seed=11)
EYE = torch.eye(N, dtype=torch.float64)


def test_labelled_copies_share_one_structure() -> None:
    """X [N labels, N, d]: the same edges for every label, and equal to a loop."""
    agree(
        lambda x, w: torch.relu(spmm(GRAPH, x, batch_dims=1) @ w),
        lambda x, w: torch.relu(torch.stack([A @ part @ w for part in x])),
        *(randn(N, N, 3), randn(3, 4, seed=1)),
    )


def test_labels_tell_regular_graphs_apart() -> None:
    """Two triangles and a hexagon: equal without labels, different with one."""

    def ring(*cycles):
        edges = [(c[i], c[i - 1]) for c in cycles for i in range(len(c))]
        return Graph(torch.tensor([(u, v) for a, b in edges for u, v in ((a, b), (b, a))]).T, num_nodes=6)

    triangles, hexagon = ring((0, 1, 2), (3, 4, 5)), ring((0, 1, 2, 3, 4, 5))
    pooled = []
    for graph in (triangles, hexagon):
        plain, labelled = torch.ones(6, 1), torch.eye(6)[..., None]
        for _ in range(3):
            plain = torch.relu(spmm(graph, plain) - 1)
            labelled = torch.relu(spmm(graph, labelled, batch_dims=1) * 2 - labelled)
        pooled.append((plain.sum().item(), labelled.square().sum().item()))
    assert pooled[0][0] == pooled[1][0] and pooled[0][1] != pooled[1][1]


def test_masked_product() -> None:
    """(A o (X Y)) on the pattern of A, by dots of rows and columns."""
    dst, src = A.nonzero(as_tuple=True)
    agree(lambda x, y: sddmm(GRAPH, y, x, "dot")[:, 0], lambda x, y: (x @ y.T)[dst, src], randn(N, N), randn(N, N, seed=1))


def test_structural_features() -> None:
    """Degree, clustering coefficient and 2-hop label agreement against loops."""
    degree = spmm(GRAPH, torch.ones(N, 1, dtype=torch.float64))[:, 0]
    common = sddmm(GRAPH, A.contiguous(), A.contiguous(), "dot")  # common neighbours of the ends
    closed = spmm(GRAPH, None, common)[:, 0]  # twice the triangles
    clustering = torch.where(degree > 1, closed / (degree * (degree - 1)).clamp(min=1), 0)
    neighbours = [set(A[v].nonzero()[:, 0].tolist()) for v in range(N)]
    for v in range(N):
        pairs = list(itertools.combinations(sorted(neighbours[v]), 2))
        linked = sum(A[a, b].item() for a, b in pairs)
        assert degree[v] == len(neighbours[v])
        assert abs(clustering[v].item() - (linked / len(pairs) if pairs else 0.0)) < 1e-12
    label = torch.arange(N) % 2
    reach = (spmm(GRAPH, A.contiguous()) > 0) & (A == 0) & (EYE == 0)
    same = torch.stack(
        [(label == label[v])[reach[v]].double().mean() if reach[v].any() else torch.zeros(()).double() for v in range(N)]
    )
    dst, src = reach.nonzero(as_tuple=True)
    two_hops = Graph(torch.stack([src, dst]), num_nodes=N)
    torch.testing.assert_close(spmm(two_hops, None, (label[src] == label[dst]).double(), reduce="mean"), same)


def test_equivariant_elements_of_a_graph() -> None:
    """I, A, A^2, diag(A1), A o A^2 commute with every automorphism of a 5-cycle with a chord."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 4)]
    small = torch.zeros(5, 5, dtype=torch.float64)
    for a, b in edges:
        small[a, b] = small[b, a] = 1
    dst, src = small.nonzero(as_tuple=True)
    graph = Graph(torch.stack([src, dst]), num_nodes=5)
    weight = sddmm(graph, small, small, "dot")

    def layer(x):
        ax = spmm(graph, x)
        return x + 2 * ax + 3 * spmm(graph, ax) + 5 * spmm(graph, torch.ones_like(x)) * x + 7 * spmm(graph, x, weight)

    dense = EYE[:5, :5] + 2 * small + 3 * small @ small + 5 * small.sum(1).diag() + 7 * small * (small @ small)
    x = randn(5, 3)
    torch.testing.assert_close(layer(x), dense @ x, atol=1e-12, rtol=1e-12)
    found = 0
    for g in itertools.permutations(range(5)):
        P = torch.eye(5, dtype=torch.float64)[list(g)]
        if torch.equal(P @ small @ P.T, small):
            found += 1
            torch.testing.assert_close(layer(P @ x), P @ layer(x), atol=1e-12, rtol=1e-12)
    assert found == 2


def test_versions_of_a_rewired_graph() -> None:
    """Rings of distance r, of each the pairs with fewest walks: one convolution per version, summed."""
    distance = torch.full((N, N), N)
    reach = EYE > 0
    for hops in range(N):
        distance = torch.where(reach & (distance == N), hops, distance)
        reach = reach | (spmm(GRAPH, reach.double()) > 0)
    walks = EYE.clone()
    for _ in range(8):
        walks = spmm(GRAPH, walks) + walks
    assert torch.equal(walks, torch.linalg.matrix_power(A + EYE, 8))
    versions = []
    for r in (1, 2, 3):
        kept = torch.zeros(N, N, dtype=torch.float64)
        for v in range(N):
            ring = (distance[v] == r).nonzero()[:, 0]
            kept[v, ring[torch.argsort(walks[v, ring], stable=True)[: (len(ring) + 1) // 2]]] = 1
        versions.append(kept)
    graphs = [Graph(torch.stack(v.nonzero(as_tuple=True)[::-1]), num_nodes=N) for v in versions]
    weights = [randn(4, 3, seed=k) for k in range(3)]
    agree(
        lambda x, *w: torch.relu(sum(spmm(g, x) @ k for g, k in zip(graphs, w, strict=True))),
        lambda x, *w: torch.relu(sum(v @ x @ k for v, k in zip(versions, w, strict=True))),
        *(randn(N, 4), *weights),
    )
