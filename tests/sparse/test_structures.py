"""Multiset hashes, hypergraphs, DAG schedules and attention pooling, against loops and dense matrices."""

from __future__ import annotations

import pytest
import torch
from cases import random_coo, values
from compare import assert_close, assert_same
from structops import Graph
from structops.sparse import (
    DagSchedule,
    Hypergraph,
    attention_pool,
    dag_propagate,
    hypergraph_conv,
    multiset_hash,
    weisfeiler_lehman,
)
from torch.autograd import gradcheck, gradgradcheck

# ---- hashes ----------------------------------------------------------------------------------------------------------


def test_multiset_hash_is_of_the_multiset() -> None:
    coo = random_coo(30, 20, 200)
    colours = torch.randint(-3, 3, (30,)) * 2**61
    for words in (1, 2):
        h = multiset_hash(Graph(coo, num_src=30, num_dst=20), colours, words=words)
        shuffled = multiset_hash(Graph(coo[:, torch.randperm(200)], num_src=30, num_dst=20), colours, words=words)
        assert_same(h, shuffled)
        bags = [tuple(sorted(colours[coo[0][coo[1] == v]].tolist())) for v in range(20)]
        h = h.reshape(20, -1)
        for u in range(20):
            for v in range(20):
                assert bool((h[u] == h[v]).all()) == (bags[u] == bags[v])
        assert (h[2] == 0).all()
    many = multiset_hash(torch.arange(50_001), torch.arange(50_000) - 25_000)
    assert many.unique().numel() == 50_000
    by_group = multiset_hash(torch.tensor([0, 2, 4]), torch.tensor([1, 2, 2, 1]))
    assert by_group[0] == by_group[1]


def cycles(*sizes: int) -> torch.Tensor:
    pairs, first = [], 0
    for n in sizes:
        for i in range(n):
            a, b = first + i, first + (i + 1) % n
            pairs += [(a, b), (b, a)]
        first += n
    return torch.tensor(pairs).T


def test_weisfeiler_lehman() -> None:
    one = Graph(cycles(6, 3, 3), num_nodes=12)
    assert weisfeiler_lehman(one, torch.zeros(12, dtype=torch.int64), 5).unique().numel() == 1  # C6 and 2 C3: 1-WL is blind
    coo = random_coo(25, 25, 60)
    coo = torch.cat([coo, coo.flip(0)], 1)
    colours = torch.randint(0, 2, (25,))
    got = weisfeiler_lehman(Graph(coo, 25), colours, 3)
    keys = colours.tolist()
    for _ in range(3):
        keys = [(keys[v], tuple(sorted(map(repr, (keys[u] for u in coo[0][coo[1] == v].tolist()))))) for v in range(25)]
    for u in range(25):
        assert [bool(x) for x in got == got[u]] == [k == keys[u] for k in keys]
    perm = torch.randperm(25)
    moved = weisfeiler_lehman(Graph(perm[coo], 25), colours[torch.argsort(perm)], 3)
    assert torch.equal(moved[perm][:, None] == moved[perm], got[:, None] == got)


# ---- hypergraphs -----------------------------------------------------------------------------------------------------

INCIDENCE = torch.unique(random_coo(9, 6, 25), dim=1)[:, torch.randperm(torch.unique(random_coo(9, 6, 25), dim=1).shape[1])]
H = torch.zeros(9, 6, dtype=torch.float64)
H[INCIDENCE[0], INCIDENCE[1]] = 1
HYPER = Hypergraph(INCIDENCE[0], INCIDENCE[1], num_nodes=9, num_hyperedges=6)


def inverse(d, p=1.0):
    return torch.where(d > 0, d.clamp(min=1e-30) ** -p, torch.zeros_like(d))


@pytest.mark.parametrize("normalisation", ["row", "symmetric", "none"])
def test_hypergraph_conv(normalisation: str) -> None:
    x, w = values(9, 4).requires_grad_(), values(6).abs().requires_grad_()
    for weight in (w, None):
        ones = torch.ones(6, dtype=torch.float64)
        d, b = H @ (ones if weight is None else weight), H.sum(0)
        m = H @ torch.diag((ones if weight is None else weight) * (1 if normalisation == "none" else inverse(b))) @ H.T
        if normalisation == "row":
            m = torch.diag(inverse(d)) @ m
        elif normalisation == "symmetric":
            m = torch.diag(inverse(d, 0.5)) @ m @ torch.diag(inverse(d, 0.5))
        assert_close(hypergraph_conv(HYPER, x, weight, normalisation=normalisation), m @ x, terms=64)
        got = torch.autograd.grad(hypergraph_conv(HYPER, x, weight, normalisation=normalisation).sin().sum(), x)[0]
        assert_close(got, torch.autograd.grad((m @ x).sin().sum(), x)[0], terms=64)
    fn = lambda x, w: hypergraph_conv(HYPER, x, w, normalisation=normalisation)
    assert gradcheck(fn, (x, w)) and gradgradcheck(fn, (x, w))


def test_hypergraph_reductions_and_attention() -> None:
    x, alpha = values(9, 2, 3), values(INCIDENCE.shape[1], 2, seed=1)
    for first in ("sum", "mean", "max"):
        mask = H.T[:, :, None, None] > 0
        table = torch.where(mask, x[None], torch.tensor(float("-inf") if first == "max" else 0.0, dtype=torch.float64))
        n = H.sum(0)[:, None, None]
        y = table.amax(1) if first == "max" else table.sum(1) / (n.clamp(min=1) if first == "mean" else 1)
        y = torch.where(n > 0, y, 0)
        degree = H.sum(1)[:, None, None]
        expected = torch.einsum("ve,ehd->vhd", H, y) / degree.clamp(min=1)
        assert_close(hypergraph_conv(HYPER, x, reduce=(first, "mean")), expected, terms=64)
    a = torch.zeros(9, 6, 2, dtype=torch.float64)
    a[INCIDENCE[0], INCIDENCE[1]] = alpha
    expected = torch.einsum("veh,ueh,uhd->vhd", a, a, x)
    assert_close(hypergraph_conv(HYPER, x, attention=alpha, normalisation="none"), expected, terms=64)
    with pytest.raises(ValueError, match="hypergraph_conv"):
        hypergraph_conv(HYPER, x[:8])
    with pytest.raises(ValueError, match="Hypergraph"):
        Hypergraph(torch.arange(3), torch.arange(2))
    empty = torch.zeros(0, dtype=torch.int64)
    assert hypergraph_conv(Hypergraph(empty, empty, num_nodes=3), torch.ones(3, 2)).tolist() == [[0, 0]] * 3


# ---- DAGs ------------------------------------------------------------------------------------------------------------

N = 12


def random_dag(seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(N, generator=rng)
    pairs = torch.combinations(torch.arange(N))[torch.rand(N * (N - 1) // 2, generator=rng) < 0.25].T
    return order[pairs][:, torch.randperm(pairs.shape[1], generator=rng)]


def loop(edges, x, cell, aggregate, message, weight, reverse, M):
    """Node by node, each as soon as all it reads is there."""
    src, dst = edges.flip(0) if reverse else edges
    h: dict[int, torch.Tensor] = {}
    while len(h) < N:
        for v in range(N):
            reads = (dst == v).nonzero()[:, 0]
            if v in h or any(int(src[e]) not in h for e in reads):
                continue
            if len(reads):
                m = torch.cat([message(h[int(src[e])]) * (1 if weight is None else weight[e]) for e in reads])
                m = {"sum": m.sum(0), "mean": m.mean(0), "max": m.amax(0), "min": m.amin(0)}[aggregate][None]
            else:
                m = x.new_zeros(1, M)
            h[v] = cell(m, x[v : v + 1])
    return torch.cat([h[v] for v in range(N)])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("aggregate", ["sum", "mean", "max", "min"])
def test_dag_propagate(aggregate: str, reverse: bool) -> None:
    edges, x = random_dag(3), values(N, 4).requires_grad_()
    gru, lin = torch.nn.GRUCell(5, 4).double(), torch.nn.Linear(4, 5).double()
    cell, message = lambda m, x: gru(m, x), lambda h: lin(h).tanh()
    schedule = DagSchedule(edges, N)
    for weight in (None, values(edges.shape[1]).requires_grad_()) if aggregate in ("sum", "mean") else (None,):
        leaves = [x, *gru.parameters(), *lin.parameters(), *([] if weight is None else [weight])]
        ours = dag_propagate(
            schedule, x, cell, aggregate=aggregate, message=message, message_features=5, edge_weight=weight, reverse=reverse
        )
        theirs = loop(edges, x, cell, aggregate, message, weight, reverse, 5)
        assert_close(ours, theirs, terms=64)
        for a, b in zip(
            torch.autograd.grad(ours.sin().sum(), leaves), torch.autograd.grad(theirs.sin().sum(), leaves), strict=True
        ):
            assert_close(a, b, terms=500)
    fn = lambda x: dag_propagate(schedule, x, lambda m, x: (m + x).tanh(), aggregate=aggregate, reverse=reverse)
    assert gradcheck(fn, (x,))


def test_schedule() -> None:
    edges = random_dag(5)
    schedule = DagSchedule(edges, N)
    level = [0] * N
    for _ in range(N):
        for u, v in edges.T.tolist():
            level[v] = max(level[v], level[u] + 1)
    assert schedule.level.tolist() == level and schedule.levels == max(level) + 1
    calls = []
    dag_propagate(schedule, torch.ones(N, 1), lambda m, x: (calls.append(len(x)), m + x)[1])
    assert len(calls) == schedule.levels and sum(calls) == N
    for bad in ([[0, 1, 2], [1, 2, 0]], [[0], [0]], [[0, 1, 1], [1, 2, 1]]):
        with pytest.raises(ValueError, match="cycle"):
            DagSchedule(torch.tensor(bad))
    none = DagSchedule(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert dag_propagate(none, torch.ones(3, 2), lambda m, x: m + x).tolist() == [[1, 1]] * 3
    assert dag_propagate(DagSchedule(torch.zeros(2, 0, dtype=torch.int64), 0), torch.ones(0, 2), lambda m, x: m).shape == (0, 2)


# ---- pooling ---------------------------------------------------------------------------------------------------------


def test_attention_pool() -> None:
    indptr = torch.tensor([0, 3, 3, 8])
    v, s = values(8, 2, 3).requires_grad_(), values(8, 2, seed=1).requires_grad_()
    dense = [(v[a:b] * s[a:b].softmax(0)[..., None]).sum(0) for a, b in ((0, 3), (3, 3), (3, 8))]
    assert_close(attention_pool(v, s, indptr), torch.stack(dense), terms=16)
    assert_close(attention_pool(v[:, 0], s[:, 0], indptr), torch.stack(dense)[:, 0], terms=16)
    assert gradcheck(lambda v, s: attention_pool(v, s, indptr), (v, s))
