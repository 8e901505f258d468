"""Grammars: the reference against enumeration, every kernel against the reference, the distribution."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FLOATS, generator
from compare import assert_close, assert_same
from structops import backends
from structops.kernels.tree import pcfg_ref
from structops.tree import PCFG, SpanCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, bracketings, forbid

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


def junk(term: Tensor, lengths: Tensor) -> Tensor:
    """NaN past the sentences."""
    return torch.where(torch.arange(term.shape[1])[:, None] < lengths[:, None, None], term, float("nan"))


def parses(n: int, NT: int, T: int):
    """Every labelled parse, as rows in pre-order."""
    for spans in bracketings(0, n):
        symbols = [range(NT) if j - i > 1 else range(NT, NT + T) for i, j in spans]
        for labels in itertools.product(*symbols):
            yield [(i, j, a) for (i, j), a in zip(spans, labels, strict=True)]


def score(rows, term: Tensor, rule: Tensor, root: Tensor) -> Tensor:
    symbol = {(i, j): a for i, j, a in rows}
    NT = root.shape[0]
    total = root[rows[0][2]]
    for at, (i, j, a) in enumerate(rows):
        if j - i == 1:
            total = total + term[i, a - NT]
        else:
            split = rows[at + 1][1]
            total = total + rule[a, symbol[i, split], symbol[split, j]]
    return total


# ---- against enumeration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_queries_by_enumeration(n: int) -> None:
    NT, T = 2, 2
    term, rule, root = (t[0].requires_grad_() for t in draw(1, n, NT, T, seed=n + 7, p=0.1))
    every = list(parses(n, NT, T))
    totals = torch.stack([score(rows, term, rule, root) for rows in every])
    logz = torch.logsumexp(totals, 0)
    assert logz > NINF and (totals == NINF).any()
    d = PCFG(term[None], rule, root)
    assert_close(d.log_partition[0], logz.detach(), terms=64)
    grads = torch.autograd.grad(logz, (term, rule, root), retain_graph=True)
    for got, want in zip(d.counts[:3], grads, strict=True):
        assert_close(got[0], want.nan_to_num(0.0), terms=128)
    values = torch.tensor(every)[:, None]
    lp = d.log_prob(values)[:, 0].detach()
    assert_close(lp, (totals - logz).detach(), terms=64)
    prob = lp.exp()
    assert_close(d.entropy()[0], -(prob * lp.clamp(min=-1e4)).sum(), terms=512)
    assert_close(d.log_count[0].exp(), (prob > 0).sum().double(), terms=512)
    assert_close(d.max[0], totals.max().detach(), terms=64)
    assert_same(d.argmax[0], values[totals.argmax(), 0])
    span = torch.zeros(n + 1, n + 1, NT, dtype=torch.float64)
    for p, rows in zip(prob, every, strict=True):
        for i, j, a in rows:
            if j - i > 1:
                span[i, j, a] += p
    assert_close(d.counts.span[0], span, terms=128)
    q = PCFG(*(t.detach() for t in draw(1, n, NT, T, seed=50)))
    lq = q.log_prob(values)[:, 0]
    assert_close(d.kl_divergence(q)[0], (prob * (lp.clamp(min=-1e4) - lq)).sum(), terms=512)
    assert_close(torch.distributions.kl_divergence(d, q), d.kl_divergence(q))
    drawn = d.sample(2000, generator(1))[:, 0].flatten(1)
    frequency = (drawn[:, None] == values[:, 0].flatten(1)).all(2).double().mean(0)
    assert ((frequency - prob).abs() < 5 * (prob * (1 - prob) / 2000).sqrt() + 2e-3).all()


def test_one_symbol_is_a_bracketing() -> None:
    """Without choices of symbols the trees are those of SpanCRF with no scores."""
    for n in range(2, 7):
        d = PCFG(
            torch.zeros(1, n, 1, dtype=torch.float64),
            torch.zeros(1, 2, 2, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
        )
        spans = SpanCRF(torch.zeros(1, n + 1, n + 1, dtype=torch.float64))
        assert_close(d.log_partition, spans.log_partition, terms=32)
        longer = torch.arange(n + 1) - torch.arange(n + 1)[:, None] > 1
        assert_close(d.counts.span[..., 0], torch.where(longer, spans.marginals, 0), terms=64)


# ---- every kernel against the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_sums(isa: str, shared: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(len(LENGTHS), generator=generator(5), dtype=torch.float64).to(accumulator)
    wide = lambda *ts: [t.double() if t.is_floating_point() else t for t in ts]
    for (NT, T), p in itertools.product(((3, 4), (9, 18)), (0.0, 0.2)):
        if NT > 3 and (p or shared):
            continue
        term, rule, root = draw(len(LENGTHS), N, NT, T, dtype, p=p, shared=shared)
        given = (junk(term, LENGTHS), rule, root, LENGTHS)
        v = draw(len(LENGTHS), N, NT, T, dtype, seed=9, shared=shared)
        got = on_threads(lambda: op("pcfg_logz")(*given))  # noqa: B023
        assert_close(got, pcfg_ref.pcfg_logz(*wide(*given)), accumulator, terms=8 * N, magnitude=4.0)
        for name, more in (("pcfg_marginals", ()), ("pcfg_hvp", v)):
            got = on_threads(lambda: op(name)(*given, weight, *more))  # noqa: B023
            want = getattr(pcfg_ref, name)(*wide(*given, weight, *more))
            terms = 16 * N if more else 8 * N
            assert_close(got[0], want[0], accumulator, terms=terms, magnitude=8.0, what=name)
            for a, b in zip(got[1:], want[1:], strict=True):
                assert_close(a, b, dtype, terms=4 * terms, magnitude=8.0, what=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_apart_scores(isa: str, dtype: torch.dtype, poison: None) -> None:
    """Rules and terms of very different size, some the only way to a parse: the plain sums underflow and are taken again."""
    for scale, seed in itertools.product((30.0, 200.0, 2e4), range(3)):
        term, rule, root = (scale * t for t in draw(4, 6, 3, 3, dtype, seed, p=0.3))
        lengths = torch.tensor([6, 5, 3, 2])
        got = op("pcfg_marginals")(term, rule, root, lengths, None)
        want = pcfg_ref.pcfg_marginals(term.double(), rule.double(), root.double(), lengths, None)
        assert_close(got[0], want[0], dtype, terms=16, magnitude=scale)
        for a, b in zip(got[1:], want[1:], strict=True):
            assert_close(a, b, dtype, terms=64 * 6, magnitude=max(scale / 8, 8.0))
        v = draw(4, 6, 3, 3, dtype, 7)
        got = op("pcfg_hvp")(term, rule, root, lengths, None, *v)
        want = pcfg_ref.pcfg_hvp(term.double(), rule.double(), root.double(), lengths, None, *(t.double() for t in v))
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, dtype, terms=64 * 6, magnitude=max(scale, 8.0))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_best_and_ties(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    rng = generator(3)
    term, rule, root = (torch.randint(-2, 3, t.shape, generator=rng).to(dtype) for t in draw(len(LENGTHS), N))
    given = (junk(term, LENGTHS), forbid(rule, 0.3), root, LENGTHS)
    for a, b in zip(on_threads(lambda: op("pcfg_best")(*given)), pcfg_ref.pcfg_best(*given), strict=True):
        assert_same(a, b)


def test_sample_by_the_rule(isa: str, poison: None, on_threads) -> None:
    term, rule, root = draw(len(LENGTHS), N, p=0.2)
    given = (junk(term, LENGTHS), rule, root, LENGTHS)
    uniform = torch.rand(8, len(LENGTHS), 2 * N, generator=generator(2), dtype=torch.float64)
    assert_same(on_threads(lambda: op("pcfg_sample")(*given, uniform)), pcfg_ref.pcfg_sample(*given, uniform))


# ---- edges -----------------------------------------------------------------------------------------------------------


def test_edges(isa: str, poison: None) -> None:
    for B, width in [(0, 4), (3, 0), (2, 3)]:
        lengths = torch.zeros(B, dtype=torch.int64)
        given = (*draw(B, width, shared=B == 0), lengths)
        assert_same(op("pcfg_logz")(*given), torch.zeros(B, dtype=torch.float64))
        logz, *counts = op("pcfg_marginals")(*given, None)
        assert (logz == 0).all() and all((t == 0).all() for t in counts)
        assert (op("pcfg_best")(*given)[1] == -1).all()
    term, rule, root = draw(5, 4)
    rule[0], term[1, 2, 1], rule[2, 1, 0, 3], root[3] = NINF, float("nan"), float("inf"), NINF
    lengths = torch.tensor([4, 4, 4, 4, 1])
    logz, *counts = op("pcfg_marginals")(term, rule, root, lengths, None)
    assert (logz[[0, 3, 4]] == NINF).all() and logz[1:3].isnan().all()
    assert all((t[[0, 3, 4]] == 0).all() and t[1:3].isnan().any() for t in counts)
    value, tree = op("pcfg_best")(term, rule, root, lengths)
    assert (value[[0, 3, 4]] == NINF).all() and value[1:3].isnan().all() and (tree == -1).all()
    assert (op("pcfg_sample")(term, rule, root, lengths, torch.rand(2, 5, 8, dtype=torch.float64)) == -1).all()


# ---- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_gradients(shared: bool) -> None:
    term, rule, root = draw(2, 4, 2, 2, seed=1)
    rule = rule[0] if shared else rule
    inputs = tuple(t.requires_grad_() for t in (term, rule, root))
    lengths = torch.tensor([4, 3])
    make = lambda *t: PCFG(*t, lengths)
    gold = make(*inputs).argmax
    other = PCFG(*draw(2, 4, 2, 2, seed=2), lengths)
    for fn in (lambda *t: make(*t).log_partition, lambda *t: make(*t).log_prob(gold)):
        assert gradcheck(fn, inputs, fast_mode=True)
        assert gradgradcheck(fn, inputs, fast_mode=True)
    for fn in (
        lambda *t: tuple(make(*t).counts[:3]),
        lambda *t: make(*t).entropy(),
        lambda *t: make(*t).kl_divergence(other),
        lambda *t: other.cross_entropy(make(*t)),
        lambda *t: make(*t).max,
    ):
        assert gradcheck(fn, inputs, fast_mode=True)


def test_errors_and_compile() -> None:
    term, rule, root = draw(2, 4)
    with pytest.raises(ValueError, match="rule of shape"):
        PCFG(term, rule[:, :2], root)
    with pytest.raises(TypeError, match="root of dtype"):
        PCFG(term, rule, root.float())
    with pytest.raises(ValueError, match="lengths within"):
        PCFG(term, rule, root, [5, 1])
    if backends.native is None:
        return
    compiled = torch.compile(lambda *t: PCFG(*t).log_partition, fullgraph=True, backend="aot_eager")
    leaf = rule.clone().requires_grad_()
    (a,) = torch.autograd.grad(compiled(term, leaf, root).sum(), leaf)
    assert_same(a, PCFG(term, rule, root).counts.rule)
    torch._dynamo.reset()
