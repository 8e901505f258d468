"""Simplicial closure: weighted projections of simplices, open and closed triangles, and the local and walk scores of open ones."""

from __future__ import annotations

import itertools

import torch
from agreement import agree
from cases import generator
from structops import Graph, sddmm, sparse, spmm

SYSTEM = "Simplicial closure and higher-order link prediction: projections, open and closed triangles, local and walk scores"
OPERATORS = ("structops.sddmm", "structops.spmm", "structops.sparse.polynomial_filter")
N, S = 14, 40
SIMPLICES = [torch.randperm(N - 1, generator=generator(k))[: 2 + k % 3].sort().values.tolist() for k in range(S)]
H = torch.zeros(N, S, dtype=torch.float64)  # node x simplex
for k, simplex in enumerate(SIMPLICES):
    H[simplex, k] = 1
DST, SRC = ((H @ H.T) * (1 - torch.eye(N, dtype=torch.float64))).nonzero(as_tuple=True)
GRAPH, WEIGHT = Graph(torch.stack([SRC, DST]), num_nodes=N), torch.rand(S, generator=generator(99), dtype=torch.float64) + 0.5
PLACE = {pair: k for k, pair in enumerate(zip(DST.tolist(), SRC.tolist(), strict=True))}
TRIANGLES = [t for t in itertools.combinations(range(N), 3) if all(p in PLACE for p in itertools.combinations(t, 2))]
CLOSED = [any(set(t) <= set(s) for s in SIMPLICES) for t in TRIANGLES]
OPEN = [t for t, closed in zip(TRIANGLES, CLOSED, strict=True) if not closed]
SIDES = torch.tensor([[PLACE[p] for p in itertools.combinations(t, 2)] for t in OPEN])
BETA = 0.05


def projection(w):
    """B on its edges: the summed weights of the simplices that hold both ends."""
    return sddmm(GRAPH, H * w, H, "dot")[:, 0]


def dense_projection(w):
    return (H * w @ H.T) * (1 - torch.eye(N, dtype=torch.float64))


def test_triangles() -> None:
    """Open and closed ones, by common neighbours on the edges and by simplices."""
    A = torch.zeros(N, N, dtype=torch.float64)
    A[DST, SRC] = 1
    assert int(sddmm(GRAPH, A, A, "dot").sum()) == 6 * len(TRIANGLES)
    covered = {t for s in SIMPLICES for t in itertools.combinations(s, 3)}
    assert covered == {t for t, closed in zip(TRIANGLES, CLOSED, strict=True) if closed} and OPEN
    counts = spmm(GRAPH, H.int())  # [node, simplex]: neighbours within the simplex; a member has all others
    assert torch.equal(counts[H > 0], H.sum(0).int().expand(N, S)[H > 0] - 1)


def test_means_of_the_sides() -> None:
    """Harmonic, geometric and arithmetic mean of the three weights, with gradients to the weights of simplices."""

    def means(sides):
        return torch.cat([3 / (1 / sides).sum(1), sides.prod(1) ** (1 / 3), sides.mean(1)])

    ends = torch.tensor([list(itertools.combinations(t, 2)) for t in OPEN])
    agree(lambda w: means(projection(w)[SIDES]), lambda w: means(dense_projection(w)[ends[..., 0], ends[..., 1]]), WEIGHT)


def test_common_neighbours_of_three() -> None:
    """Common neighbours, Jaccard and Adamic-Adar of triples: reductions over an edge list from neighbours to triangles."""
    A = torch.zeros(N, N, dtype=torch.float64)
    A[DST, SRC] = 1
    near = {v: set(A[v].nonzero()[:, 0].tolist()) for v in range(N)}
    shared = [sorted(near[a] & near[b] & near[c]) for a, b, c in OPEN]
    index = torch.tensor([(v, k) for k, vs in enumerate(shared) for v in vs]).reshape(-1, 2).T
    to_triangles = Graph(index, num_src=N, num_dst=len(OPEN))
    degree = spmm(GRAPH, torch.ones(N, 1, dtype=torch.float64))
    got = spmm(to_triangles, torch.cat([torch.ones_like(degree), 1 / degree.clamp(min=2).log()], 1))
    rows = A[torch.tensor(OPEN)]  # [triangles, 3, N]
    torch.testing.assert_close(got[:, 0], rows.prod(1).sum(1))
    torch.testing.assert_close(got[:, 1], (rows.prod(1) / A.sum(1).clamp(min=2).log()).sum(1))
    union = rows.amax(1).sum(1)
    sizes = torch.tensor([len(near[a] | near[b] | near[c]) for a, b, c in OPEN]).double()
    torch.testing.assert_close(got[:, 0] / union, torch.tensor([len(s) for s in shared]).double() / sizes)


def test_walk_scores() -> None:
    """The entries of (1 - beta B)^-1 and of personalised PageRank on the triangles' sides, all six summed, by series."""
    hops = BETA ** torch.arange(60, dtype=torch.float64)
    eye = torch.eye(N, dtype=torch.float64)
    ends = torch.tensor([list(itertools.permutations(t, 2)) for t in OPEN])
    total = lambda X: X[ends[..., 0], ends[..., 1]].sum(1)

    def ours(w):
        B = projection(w)
        walk = B / spmm(GRAPH, None, B)[SRC]  # columns sum to 1
        katz = sparse.polynomial_filter(GRAPH, eye, hops, weight=B)
        pagerank = sparse.polynomial_filter(GRAPH, eye, 0.6 * 0.4 ** torch.arange(40, dtype=torch.float64), weight=walk)
        return torch.cat([total(katz), total(pagerank)])

    def dense(w):
        B = dense_projection(w)
        P = B / B.sum(0).clamp(min=1e-300)
        return torch.cat([total(torch.linalg.inv(eye - BETA * B)), total(0.6 * torch.linalg.inv(eye - 0.4 * P))])

    w = 0.3 * WEIGHT
    assert float(BETA * torch.linalg.eigvalsh(dense_projection(w)).max()) < 0.6
    agree(ours, dense, w)
