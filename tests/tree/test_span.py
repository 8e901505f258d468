"""SpanCRF and the span functions against enumeration, with and without labels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from cases import FLOATS, generator
from compare import assert_close, assert_same
from structops import tree
from structops.tree import DependencyCRF, SpanCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, bracketings, forbid


def table(B: int, N: int, L: int = 0, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    shape = (B, N, N, L) if L else (B, N, N)
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed)).float().to(dtype)


def every_tree(n: int, L: int = 0) -> Tensor:
    """Spans [trees, 1, 2n - 1, 2 or 3] in pre-order."""
    trees = [list(map(list, spans)) for spans in bracketings(0, n)]
    if L:
        trees = [
            [[*s, l] for s, l in zip(t, labels, strict=True)]
            for t in trees
            for labels in itertools.product(range(L), repeat=2 * n - 1)
        ]
    return torch.tensor(trees)[:, None]


@pytest.mark.parametrize("L", [0, 1, 2])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_all_queries_by_enumeration(L: int, p: float) -> None:
    for n in range(1, 4 if L > 1 else 6):
        score, other = forbid(table(1, n + 1, L, seed=n), p, seed=n), table(1, n + 1, L, seed=n + 20)
        d, q = SpanCRF(score), SpanCRF(other)
        trees = every_tree(n, L)
        lp, lq = d.log_prob(trees)[:, 0], q.log_prob(trees)[:, 0]
        if d.log_partition[0] == NINF:
            assert (lp == NINF).all() and (d.argmax == -1).all() and d.log_count[0] == NINF
            continue
        prob, real = lp.exp(), lp.clamp(min=-1e4)
        assert_close(prob.sum(), torch.ones((), dtype=torch.float64), terms=64)
        assert_close(d.entropy()[0], -(prob * real).sum(), terms=256)
        assert_close(d.cross_entropy(q)[0], -(prob * lq).sum(), terms=256)
        assert_close(torch.distributions.kl_divergence(d, q)[0], (prob * (real - lq)).sum(), terms=256)
        assert_close(d.log_count[0].exp(), (prob > 0).sum().double(), terms=512)
        want = torch.zeros(score.shape, dtype=torch.float64)
        for weight, spans in zip(prob, trees[:, 0], strict=True):
            for s in spans.tolist():
                want[(0, *s)] += weight
        assert_close(d.marginals, want, terms=64)
        ranked, order = lp.sort(descending=True)
        count = min(12, int((ranked > NINF).sum()))
        value, best = d.kbest(12)
        assert_close(value[0, :count], ranked[:count] + d.log_partition, terms=64)
        assert (value[0, count:] == NINF).all() and (best[0, count:] == -1).all()
        assert_same(best[0, :count], trees[order[:count], 0])
        assert_same(d.argmax[0], trees[order[0], 0])
        assert_close(d.max, value[:, 0])
        held = torch.full(score.shape, NINF, dtype=torch.float64)
        for v, spans in zip(lp + d.log_partition, trees[:, 0], strict=True):
            for s in spans.tolist():
                held[(0, *s)] = max(held[(0, *s)], v)
        assert_close(d.max_marginals(), held, terms=64)
        gain = torch.stack([sum(want[(0, *s)] for s in t[0].tolist()) for t in trees])
        chosen = sum(want[(0, *s)] for s in d.mbr()[0].tolist())
        assert_close(chosen, gain[lp > NINF].max(), terms=64)


@pytest.mark.parametrize("L", [0, 2])
def test_partial_annotation(L: int) -> None:
    """The probability of some given spans, with or without their labels, is the sum over the trees that hold them."""
    n, rng = (3 if L else 5), generator(3)
    d = SpanCRF(table(2, n + 2, L), [n, n - 1])
    for b, m in ((0, n), (1, n - 1)):
        trees = every_tree(m, L)
        lp = SpanCRF(d._chart.table[b : b + 1, : m + 1, : m + 1]).log_prob(trees)[:, 0]
        for _ in range(8):
            gold = trees[torch.randint(len(trees), (1,), generator=rng)[0], 0]
            known = gold[torch.rand(len(gold), generator=rng) < 0.35].clone()
            if L and len(known):
                known[0, 2] = -1
            value = torch.full((2, 9, 2 + bool(L)), -1)
            value[b, : len(known)] = known
            agree = torch.ones(len(trees), dtype=torch.bool)
            for s in known:
                same = trees[:, 0, :, : 2 if (L and s[2] < 0) else None] == s[: 2 if (L and s[2] < 0) else None]
                agree &= same.all(-1).any(-1)
            assert_close(d.log_prob(value, partial=True)[b], lp[agree].logsumexp(0), terms=64)
    assert_same(d.log_prob(torch.full((4, 2, 0, 2 + bool(L)), -1), partial=True), torch.zeros(4, 2, dtype=torch.float64))
    full = d.sample(5)
    assert_close(d.log_prob(full, partial=True), d.log_prob(full), terms=64)


def test_crossing_annotations_have_no_tree() -> None:
    d = SpanCRF(table(1, 6))
    assert d.log_prob(torch.tensor([[[0, 3], [2, 5]]]), partial=True)[0] == NINF


@pytest.mark.parametrize("L", [0, 2])
def test_gradients(L: int) -> None:
    score, lengths = table(3, 5, L).requires_grad_(), [4, 0, 3]
    make = lambda t: SpanCRF(t, lengths)
    gold, other = make(score.detach()).argmax, make(table(3, 5, L, seed=5))
    for fn in (
        lambda t: make(t).log_partition,
        lambda t: make(t).log_prob(gold),
        lambda t: make(t).log_prob(gold[:, :3], partial=True),
    ):
        assert gradcheck(fn, score)
        assert gradgradcheck(fn, score, fast_mode=True)
    for fn in (
        lambda t: make(t).marginals,
        lambda t: make(t).entropy(),
        lambda t: make(t).cross_entropy(other),
        lambda t: other.kl_divergence(make(t)),
        lambda t: make(t).kbest(2)[0][::2],
    ):
        assert gradcheck(fn, score)


@pytest.mark.parametrize("L", [0, 3])
def test_forbidden_spans_and_padding(L: int) -> None:
    clean = forbid(table(3, 7, L), 0.2, seed=2)
    clean[0, 0, 6] = NINF  # no tree at all
    lengths = [6, 4, 0]
    score = clean.clone()
    inside = torch.arange(7) <= torch.tensor(lengths)[:, None]
    read = inside[:, :, None] & inside[:, None] & (torch.arange(7)[:, None] < torch.arange(7))
    score[~read] = float("nan")
    score.requires_grad_()
    d, c = SpanCRF(score, lengths), SpanCRF(clean, lengths)
    assert d.log_partition[0] == NINF and (d.marginals[0] == 0).all() and d.log_partition[2] == 0
    for query in (lambda x: x.log_partition, lambda x: x.entropy(), lambda x: x.max, lambda x: x.log_count, lambda x: x.marginals):
        assert_same(query(d).detach(), query(c))
    d.log_partition[1:].sum().add(d.entropy()[1:].sum()).backward()
    assert score.grad.isfinite().all() and (score.grad[~read] == 0).all()


@pytest.mark.parametrize("L", [0, 2])
def test_samples_have_the_right_frequencies(L: int) -> None:
    n, draws = (3 if L else 5), 4000
    d = SpanCRF(table(1, n + 1, L))
    trees = every_tree(n, L)
    drawn = d.sample((draws,), generator(5))
    seen = torch.stack([(drawn == t).flatten(1).all(1).sum() for t in trees])
    assert seen.sum() == draws
    expected = draws * d.log_prob(trees)[:, 0].exp()
    big = expected >= 5
    chi = ((seen[big] - expected[big]) ** 2 / expected[big]).sum()
    freedom = int(big.sum())
    assert chi < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("L", [0, 3])
def test_dtypes(dtype: torch.dtype, L: int) -> None:
    score = table(3, 9, L, dtype)
    d, wide = SpanCRF(score), SpanCRF(score.double())
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(d.log_partition, wide.log_partition, accumulator, terms=64)
    assert_close(d.marginals, wide.marginals, dtype, terms=64)
    assert_close(d.entropy(), wide.entropy(), accumulator, terms=1e6 if accumulator != dtype else 512)
    assert d.sample().dtype == torch.int64


def test_degenerate_batches() -> None:
    for L in (0, 2):
        for B, N, lengths in [(0, 4, None), (2, 1, None), (3, 4, [0, 0, 0]), (2, 2, [1, 0]), (1, 4, [1])]:
            score = torch.zeros(B, N, N, L or 1).squeeze(-1) if not L else torch.zeros(B, N, N, L)
            d = SpanCRF(score.requires_grad_(), lengths)
            rows = max(2 * N - 3, 0)
            assert d.argmax.shape == d.mbr().shape == (B, rows, 3 if L else 2) and d.sample((2,)).shape == (
                2,
                B,
                rows,
                3 if L else 2,
            )
            want = d.lengths.double() * (math.log(L) if L else 0)
            assert_close(d.log_partition, want, torch.float32, terms=4)
            d.entropy().sum().backward()
            assert score.grad.isfinite().all()
            assert (d.log_prob(d.argmax).exp() > 0).all()


def test_uniform_entropy_is_the_log_count() -> None:
    d = SpanCRF(torch.zeros(1, 11, 11, dtype=torch.float64))
    assert_close(d.entropy()[0], torch.tensor(math.log(4862), dtype=torch.float64), terms=256)
    two = SpanCRF(torch.zeros(1, 11, 11, 2, dtype=torch.float64))
    assert_close(two.log_count[0], torch.tensor(math.log(4862) + 19 * math.log(2), dtype=torch.float64), terms=64)


def test_bad_input() -> None:
    score = table(2, 4)
    spans = torch.tensor([[[0, 3]], [[0, 2]]])
    bad = [
        (TypeError, "score to be a torch.Tensor", lambda: SpanCRF(None)),
        (ValueError, "score of shape", lambda: SpanCRF(score[0])),
        (ValueError, "lengths within", lambda: SpanCRF(score, [4, 0])),
        (ValueError, "value of shape", lambda: SpanCRF(score).log_prob(spans[:1])),
        (ValueError, "value of shape", lambda: SpanCRF(score).log_prob(torch.zeros(2, 5, 3, dtype=torch.int64))),
        (IndexError, "left < right", lambda: SpanCRF(score).log_prob(spans.flip(-1))),
        (IndexError, "spans between", lambda: SpanCRF(score, [2, 3]).log_prob(spans)),
        (IndexError, "labels between", lambda: SpanCRF(table(2, 4, 2)).log_prob(torch.tensor([[[0, 3, 2]], [[0, 3, 0]]]))),
        (IndexError, "labels between", lambda: SpanCRF(table(2, 4, 2)).log_prob(torch.tensor([[[0, 3, -1]], [[0, 3, 0]]]))),
        (TypeError, "a SpanCRF", lambda: SpanCRF(score).kl_divergence(DependencyCRF(score))),
    ]
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()


def test_functions_and_objects_agree() -> None:
    for L in (0, 2):
        score, lengths = table(2, 6, L), [5, 3]
        d = SpanCRF(score, lengths)
        assert_same(tree.span_log_partition(score, lengths), d.log_partition)
        assert_same(tree.span_marginals(score, lengths), d.marginals)
        assert_same(tree.span_best(score, lengths, k=2)[1][:, 0], d.argmax)
        assert_same(tree.span_sample(score, lengths, 4, generator(1)), d.sample((4,), generator(1)))
