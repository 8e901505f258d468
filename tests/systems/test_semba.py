"""SEMBA: two memories of every node, written by its last event with the sign's routing, read by attention over recent events."""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import generator
from structops import Graph, sddmm, segment_reduce, sparse, spmm

SYSTEM = "SEMBA: continuous-time signed networks with a memory of friends and one of enemies"
OPERATORS = (
    "structops.sparse.segment_topk", "structops.sddmm", "structops.sparse.edge_softmax", "structops.spmm",
    "structops.segment_reduce",
)  # fmt: skip
N, E, D, T, K = 9, 40, 3, 2, 4  # nodes, events, features of memories and of time, recent events that are read
SRC, DST = torch.randint(N - 1, (2, E), generator=generator(1))  # the last node has no events
TIME = torch.sort(torch.randint(12, (E,), generator=generator(2))).values.double()  # many at equal times
SIGN = torch.where(torch.rand(E, generator=generator(3)) < 0.6, 1, -1)


def incident():
    """Every event at its destination, in order of time: the events of node v at order[ptr[v]:ptr[v + 1]]."""
    order = torch.sort(DST, stable=True).indices
    return order, torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(DST, minlength=N).cumsum(0)])


def recent(k: int) -> torch.Tensor:
    """The k latest events of every node ``[N, k]``, -1 where there are fewer; of equal times the later entry first."""
    order, ptr = incident()
    back = torch.cat([order[a:b].flip(0) for a, b in zip(ptr.tolist(), ptr.tolist()[1:], strict=False)])
    at = sparse.segment_topk(TIME[back], ptr, k)[1]
    return torch.where(at < 0, -1, back[at.clamp(min=0)])


def gru(x, h, w, u):
    r, z, n = ((x @ a, h @ b) for a, b in zip(w.chunk(3, 1), u.chunk(3, 1), strict=True))
    z = torch.sigmoid(sum(z))
    return (1 - z) * torch.tanh(n[0] + torch.sigmoid(sum(r)) * n[1]) + z * h


def written(friends, enemies, e, last, w_time, b_time, *cell, reduce, sign=SIGN):
    """New memories ``[2, N, D]``. The friends' memory of v reads that of the source's friends along a friendly event and that of
    its enemies along a hostile one; the enemies' memory the other way round: a friend's friend and an enemy's enemy are friends."""
    clock = torch.cos((TIME - last[DST])[:, None] * w_time + b_time)
    both, friendly = torch.stack([friends, enemies]), sign > 0
    rows = []
    for own in (0, 1):
        source = torch.where(friendly[:, None], both[own][SRC], both[1 - own][SRC])
        m, has = reduce(torch.cat([source, both[own][DST], e, clock], 1))
        rows.append(torch.where(has[:, None], gru(m, both[own], *cell), both[own]))
    return torch.stack(rows)


def last_event(m):
    at = recent(1)[:, 0]
    return m[at.clamp(min=0)], at >= 0


def mean_event(m):
    order, ptr = incident()
    return segment_reduce(m[order], ptr, "mean"), ptr.diff() > 0


def loop(kind):
    def reduce(m):
        rows, has = [], []
        for v in range(N):
            events = sorted((float(TIME[k]), k) for k in range(E) if int(DST[k]) == v)
            has.append(bool(events))
            picked = [k for _, k in events][-1:] if kind == "last" else [k for _, k in events]
            rows.append(torch.stack([m[k] for k in picked]).mean(0) if events else m.new_zeros(m.shape[1]))
        return torch.stack(rows), torch.tensor(has)

    return reduce


def memory_operands():
    width = 2 * D + 2 + T
    cells = [randn(width, 3 * D, seed=8) / 2, randn(D, 3 * D, seed=9) / 2]
    return [randn(N, D), randn(N, D, seed=1), randn(E, 2, seed=4), randn(N, seed=5), randn(T, seed=6), randn(T, seed=7), *cells]


def test_memories() -> None:
    for ours, kind in ((last_event, "last"), (mean_event, "mean")):
        agree(
            lambda *t, r=ours: written(*t, reduce=r), lambda *t, k=kind: written(*t, reduce=loop(k)), *memory_operands(),
        )  # fmt: skip


def test_balance() -> None:
    """Where all signs flip, each memory reads of every source what the other would have read."""
    friends, enemies, *rest = memory_operands()
    flipped = written(friends, enemies, *rest, reduce=last_event, sign=-SIGN)
    sources = lambda own, sign: torch.where((sign > 0)[:, None], (friends, enemies)[own][SRC], (friends, enemies)[1 - own][SRC])
    assert torch.equal(sources(0, -SIGN), sources(1, SIGN)) and torch.equal(sources(1, -SIGN), sources(0, SIGN))
    swapped = written(enemies, friends, *rest, reduce=last_event)
    assert torch.equal(written(friends, enemies, *rest, reduce=last_event), swapped.flip(0))
    assert not torch.equal(flipped, written(friends, enemies, *rest, reduce=last_event))
    torch.testing.assert_close(flipped[:, -1], torch.stack([friends, enemies])[:, -1])  # a node without events keeps both


def read(x, e, wq, wk, wv, we, *, graph):
    """Attention over the recent events: keys and values with edge terms."""
    key, value, edge = x @ wk, x @ wv, e @ we
    logits = sddmm(graph, key, x @ wq, "dot") + sddmm(graph, edge, x @ wq, "dot", "e", "v")
    alpha = sparse.edge_softmax(graph, logits[:, 0] / D**0.5)[:, None]
    return spmm(graph, value, alpha) + spmm(graph, None, alpha * edge)


def test_embedding() -> None:
    at = recent(K)
    kept = at[at >= 0]
    dense_kept = {
        v: sorted((k for k in range(E) if int(DST[k]) == v), key=lambda k: (float(TIME[k]), k))[-K:] for v in range(N)
    }
    assert sorted(kept.tolist()) == sorted(k for ks in dense_kept.values() for k in ks)
    graph = Graph(torch.stack([SRC[kept], DST[kept]]), num_nodes=N)

    def dense(x, e, wq, wk, wv, we):
        rows = []
        for v in range(N):
            ks = dense_kept[v]
            keys, values = (x[SRC[ks]] @ w + e[ks] @ we for w in (wk, wv))
            rows.append(torch.softmax(keys @ (x[v] @ wq) / D**0.5, 0) @ values)
        return torch.stack(rows)

    weights = [randn(D, D, seed=2 + i) for i in range(3)]
    agree(
        lambda x, e, *w: read(x, e[kept], *w, graph=graph),
        dense,
        randn(N, D),
        randn(E, 2, seed=1),
        *weights,
        randn(2, D, seed=7),
    )
