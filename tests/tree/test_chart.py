"""The raw chart operators: the reference against enumeration, every kernel against the reference."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, generator, remembered
from compare import assert_close, assert_same
from structops import backends
from structops.kernels.codes import DEP_MULTI, DEP_SINGLE, SPAN
from structops.kernels.tree import chart_ref as reference
from torch import Tensor
from tree_cases import KINDS, NINF, chart, forbid, log_tree_count, scores, tree_cells

reference = remembered(reference)

CASES = [(kind, second) for kind in KINDS for second in (False, True) if not (kind == SPAN and second)]
LENGTHS = torch.tensor([9, 0, 1, 17, 2, 12, 5, 3, 16, 8, 17, 4])
N = 18


def op(name: str):
    return backends.implementation(name)


def read_cells(kind: int, second: bool, lengths: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """bool [B, N, N] and [B, N, N, N]: what the recurrences read."""
    cells = torch.zeros(len(lengths), N, N, dtype=torch.bool)
    sibs = torch.zeros(len(lengths), N, N, N, dtype=torch.bool)
    for b, n in enumerate(lengths.tolist()):
        for item in reference.hypergraph(kind, n, second).items:
            if item.cell:
                cells[(b, *item.cell)] = True
            for c in item.sib:
                if c is not None:
                    sibs[(b, *c)] = True
    return cells, sibs


def outside(t: Tensor | None, lengths: Tensor) -> Tensor | None:
    """t with NaN past the sentences."""
    if t is None:
        return None
    past = torch.arange(t.shape[1]) > lengths[:, None]
    for dim in range(1, t.dim()):
        t = torch.where(past.reshape(len(lengths), *(t.shape[1] if d == dim else 1 for d in range(1, t.dim()))), float("nan"), t)
    return t


def junk(kind: int, score: Tensor, sib: Tensor | None, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
    """NaN wherever nothing is to be read."""
    cells, sibs = read_cells(kind, sib is not None, lengths, score.shape[1])
    nan = float("nan")
    return torch.where(cells, score, nan), None if sib is None else torch.where(sibs, sib, nan)


# ---- the reference against enumeration -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_reference_is_enumeration(kind: int, second: bool) -> None:
    for n in range(6 if kind != SPAN else 8):
        for p in (0.0, 0.15):
            score, sib = chart(1, n + 2, second, seed=n)
            score = forbid(score, p, n).requires_grad_()
            sib = None if sib is None else sib.requires_grad_()
            every = scores(kind, n, score[0], None if sib is None else sib[0])
            lengths = torch.tensor([n])
            logz, post, post_sib = reference.chart_marginals(score, sib, lengths, None, kind)
            assert_close(logz[0], torch.logsumexp(every.detach(), 0), terms=64)
            assert_close(reference.chart_logz(score, sib, lengths, kind), logz)
            weight = (every.detach() - logz).exp().nan_to_num()
            want, want_sib = torch.zeros_like(post), torch.zeros(1, n + 2, n + 2, n + 2, dtype=torch.float64)
            for p_tree, (cells, sibs) in zip(weight, tree_cells(kind, n), strict=True):
                for c in cells:
                    want[(0, *c)] += p_tree
                for c in sibs:
                    want_sib[(0, *c)] += p_tree
            assert_close(post, want, terms=64)
            if second:
                assert_close(post_sib, want_sib, terms=64)
            value, _ = reference.chart_best(score, sib, lengths, kind, 7)
            ranked = every.detach()[every.detach() > NINF].sort(descending=True).values[:7]
            assert_close(value[0, : len(ranked)], ranked, terms=32)
            assert (value[0, len(ranked) :] == NINF).all()


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_reference_hvp_is_the_second_derivative(kind: int, second: bool) -> None:
    n = 4
    score, sib = chart(1, n + 1, second)
    inputs = [score.requires_grad_(), *([sib.requires_grad_()] if second else [])]
    v, v_sib = chart(1, n + 1, second, seed=1)
    every = scores(kind, n, score[0], sib[0] if second else None)
    first = torch.autograd.grad(torch.logsumexp(every, 0), inputs, create_graph=True)
    along = sum((a * b).sum() for a, b in zip(first, (v, v_sib), strict=False))
    want = torch.autograd.grad(along, inputs)
    weight = torch.tensor([0.75], dtype=torch.float64)
    got = reference.chart_hvp(score.detach(), sib if sib is None else sib.detach(), torch.tensor([n]), weight, v, v_sib, kind)
    assert_close(got[0][0], along.detach(), terms=64)
    assert_close(got[1], 0.75 * want[0], terms=64)
    if second:
        assert_close(got[2], 0.75 * want[1], terms=64)


# ---- every kernel against the reference ------------------------------------------------------------------------------


# Rounding of a chart: a few operations of the size of logz for each of the 2 N widths up and down.
BOUND = {"terms": 4 * N, "magnitude": 4.0}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_sums(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    score, sib = chart(len(LENGTHS), N, second, dtype)
    weight = torch.randn(len(LENGTHS), generator=generator(5), dtype=torch.float64)
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    for p in (0.0, 0.2):
        s, t = junk(kind, forbid(score, p), sib, LENGTHS)
        wide = s.double(), None if t is None else t.double()
        for w in (None, weight.to(accumulator)):
            want = reference.chart_marginals(*wide, LENGTHS, None if w is None else w.double(), kind)
            got = on_threads(lambda: op("chart_marginals")(s, t, LENGTHS, w, kind))
            assert_close(got[0], want[0], accumulator, **BOUND)
            assert_close(got[1], want[1], dtype, **BOUND)
            assert got[2].dtype == dtype and got[2].shape == (t.shape if second else (0,))
            if second:
                assert_close(got[2], want[2], dtype, **BOUND)
        assert_close(on_threads(lambda: op("chart_logz")(s, t, LENGTHS, kind)), want[0], accumulator, **BOUND)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_curvature(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    score, sib = chart(len(LENGTHS), N, second, dtype)
    v, v_sib = chart(len(LENGTHS), N, second, dtype, seed=7)
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(len(LENGTHS), generator=generator(5), dtype=torch.float64).to(accumulator)
    for p in (0.0, 0.2):
        s, t = junk(kind, forbid(score, p), sib, LENGTHS)
        d, e = outside(v, LENGTHS), outside(v_sib, LENGTHS)
        wide = (x if x is None else x.double() for x in (s, t, LENGTHS, weight, d, e))
        s64, t64, _, w64, d64, e64 = wide
        want = reference.chart_hvp(s64, t64, LENGTHS, w64, d64, e64, kind)
        got = on_threads(lambda: op("chart_hvp")(s, t, LENGTHS, weight, d, e, kind))
        assert_close(got[0], want[0], accumulator, terms=16 * N, magnitude=8.0)
        assert_close(got[1], want[1], dtype, terms=16 * N, magnitude=8.0)
        if second:
            assert_close(got[2], want[2], dtype, terms=16 * N, magnitude=8.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_best_and_ties(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Small integers are exact in every dtype and full of ties: values and trees agree with the reference."""
    rng = generator(3)
    score = torch.randint(-2, 3, (len(LENGTHS), N, N), generator=rng).to(dtype)
    sib = torch.randint(-1, 2, (len(LENGTHS), N, N, N), generator=rng).to(dtype) if second else None
    for p in (0.0, 0.15):
        s, t = junk(kind, forbid(score, p), sib, LENGTHS)
        want = reference.chart_best(s, t, LENGTHS, kind, 1)
        got = on_threads(lambda: op("chart_best")(s, t, LENGTHS, kind, 1))
        assert_same(got[0], want[0])
        assert_same(got[1], want[1])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_max_marginals(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Sums of small integers are exact: the score of the best tree through each cell, NaN where one is read, -inf elsewhere."""
    rng = generator(4)
    score = torch.randint(-2, 3, (len(LENGTHS), N, N), generator=rng).to(dtype)
    sib = torch.randint(-1, 2, (len(LENGTHS), N, N, N), generator=rng).to(dtype) if second else None
    for p in (0.0, 0.2):
        s, t = junk(kind, forbid(score, p), sib, LENGTHS)
        if p:
            s[0, 2, 4] = float("nan")
            s[3] = NINF
        want = reference.chart_max_marginals(s, t, LENGTHS, kind)
        got = on_threads(lambda: op("chart_max_marginals")(s, t, LENGTHS, kind))
        assert_same(got, want)
        best = op("chart_best")(s, t, LENGTHS, kind, 1)[0][:, 0]
        top = got.flatten(1).amax(1)
        assert_same(top[(LENGTHS > 0) & ~best.isnan()], best[(LENGTHS > 0) & ~best.isnan()])


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_k_best(isa: str, kind: int, second: bool, poison: None, on_threads) -> None:
    score, sib = chart(len(LENGTHS), N, second)
    for k in (2, 5, 16):
        s, t = junk(kind, forbid(score, 0.1), sib, LENGTHS)
        want = reference.chart_best(s, t, LENGTHS, kind, k)
        got = on_threads(lambda: op("chart_best")(s, t, LENGTHS, kind, k))
        assert_close(got[0], want[0], terms=4 * N)
        assert_same(got[1], want[1])


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_k_best_is_complete(isa: str, kind: int, second: bool) -> None:
    """More than there are: every tree once, best first."""
    for n in range(5):
        score, sib = chart(1, n + 1, second, seed=n)
        every = scores(kind, n, score[0], None if sib is None else sib[0])
        value, tree = op("chart_best")(score, sib, torch.tensor([n]), kind, len(every) + 3)
        assert_close(value[0, : len(every)], every.sort(descending=True).values, terms=16)
        assert (value[0, len(every) :] == NINF).all() and (tree[0, len(every) :] == -1).all()
        assert len({tuple(t.flatten().tolist()) for t in tree[0, : len(every)]}) == len(every)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_sample_by_the_rule(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    """The same uniform numbers give the same trees; float32 may round a choice the other way now and then."""
    score, sib = chart(len(LENGTHS), N, second, dtype)
    uniform = torch.rand(20, len(LENGTHS), 3 * N, generator=generator(2), dtype=torch.float64)
    s, t = junk(kind, forbid(score, 0.1), sib, LENGTHS)
    want = reference.chart_sample(s, t, LENGTHS, uniform, kind)
    got = on_threads(lambda: op("chart_sample")(s, t, LENGTHS, uniform, kind))
    assert got.shape == want.shape and got.dtype == torch.int64
    differ = (got != want).flatten(2).any(2).float().mean()
    assert differ <= (0.0 if dtype == torch.float64 else 0.02)


# ---- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_nothing_to_do(isa: str, kind: int, second: bool, poison: None) -> None:
    for B, width in [(0, 4), (3, 1), (0, 1), (2, 5)]:
        score, sib = chart(B, width, second)
        lengths = torch.zeros(B, dtype=torch.int64)
        score, sib = junk(kind, score, sib, lengths)
        zeros = torch.zeros(B, dtype=torch.float64)
        assert_same(op("chart_logz")(score, sib, lengths, kind), zeros)
        logz, post, _ = op("chart_marginals")(score, sib, lengths, None, kind)
        assert_same(logz, zeros)
        assert_same(post, torch.zeros_like(post))
        along, second_order, _ = op("chart_hvp")(score, sib, lengths, None, score, sib, kind)
        assert_same(along, zeros)
        assert_same(second_order, torch.zeros_like(post))
        value, tree = op("chart_best")(score, sib, lengths, kind, 2)
        assert_same(value, torch.tensor([[0.0, NINF]], dtype=torch.float64).expand(B, 2))
        rows = (width,) if kind != SPAN else (max(2 * width - 3, 0), 2)
        assert_same(tree, torch.full((B, 2, *rows), -1))
        drawn = op("chart_sample")(score, sib, lengths, torch.rand(3, B, 3 * width, dtype=torch.float64), kind)
        assert_same(drawn, torch.full((3, B, *rows), -1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_no_tree_and_not_a_number(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None) -> None:
    """-inf everywhere: logz -inf, posteriors 0, trees -1. One NaN or +inf that is read: NaN, in its sentence only."""
    n = 6
    score, sib = chart(5, n + 1, second, dtype)
    lengths = torch.tensor([n, n, n, 1, n])
    score[0] = NINF
    score[1, 2, 4] = float("nan")
    score[2, 2, 4] = float("inf")
    score[3, 0 if kind == SPAN else 1, 1 if kind == SPAN else 0] = NINF
    cells, _ = read_cells(kind, second, lengths, n + 1)
    logz, post, _ = op("chart_marginals")(score, sib, lengths, None, kind)
    assert logz[0] == NINF and logz[3] == NINF and logz[1:3].isnan().all() and logz[4].isfinite()
    assert (post[[0, 3]] == 0).all()
    assert post[1:3][cells[1:3]].isnan().any() and (post[3:][~cells[3:]] == 0).all()
    assert_same(op("chart_logz")(score, sib, lengths, kind), logz)
    alone = op("chart_marginals")(score[4:], None if sib is None else sib[4:], lengths[4:], None, kind)
    assert_close(post[4:], alone[1].double(), dtype, **BOUND)
    along, hvp, _ = op("chart_hvp")(score, sib, lengths, None, torch.ones_like(score), sib, kind)
    assert (along[[0, 3]] == 0).all() and along[1:3].isnan().all() and (hvp[[0, 3]] == 0).all()
    value, tree = op("chart_best")(score, sib, lengths, kind, 2)
    assert (value[[0, 3]] == NINF).all() and value[1:3].isnan().all() and (tree[[0, 3]] == -1).all()
    drawn = op("chart_sample")(score, sib, lengths, torch.rand(2, 5, 3 * (n + 1), dtype=torch.float64), kind)
    assert (drawn[:, [0, 3]] == -1).all()


@pytest.mark.parametrize("kind", [DEP_MULTI, DEP_SINGLE])
def test_nan_in_the_siblings(isa: str, kind: int) -> None:
    score, sib = chart(2, 6, True)
    sib[0, 4, 1, 2] = float("nan")
    logz = op("chart_logz")(score, sib, torch.tensor([5, 5]), kind)
    assert logz[0].isnan() and logz[1].isfinite()
    sib[0, 4, 1, 2] = NINF
    assert op("chart_logz")(score, sib, torch.tensor([5, 5]), kind).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_counts(isa: str, kind: int, second: bool, dtype: torch.dtype) -> None:
    """The number of trees is known in closed form: the accuracy of long charts."""
    fast = backends.native is not None
    for n in (1, 2, 7, 8, 15, 16, 17, 31, 33, 64, *((100, 200) if fast and not second else ())):
        if not fast and n > 17:
            break
        score = torch.zeros(1, n + 1, n + 1, dtype=dtype)
        sib = torch.zeros(1, n + 1, n + 1, n + 1, dtype=dtype) if second else None
        logz = op("chart_logz")(score, sib, torch.tensor([n]), kind)
        want = torch.tensor([log_tree_count(kind, n)], dtype=torch.float64)
        assert_close(logz, want, dtype, terms=4 * n, magnitude=2.0, what=n)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e12])
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_large_scores(isa: str, kind: int, second: bool, scale: float) -> None:
    """One tree has all the mass; float32 scores of any size are summed without overflow."""
    score, sib = chart(3, 9, second, torch.float32, seed=4)
    score, sib = scale * score, None if sib is None else scale * sib
    lengths = torch.tensor([8, 5, 3])
    want = reference.chart_marginals(score, sib, lengths, None, kind)
    got = op("chart_marginals")(score, sib, lengths, None, kind)
    assert_close(got[0], want[0].double(), torch.float32, terms=32, magnitude=scale)
    assert_close(got[1], want[1].double(), torch.float32, terms=32, magnitude=32.0)


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_ordinary_differences_of_large_scores(isa: str, kind: int, second: bool) -> None:
    """Many trees share the mass of the sentences whose scores are large; the others do not change a bit."""
    score, sib = chart(4, 9, second, torch.float32, seed=5)
    lengths = torch.tensor([8, 5, 8, 3])
    plain = op("chart_marginals")(score, sib, lengths, None, kind)
    large = score.mul(32).round().div(32)  # what the shift leaves exact
    large[[0, 2]] += 2.0**18
    large[[1, 3]] = score[[1, 3]]
    weight = torch.tensor([1.0, 2.0, -0.5, 3.0])
    want = reference.chart_marginals(large.double(), None if sib is None else sib.double(), lengths, weight.double(), kind)
    got = op("chart_marginals")(large, sib, lengths, weight, kind)
    assert_close(got[0], want[0], torch.float32, terms=32, magnitude=2.0**22)
    for a, b in zip(got[1:], want[1:], strict=True):
        assert_close(a, b, torch.float32, terms=32, magnitude=32.0)
    assert_same(got[0][[1, 3]], plain[0][[1, 3]])
    v, v_sib = chart(4, 9, second, torch.float32, seed=6)
    along = op("chart_hvp")(large, sib, lengths, weight, v, v_sib, kind)
    s, t, d, e = (None if x is None else x.double() for x in (large, sib, v, v_sib))
    expected = reference.chart_hvp(s, t, lengths, weight.double(), d, e, kind)
    for a, b in zip(along, expected, strict=True):
        assert_close(a, b, torch.float32, terms=32, magnitude=64.0)
    uniform = torch.rand(20, 4, 27, generator=generator(2), dtype=torch.float64)
    drawn = op("chart_sample")(large, sib, lengths, uniform, kind)
    differ = (drawn != reference.chart_sample(large, sib, lengths, uniform, kind)).flatten(2).any(2).float().mean()
    assert differ <= 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("kind", "second"), CASES)
def test_sentences_of_like_lengths(isa: str, kind: int, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Enough of them that every instruction set parses whole vectors of sentences at once."""
    lengths = 6 + torch.randint(0, 3, (40,), generator=generator(8))
    score, sib = chart(40, 9, second, dtype, seed=8)
    s, t = junk(kind, forbid(score, 0.1), sib, lengths)
    want = reference.chart_marginals(s, t, lengths, None, kind)
    got = on_threads(lambda: op("chart_marginals")(s, t, lengths, None, kind))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b.double(), dtype, **BOUND)
    assert_same(op("chart_logz")(s, t, lengths, kind), got[0])
    best, trees = op("chart_best")(s, t, lengths, kind, 1)
    value, expected = reference.chart_best(s, t, lengths, kind, 1)
    assert_close(best, value.double(), dtype, **BOUND)
    assert_same(trees, expected)


@pytest.mark.parametrize(("kind", "second"), CASES)
def test_a_sentence_does_not_see_its_batch(isa: str, kind: int, second: bool) -> None:
    """Its log-partition bit for bit whatever stands beside it; posteriors but for rounding, and both however it is padded."""
    score, sib = chart(len(LENGTHS), N, second, torch.float32)
    whole = op("chart_marginals")(score, sib, LENGTHS, None, kind)
    for b, n in enumerate(LENGTHS.tolist()):
        one, cut = slice(b, b + 1), slice(0, n + 1)
        alone = op("chart_marginals")(score[one], None if sib is None else sib[one], LENGTHS[one], None, kind)
        assert_same(alone[0], whole[0][one])
        assert_close(alone[1], whole[1][one].double(), torch.float32, **BOUND)
        narrow = None if sib is None else sib[one, cut, cut, cut].contiguous()
        short = op("chart_marginals")(score[one, cut, cut].contiguous(), narrow, LENGTHS[one], None, kind)
        assert_close(short[0], whole[0][one].double(), torch.float32, **BOUND)
        assert_close(short[1], whole[1][one, cut, cut].double(), torch.float32, **BOUND)


@pytest.mark.parametrize("kind", [DEP_MULTI, DEP_SINGLE])
def test_zero_siblings_are_first_order(isa: str, kind: int) -> None:
    score, _ = chart(len(LENGTHS), N)
    sib = torch.zeros(len(LENGTHS), N, N, N, dtype=torch.float64)
    first = op("chart_marginals")(score, None, LENGTHS, None, kind)
    second = op("chart_marginals")(score, sib, LENGTHS, None, kind)
    for a, b in zip(first[:2], second[:2], strict=True):
        assert_close(b, a, terms=4 * N)
    assert_same(op("chart_best")(score, sib, LENGTHS, kind, 1)[1], op("chart_best")(score, None, LENGTHS, kind, 1)[1])
