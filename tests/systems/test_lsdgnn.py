"""LSDGNN: attention over a short and a long window of earlier utterances, one utterance after the other, and biaffine exchange."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from structops import Graph, sparse, tree

SYSTEM = "LSDGNN: emotion recognition with short and long dialogue graphs, sequential attention, mutual biaffine attention"
OPERATORS = ("structops.sparse.gat_attention", "structops.tree.biaffine")
D = 4
# Speakers of four dialogues, one of a single utterance; in a batch they lie one after the other.
DIALOGUES = ([0, 1, 0, 0, 2, 1, 0], [3], [0, 1, 1, 0], [1, 1, 1, 1, 0])
LENGTH = [len(d) for d in DIALOGUES]
START = [sum(LENGTH[:k]) for k in range(len(DIALOGUES))]


def window(speakers: list[int], i: int, same: int) -> list[int]:
    """The utterances before i, back to the ``same``-th of i's own speaker."""
    found, hits = [], 0
    for j in reversed(range(i)):
        found.append(j)
        hits += speakers[j] == speakers[i]
        if hits == same:
            break
    return found[::-1]


def gru(x, h, w, u):
    """A GRU cell without biases: w, u ``[D, 3 D]``."""
    r, z, n = ((x @ a, h @ b) for a, b in zip(w.chunk(3, 1), u.chunk(3, 1), strict=True))
    z = torch.sigmoid(sum(z))
    return (1 - z) * torch.tanh(n[0] + torch.sigmoid(sum(r)) * n[1]) + z * h


def structures(same: int):
    """Of every position: its rows, and the graph from (utterance, relation) of all earlier positions to them. The value of an
    utterance for the same speaker and for another are two sources, so the relation is a matter of the edge list."""
    place, found = {}, []
    for i in range(max(LENGTH)):
        rows = [b for b, n in enumerate(LENGTH) if i < n]
        edges = [
            (2 * place[b, j] + int(DIALOGUES[b][j] != DIALOGUES[b][i]), k)
            for k, b in enumerate(rows) for j in window(DIALOGUES[b], i, same)
        ]  # fmt: skip
        index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
        found.append((torch.tensor([START[b] + i for b in rows]), Graph(index, num_src=2 * len(place), num_dst=len(rows))))
        place |= {(b, i): len(place) + k for k, b in enumerate(rows)}
    order = torch.cat([rows for rows, _ in found])
    return found, torch.argsort(order)


def layer(x, w_key, w_same, w_other, *cells, steps):
    """Every utterance is projected once; the score of the later utterance cancels in the softmax."""
    positions, back = steps
    states, values, scores = [], x.new_zeros(0, D), x.new_zeros(0)
    for rows, graph in positions:
        gathered = sparse.gat_attention(
            graph, values[:, None], scores[:, None], x.new_zeros(len(rows), 1), negative_slope=1.0,
        )[:, 0]  # fmt: skip
        h = gru(x[rows], gathered, *cells[:2]) + gru(gathered, x[rows], *cells[2:])
        states.append(h)
        values = torch.cat([values, torch.stack([h @ w_same, h @ w_other], 1).flatten(0, 1)])
        scores = torch.cat([scores, (h @ w_key).repeat_interleave(2)])
    return torch.cat(states)[back]


def dense(x, w_key, w_same, w_other, *cells, same, w_query):
    rows = []
    for b, speakers in enumerate(DIALOGUES):
        h = []
        for i in range(len(speakers)):
            q, gathered = x[START[b] + i], x.new_zeros(D)
            earlier = window(speakers, i, same)
            if earlier:
                alpha = torch.softmax(torch.stack([w_query @ q + w_key @ h[j] for j in earlier]), 0)
                gathered = sum(
                    a * h[j] @ (w_same if speakers[j] == speakers[i] else w_other) for a, j in zip(alpha, earlier, strict=True)
                )
            h.append(gru(q[None], gathered[None], *cells[:2])[0] + gru(gathered[None], q[None], *cells[2:])[0])
        rows += h
    return torch.stack(rows)


def parameters():
    return [
        randn(D, seed=1),
        *(randn(D, D, seed=2 + i) / 2 for i in range(2)),
        *(randn(D, 3 * D, seed=4 + i) / 2 for i in range(4)),
    ]


@pytest.mark.parametrize("same", [1, 5])
def test_layer(same: int) -> None:
    """Both windows, dialogues of all lengths in one batch; a score of the later utterance changes nothing."""
    steps = structures(same)
    x = randn(sum(LENGTH), D)
    for w_query in (torch.zeros(D).double(), randn(D, seed=9)):
        agree(lambda *t: layer(*t, steps=steps), lambda *t, q=w_query: dense(*t, same=same, w_query=q), x, *parameters())


def test_mutual_attention() -> None:
    """softmax(H_s U H_l^T) H_l and the reverse, each dialogue within itself."""
    inside = torch.arange(max(LENGTH)) < torch.tensor(LENGTH)[:, None]

    def ours(short, long, u1, u2):
        attend = lambda a, b, u: tree.biaffine(a, b, u).masked_fill(~inside[:, None], float("-inf")).softmax(2) @ b
        return torch.cat([attend(short, long, u1)[inside], attend(long, short, u2)[inside]])

    def loop(short, long, u1, u2):
        attend = lambda a, b, u: torch.cat(
            [(x[:n] @ u @ y[:n].T).softmax(1) @ y[:n] for x, y, n in zip(a, b, LENGTH, strict=True)]
        )
        return torch.cat([attend(short, long, u1), attend(long, short, u2)])

    B, N = len(LENGTH), max(LENGTH)
    agree(ours, loop, randn(B, N, D), randn(B, N, D, seed=1), randn(D, D, seed=2), randn(D, D, seed=3))
