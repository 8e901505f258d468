"""EPFGNN's piecewise training of a pairwise random field on top of a graph network."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import generator
from compare import assert_close
from structops import Graph, sddmm, spmm
from structops.sparse import pairwise_log_messages
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

SYSTEM = "EPFGNN: explicit pairwise factorisation of labels over a graph neural network's unary scores"
OPERATORS = ("structops.sparse.pairwise_log_messages", "structops.spmm", "structops.sddmm")

# A tree of six nodes, both directions of every edge.
TREE = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 4, 5]])
EDGES = torch.cat([TREE, TREE.flip(0)], 1)
N, E, C = 6, EDGES.shape[1], 3
GRAPH = Graph(EDGES, num_nodes=N)


def operands(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator(seed)
    u, b, s = (torch.randn(*n, dtype=torch.float64, generator=rng) for n in ((N, C), (C, C), (E // 2,)))
    return u, b + b.T, torch.cat([s, s])


def log_partition(unary: Tensor, pairwise: Tensor, scale: Tensor) -> Tensor:
    """Of the star around every node."""
    return (unary + pairwise_log_messages(GRAPH, unary, pairwise, scale)).logsumexp(1)


def piece_scores(unary: Tensor, pairwise: Tensor, scale: Tensor, q: Tensor) -> Tensor:
    """Score of the labels q in the star of every node, less its log-partition."""
    own = unary * q
    around = spmm(GRAPH, own.sum(1, keepdim=True)) + spmm(GRAPH, None, scale[:, None] * sddmm(GRAPH, q @ (pairwise / 2), q))
    return own.sum(1) + around[:, 0] - log_partition(unary, pairwise, scale)


def neighbours(i: int) -> list[tuple[int, int]]:
    return [(int(EDGES[0, e]), e) for e in range(E) if EDGES[1, e] == i]


def star_score(i: int, labels: dict[int, int], unary, pairwise, scale) -> Tensor:
    total = unary[i, labels[i]]
    for j, e in neighbours(i):
        total = total + unary[j, labels[j]] + scale[e] * pairwise[labels[j], labels[i]] / 2
    return total


def test_log_partition_by_enumeration() -> None:
    u, b, s = operands()
    want = []
    for i in range(N):
        around = [i, *(j for j, _ in neighbours(i))]
        scores = [
            star_score(i, dict(zip(around, c, strict=True)), u, b, s) for c in itertools.product(range(C), repeat=len(around))
        ]
        want.append(torch.stack(scores).logsumexp(0))
    assert_close(log_partition(u, b, s), torch.stack(want), terms=256)


def test_pieces_of_every_labelling() -> None:
    """On the tree: the terms are log-probabilities of the stars' labels, whose exponentials sum to one."""
    u, b, s = operands(1)
    for i in (0, 3):
        around = [i, *(j for j, _ in neighbours(i))]
        total = 0.0
        for c in itertools.product(range(C), repeat=len(around)):
            labels = dict.fromkeys(range(N), 0) | dict(zip(around, c, strict=True))
            q = torch.nn.functional.one_hot(torch.tensor([labels[v] for v in range(N)]), C).double()
            score = piece_scores(u, b, s, q)[i]
            assert_close(score, star_score(i, labels, u, b, s) - log_partition(u, b, s)[i], terms=64)
            total += score.exp().item()
        assert abs(total - 1) < 1e-12


def test_without_coupling() -> None:
    u, b, s = operands(2)
    alone = u.logsumexp(1)
    want = alone + torch.zeros_like(alone).index_add(0, EDGES[1], alone[EDGES[0]])
    assert_close(log_partition(u, b, 0 * s), want, terms=64)
    ones = torch.ones_like(s)
    assert_close(pairwise_log_messages(GRAPH, u, b), pairwise_log_messages(GRAPH, u, b, ones), terms=64)


def test_mean_field_step() -> None:
    u, b, s = operands(3)
    q = u.softmax(1)
    ours = (u + spmm(GRAPH, q, s[:, None]) @ b).softmax(1)
    for i in range(N):
        theirs = (u[i] + sum(s[e] * q[j] @ b for j, e in neighbours(i))).softmax(0)
        assert_close(ours[i], theirs, terms=64)


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = [t.requires_grad_() for t in operands(4)]
    fn = lambda u, b, s: pairwise_log_messages(GRAPH, u, b, s)
    assert gradcheck(fn, leaves) and gradgradcheck(fn, leaves)
    whole = torch.autograd.grad(fn(*leaves).square().sum(), leaves)
    monkeypatch.setattr("structops.sparse._pairwise._BLOCK", 3 * C * C)  # four blocks of edges
    for a, b in zip(torch.autograd.grad(fn(*leaves).square().sum(), leaves), whole, strict=True):
        assert_close(a, b, terms=64)


def test_edges_of_the_domain() -> None:
    u, b, s = operands(5)
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=N)
    assert pairwise_log_messages(empty, u, b, s[:0]).eq(0).all()
    assert pairwise_log_messages(GRAPH, u[:, :0], b[:0, :0], s).shape == (N, 0)
    for bad in ((u[:3], b, s), (u, b[:2], s), (u, b, s[:2]), (u, b.float(), s)):
        with pytest.raises(ValueError, match="expected"):
            pairwise_log_messages(GRAPH, *bad)
