"""Grammars: the reference against enumeration, every kernel against the reference, the distribution."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FLOATS, generator, remembered
from compare import assert_close, assert_same
from structops import backends
from structops.kernels.tree import pcfg_ref
from structops.tree import PCFG, SpanCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, bracketings, forbid

pcfg_ref = remembered(pcfg_ref)

LENGTHS = torch.tensor([7, 0, 1, 5, 2, 3, 9])
N = 9


def op(name: str):
    return backends.implementation(name)


def draw(
    B: int, N: int, NT: int = 3, T: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0, p: float = 0.0, shared: bool = False
):
    rng = generator(seed)
    S = NT + T
    make = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64).float().to(dtype)
    term, rule, root = make(B, N, T), make(1 if shared else B, NT, S, S), make(B, NT)
    return forbid(term, p, seed), forbid(rule, p, seed + 1), forbid(root, p / 2, seed + 2)


def spans(B: int, N: int, NT: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0, p: float = 0.0) -> Tensor:
    drawn = torch.randn(B, N + 1, N + 1, NT, generator=generator(seed + 77), dtype=torch.float64).float().to(dtype)
    return forbid(drawn, p, seed + 3)


def unread(span: Tensor, lengths: Tensor) -> Tensor:
    """NaN where there is no span of two words and more."""
    post = torch.arange(span.shape[1])
    inside = (post - post[:, None] > 1) & (post <= lengths[:, None, None])
    return torch.where(inside[..., None], span, float("nan"))


def junk(term: Tensor, lengths: Tensor) -> Tensor:
    """NaN past the sentences."""
    return torch.where(torch.arange(term.shape[1])[:, None] < lengths[:, None, None], term, float("nan"))


def parses(n: int, NT: int, T: int):
    """Every labelled parse, as rows in pre-order."""
    for spans in bracketings(0, n):
        symbols = [range(NT) if j - i > 1 else range(NT, NT + T) for i, j in spans]
        for labels in itertools.product(*symbols):
            yield [(i, j, a) for (i, j), a in zip(spans, labels, strict=True)]


def score(rows, term: Tensor, rule: Tensor, root: Tensor, span: Tensor) -> Tensor:
    symbol = {(i, j): a for i, j, a in rows}
    NT = root.shape[0]
    total = root[rows[0][2]]
    for at, (i, j, a) in enumerate(rows):
        if j - i == 1:
            total = total + term[i, a - NT]
        else:
            split = rows[at + 1][1]
            total = total + rule[a, symbol[i, split], symbol[split, j]] + span[i, j, a]
    return total


# ---- against enumeration ---------------------------------------------------------------------------------------------


class Enumerated:
    """A small grammar and all its parses."""

    def __init__(self, n: int, seed: int, p: float = 0.1) -> None:
        self.scores = tuple(t[0].requires_grad_() for t in draw(1, n, 2, 2, seed=seed, p=p))
        self.span = spans(1, n, 2, seed=seed, p=p)[0].requires_grad_()
        self.every = list(parses(n, 2, 2))
        self.totals = torch.stack([score(rows, *self.scores, self.span) for rows in self.every])
        self.values = torch.tensor(self.every)[:, None]
        self.d = self.make(self.span)
        assert (self.totals > NINF).any() and (self.totals == NINF).any()

    def make(self, span: Tensor | None) -> PCFG:
        term, rule, root = self.scores
        return PCFG(term[None], rule, root, span=None if span is None else span[None])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_queries_by_enumeration(n: int) -> None:
    e = Enumerated(n, n + 7)
    d, every, totals, values = e.d, e.every, e.totals, e.values
    logz = torch.logsumexp(totals, 0)
    assert_close(d.log_partition[0], logz.detach(), terms=64)
    grads = torch.autograd.grad(logz, (*e.scores, e.span), retain_graph=True)
    for got, want in zip(d.counts, grads, strict=True):
        assert_close(got[0], want.nan_to_num(0.0), terms=128)
    lp = d.log_prob(values)[:, 0].detach()
    assert_close(lp, (totals - logz).detach(), terms=64)
    prob = lp.exp()
    assert_close(d.entropy()[0], -(prob * lp.clamp(min=-1e4)).sum(), terms=512)
    assert_close(d.log_count[0].exp(), (prob > 0).sum().double(), terms=512)
    span = torch.zeros(n + 1, n + 1, 2, dtype=torch.float64)
    for p, rows in zip(prob, every, strict=True):
        for i, j, a in rows:
            if j - i > 1:
                span[i, j, a] += p
    assert_close(d.counts.span[0], span, terms=128)
    for with_spans in (False, True):
        q = PCFG(*(t.detach() for t in draw(1, n, 2, 2, seed=50)), span=spans(1, n, 2) if with_spans else None)
        lq = q.log_prob(values)[:, 0]
        assert_close(d.kl_divergence(q)[0], (prob * (lp.clamp(min=-1e4) - lq)).sum(), terms=512)
        assert_close(d.cross_entropy(q)[0], -(prob * lq).sum(), terms=512)
        assert_close(torch.distributions.kl_divergence(d, q), d.kl_divergence(q))
    drawn = d.sample(2000, generator(1))[:, 0].flatten(1)
    frequency = (drawn[:, None] == values[:, 0].flatten(1)).all(2).double().mean(0)
    assert ((frequency - prob).abs() < 5 * (prob * (1 - prob) / 2000).sqrt() + 2e-3).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_best_parses_by_enumeration(n: int) -> None:
    e = Enumerated(n, n + 7, 0.25)
    d, totals, values = e.d, e.totals.detach(), e.values[:, 0]
    order = totals.argsort(descending=True)
    assert_close(d.max[0], totals[order[0]], terms=64)
    assert_same(d.argmax[0], values[order[0]])
    k = min(int((totals > NINF).sum()) + 2, 40)
    value, tree = d.kbest(k)
    want = torch.full((k,), NINF, dtype=torch.float64)
    there = min(k, int((totals > NINF).sum()))
    want[:there] = totals[order[:there]]
    assert_close(value[0].detach(), want, terms=64)
    assert_same(tree[0, :there], values[order[:there]])
    assert (tree[0, there:] == -1).all()
    (by_span,) = torch.autograd.grad(value[0, 1], e.span)
    assert int(by_span.sum()) == n - 1 and (by_span.ge(0) & by_span.le(1)).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_max_marginals_by_enumeration(n: int) -> None:
    e = Enumerated(n, n + 7, 0.25)
    want = [torch.full(t.shape, NINF, dtype=torch.float64) for t in (*e.scores, e.span)]
    for at, w in zip(e.d._parts(e.values), want, strict=True):
        total = e.totals.detach()[:, None, None].expand_as(at)
        w.view(-1).scatter_reduce_(0, at[at >= 0], total[at >= 0], "amax")
    for got, w in zip(e.d.max_marginals(), want, strict=True):
        assert_close(got[0], w, terms=64)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_minimum_bayes_risk_by_enumeration(n: int) -> None:
    e = Enumerated(n, n + 7, 0.2)
    counts = e.d.counts

    def risk(rows) -> Tensor:
        return sum(counts.term[0, i, a - 2] if j - i == 1 else counts.span[0, i, j, a] for i, j, a in rows).detach()

    allowed = [rows for rows, total in zip(e.every, e.totals, strict=True) if total > NINF]
    got = [tuple(row) for row in e.d.mbr()[0].tolist()]
    assert got in allowed
    assert_close(risk(got), max(risk(rows) for rows in allowed), terms=64)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_partial_annotation_by_enumeration(n: int) -> None:
    e = Enumerated(n, n + 7, 0.2)
    logz, rng = e.d.log_partition[0], generator(n)
    labelled = [{(i, j): a for i, j, a in parse} for parse in e.every]
    annotations, wanted = [], []
    for _ in range(40):
        source = e.every[int(torch.randint(len(e.every), (), generator=rng))]
        rows = [(i, j, a if torch.rand((), generator=rng) < 0.5 else -1) for i, j, a in source if torch.rand((), generator=rng) < 0.4]
        agree = [all(r[:2] in labels and r[2] in (-1, labels[r[:2]]) for r in rows) for labels in labelled]
        wanted.append(e.totals[torch.tensor(agree)].logsumexp(0) - logz)
        rows = rows + [(-1, -1, -1)] * (2 * n - len(rows))
        annotations.append([rows[i] for i in torch.randperm(2 * n, generator=rng)])
    for d in (e.d, PCFG(e.scores[0][None], e.scores[1][None], e.scores[2], span=e.span[None])):
        got = d.log_prob(torch.tensor(annotations)[:, None], partial=True)
        assert_close(got[:, 0].detach(), torch.stack(wanted).detach(), terms=256)
    nothing = torch.full((1, 0, 3), -1)
    assert_close(e.d.log_prob(nothing, partial=True).detach(), torch.zeros(1, dtype=torch.float64), terms=16)
    full = e.d.argmax
    assert_close(e.d.log_prob(full, partial=True).detach(), e.d.log_prob(full).detach(), terms=64)
    impossible = [[[0, n, 2]], [[0, 1, 0]], [[0, n, 0], [0, n, 1]]] + ([[[0, 2, -1], [1, 3, -1]]] if n > 2 else [])
    for rows in impossible:
        assert e.d.log_prob(torch.tensor(rows)[None], partial=True) == NINF
    one, two = (e.d.log_prob(torch.tensor([[[0, n, a]]]), partial=True)[0].exp() for a in (0, 1))
    assert_close((one + two).detach(), torch.ones((), dtype=torch.float64), terms=64)


def test_forbidden_spans_never_appear() -> None:
    term, rule, root = draw(2, 6)
    span = spans(2, 6)
    span[0, 1, 4], span[1, 2, 5, 1] = NINF, NINF
    d = PCFG(term, rule, root, span=span)
    for trees in (d.sample(200, generator(0)), d.kbest(30)[1].transpose(0, 1), d.mbr()[None]):
        left, right, symbol = trees.unbind(-1)
        assert not ((left == 1) & (right == 4))[:, 0].any()
        assert not ((left == 2) & (right == 5) & (symbol == 1))[:, 1].any()
    assert (d.counts.span[0, 1, 4] == 0).all() and d.counts.span[1, 2, 5, 1] == 0
    assert (d.max_marginals().span[0, 1, 4] == NINF).all()


def test_one_symbol_is_a_bracketing() -> None:
    """Without choices of symbols the trees are those of SpanCRF with no scores."""
    for n in range(2, 7):
        d = PCFG(
            torch.zeros(1, n, 1, dtype=torch.float64),
            torch.zeros(1, 2, 2, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
        )
        crf = SpanCRF(torch.zeros(1, n + 1, n + 1, dtype=torch.float64))
        assert_close(d.log_partition, crf.log_partition, terms=32)
        longer = torch.arange(n + 1) - torch.arange(n + 1)[:, None] > 1
        assert_close(d.counts.span[..., 0], torch.where(longer, crf.marginals, 0), terms=64)


# ---- every kernel against the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_sums(isa: str, shared: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(len(LENGTHS), generator=generator(5), dtype=torch.float64).to(accumulator)
    wide = lambda *ts: [t.double() if t is not None and t.is_floating_point() else t for t in ts]
    for (NT, T), p in itertools.product(((3, 4), (9, 18)), (0.0, 0.2)):
        if NT > 3 and (p or shared):
            continue
        term, rule, root = draw(len(LENGTHS), N, NT, T, dtype, p=p, shared=shared)
        span = None if NT > 3 else unread(spans(len(LENGTHS), N, NT, dtype, p=p), LENGTHS)
        given = (junk(term, LENGTHS), rule, root, span, LENGTHS)
        v = (*draw(len(LENGTHS), N, NT, T, dtype, seed=9, shared=shared), None if p else spans(len(LENGTHS), N, NT, dtype, seed=9))
        got = on_threads(lambda: op("pcfg_logz")(*given))
        assert_close(got, pcfg_ref.pcfg_logz(*wide(*given)), accumulator, terms=8 * N, magnitude=4.0)
        for name, more in (("pcfg_marginals", ()), ("pcfg_hvp", v)):
            got = on_threads(lambda: op(name)(*given, weight, *more))
            want = getattr(pcfg_ref, name)(*wide(*given, weight, *more))
            terms = 16 * N if more else 8 * N
            assert_close(got[0], want[0], accumulator, terms=terms, magnitude=8.0, what=name)
            for a, b in zip(got[1:], want[1:], strict=True):
                assert_close(a, b, dtype, terms=4 * terms, magnitude=8.0, what=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_apart_scores(isa: str, dtype: torch.dtype, poison: None) -> None:
    """Rules, terms and spans of very different size, some the only way to a parse: the plain sums underflow and are taken again."""
    lengths, wide = torch.tensor([6, 5, 3, 2]), lambda *ts: [None if t is None else t.double() for t in ts]
    for scale, seed, with_spans in itertools.product((30.0, 200.0, 2e4), range(3), (False, True)):
        given = [scale * t for t in draw(4, 6, 3, 3, dtype, seed, p=0.3)]
        given.append(scale * spans(4, 6, 3, dtype, seed, p=0.1) if with_spans else None)
        got = op("pcfg_marginals")(*given, lengths, None)
        want = pcfg_ref.pcfg_marginals(*wide(*given), lengths, None)
        assert_close(got[0], want[0], dtype, terms=16, magnitude=scale)
        for a, b in zip(got[1:], want[1:], strict=True):
            assert_close(a, b, dtype, terms=64 * 6, magnitude=max(scale / 8, 8.0))
        v = (*draw(4, 6, 3, 3, dtype, 7), spans(4, 6, 3, dtype, 7) if with_spans else None)
        got = op("pcfg_hvp")(*given, lengths, None, *v)
        want = pcfg_ref.pcfg_hvp(*wide(*given), lengths, None, *wide(*v))
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, dtype, terms=64 * 6, magnitude=max(scale, 8.0))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_best_and_ties(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    rng = generator(3)
    small = lambda t: torch.randint(-2, 3, t.shape, generator=rng).to(dtype)
    term, rule, root = (small(t) for t in draw(len(LENGTHS), N))
    for span in (None, unread(forbid(small(spans(len(LENGTHS), N)), 0.2), LENGTHS)):
        given = (junk(term, LENGTHS), forbid(rule, 0.3), root, span, LENGTHS)
        for k in (1, 2, 7):
            for a, b in zip(on_threads(lambda: op("pcfg_best")(*given, k)), pcfg_ref.pcfg_best(*given, k), strict=True):
                assert_same(a, b)
        got = on_threads(lambda: op("pcfg_max_marginals")(*given))
        for a, b in zip(got, pcfg_ref.pcfg_max_marginals(*given), strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("ties", [False, True])
def test_more_parses_than_pairs_of_symbols(isa: str, ties: bool, poison: None, on_threads) -> None:
    """One or two nonterminals and all their parses, so that every pair of symbols gives many; and many symbols with few."""
    for n, NT, T, k in ((5, 1, 2, 700), (4, 2, 2, 40), (6, 5, 13, 9), (2, 2, 5, 6), (3, 4, 9, 12)):
        B = 3 if n > 3 else 30
        term, rule, root = draw(B, n, NT, T, seed=n)
        whole = (lambda t: t.round()) if ties else (lambda t: t)
        given = (whole(term), forbid(whole(rule), 0.1), whole(root), whole(spans(B, n, NT)), torch.tensor([n, n - 1, 2] + [n] * (B - 3)))
        got = on_threads(lambda: op("pcfg_best")(*given, k))
        want = pcfg_ref.pcfg_best(*given, k)
        if ties:  # sums of integers are exact
            for a, b in zip(got, want, strict=True):
                assert_same(a, b)
        assert_close(got[0], want[0], terms=64, magnitude=8.0)


def test_sample_by_the_rule(isa: str, poison: None, on_threads) -> None:
    term, rule, root = draw(len(LENGTHS), N, p=0.2)
    given = (junk(term, LENGTHS), rule, root, unread(spans(len(LENGTHS), N), LENGTHS), LENGTHS)
    uniform = torch.rand(8, len(LENGTHS), 2 * N, generator=generator(2), dtype=torch.float64)
    assert_same(on_threads(lambda: op("pcfg_sample")(*given, uniform)), pcfg_ref.pcfg_sample(*given, uniform))


# ---- edges -----------------------------------------------------------------------------------------------------------


def test_edges(isa: str, poison: None) -> None:
    for B, width in [(0, 4), (3, 0), (2, 3)]:
        lengths = torch.zeros(B, dtype=torch.int64)
        given = (*draw(B, width, shared=B == 0), None, lengths)
        assert_same(op("pcfg_logz")(*given), torch.zeros(B, dtype=torch.float64))
        logz, *counts = op("pcfg_marginals")(*given, None)
        assert (logz == 0).all() and all((t == 0).all() for t in counts)
        assert all((t == NINF).all() for t in op("pcfg_max_marginals")(*given))
        for k in (1, 3):
            value, tree = op("pcfg_best")(*given, k)
            assert (tree == -1).all() and (value[:, 0] == 0).all() and (value[:, 1:] == NINF).all()
    term, rule, root = draw(6, 4)
    span = unread(spans(6, 4), torch.full((6,), 4))
    rule[0], term[1, 2, 1], rule[2, 1, 0, 3], root[3], span[5, 0, 3, 1] = NINF, float("nan"), float("inf"), NINF, float("nan")
    lengths, none, wrong = torch.tensor([4, 4, 4, 4, 1, 4]), [0, 3, 4], [1, 2, 5]
    given = (term, rule, root, span, lengths)
    logz, *counts = op("pcfg_marginals")(*given, None)
    assert (logz[none] == NINF).all() and logz[wrong].isnan().all()
    assert all((t[none] == 0).all() and t[wrong].flatten(1).isnan().any(1).all() for t in counts)
    through = op("pcfg_max_marginals")(*given)
    assert all((t[none] == NINF).all() and t[wrong].flatten(1).isnan().any(1).all() for t in through)
    for k in (1, 3):
        value, tree = op("pcfg_best")(*given, k)
        assert (value[none] == NINF).all() and value[wrong].isnan().all() and (tree == -1).all()
    assert (op("pcfg_sample")(*given, torch.rand(2, 6, 8, dtype=torch.float64)) == -1).all()


# ---- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_gradients(shared: bool) -> None:
    term, rule, root = draw(2, 4, 2, 2, seed=1)
    rule = rule[0] if shared else rule
    inputs = tuple(t.requires_grad_() for t in (term, rule, root, spans(2, 4, 2)))
    lengths = torch.tensor([4, 3])
    make = lambda *t: PCFG(*t[:3], lengths, span=t[3] if len(t) > 3 else None)
    gold = make(*inputs).argmax
    other = PCFG(*draw(2, 4, 2, 2, seed=2), lengths)
    part = torch.tensor([[[0, 2, 1], [2, 3, -1]], [[1, 3, -1], [-1, -1, -1]]])
    for fn in (
        lambda *t: make(*t).log_partition,
        lambda *t: make(*t).log_prob(gold),
        lambda *t: make(*t).log_prob(part, partial=True),
    ):
        assert gradcheck(fn, inputs, fast_mode=True)
        assert gradgradcheck(fn, inputs, fast_mode=True)
    for fn in (
        lambda *t: tuple(make(*t).counts),
        lambda *t: make(*t).entropy(),
        lambda *t: make(*t).kl_divergence(other),
        lambda *t: other.cross_entropy(make(*t)),
        lambda *t: make(*t).max,
        lambda *t: make(*t).kbest(3)[0],
    ):
        assert gradcheck(fn, inputs, fast_mode=True)
    assert gradcheck(lambda *t: tuple(make(*t).counts), inputs[:3], fast_mode=True)


def test_errors_and_compile() -> None:
    term, rule, root = draw(2, 4)
    with pytest.raises(ValueError, match="rule of shape"):
        PCFG(term, rule[:, :2], root)
    with pytest.raises(TypeError, match="root of dtype"):
        PCFG(term, rule, root.float())
    with pytest.raises(ValueError, match="lengths within"):
        PCFG(term, rule, root, [5, 1])
    with pytest.raises(ValueError, match="span of shape"):
        PCFG(term, rule, root, span=spans(2, 3))
    d = PCFG(term, rule, root, [4, 2])
    with pytest.raises(ValueError, match=r"k in 1"):
        d.kbest(0)
    for rows, wrong in (([0, 3, -1], "spans between"), ([0, 2, 9], "symbols between"), ([2, 1, 0], "left < right")):
        with pytest.raises(IndexError, match=wrong):
            d.log_prob(torch.tensor([[[0, 2, 0]], [rows]]), partial=True)
    with pytest.raises(ValueError, match="value of shape"):
        d.log_prob(torch.zeros(2, 4, 3, dtype=torch.int64))
    if backends.native is None:
        return
    compiled = torch.compile(lambda *t: PCFG(*t).log_partition, fullgraph=True, backend="aot_eager")
    leaf = rule.clone().requires_grad_()
    (a,) = torch.autograd.grad(compiled(term, leaf, root).sum(), leaf)
    assert_same(a, PCFG(term, rule, root).counts.rule)
    torch._dynamo.reset()
