"""Grandparent factors: the reference against enumeration, every kernel against the reference, DependencyCRF(grand=...)."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, generator, remembered
from compare import assert_close, assert_same
from structops import backends
from structops.kernels.tree import grand_ref
from structops.tree import DependencyCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, chart, forbid, projective_trees, siblings

grand_ref = remembered(grand_ref)

CASES = [(multiroot, second) for multiroot in (False, True) for second in (False, True)]
cases = pytest.mark.parametrize(("multiroot", "second"), CASES)
LENGTHS = torch.tensor([6, 0, 1, 9, 2, 5, 3])
N = 10


def op(name: str):
    return backends.implementation(name)


def draw(B: int, N: int, second: bool, dtype: torch.dtype = torch.float64, seed: int = 0, p: float = 0.0):
    """(arc, grand, sib or None)."""
    arc, sib = chart(B, N, True, dtype, seed)
    _, grand = chart(B, N, True, dtype, seed + 100)
    return forbid(arc, p, seed), forbid(grand, p / 2, seed + 1), sib if second else None


def read_cells(lengths: Tensor, N: int, second: bool, multiroot: bool) -> tuple[Tensor, Tensor, Tensor]:
    """bool [B, N, N], [B, N, N, N] twice: what the recurrences read of arc, grand and sib."""
    arc = torch.zeros(len(lengths), N, N, dtype=torch.bool)
    grand, sib = torch.zeros(2, len(lengths), N, N, N, dtype=torch.bool)
    for b, n in enumerate(lengths.tolist()):
        for item in grand_ref.hypergraph(n, second, multiroot).items:
            if item.cell:
                arc[(b, *item.cell[:2])] = True
                if item.cell[1]:
                    grand[(b, *item.cell)] = True
            for c in item.sib:
                if c is not None:
                    sib[(b, *c)] = True
    return arc, grand, sib


def junk(arc: Tensor, grand: Tensor, sib: Tensor | None, lengths: Tensor, multiroot: bool):
    """NaN wherever nothing is to be read."""
    cells = read_cells(lengths, arc.shape[1], sib is not None, multiroot)
    return tuple(None if t is None else torch.where(c, t, float("nan")) for t, c in zip((arc, grand, sib), cells, strict=True))


def wide(*tensors):
    return [t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in tensors]


def every_score(n: int, multiroot: bool, arc: Tensor, grand: Tensor, sib: Tensor | None) -> Tensor:
    """Scores of all trees of one sentence."""
    totals = []
    for heads in projective_trees(n, not multiroot):
        up = (0, *heads)
        total = arc.new_zeros(())
        for d, h in enumerate(heads, 1):
            total = total + arc[d, h] + (grand[d, h, up[h]] if h else 0.0)
        for s in siblings(heads) if sib is not None else ():
            total = total + sib[s]
        totals.append(total)
    return torch.stack(totals)


# ---- the reference against enumeration -------------------------------------------------------------------------------


@cases
def test_reference_is_enumeration(multiroot: bool, second: bool) -> None:
    for n in range(1, 6):
        for p in (0.0, 0.15):
            given = [t if t is None else t.requires_grad_() for t in draw(1, n + 2, second, seed=n, p=p)]
            every = every_score(n, multiroot, *(None if t is None else t[0] for t in given))
            logz, *posts = grand_ref.grand_marginals(*given, torch.tensor([n]), None, multiroot)
            total = torch.logsumexp(every, 0)
            assert_close(logz[0], total.detach(), terms=64)
            if total == NINF:
                continue
            leaves = [t for t in given if t is not None]
            grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
            for got, want in zip(posts, grads, strict=False):
                assert_close(got, want.detach().nan_to_num(0.0), terms=64)
            value, _ = grand_ref.grand_best(*given, torch.tensor([n]), multiroot, 5)
            ranked = every.detach()[every.detach() > NINF].sort(descending=True).values[:5]
            assert_close(value[0, : len(ranked)], ranked, terms=32)


# ---- every kernel against the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@cases
def test_sums(isa: str, multiroot: bool, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.randn(len(LENGTHS), generator=generator(5), dtype=torch.float64).to(accumulator)
    for p in (0.0, 0.15):
        given = junk(*draw(len(LENGTHS), N, second, dtype, p=p), LENGTHS, multiroot)
        v = tuple(t if t is None else t.nan_to_num(0.0, 0.0, 0.0) for t in draw(len(LENGTHS), N, second, dtype, seed=9))
        assert_close(
            on_threads(lambda: op("grand_logz")(*given, LENGTHS, multiroot)),
            grand_ref.grand_logz(*wide(*given), LENGTHS, multiroot), accumulator, terms=4 * N, magnitude=4.0,
        )  # fmt: skip
        for name, more, terms in (("grand_marginals", (), 4 * N), ("grand_hvp", v, 16 * N)):
            got = on_threads(lambda: op(name)(*given, LENGTHS, weight, *more, multiroot))
            want = getattr(grand_ref, name)(*wide(*given, LENGTHS, weight, *more), multiroot)
            assert_close(got[0], want[0], accumulator, terms=terms, magnitude=8.0)
            for a, b in zip(got[1:], want[1:], strict=True):
                assert_close(a, b, dtype, terms=terms, magnitude=8.0, what=name)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@cases
def test_best_and_ties(isa: str, multiroot: bool, second: bool, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Small integers are exact in every dtype and full of ties: values, trees and max-marginals agree with the reference."""
    rng = generator(3)
    given = tuple(torch.randint(-2, 3, (len(LENGTHS), *(N,) * k), generator=rng).to(dtype) for k in (2, 3, 3))
    given = junk(forbid(given[0], 0.15), given[1], given[2] if second else None, LENGTHS, multiroot)
    for k in (1, 4) if dtype == torch.float32 else (1,):
        want = grand_ref.grand_best(*given, LENGTHS, multiroot, k)
        for a, b in zip(on_threads(lambda: op("grand_best")(*given, LENGTHS, multiroot, k)), want, strict=True):
            assert_same(a, b)
    through = on_threads(lambda: op("grand_max_marginals")(*given, LENGTHS, multiroot))
    assert_same(through, grand_ref.grand_max_marginals(*given, LENGTHS, multiroot))


@cases
def test_k_best_and_samples(isa: str, multiroot: bool, second: bool, poison: None, on_threads) -> None:
    given = junk(*draw(len(LENGTHS), N, second, p=0.1), LENGTHS, multiroot)
    want = grand_ref.grand_best(*given, LENGTHS, multiroot, 6)
    got = on_threads(lambda: op("grand_best")(*given, LENGTHS, multiroot, 6))
    assert_close(got[0], want[0], terms=4 * N)
    assert_same(got[1], want[1])
    uniform = torch.rand(10, len(LENGTHS), 3 * N, generator=generator(2), dtype=torch.float64)
    drawn = on_threads(lambda: op("grand_sample")(*given, LENGTHS, uniform, multiroot))
    assert_same(drawn, grand_ref.grand_sample(*given, LENGTHS, uniform, multiroot))


# ---- edges -----------------------------------------------------------------------------------------------------------


@cases
def test_nothing_to_do(isa: str, multiroot: bool, second: bool, poison: None) -> None:
    for B, width in [(0, 4), (3, 1), (2, 5)]:
        lengths = torch.zeros(B, dtype=torch.int64)
        given = junk(*draw(B, width, second), lengths, multiroot)
        zeros = torch.zeros(B, dtype=torch.float64)
        logz, *posts = op("grand_marginals")(*given, lengths, None, multiroot)
        assert_same(logz, zeros)
        assert all((t == 0).all() for t in posts)
        value, heads = op("grand_best")(*given, lengths, multiroot, 2)
        assert_same(value, torch.tensor([[0.0, NINF]], dtype=torch.float64).expand(B, 2))
        assert_same(heads, torch.full((B, 2, width), -1))
        assert (op("grand_max_marginals")(*given, lengths, multiroot) == NINF).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@cases
def test_no_tree_and_not_a_number(isa: str, multiroot: bool, second: bool, dtype: torch.dtype, poison: None) -> None:
    """-inf everywhere: logz -inf, posteriors 0, trees -1. One NaN or +inf that is read: NaN, in its sentence only."""
    arc, grand, sib = draw(4, 6, second, dtype)
    lengths = torch.full((4,), 5)
    arc[0], grand[1, 2, 4, 0], arc[2, 1, 3] = NINF, float("nan"), float("inf")
    logz, *posts = op("grand_marginals")(arc, grand, sib, lengths, None, multiroot)
    assert logz[0] == NINF and logz[1:3].isnan().all() and logz[3].isfinite()
    assert all((t[0] == 0).all() and t[1:3].isnan().any() and t[3].isfinite().all() for t in posts[: 3 if second else 2])
    value, heads = op("grand_best")(arc, grand, sib, lengths, multiroot, 1)
    assert value[0] == NINF and value[1:3].isnan().all() and (heads[:3] == -1).all() and (heads[3, 1:] >= 0).all()
    drawn = op("grand_sample")(arc, grand, sib, lengths, torch.rand(2, 4, 18, dtype=torch.float64), multiroot)
    assert (drawn[:, :3] == -1).all() and (drawn[:, 3, 1:] >= 0).all()


@pytest.mark.parametrize("scale", [1e3, 1e6])
@cases
def test_large_scores(isa: str, multiroot: bool, second: bool, scale: float) -> None:
    """Scores beyond the float32 charts: one tree has all the mass."""
    given = [None if t is None else scale * t for t in draw(3, 7, second, torch.float32)]
    lengths = torch.tensor([6, 3, 1])
    logz, post, _, _ = op("grand_marginals")(*given, lengths, None, multiroot)
    want = grand_ref.grand_marginals(*wide(*given), lengths, None, multiroot)
    assert_close(logz, want[0], torch.float32, terms=4, magnitude=scale)
    assert_close(post, want[1], torch.float32, terms=64, magnitude=4.0)


# ---- the distribution ------------------------------------------------------------------------------------------------


@cases
def test_all_queries_by_enumeration(multiroot: bool, second: bool) -> None:
    n = 4
    make = lambda seed: (lambda t: DependencyCRF(t[0], None, t[2], multiroot, grand=t[1]))(draw(1, n + 1, second, seed=seed))
    d, q = make(3), make(40)
    heads = torch.tensor([[-1, *h] for h in projective_trees(n, not multiroot)])[:, None]
    lp, lq = d.log_prob(heads)[:, 0], q.log_prob(heads)[:, 0]
    prob = lp.exp()
    assert_close(prob.sum(), torch.ones((), dtype=torch.float64), terms=64)
    assert_close(d.entropy()[0], -(prob * lp).sum(), terms=256)
    assert_close(d.kl_divergence(q)[0], (prob * (lp - lq)).sum(), terms=256)
    first = DependencyCRF(d._chart.table, multiroot=multiroot)
    assert_close(
        first.kl_divergence(d)[0], (first.log_prob(heads)[:, 0].exp() * (first.log_prob(heads)[:, 0] - lp)).sum(), terms=256
    )
    assert_close(d.kl_divergence(first)[0], (prob * (lp - first.log_prob(heads)[:, 0])).sum(), terms=256)
    assert_close(d.log_count[0].exp(), torch.tensor(float(len(heads)), dtype=torch.float64), terms=512)
    post = d.marginals
    assert len(post) == 2 + second
    arcs = torch.nn.functional.one_hot(heads[:, 0, 1:], n + 1).double()
    assert_close(post[0][0, 1:], (prob[:, None, None] * arcs).sum(0), terms=64)
    assert_close(post[-1].sum(3)[0, 1:, 1:], post[0][0, 1:, 1:], terms=64)  # grandparents add up to the arc
    assert_same(d.argmax[0], heads[lp.argmax(), 0])
    held = torch.where(arcs.bool(), lp[:, None, None], NINF).amax(0) + d.log_partition
    assert_close(d.max_marginals()[0, 1:], held, terms=64)
    value, trees = d.kbest(3)
    ranked, order = lp.sort(descending=True)
    assert_close(value[0], ranked[:3] + d.log_partition, terms=64)
    assert_same(trees[0], heads[order[:3], 0])
    known = torch.tensor([False, True, False, True, False])
    value = torch.where(known, heads[5, 0], -1)[None]
    agree = ((heads[:, 0] == value) | ~known)[:, 1:].all(1)
    assert_close(d.log_prob(value, partial=True)[0], lp[agree].logsumexp(0), terms=64)
    assert_same(d.mbr(), DependencyCRF(post[0], multiroot=multiroot).argmax)


@cases
def test_zero_grandparents_are_the_other_model(multiroot: bool, second: bool) -> None:
    lengths = torch.tensor([7, 3, 1])
    arc, _, sib = draw(3, 8, second)
    plain = DependencyCRF(arc, lengths, sib, multiroot)
    d = DependencyCRF(arc, lengths, sib, multiroot, grand=torch.zeros(3, 8, 8, 8, dtype=torch.float64))
    assert_close(d.log_partition, plain.log_partition, terms=64)
    assert_close(d.marginals[0], plain.marginals[0] if second else plain.marginals, terms=64)
    assert_close(d.max_marginals(), plain.max_marginals(), terms=64)
    assert_same(d.argmax, plain.argmax)


@cases
def test_gradients(multiroot: bool, second: bool) -> None:
    arc, grand, sib = draw(2, 5, second, seed=1)
    lengths = torch.tensor([4, 3])
    make = lambda a, g, s=None: DependencyCRF(a, lengths, s, multiroot, grand=g)
    gold = make(arc, grand, sib).argmax
    inputs = tuple(t.requires_grad_() for t in (arc, grand, sib) if t is not None)
    for fn in (lambda *t: make(*t).log_partition, lambda *t: make(*t).log_prob(gold)):
        assert gradcheck(fn, inputs, fast_mode=True)
        assert gradgradcheck(fn, inputs, fast_mode=True)
    for fn in (lambda *t: make(*t).marginals, lambda *t: make(*t).entropy(), lambda *t: make(*t).max):
        assert gradcheck(fn, inputs, fast_mode=True)


def test_divergences_between_models_with_different_parts() -> None:
    """A part that one model lacks counts as zeros, whichever model lacks it."""
    arc, grand, sib = draw(2, 5, True)
    parts = [{}, {"sib": sib}, {"grand": grand}, {"sib": sib, "grand": grand}]
    full = [{"sib": torch.zeros_like(sib), "grand": torch.zeros_like(grand), **p} for p in parts]
    for mine, mine_full in zip(parts, full, strict=True):
        for theirs, theirs_full in zip(parts, full, strict=True):
            p, q = DependencyCRF(arc, **mine), DependencyCRF(arc.flip(-1), **theirs)
            p_full, q_full = DependencyCRF(arc, **mine_full), DependencyCRF(arc.flip(-1), **theirs_full)
            assert_close(p.cross_entropy(q), p_full.cross_entropy(q_full), terms=256)
            assert_close(p.kl_divergence(q), p_full.kl_divergence(q_full), terms=256)
            assert_close(p.kl_divergence(q), p.cross_entropy(q) - p.entropy(), terms=256)


def test_labels_and_errors() -> None:
    arc, grand, _ = draw(2, 5, False)
    labelled = DependencyCRF(torch.stack([arc, arc - 1], -1), grand=grand)
    want = DependencyCRF(torch.logsumexp(torch.stack([arc, arc - 1], -1), -1), grand=grand).log_partition
    assert_close(labelled.log_partition, want, terms=32)
    assert labelled.sample(3).shape == (3, 2, 5, 2)
    with pytest.raises(ValueError, match="grand of shape"):
        DependencyCRF(arc, grand=grand[:, :4])
    with pytest.raises(TypeError, match="grand of dtype"):
        DependencyCRF(arc, grand=grand.float())


@pytest.mark.skipif(backends.native is None, reason="no compiled library")
def test_compile() -> None:
    arc, grand, _ = draw(2, 5, False)
    fn = lambda a, g: DependencyCRF(a, grand=g).log_partition
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    grads = []
    for f in (fn, compiled):
        leaves = [t.clone().requires_grad_() for t in (arc, grand)]
        grads.append(torch.autograd.grad(f(*leaves).sum(), leaves))
    for a, b in zip(*grads, strict=True):
        assert_same(a, b)
    torch._dynamo.reset()
