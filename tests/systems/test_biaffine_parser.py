"""The deep biaffine parser: heads by rows of scores, labels at the gold heads only, decoding by a maximum spanning tree."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, randn
from structops import tree
from tree_cases import is_tree

SYSTEM = "Deep biaffine parser: arc and label scores, labels of given arcs alone, Chu-Liu-Edmonds decoding"
OPERATORS = ("structops.tree.biaffine", "structops.tree.maximum_spanning_tree", "structops.tree.is_tree")
B, N, D, R = 2, 5, 4, 3
LENGTHS = torch.tensor([4, 2])
GOLD, LABELS = torch.tensor([[0, 2, 0, 2, 1], [0, 0, 1, 0, 0]]), torch.tensor([[0, 1, 2, 0, 2], [0, 1, 0, 0, 0]])
WORDS = (torch.arange(N) > 0) & (torch.arange(N) <= LENGTHS[:, None])  # [B, N]
INSIDE = torch.arange(N) <= LENGTHS[:, None]


def parameters():
    return randn(B, N, D), randn(B, N, D, seed=1), randn(D + 1, D, seed=2), randn(R, D + 1, D + 1, seed=3)


def losses(arc, label):
    """Cross-entropies over heads [B, N, N] and over labels [B, R, N] of the words."""
    rows = arc.masked_fill(~INSIDE[:, None], float("-inf")).log_softmax(2)
    picked = rows.gather(2, GOLD[..., None])[..., 0], label.log_softmax(1).gather(1, LABELS[:, None])[:, 0]
    return torch.stack([-torch.where(WORDS, t, 0).sum() / WORDS.sum() for t in picked])


def ours(x, y, u, v):
    """Of the labels, B N R scores in place of B N^2 R."""
    at = torch.arange(N).expand(B, N), GOLD
    return losses(tree.biaffine(x, y, u, bias_x=True), tree.biaffine(x, y, v, True, True, index=at))


def dense(x, y, u, v):
    one = lambda t: torch.cat([t, torch.ones_like(t[..., :1])], 2)
    label = torch.einsum("bmi,rij,bhj->brmh", one(x), v, one(y))
    return losses(
        torch.einsum("bmi,ij,bhj->bmh", one(x), u, y), label.gather(3, GOLD[:, None, :, None].expand(B, R, N, 1))[..., 0]
    )


def test_losses() -> None:
    agree(ours, dense, *parameters())


def test_decoding() -> None:
    """The best arborescence of one root or several, against all head sequences of up to four words."""
    x, y, u, _ = parameters()
    score = tree.biaffine(x, y, u, bias_x=True)
    for multiroot in (False, True):
        value, heads = tree.maximum_spanning_tree(score, LENGTHS, multiroot=multiroot)
        assert bool(tree.is_tree(heads, LENGTHS, multiroot=multiroot).all())
        for b, n in enumerate(LENGTHS.tolist()):
            best = max(
                (float(sum(score[b, d, h] for d, h in enumerate(t, 1))), t)
                for t in itertools.product(range(n + 1), repeat=n)
                if is_tree(t) and (multiroot or t.count(0) == 1)
            )
            assert abs(value[b].item() - best[0]) < 1e-12 and tuple(heads[b, 1 : n + 1].tolist()) == best[1]
