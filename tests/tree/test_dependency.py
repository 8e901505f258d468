"""DependencyCRF and the dependency functions against enumeration, and every identity that must hold."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS, generator
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
    make = lambda a, s=None: DependencyCRF(a, lengths, s, multiroot)  # noqa: E731
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
    code = lambda t: (t[..., 1:] * 5 ** torch.arange(4)).sum(-1)  # noqa: E731
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


# ---- edges and defects of other libraries ----------------------------------------------------------------------------


@orders
def test_degenerate_batches(multiroot: bool, second: bool) -> None:
    for B, N, lengths in [(0, 4, None), (2, 1, None), (3, 4, [0, 0, 0]), (2, 4, [1, 0])]:
        arc, sib = chart(B, N, second)
        arc.requires_grad_()
        d = DependencyCRF(arc, lengths, sib, multiroot)
        assert d.log_partition.shape == (B,) and d.entropy().shape == (B,) and d.argmax.shape == (B, N)
        assert (d.entropy().abs() < 1e-12).all() and (d.log_count.abs() < 1e-12).all()
        d.log_partition.sum().backward()
        assert arc.grad.isfinite().all()
        assert (d.log_prob(torch.zeros(B, N, dtype=torch.int64)).abs() < 1e-12).all()
        assert d.mbr().shape == (B, N) and d.sample((2,)).shape == (2, B, N)


@orders
def test_padding_is_never_read(multiroot: bool, second: bool) -> None:
    arc, sib = chart(2, 7, second)
    lengths = torch.tensor([4, 6])
    clean = DependencyCRF(arc.clone(), lengths, None if sib is None else sib.clone(), multiroot)
    arc[0, 5:] = arc[0, :, 5:] = arc[:, 0] = float("nan")
    arc.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    arc.requires_grad_()
    dirty = DependencyCRF(arc, lengths, sib, multiroot)
    gold = clean.argmax
    for query in (
        lambda d: d.log_partition,
        lambda d: d.entropy(),
        lambda d: d.log_prob(gold),
        lambda d: d.max,
        lambda d: d.kl_divergence(clean),
    ):
        assert_same(query(dirty).detach(), query(clean))
    (dirty.entropy() + dirty.log_prob(gold) + dirty.log_prob(gold, partial=True)).sum().backward()
    assert arc.grad.isfinite().all() and (arc.grad[0, 5:] == 0).all()


@orders
def test_forbidden_arcs_give_zeros_not_nan(multiroot: bool, second: bool) -> None:
    arc, sib = chart(3, 7, second)
    arc = forbid(arc, 0.3, seed=3)
    arc[1, 3] = NINF  # a word without any head
    arc.requires_grad_()
    d = DependencyCRF(arc, None, sib, multiroot)
    post = d.marginals[0] if second else d.marginals
    assert d.log_partition[1] == NINF and (post[1] == 0).all() and (post[arc == NINF] == 0).all()
    alive = d.log_partition > NINF
    assert alive.any() and post[alive].sum(2)[:, 1:].sub(1).abs().max() < 1e-12
    (d.log_partition[alive].sum() + d.entropy()[alive].sum()).backward()
    assert arc.grad.isfinite().all()
    gold = d.argmax.clamp(min=0)
    arc.grad = None
    d.log_prob(gold)[alive].sum().backward()
    assert arc.grad.isfinite().all() and d.log_prob(gold)[1] == NINF


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    """16-bit scores are summed in float32: no overflow, errors of float32."""
    arc, sib = chart(4, 13, True, dtype)
    d, wide = (DependencyCRF(a, None, s) for a, s in ((arc, sib), (arc.double(), sib.double())))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(d.log_partition, wide.log_partition, accumulator, terms=64)
    assert_close(d.marginals[0], wide.marginals[0], dtype, terms=64)
    gold = wide.argmax
    assert_close(d.log_prob(gold), wide.log_prob(gold), accumulator, terms=128)
    arc.requires_grad_()
    DependencyCRF(arc).log_prob(gold).sum().backward()
    assert arc.grad.dtype == dtype


def test_the_root_mode_belongs_to_the_object() -> None:
    arc = chart(1, 5)[0]
    multi = DependencyCRF(arc, multiroot=True)
    before = multi.log_partition
    single = DependencyCRF(arc, multiroot=False)
    assert_same(multi.log_partition, before)
    assert single.log_partition < before
    assert multi.multiroot and not single.multiroot


def test_the_callers_tensors_are_left_alone() -> None:
    arc, sib = chart(2, 5, True)
    copies = arc.clone(), sib.clone()
    d = DependencyCRF(arc, [4, 2], sib)
    d.log_prob(d.argmax.clamp(min=0)), d.entropy(), d.sample(), d.kbest(3), d.mbr(), d.marginals, d.log_count
    assert_same(arc, copies[0])
    assert_same(sib, copies[1])
    assert not arc.requires_grad and not sib.requires_grad
    assert not d.marginals[0].requires_grad  # no graph is kept where none is wanted


def test_inference_mode_and_strides() -> None:
    arc, sib = chart(2, 6, True)
    d = DependencyCRF(arc, None, sib)
    with torch.inference_mode():
        inside = DependencyCRF(arc.clone(), None, sib.clone())
        assert_same(inside.argmax, d.argmax)
        assert_same(inside.log_partition, d.log_partition)
        assert inside.sample(2).shape == (2, 2, 6) and inside.entropy().isfinite().all()
    turned = DependencyCRF(
        arc.transpose(1, 2).contiguous().transpose(1, 2), None, sib.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    )
    assert_same(turned.log_partition, d.log_partition)


def test_several_values_at_once() -> None:
    d = crf(True, True, B=2)
    values = d.sample((3, 2), generator(0))
    got = d.log_prob(values)
    assert got.shape == (3, 2, 2)
    assert_same(got[1, 1], d.log_prob(values[1, 1]))
    assert_same(d.log_prob(values[:, 0].int(), partial=True).shape and got, got)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    arc, sib = chart(2, 4, True)
    heads = torch.zeros(2, 4, dtype=torch.int64)
    bad = [
        (TypeError, "arc to be a torch.Tensor", lambda: DependencyCRF([1.0])),
        (TypeError, "arc of dtype", lambda: DependencyCRF(arc.long())),
        (ValueError, "arc of shape", lambda: DependencyCRF(arc[:, :3])),
        (ValueError, "arc of shape", lambda: DependencyCRF(torch.zeros(2, 0, 0))),
        (ValueError, "arc of shape", lambda: DependencyCRF(torch.zeros(2, 3, 3, 0))),
        (ValueError, "lengths of shape", lambda: DependencyCRF(arc, torch.tensor([3]))),
        (ValueError, "lengths within 0..3", lambda: DependencyCRF(arc, [3, 4])),
        (ValueError, "lengths within 0..3", lambda: DependencyCRF(arc, [3, -1])),
        (TypeError, "lengths of dtype", lambda: DependencyCRF(arc, torch.tensor([3.0, 2.0]))),
        (TypeError, "lengths", lambda: DependencyCRF(arc, "33")),
        (ValueError, "sib of shape", lambda: DependencyCRF(arc, None, sib[:, :3])),
        (TypeError, "sib of dtype", lambda: DependencyCRF(arc, None, sib.float())),
        (TypeError, "multiroot", lambda: DependencyCRF(arc, None, None, 1)),
        (TypeError, "value", lambda: DependencyCRF(arc).log_prob(heads.float())),
        (ValueError, "value of shape", lambda: DependencyCRF(arc).log_prob(heads[:, :3])),
        (ValueError, "value of shape", lambda: DependencyCRF(arc).log_prob(heads[0])),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc).log_prob(heads + 4)),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc).log_prob(heads - 1)),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc, [3, 2]).log_prob(heads + 3)),
        (IndexError, "heads between -1", lambda: DependencyCRF(arc).log_prob(heads - 2, partial=True)),
        (TypeError, "partial", lambda: DependencyCRF(arc).log_prob(heads, partial=1)),
        (ValueError, "k >= 1", lambda: DependencyCRF(arc).kbest(0)),
        (TypeError, "k to be an int", lambda: DependencyCRF(arc).kbest(1.5)),
        (TypeError, "a DependencyCRF", lambda: DependencyCRF(arc).kl_divergence(torch.distributions.Normal(0, 1))),
        (ValueError, "one root mode", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc, multiroot=True))),
        (ValueError, "same lengths", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc, [3, 2]))),
        (ValueError, "scores of shape", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc[:, :3, :3]))),
        (IndexError, "labels between 0 and 1", lambda: DependencyCRF(torch.zeros(1, 2, 2, 2)).log_prob(torch.tensor([[[0, 0], [0, 2]]]))),
        (ValueError, "heads of shape", lambda: tree.adjacent_siblings(heads[0])),
        (TypeError, "multiroot", lambda: tree.dependency_log_partition(arc, None, None, "yes")),
    ]  # fmt: skip
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()


def test_functions_and_objects_agree() -> None:
    for second in (False, True):
        arc, sib = chart(2, 6, second)
        args = (arc, [5, 3], sib, True)
        d = DependencyCRF(*args)
        assert_same(tree.dependency_log_partition(*args), d.log_partition)
        for a, b in zip(tree.dependency_marginals(*args), d.marginals, strict=True):
            assert_same(a, b)
        value, heads = tree.dependency_best(*args, k=2)
        assert_same(heads[:, 0], d.argmax)
        assert_same(value, d.kbest(2)[0])
        assert_same(tree.dependency_sample(*args, n=4, generator=generator(1)), d.sample((4,), generator(1)))
