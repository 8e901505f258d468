"""LiGNN: neighbours sampled by weight or by time, aggregated; personalised PageRank by whole products, without a push queue."""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import generator
from structops import Graph, sparse, spmm

SYSTEM = "LiGNN: temporal and weighted neighbour sampling, SAGE aggregation by mean and attention, personalised PageRank"
OPERATORS = (
    "structops.sparse.segment_topk", "structops.spmm", "structops.sparse.gat_attention", "structops.sparse.polynomial_filter",
)  # fmt: skip
N, E, D = 20, 120, 4
SRC, DST = torch.randint(N - 1, (2, E), generator=generator(1))
TIME = torch.randint(50, (E,), generator=generator(2)).double()
WEIGHT = torch.rand(E, generator=generator(3), dtype=torch.float64) + 0.1
GRAPH = Graph(torch.stack([SRC, DST]), num_nodes=N)
QUERY = torch.tensor([4, 0, 4, 19, 11, 7, 3])  # nodes, one of them twice and one without edges
WHEN = torch.tensor([10.0, 25.0, 40.0, 25.0, 0.0, 60.0, 33.0], dtype=torch.float64)


def candidates(nodes):
    """The edges into every query's node, one query after the other: positions and pointers."""
    order, degree = torch.sort(DST, stable=True).indices, torch.bincount(DST, minlength=N)
    start, count = degree.cumsum(0) - degree, degree[nodes]
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), count.cumsum(0)])
    offset = torch.arange(int(ptr[-1])) - (ptr[:-1] - start[nodes]).repeat_interleave(count)
    return order[offset], ptr


def sampled(nodes, k, key):
    """The k edges with the largest keys ``key(edges, query of each)`` of every query, -1 where there are fewer; -inf never."""
    edges, ptr = candidates(nodes)
    query = torch.arange(len(nodes)).repeat_interleave(ptr.diff())
    value, at = sparse.segment_topk(key(edges, query), ptr, k, fill_value=float("-inf"))
    return torch.where(value > float("-inf"), edges[at.clamp(min=0)], -1)


def last_before(k):
    return sampled(QUERY, k, lambda e, q: torch.where(TIME[e] < WHEN[q], TIME[e], float("-inf")))


def weighted(nodes, k, seed):
    g = generator(seed)
    return sampled(
        nodes, k, lambda e, q: WEIGHT[e].log() - torch.rand(len(e), generator=g, dtype=torch.float64).log().neg().log()
    )


def block(edges):
    """The graph from the distinct sampled nodes to the queries, and those nodes: labels there and back."""
    query, slot = (edges >= 0).nonzero(as_tuple=True)
    nodes, local = torch.unique(SRC[edges[query, slot]], return_inverse=True)
    return Graph(torch.stack([local, query]), num_src=len(nodes), num_dst=len(edges)), nodes


def test_temporal_sampling() -> None:
    """The latest edges before the query's time, never a later one."""
    edges = last_before(3)
    for q, (v, t) in enumerate(zip(QUERY.tolist(), WHEN.tolist(), strict=True)):
        past = sorted((float(TIME[e]) for e in range(E) if int(DST[e]) == v and TIME[e] < t), reverse=True)
        kept = edges[q][edges[q] >= 0]
        assert TIME[kept].tolist() == past[:3] and (DST[kept] == v).all() and len(set(kept.tolist())) == len(kept)
    graph, nodes = block(edges)
    src, query = graph.edge_index()
    pairs = sorted(zip(nodes[src].tolist(), query.tolist(), strict=True))
    assert pairs == sorted((int(SRC[e]), q) for q in range(len(QUERY)) for e in edges[q].tolist() if e >= 0)


def test_weighted_sampling() -> None:
    """First draws in proportion to the weights, the same for the same seed, without repetition."""
    v = int(torch.bincount(DST).argmax())
    into = DST.eq(v).nonzero()[:, 0]
    T = 3000
    edges = weighted(torch.full((T,), v), 2, 4)
    assert torch.equal(edges, weighted(torch.full((T,), v), 2, 4)) and (edges[:, 0] != edges[:, 1]).all()
    share = WEIGHT[into] / WEIGHT[into].sum()
    seen = (edges[:, :1] == into).sum(0)
    assert ((seen - T * share).abs() < 5 * (T * share * (1 - share)).sqrt()).all()


def test_aggregation() -> None:
    """Mean and attention over the sampled sets, with gradients to features and attention vectors."""
    edges = last_before(3)
    graph, nodes = block(edges)

    def ours(x, w, a_src, a_dst):
        h = x @ w
        attended = sparse.gat_attention(graph, h[nodes][:, None], (h @ a_src)[nodes][:, None], (h @ a_dst)[QUERY][:, None])
        return torch.cat([spmm(graph, h[nodes], reduce="mean"), attended[:, 0]], 1)

    def loop(x, w, a_src, a_dst):
        rows = []
        for q, v in enumerate(QUERY.tolist()):
            near = x[SRC[edges[q][edges[q] >= 0]]] @ w
            alpha = torch.softmax(torch.nn.functional.leaky_relu(near @ a_src + (x[v] @ w) @ a_dst, 0.2), 0)
            rows.append(torch.cat([near.sum(0) / max(len(near), 1), alpha @ near]))
        return torch.stack(rows)

    agree(ours, loop, randn(N, D), randn(D, 3, seed=5), randn(3, seed=6), randn(3, seed=7))


def test_full_fan_out_is_the_whole_graph() -> None:
    everyone, x = torch.arange(N), randn(N, D)
    edges = weighted(everyone, int(torch.bincount(DST).max()), 8)
    graph, nodes = block(edges)
    torch.testing.assert_close(spmm(graph, x[nodes], reduce="mean"), spmm(GRAPH, x, reduce="mean"))


def test_personalised_pagerank() -> None:
    """a (1 - (1 - a) P)^-1 for all seeds at once, by a polynomial with the error of its tail; the largest of every seed."""
    a, hops = 0.2, 120
    degree = torch.bincount(SRC, minlength=N).clamp(min=1).double()
    seeds = torch.eye(N, dtype=torch.float64)[:, [0, 5, 9]]
    got = sparse.polynomial_filter(GRAPH, seeds, a * (1 - a) ** torch.arange(hops, dtype=torch.float64), weight=1 / degree[SRC])
    P = torch.zeros(N, N, dtype=torch.float64).index_put((DST, SRC), 1 / degree[SRC], accumulate=True)
    exact = a * torch.linalg.inv(torch.eye(N, dtype=torch.float64) - (1 - a) * P) @ seeds
    assert (got - exact).abs().max() < (1 - a) ** hops
    _, at = sparse.segment_topk(got.T.reshape(-1), torch.arange(4) * N, 5)
    assert torch.equal(at % N, exact.T.topk(5, dim=1).indices)
