"""CRF2o: second-order scores from biaffine and triaffine layers, losses on full and partial trees, decoding by marginals."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from structops import tree
from tree_cases import projective_trees, siblings

SYSTEM = "CRF2o: projective dependency parsing with adjacent siblings, partial annotation, MBR decoding"
OPERATORS = (
    "structops.tree.biaffine", "structops.tree.triaffine", "structops.tree.DependencyCRF", "structops.tree.MatrixTreeCRF",
)  # fmt: skip
B, N, D = 3, 5, 4
LENGTHS = [4, 2, 1]
GOLD = torch.tensor([[-1, 2, 0, 4, 2], [-1, 2, 0, -1, -1], [-1, 0, -1, -1, -1]])


def parameters():
    return randn(B, N, D), 0.5 * randn(D + 1, D, seed=1), 0.5 * randn(D + 1, D + 1, D, seed=2)


def crf(x, w_arc, w_sib):
    arc = tree.biaffine(x, x, w_arc, bias_x=True)
    return tree.DependencyCRF(arc, LENGTHS, sib=tree.triaffine(x, x, x, w_sib, bias_x=True, bias_y=True))


def tree_scores(x, w_arc, w_sib, n):
    """Of one sentence: every tree of one root and its score, by sums over its arcs and adjacent siblings."""
    one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    arc = torch.einsum("di,ij,hj->dh", one, w_arc, x)
    sib = torch.einsum("di,ijk,hj,sk->dhs", one, w_sib, one, x)
    trees = projective_trees(n, True)
    total = [sum(arc[d, h] for d, h in enumerate(t, 1)) + sum(sib[c] for c in siblings(t)) for t in trees]
    return trees, torch.stack(total)


def enumerated(x, w_arc, w_sib, allowed=lambda b, t: True):
    """[B]: log of the sum over allowed trees less that over all."""
    rows = []
    for b, n in enumerate(LENGTHS):
        trees, total = tree_scores(x[b], w_arc, w_sib, n)
        kept = torch.tensor([allowed(b, t) for t in trees])
        rows.append(total[kept].logsumexp(0) - total.logsumexp(0))
    return torch.stack(rows)


def agrees(heads):
    return lambda b, t: all(h in (-1, t[d]) for d, h in enumerate(heads[b, 1 : LENGTHS[b] + 1].tolist()))


def test_losses() -> None:
    """-log p of gold trees and of annotations with holes, all lengths in one batch."""
    holes = GOLD.clone()
    holes[0, [1, 4]] = -1
    agree(lambda *p: crf(*p).log_prob(GOLD), lambda *p: enumerated(*p, agrees(GOLD)), *parameters())
    agree(lambda *p: crf(*p).log_prob(holes, partial=True), lambda *p: enumerated(*p, agrees(holes)), *parameters())
    c = crf(*parameters())
    torch.testing.assert_close(c.log_prob(GOLD, partial=True), c.log_prob(GOLD))
    torch.testing.assert_close(c.log_prob(torch.full_like(GOLD, -1), partial=True), torch.zeros(B).double())


def test_decoding() -> None:
    """Marginals and their gradient, the best tree, and the tree of the largest expected number of right arcs."""

    def enumerated_marginals(*p):
        rows = []
        for b, n in enumerate(LENGTHS):
            trees, total = tree_scores(p[0][b], *p[1:], n)
            has = torch.zeros(len(trees), N, N, dtype=torch.float64)
            for k, t in enumerate(trees):
                has[k, range(1, n + 1), list(t)] = 1
            rows.append(torch.einsum("t,tdh->dh", total.softmax(0), has))
        return torch.stack(rows)

    marginals = agree(lambda *p: crf(*p).marginals[0], enumerated_marginals, *parameters())
    c = crf(*parameters())
    for b, n in enumerate(LENGTHS):
        torch.testing.assert_close(marginals[b, 1 : n + 1].sum(1), torch.ones(n).double())
        trees, total = tree_scores(*(t[b] if t.dim() == 3 and len(t) == B else t for t in parameters()), n)
        assert c.argmax[b, 1 : n + 1].tolist() == list(trees[int(total.argmax())])
        risk = [sum(marginals[b, d, h] for d, h in enumerate(t, 1)) for t in trees]
        assert c.mbr()[b, 1 : n + 1].tolist() == list(trees[int(torch.stack(risk).argmax())])


def test_first_order_is_the_case_without_siblings() -> None:
    x, w_arc, w_sib = parameters()
    arc = tree.biaffine(x, x, w_arc, bias_x=True)
    torch.testing.assert_close(crf(x, w_arc, 0 * w_sib).log_partition, tree.DependencyCRF(arc, LENGTHS).log_partition)


@pytest.mark.parametrize(("family", "multiroot", "counts"), [
    (tree.DependencyCRF, False, (1, 2, 7, 30, 143)), (tree.DependencyCRF, True, (1, 3, 12, 55, 273)),
    (tree.MatrixTreeCRF, False, (1, 2, 9, 64, 625)), (tree.MatrixTreeCRF, True, (1, 3, 16, 125, 1296)),
])  # fmt: skip
def test_numbers_of_trees(family, multiroot: bool, counts) -> None:
    found = family(torch.zeros(5, 6, 6, dtype=torch.float64), [1, 2, 3, 4, 5], multiroot=multiroot).log_partition.exp()
    torch.testing.assert_close(found, torch.tensor(counts).double())
