"""DependencyCRF and the dependency functions against enumeration, and every identity that must hold."""

from __future__ import annotations

import math

import pytest
import torch
from cases import generator
from compare import assert_close, assert_same
from structops import tree
from structops.tree import DependencyCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, chart, forbid, projective_trees, siblings

ORDERS = [(multiroot, second) for multiroot in (False, True) for second in (False, True)]
orders = pytest.mark.parametrize(("multiroot", "second"), ORDERS)


def crf(multiroot: bool, second: bool, n: int = 4, seed: int = 0, p: float = 0.0, B: int = 1, lengths=None) -> DependencyCRF:
    arc, sib = chart(B, n + 1, second, seed=seed)
    return DependencyCRF(forbid(arc, p, seed), lengths, sib, multiroot)


def every_tree(n: int, multiroot: bool) -> Tensor:
    """Heads [trees, 1, n + 1]."""
    return torch.tensor([[-1, *h] for h in projective_trees(n, not multiroot)])[:, None]


def log_probs(d: DependencyCRF) -> Tensor:
    """Of every tree of a batch of one."""
    return d.log_prob(every_tree(d._chart.N - 1, d.multiroot))[:, 0]


# ---- against enumeration ---------------------------------------------------------------------------------------------


@orders
@pytest.mark.parametrize("p", [0.0, 0.15])
def test_all_queries_by_enumeration(multiroot: bool, second: bool, p: float) -> None:
    for n in range(1, 6):
        d, q = (crf(multiroot, second, n, seed=s, p=p if s < 50 else 0.0) for s in (n, 50 + n))
        heads = every_tree(n, multiroot)
        lp = log_probs(d)
        if d.log_partition[0] == NINF:
            assert (lp == NINF).all() and d.entropy()[0] == NINF and (d.argmax == -1).all()
            continue
        prob = lp.exp()
        one = torch.ones((), dtype=torch.float64)
        assert_close(prob.sum(), one, terms=64)
        assert_close(d.entropy()[0], -(prob * lp.clamp(min=-1e4)).sum(), terms=256)
        lq = log_probs(q)
        assert_close(d.cross_entropy(q)[0], -(prob * lq).sum(), terms=256)
        assert_close(d.kl_divergence(q)[0], (prob * (lp.clamp(min=-1e4) - lq)).sum(), terms=256)
        assert_close(torch.distributions.kl_divergence(d, q), d.kl_divergence(q))
        assert_close(d.log_count[0].exp(), (prob > 0).sum().double(), terms=512)
        post = d.marginals[0] if second else d.marginals
        arcs = torch.nn.functional.one_hot(heads[:, 0, 1:], n + 1).double()
        assert_close(post[0, 1:], (prob[:, None, None] * arcs).sum(0), terms=64)
        assert_close(d.max[0], (lp.max() + d.log_partition[0]), terms=64)
        assert_same(d.argmax[0], heads[lp.argmax(), 0])
        value, trees = d.kbest(4)
        ranked, order = lp.sort(descending=True)
        count = min(4, int((ranked > NINF).sum()))
        assert_close(value[0, :count], ranked[:count] + d.log_partition, terms=64)
        assert_same(trees[0, :count], heads[order[:count], 0])
        held = torch.where(arcs.bool(), lp[:, None, None], NINF).amax(0) + d.log_partition
        assert_close(d.max_marginals()[0, 1:], held, terms=64)
        gain = (post[0, 1:] * arcs).sum((1, 2))
        chosen = d.mbr()[0]
        assert_close((post[0, 1:] * torch.nn.functional.one_hot(chosen[1:], n + 1)).sum(), gain[lp > NINF].max(), terms=64)


@orders
def test_partial_annotation(multiroot: bool, second: bool) -> None:
    """The probability of a partial annotation is the sum over the trees that agree."""
    n = 4
    d = crf(multiroot, second, n, B=2, lengths=[4, 3])
    rng = generator(8)
    for b, m in ((0, 4), (1, 3)):
        alone = DependencyCRF(
            d._chart.table[b : b + 1, : m + 1, : m + 1],
            None,
            None if not second else d._chart.sib[b : b + 1, : m + 1, : m + 1, : m + 1],
            multiroot,
        )
        trees = every_tree(m, multiroot)[:, 0]
        lp = log_probs(alone)
        for _ in range(6):
            value = torch.full((2, n + 1), -1)
            known = torch.rand(m + 1, generator=rng) < 0.4
            gold = trees[torch.randint(len(trees), (1,), generator=rng)[0]]
            value[b, : m + 1] = torch.where(known, gold, -1)
            value[b, 0] = 77  # never looked at
            agree = ((trees == value[b, : m + 1]) | ~known)[:, 1:].all(1)
            assert_close(d.log_prob(value, partial=True)[b], lp[agree].logsumexp(0), terms=64)
    nothing = torch.full((3, 2, n + 1), -1)
    assert_same(d.log_prob(nothing, partial=True), torch.zeros(3, 2, dtype=torch.float64))
    full = d.sample(5)
    assert_close(d.log_prob(full, partial=True), d.log_prob(full), terms=64)


@orders
def test_an_annotation_no_tree_agrees_with(multiroot: bool, second: bool) -> None:
    d = crf(multiroot, second)
    crossing = torch.tensor([[-1, 3, 4, 0, 3]])
    assert d.log_prob(crossing, partial=True)[0] == NINF
    roots = torch.tensor([[-1, 0, -1, -1, 0]])
    assert (d.log_prob(roots, partial=True)[0] == NINF) == (not multiroot)


def test_adjacent_siblings() -> None:
    for n in range(1, 6):
        for heads in projective_trees(n, False):
            want = torch.zeros(1, n + 1, dtype=torch.int64)
            for dep, _, sib in siblings(heads):
                want[0, dep] = sib
            assert_same(tree.adjacent_siblings(torch.tensor([[5, *heads]])), want)
    padded = tree.adjacent_siblings(torch.tensor([[0, 0, 0, 0, 9]]), [2])
    assert_same(padded, torch.tensor([[0, 0, 1, 0, 0]]))


# ---- derivatives -----------------------------------------------------------------------------------------------------


@orders
def test_gradients(multiroot: bool, second: bool) -> None:
    arc, sib = chart(3, 5, second, seed=1)
    lengths = torch.tensor([4, 0, 3])
    gold = crf(multiroot, second, B=3, lengths=lengths).argmax
    part = torch.where(torch.rand(gold.shape, generator=generator(1)) < 0.5, gold, -1)
    make = lambda a, s=None: DependencyCRF(a, lengths, s, multiroot)
    inputs = (arc.requires_grad_(), *([sib.requires_grad_()] if second else []))
    other = make(*chart(3, 5, second, seed=2)[: 1 + second])
    for fn in (
        lambda *t: make(*t).log_partition,
        lambda *t: make(*t).log_prob(gold),
        lambda *t: make(*t).log_prob(part, partial=True),
    ):
        assert gradcheck(fn, inputs, fast_mode=second)
        assert gradgradcheck(fn, inputs, fast_mode=second)
    for fn in (
        lambda *t: make(*t).marginals,
        lambda *t: make(*t).entropy(),
        lambda *t: make(*t).cross_entropy(other),
        lambda *t: other.cross_entropy(make(*t)),
        lambda *t: make(*t).kl_divergence(other),
        lambda *t: other.kl_divergence(make(*t)),
        lambda *t: make(*t).kbest(2)[0][::2],
    ):
        assert gradcheck(fn, inputs, fast_mode=second)


@orders
def test_gradient_of_logz_is_the_marginals(multiroot: bool, second: bool) -> None:
    arc, sib = chart(4, 8, second, torch.float32)
    arc = forbid(arc, 0.2).requires_grad_()
    sib = sib.requires_grad_() if second else None
    lengths = torch.tensor([7, 5, 0, 1])
    inputs = [arc] if sib is None else [arc, sib]
    d = DependencyCRF(arc, lengths, sib, multiroot)
    post = d.marginals if second else (d.marginals,)
    for a, b in zip(torch.autograd.grad(d.log_partition.sum(), inputs), post, strict=True):
        assert_close(a, b.detach().double(), torch.float32, terms=16)
    scaled = torch.autograd.grad((d.log_partition * torch.tensor([1.0, 2.0, 3.0, 0.0])).sum(), inputs)[0]
    assert_close(scaled[1], 2 * post[0][1].detach().double(), torch.float32, terms=16)
    assert (scaled[3] == 0).all()


def test_third_derivatives_are_refused_in_a_sentence() -> None:
    arc = chart(1, 4)[0].requires_grad_()
    (first,) = torch.autograd.grad(DependencyCRF(arc).log_partition.sum(), arc, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), arc, create_graph=True)
    with pytest.raises(NotImplementedError, match="third order"):
        second.sum().backward()


def test_first_order_saves_the_posteriors_only() -> None:
    arc = torch.randn(4, 9, 9, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        tree.dependency_log_partition(arc)
    assert sorted(t.numel() for t in saved if t.data_ptr() != arc.data_ptr()) == [4, 4 * 81]


# ---- identities ------------------------------------------------------------------------------------------------------


@orders
def test_invariances(multiroot: bool, second: bool) -> None:
    lengths = torch.tensor([7, 3, 1])
    arc, sib = chart(3, 8, second)
    d = DependencyCRF(arc, lengths, sib, multiroot)
    post = d.marginals[0] if second else d.marginals
    words = (torch.arange(8) > 0) & (torch.arange(8) <= lengths[:, None])
    assert_close(post.sum(2), words.double(), terms=64)
    shift = torch.zeros(3, 8, 1, dtype=torch.float64)
    shift[0, 2], shift[1, 3], shift[2, 5] = 3.0, -40.0, 9.0  # the last is padding
    moved = DependencyCRF(arc + shift, lengths, sib, multiroot)
    assert_close(moved.log_partition - d.log_partition, torch.tensor([3.0, -40.0, 0.0], dtype=torch.float64), terms=64)
    assert_close(moved.entropy(), d.entropy(), terms=512, magnitude=4.0)
    if not multiroot:
        assert (post[:, :, 0].sum(1) - 1).abs().max() < 1e-12
    assert (d.kl_divergence(d).abs() < 1e-12).all()


def test_uniform_entropy_is_the_log_count() -> None:
    for multiroot, want in ((True, 246675.0), (False, 120175.0)):
        d = DependencyCRF(torch.zeros(1, 10, 10, dtype=torch.float64), multiroot=multiroot)
        assert_close(d.entropy()[0], d.log_count[0], terms=256)
        assert_close(d.log_count.exp()[0], torch.tensor(want, dtype=torch.float64), terms=256)


@orders
def test_samples_have_the_right_frequencies(multiroot: bool, second: bool) -> None:
    """Chi-square over all trees: with f degrees of freedom, mean f and variance 2 f."""
    d = crf(multiroot, second, 4)
    trees, draws = every_tree(4, multiroot)[:, 0], 3000
    code = lambda t: (t[..., 1:] * 5 ** torch.arange(4)).sum(-1)
    drawn = code(d.sample((draws,), generator(0))[:, 0])
    seen = (drawn[:, None] == code(trees)).sum(0)
    assert seen.sum() == draws
    expected = draws * log_probs(d).exp()
    big = expected >= 5
    rest = expected[~big].sum().clamp(min=1e-9)
    chi = ((seen[big] - expected[big]) ** 2 / expected[big]).sum() + (seen[~big].sum() - rest) ** 2 / rest.clamp(min=1)
    freedom = int(big.sum())
    assert chi < freedom + 5 * math.sqrt(2 * freedom)


def test_sample_shapes_and_generators() -> None:
    d = crf(True, False, B=2)
    assert d.sample().shape == (2, 5) and d.sample(3).shape == (3, 2, 5) and d.sample((2, 0)).shape == (2, 0, 2, 5)
    assert_same(d.sample(9, generator(4)), d.sample((9,), generator(4)))
    assert d.batch_shape == (2,) and d.event_shape == (5,)


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", [False, True])
def test_labels_by_enumeration(multiroot: bool) -> None:
    import itertools

    n, L = 3, 2
    table = torch.randn(1, n + 1, n + 1, L, dtype=torch.float64, generator=generator(6))
    table[0, 2, 1, :] = NINF
    table[0, 1, 3, 0] = NINF
    d = DependencyCRF(table.requires_grad_(), multiroot=multiroot)
    values = [
        [[-1, -1], *([h, l] for h, l in zip(heads, labels, strict=True))]
        for heads in projective_trees(n, not multiroot)
        for labels in itertools.product(range(L), repeat=n)
    ]
    values = torch.tensor(values)[:, None]
    lp = d.log_prob(values)[:, 0]
    prob = lp.exp()
    assert_close(prob.sum(), torch.ones((), dtype=torch.float64), terms=64)
    ranked, order = lp.sort(descending=True)
    value, trees = d.kbest(40)
    count = min(40, int((ranked > NINF).sum()))
    assert_close(value[0, :count], (ranked[:count] + d.log_partition).detach(), terms=64)
    assert_same(trees[0, :6], values[order[:6], 0])
    assert (value[0, count:] == NINF).all()
    assert_close(d.entropy()[0], -(prob * lp.clamp(min=-1e4)).sum().detach(), terms=256)
    want = torch.zeros(1, n + 1, n + 1, L, dtype=torch.float64)
    for p, v in zip(prob, values[:, 0], strict=True):
        for word in range(1, n + 1):
            want[0, word, v[word, 0], v[word, 1]] += p.detach()
    assert_close(d.marginals, want, terms=64)
    (gradient,) = torch.autograd.grad(d.log_partition.sum(), table)
    assert_close(gradient, want, terms=64)
    assert gradcheck(
        lambda t: DependencyCRF(forbid(t, 0.1), multiroot=multiroot).entropy(), table.detach().nan_to_num(neginf=0).requires_grad_()
    )
    part = torch.tensor([[[-1, -1], [-1, 1], [0, -1], [-1, -1]]])
    agree = (values[:, 0, 1, 1] == 1) & (values[:, 0, 2, 0] == 0)
    assert_close(d.log_prob(part, partial=True)[0], lp[agree].logsumexp(0).detach(), terms=64)
    drawn = d.sample((4000,), generator(1))
    frequency = (drawn[:, :, None] == values[:, 0]).flatten(3).all(3).double().mean((0, 1))
    assert ((frequency - prob.detach()).abs() < 5 * (prob.detach() * (1 - prob.detach()) / 4000).sqrt() + 1e-3).all()
