"""Non-projective trees: sums, posteriors, curvature and samples against enumeration, the reference and closed forms."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from cases import FLOATS, generator, remembered
from compare import assert_close, assert_same
from structops import backends, tree
from structops.kernels.tree import matrix_tree_ref as reference
from structops.tree import MatrixTreeCRF
from structops.tree import _spanning as ladder
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import NINF, forbid, is_tree

reference = remembered(reference)

MODES = (True, False)
NAN = float("nan")
LENGTHS = torch.tensor([17, 0, 1, 9, 2, 33, 3, 8, 16, 40, 5])


def op(name: str):
    return backends.implementation(name)


@cache
def trees(n: int, multiroot: bool) -> list[tuple[int, ...]]:
    every = itertools.product(*([h for h in range(n + 1) if h != d] for d in range(1, n + 1)))
    return [t for t in every if is_tree(t) and (multiroot or n == 0 or t.count(0) == 1)]


def normal(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return (scale * torch.randn(shape, generator=generator(seed), dtype=torch.float64)).to(dtype)


def enumerated(s: Tensor, n: int, multiroot: bool) -> tuple[Tensor, Tensor]:
    """(log Z, posteriors [N, N]) of one float64 sentence."""
    every = trees(n, multiroot)
    total = torch.stack([sum((s[d, h] for d, h in enumerate(t, 1)), torch.zeros((), dtype=torch.float64)) for t in every])
    logz, post = total.logsumexp(0), torch.zeros_like(s)
    for t, p in zip(every, (total - logz).exp().nan_to_num(), strict=True):
        for d, h in enumerate(t, 1):
            post[d, h] += p
    return logz, post


def junk(s: Tensor, lengths: Tensor) -> Tensor:
    """NaN wherever nothing is to be read."""
    N = s.shape[1]
    position = torch.arange(N)
    inside = position <= lengths[:, None]
    read = inside[:, :, None] & inside[:, None, :] & (position[:, None] != position) & (position[:, None] > 0)
    return torch.where(read, s, NAN)


def close(got: Tensor, want: Tensor, scale: float, what: object = "") -> None:
    """Posteriors: absolute, a few hundred roundings of scores of that size."""
    eps = max(torch.finfo(got.dtype).eps, 2**-52 * 300 * max(scale, 1))
    assert (got.double() - want).abs().max() <= eps, (what, float((got.double() - want).abs().max()))


# ---- enumeration and closed forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("n", range(6))
def test_enumeration(isa: str, n: int, multiroot: bool) -> None:
    for scale, p in ((1, 0), (1, 0.2), (30, 0), (1000, 0), (1000, 0.2)):
        s = forbid(normal(1, n + 1, n + 1, scale=scale, seed=n), p, n)
        logz, post = op("matrix_tree_marginals")(junk(s, torch.tensor([n])), torch.tensor([n]), None, multiroot)
        want, want_post = enumerated(s[0], n, multiroot)
        assert_close(logz[0], want, terms=100, magnitude=scale)
        close(post[0], want_post, scale, (scale, p))


@pytest.mark.parametrize("multiroot", MODES)
def test_counts(isa: str, multiroot: bool) -> None:
    """Cayley: (n + 1)^(n - 1) trees, n^(n - 1) with one root; by symmetry every arc is known too."""
    lengths = torch.tensor([1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 100, 257])
    logz, post = op("matrix_tree_marginals")(torch.zeros(12, 258, 258), lengths, None, multiroot)
    n = lengths.double()
    assert_close(logz, (n - 1) * (n + 1).log() if multiroot else (n - 1) * n.log(), torch.float32)
    root = 2 / (n + 1) if multiroot else 1 / n
    for b, m in enumerate(lengths.tolist()):
        assert_close(post[b, 1 : m + 1, 0], root[b].expand(m), torch.float32)
        off = post[b, 1 : m + 1, 1 : m + 1][~torch.eye(m, dtype=torch.bool)]
        assert_close(off, ((1 - root[b]) / max(m - 1, 1)).expand(m * (m - 1)), torch.float32)


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("scale", [1, 10, 30, 100, 300, 1000])
def test_posteriors_of_long_sentences(isa: str, scale: int, multiroot: bool) -> None:
    """At any scale the heads of a word sum to 1, one root means one root, and float32 input loses nothing but its rounding."""
    s = normal(len(LENGTHS), 41, 41, scale=scale, dtype=torch.float32)
    logz, post = op("matrix_tree_marginals")(junk(s.double(), LENGTHS), LENGTHS, None, multiroot)
    words = (torch.arange(41) > 0) & (torch.arange(41) <= LENGTHS[:, None])
    assert (post >= 0).all() and (post <= 1 + 1e-12).all()
    assert (post.sum(2) - words.double()).abs().max() < 2e-13 * max(scale, 10)
    if not multiroot:
        assert (post[:, :, 0].sum(1)[LENGTHS > 0] - 1).abs().max() < 2e-13 * max(scale, 10)
    assert_close(op("matrix_tree_logz")(s, LENGTHS, multiroot), logz, torch.float32)


@pytest.mark.parametrize("multiroot", MODES)
def test_heavy_cycles(isa: str, multiroot: bool) -> None:
    """Every word's best head closes a cycle: what the determinant loses. Also through the numbers with exponents of their own."""
    for n, gap in itertools.product((2, 4, 5), (20.0, 200.0, 2000.0)):
        s = normal(1, n + 1, n + 1, seed=n)
        s[0, :, 0] -= gap
        for d in range(1, n + 1):
            s[0, d, d ^ 1 if (d ^ 1) <= n and (d ^ 1) > 0 else 1 + d % n] += gap
        logz, post = op("matrix_tree_marginals")(s, torch.tensor([n]), None, multiroot)
        want, want_post = enumerated(s[0], n, multiroot)
        assert_close(logz[0], want, terms=100, magnitude=gap)
        close(post[0], want_post, gap)


# ---- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("multiroot", MODES)
def test_reference(isa: str, dtype: torch.dtype, multiroot: bool, on_threads, poison: None) -> None:
    lengths = torch.tensor([5, 0, 1, 2, 3, 4])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.tensor([1.0, 2.0, -1.0, 0.5, 0.0, 3.0], dtype=wide)
    for p in (0.0, 0.3):
        s = forbid(normal(6, 6, 6, dtype=dtype, scale=2), p)
        v = normal(6, 6, 6, dtype=dtype, seed=1)
        logz, post = on_threads(lambda: op("matrix_tree_marginals")(junk(s, lengths).to(dtype), lengths, weight, multiroot))
        want, want_post = reference.matrix_tree_marginals(s.double(), lengths, weight.double(), multiroot)
        assert_close(logz, want, wide, terms=30)
        assert_close(post, want_post, dtype, terms=30)
        assert_same(op("matrix_tree_logz")(s, lengths, multiroot), logz)
        along, curved = on_threads(lambda: op("matrix_tree_hvp")(s, lengths, weight, v, multiroot))
        want, want_post = reference.matrix_tree_hvp(s.double(), lengths, weight.double(), v.double(), multiroot)
        assert_close(along, want, wide, terms=100)
        assert_close(curved, want_post, dtype, terms=100)


@pytest.mark.parametrize("multiroot", MODES)
def test_reference_is_enumeration(multiroot: bool) -> None:
    """Also its hvp, against a second derivative of the enumeration."""
    n = 4
    s, v = normal(1, n + 1, n + 1).requires_grad_(), normal(1, n + 1, n + 1, seed=1)
    every = trees(n, multiroot)
    logz = torch.stack([sum(s[0, d, h] for d, h in enumerate(t, 1)) for t in every]).logsumexp(0)
    (post,) = torch.autograd.grad(logz, s, create_graph=True)
    (curved,) = torch.autograd.grad((post * v).sum(), s)
    lengths = torch.tensor([n])
    assert_close(reference.matrix_tree_logz(s.detach(), lengths, multiroot)[0], logz.detach(), terms=30)
    assert_close(reference.matrix_tree_marginals(s.detach(), lengths, None, multiroot)[1], post.detach(), terms=30)
    assert_close(reference.matrix_tree_hvp(s.detach(), lengths, None, v, multiroot)[1], curved, terms=100)


@pytest.mark.parametrize("scale", [1, 30, 1000])
@pytest.mark.parametrize("multiroot", MODES)
def test_hvp_is_a_difference_of_posteriors(isa: str, multiroot: bool, scale: int) -> None:
    lengths = torch.tensor([23, 9])
    s, v = normal(2, 24, 24, scale=scale), normal(2, 24, 24, seed=1)
    step = 1e-5
    up, down = (op("matrix_tree_marginals")(s + x * v, lengths, None, multiroot) for x in (step, -step))
    along, curved = op("matrix_tree_hvp")(s, lengths, None, v, multiroot)
    assert (along - (up[0] - down[0]) / (2 * step)).abs().max() < 1e-7 * max(scale, 10)
    assert (curved - (up[1] - down[1]) / (2 * step)).abs().max() < 1e-7 * max(scale, 10)
    post = op("matrix_tree_marginals")(s, lengths, None, multiroot)[1]
    assert_close(along, torch.where(post > 0, post * v, 0).sum((1, 2)), terms=400, magnitude=scale)


# ---- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
def test_no_tree(isa: str, multiroot: bool) -> None:
    """Unreachable words, no root arc, and (one root) two words that only the root can govern."""
    lengths = torch.tensor([3, 3, 3, 0])
    s = normal(4, 4, 4, dtype=torch.float32)
    s[0, 2, :] = NINF
    s[1, :, 0] = NINF
    s[2, 1:3, 1:] = NINF
    logz, post = op("matrix_tree_marginals")(s, lengths, None, multiroot)
    along, curved = op("matrix_tree_hvp")(s, lengths, None, torch.ones_like(s), multiroot)
    none = [0, 1] if multiroot else [0, 1, 2]
    assert logz[3] == 0
    assert (logz[none] == NINF).all() and (post[none] == 0).all() and (along[none] == 0).all() and (curved[none] == 0).all()
    if multiroot:
        want, want_post = enumerated(s[2].double(), 3, True)
        assert_close(logz[2], want, torch.float32)
        close(post[2], want_post, 1)
    seed = torch.zeros(2, 4, dtype=torch.int64)
    assert (op("matrix_tree_sample")(s, lengths, seed, multiroot)[:, none] == -1).all()


@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("multiroot", MODES)
def test_nan_stays_in_its_sentence(isa: str, multiroot: bool, bad: float) -> None:
    s, lengths = normal(3, 12, 12), torch.tensor([11, 11, 11])
    want = op("matrix_tree_marginals")(s, lengths, None, multiroot)
    s[1, 5, 7] = bad
    logz, post = op("matrix_tree_marginals")(s, lengths, None, multiroot)
    assert logz[1].isnan() and op("matrix_tree_logz")(s, lengths, multiroot)[1].isnan()
    arcs = (torch.arange(12)[:, None] > 0) & (torch.arange(12)[:, None] != torch.arange(12))
    assert_same(post[1].isnan(), arcs)
    assert_same(logz[[0, 2]], want[0][[0, 2]])
    assert_same(post[[0, 2]], want[1][[0, 2]])


def test_far_below_the_best_is_forbidden(isa: str) -> None:
    """Masks like -1e30 act as -inf."""
    s = forbid(normal(4, 9, 9), 0.4, 3)
    lengths = torch.full((4,), 8)
    for multiroot in MODES:
        want = op("matrix_tree_marginals")(s, lengths, None, multiroot)
        masked = torch.where(s == NINF, -1e30, s)
        fine = (want[0] > NINF).nonzero().squeeze(1)
        assert len(fine)
        for a, b in zip(op("matrix_tree_marginals")(masked, lengths, None, multiroot), want, strict=True):
            assert_same(a[fine], b[fine])


@pytest.mark.parametrize("multiroot", MODES)
def test_only_the_root_governs(isa: str, multiroot: bool) -> None:
    """One word without a possible head among the words: with one root it must be the root's, and pivots of 0 occur."""
    for first in (1, 3, 5):
        s = normal(1, 6, 6, seed=first)
        s[0, first, 1:] = NINF
        logz, post = op("matrix_tree_marginals")(s, torch.tensor([5]), None, multiroot)
        want, want_post = enumerated(s[0], 5, multiroot)
        assert_close(logz[0], want, terms=100)
        close(post[0], want_post, 1)


def test_batch_does_not_matter(isa: str, threads: int) -> None:
    s = normal(len(LENGTHS), 41, 41, dtype=torch.float32)
    for multiroot in MODES:
        whole = op("matrix_tree_marginals")(s, LENGTHS, None, multiroot)
        for b, n in enumerate(LENGTHS.tolist()):
            one = op("matrix_tree_marginals")(s[b : b + 1, : n + 1, : n + 1].contiguous(), LENGTHS[b : b + 1], None, multiroot)
            assert_same(one[0][0], whole[0][b])
            assert_same(one[1][0], whole[1][b, : n + 1, : n + 1])
            assert (whole[1][b, n + 1 :] == 0).all() and (whole[1][b, :, n + 1 :] == 0).all()


def test_zero_sizes() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert op("matrix_tree_logz")(torch.zeros(0, 5, 5), none, True).shape == (0,)
    assert op("matrix_tree_sample")(torch.zeros(0, 5, 5), none, torch.zeros(3, 0, dtype=torch.int64), True).shape == (3, 0, 5)
    logz, post = op("matrix_tree_marginals")(torch.full((2, 1, 1), NAN), torch.zeros(2, dtype=torch.int64), None, False)
    assert (logz == 0).all() and (post == 0).all()


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
def test_samples_are_the_references(isa: str, multiroot: bool, on_threads) -> None:
    lengths = torch.tensor([6, 0, 1, 2, 4])
    for scale in (1, 20, 400):
        s = forbid(normal(5, 7, 7, scale=scale), 0.1)
        seed = torch.randint(-(2**63), 2**63 - 1, (40, 5), generator=generator(2))
        heads = on_threads(lambda: op("matrix_tree_sample")(s, lengths, seed, multiroot))
        assert_same(heads, reference.matrix_tree_sample(s, lengths, seed, multiroot))


@pytest.mark.parametrize("multiroot", MODES)
def test_samples_have_the_right_frequencies(multiroot: bool) -> None:
    """Of all 125 (64) trees of 4 words: chi-square with that many degrees of freedom, five standard deviations."""
    n, draws = 4, 40_000
    s = normal(1, n + 1, n + 1, seed=5)
    every = trees(n, multiroot)
    total = torch.stack([sum(s[0, d, h] for d, h in enumerate(t, 1)) for t in every])
    expected = draws * total.softmax(0)
    seed = torch.randint(-(2**63), 2**63 - 1, (draws, 1), generator=generator(3))
    heads = op("matrix_tree_sample")(s, torch.tensor([n]), seed, multiroot)[:, 0, 1:]
    place = {t: i for i, t in enumerate(every)}
    observed = torch.bincount(torch.tensor([place[tuple(t)] for t in heads.tolist()]), minlength=len(every))
    usual = expected >= 5
    chi = ((observed - expected)[usual] ** 2 / expected[usual]).sum()
    freedom = int(usual.sum()) - 1
    assert abs(float(chi) - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("multiroot", MODES)
def test_long_samples_follow_the_posteriors(isa: str, multiroot: bool) -> None:
    n, draws = 30, 4000
    s = normal(1, n + 1, n + 1, scale=2)
    crf = MatrixTreeCRF(s, multiroot=multiroot)
    heads = crf.sample((draws,), generator(1))
    assert tree.is_tree(heads[:, 0], multiroot=multiroot).all()
    share = torch.nn.functional.one_hot(heads[:, 0, 1:], n + 1).double().mean(0)
    p = crf.marginals[0, 1:]
    assert ((share - p).abs() < 5.5 * (p * (1 - p) / draws).sqrt() + 3 / draws).all()


# ---- derivatives and the distribution --------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
def test_gradcheck(multiroot: bool) -> None:
    s, lengths = normal(3, 5, 5).requires_grad_(), torch.tensor([4, 0, 3])
    weight = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: ladder.matrix_tree_logz(x, lengths, multiroot), s)
    assert gradgradcheck(lambda x: ladder.matrix_tree_logz(x, lengths, multiroot), s)
    assert gradgradcheck(lambda x: ladder.log_partition(x, None, lengths, 3 if multiroot else 4), s)
    assert gradcheck(lambda x, w: ladder.matrix_tree_marginals(x, lengths, w, multiroot), (s, weight))
    assert gradcheck(lambda x: ladder.matrix_tree_marginals(x, lengths, None, multiroot), s)


def test_third_order_says_so() -> None:
    s = normal(1, 4, 4).requires_grad_()
    (first,) = torch.autograd.grad(MatrixTreeCRF(s).log_partition.sum(), s, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), s, create_graph=True)
    with pytest.raises(NotImplementedError, match="third order"):
        torch.autograd.grad(second.sum(), s)


@pytest.mark.parametrize("multiroot", MODES)
def test_distribution(multiroot: bool) -> None:
    n = 4
    s, other = normal(2, n + 1, n + 1).requires_grad_(), normal(2, n + 1, n + 1, seed=1).requires_grad_()
    p, q = MatrixTreeCRF(s, multiroot=multiroot), MatrixTreeCRF(other, multiroot=multiroot)
    every = torch.tensor([(-1, *t) for t in trees(n, multiroot)])[:, None].expand(-1, 2, -1)
    logs, others = p.log_prob(every), q.log_prob(every)
    assert_close(logs.exp().sum(0), torch.ones(2, dtype=torch.float64), terms=30)
    assert_close(p.entropy(), -(logs.exp() * logs).sum(0), terms=100)
    assert_close(p.cross_entropy(q), -(logs.exp() * others).sum(0), terms=100)
    assert_close(torch.distributions.kl_divergence(p, q), (logs.exp() * (logs - others)).sum(0), terms=100)
    for value, want in ((p.entropy(), -(logs.exp() * logs).sum(0)), (p.kl_divergence(q), (logs.exp() * (logs - others)).sum(0))):
        got = torch.autograd.grad(value.sum(), (s, other), retain_graph=True, allow_unused=True)
        expected = torch.autograd.grad(want.sum(), (s, other), retain_graph=True, allow_unused=True)
        for a, b in zip(got, expected, strict=True):
            assert (a is None) == (b is None) and (a is None or (a - b).abs().max() < 1e-12)
    best = logs.argmax(0)
    assert_same(p.argmax, every[best, torch.arange(2)])
    assert_close(p.max, logs.amax(0).detach() + p.log_partition.detach(), terms=30)
    posterior = torch.nn.functional.one_hot(every[:, 0, 1:], n + 1).double()
    score_of = torch.einsum("tdh,bdh->tb", posterior, p.marginals[:, 1:].detach())
    assert_same(p.mbr(), every[score_of.argmax(0), torch.arange(2)])
    assert_close(p.log_count, torch.full((2,), math.log(len(every)), dtype=torch.float64))


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("labels", [0, 2])
def test_max_marginals(multiroot: bool, labels: int) -> None:
    """By the list of all trees, some arcs forbidden; a shorter sentence is the longer one without its last words."""
    n = 4
    s = normal(3, n + 1, n + 1, *(labels,) * (labels > 0))
    s[0, 2, 1], s[1, 3, :3] = -math.inf, -math.inf
    lengths = torch.tensor([n, n, 2])
    got = MatrixTreeCRF(s, lengths, multiroot).max_marginals()
    top = s.amax(3) if labels else s
    want = torch.full_like(s, -math.inf)
    for b in range(3):
        for heads in trees(int(lengths[b]), multiroot):
            arcs = [(b, d + 1, h) for d, h in enumerate(heads)]
            total = sum(top[a] for a in arcs)
            for a in arcs:
                want[a] = torch.maximum(want[a], total - top[a] + s[a] if top[a] > -math.inf else torch.full_like(want[a], -math.inf))
    assert_close(got, want, terms=32)


@pytest.mark.parametrize("multiroot", MODES)
def test_partial_annotation(multiroot: bool) -> None:
    n = 4
    p = MatrixTreeCRF(normal(1, n + 1, n + 1), multiroot=multiroot)
    every = torch.tensor([(-1, *t) for t in trees(n, multiroot)])[:, None]
    logs = p.log_prob(every)
    assert_close(p.log_prob(every, partial=True), logs, terms=100)
    assert p.log_prob(torch.full((1, n + 1), -1), partial=True).abs().max() < 1e-12
    some = torch.tensor([[-1, -1, 1, -1, 2]])
    agree = (every[:, 0, 2] == 1) & (every[:, 0, 4] == 2)
    assert_close(p.log_prob(some, partial=True), logs[agree].logsumexp(0), terms=100)


def test_projective_is_less() -> None:
    """The kinds share one interface and their sums are ordered."""
    s, lengths = normal(3, 9, 9), [8, 4, 1]
    for multiroot in MODES:
        every, projective = MatrixTreeCRF(s, lengths, multiroot), tree.DependencyCRF(s, lengths, multiroot=multiroot)
        assert type(every).__mro__[1] is type(projective)
        with pytest.raises(TypeError, match="MatrixTreeCRF"):
            every.cross_entropy(projective)


def test_labels() -> None:
    s = normal(2, 5, 5, 3)
    p = MatrixTreeCRF(s, [4, 2])
    plain = MatrixTreeCRF(s.logsumexp(3), [4, 2])
    assert_close(p.log_partition, plain.log_partition, terms=30)
    assert_close(p.marginals.sum(3), plain.marginals, terms=30)
    assert p.sample((3,)).shape == (3, 2, 5, 2) and p.argmax.shape == (2, 5, 2)


def test_bad_input() -> None:
    s = torch.zeros(2, 4, 4)
    for call, error, word in (
        (lambda: MatrixTreeCRF(s[0]), ValueError, "arc"),
        (lambda: MatrixTreeCRF(s.long()), TypeError, "arc"),
        (lambda: MatrixTreeCRF(s, [3, 4]), ValueError, "lengths"),
        (lambda: MatrixTreeCRF(s, [3]), ValueError, "lengths"),
        (lambda: MatrixTreeCRF(s, multiroot=1), TypeError, "multiroot"),
        (lambda: MatrixTreeCRF(s).log_prob(torch.zeros(2, 3, dtype=torch.int64)), ValueError, "value"),
        (lambda: MatrixTreeCRF(s).log_prob(torch.full((2, 4), 9)), IndexError, "heads"),
        (lambda: MatrixTreeCRF(s).kbest(0), ValueError, "k >= 1"),
    ):
        with pytest.raises(error, match=word):
            call()
    raw = torch.ops.structops
    three = torch.tensor([3, 3])
    for call in (
        lambda: raw.matrix_tree_logz(s, torch.tensor([3, 4]), True),
        lambda: raw.matrix_tree_logz(s[:, :3], three, True),
        lambda: raw.matrix_tree_marginals(s, three, torch.ones(2, dtype=torch.float64), True),
        lambda: raw.matrix_tree_hvp(s, three, None, s.double(), True),
        lambda: raw.matrix_tree_sample(s, three, torch.zeros(1, 3, dtype=torch.int64), True),
    ):
        with pytest.raises(RuntimeError, match="structops"):
            call()
