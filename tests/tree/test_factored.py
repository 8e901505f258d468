"""Charts with factored sibling scores: the reference against the dense charts, the kernels against the reference, every query of
DependencyCRF against the one that is given the scores themselves."""

from __future__ import annotations

import pytest
import torch
from cases import generator, remembered
from compare import assert_close, assert_same
from structops import backends, tree
from structops.kernels.tree import chart_ref
from structops.kernels.tree import factored_ref as reference
from structops.tree import DependencyCRF
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from tree_cases import forbid

chart_ref = remembered(chart_ref)
reference = remembered(reference)

LENGTHS = torch.tensor([9, 0, 1, 17, 2, 12, 5, 3, 16, 4, *[8, 7, 9] * 8, 30])
N = 31
OPS = ("factored_logz", "factored_marginals", "factored_hvp")


def op(name: str):
    return backends.implementation(name)


def draw(B: int, N: int, D: int, dtype: torch.dtype = torch.float64, seed: int = 0, p: float = 0.1) -> tuple[Tensor, ...]:
    g = generator(seed)
    score = forbid(torch.randn(B, N, N, dtype=torch.float64, generator=g), p, seed)
    factors = (torch.randn(B, N, D, dtype=torch.float64, generator=g) * D**-0.17 for _ in range(3))
    return tuple(t.to(dtype) for t in (score, *factors))


def dense(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.einsum("bid,bjd,bkd->bijk", x, y, z)


# ---- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1])
def test_reference_is_the_dense_chart(kind: int) -> None:
    lengths = torch.tensor([5, 0, 3, 1])
    score, x, y, z = draw(4, 6, 3)
    sib = dense(x, y, z).requires_grad_()
    assert_same(reference.factored_logz(score, x, y, z, lengths, kind), chart_ref.chart_logz(score, sib, lengths, kind))
    _, post, *grads = reference.factored_marginals(score, x, y, z, lengths, None, kind)
    _, expected, p = chart_ref.chart_marginals(score, sib, lengths, None, kind)
    assert_same(post, expected)
    leaves = [t.clone().requires_grad_() for t in (x, y, z)]
    for a, b in zip(grads, torch.autograd.grad((dense(*leaves) * p).sum(), leaves), strict=True):
        assert_close(a, b, terms=64)


# ---- the kernels -----------------------------------------------------------------------------------------------------


def arguments(name: str, dtype: torch.dtype, kind: int, D: int) -> tuple:
    B = len(LENGTHS)
    given = draw(B, N, D, dtype, seed=D)
    past = torch.arange(N) > LENGTHS[:, None]
    score, *factors = given
    score = torch.where(past[:, :, None] | past[:, None], float("nan"), score)
    given = (score, *(torch.where(past[..., None], float("nan"), t) for t in factors))
    weight = torch.rand(B, generator=generator(7), dtype=torch.float64).to(dtype)
    if name == "factored_logz":
        return (*given, LENGTHS, kind)
    if name == "factored_marginals":
        return (*given, LENGTHS, weight, kind)
    return (*given, LENGTHS, weight, *draw(B, N, D, dtype, seed=50 + D, p=0.0), kind)


def flat(out) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPS)
def test_kernels(isa: str, name: str, dtype: torch.dtype, kind: int) -> None:
    for D in (1, 17):
        args = arguments(name, dtype, kind, D)
        expected = expected_results(name, dtype, kind, D)
        for i, (a, b) in enumerate(zip(flat(op(name)(*args)), expected, strict=True)):
            assert_close(a, b.double(), dtype, terms=4000, magnitude=4.0, what=(D, i))


_cache: dict = {}


def expected_results(name: str, dtype: torch.dtype, kind: int, D: int) -> tuple[Tensor, ...]:
    key = (name, dtype, kind, D)
    if key not in _cache:
        wide = [t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in arguments(name, dtype, kind, D)]
        _cache[key] = flat(getattr(reference, name)(*wide))
    return _cache[key]


@pytest.mark.parametrize("name", OPS)
def test_threads_and_company_change_nothing(name: str) -> None:
    args = arguments(name, torch.float32, 1, 5)
    try:
        results = []
        for t in (1, 2):
            torch.set_num_threads(t)
            results.append(flat(op(name)(*args)))
    finally:
        torch.set_num_threads(1)
    for a, b in zip(*results, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("B", [1, 40])
def test_scores_that_leave_float_charts(B: int) -> None:
    score, x, y, z = draw(B, 9, 2, torch.float32, p=0.0)
    x = x * 3e4
    lengths = torch.full((B,), 8)
    got = op("factored_logz")(score, x, y, z, lengths, 0)
    expected = reference.factored_logz(*(t.double() for t in (score, x, y, z)), lengths, 0)
    assert_close(got, expected, torch.float32, terms=256, magnitude=expected.abs().max().item())


def test_nan_belongs_to_its_sentence() -> None:
    score, x, y, z = draw(3, 7, 2, p=0.0)
    y[1, 4, 0] = float("nan")
    lengths = torch.tensor([6, 5, 6])
    out = op("factored_marginals")(score, x, y, z, lengths, None, 0)
    want = reference.factored_marginals(score, x, y, z, lengths, None, 0)
    for a, b in zip(out, want, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
    y[1, 4, 0] = 0
    x[:, 0] = z[:, 0] = float("nan")  # the root is no dependent and no sibling
    assert op("factored_logz")(score, x, y, z, lengths, 0).isfinite().all()


def test_empty() -> None:
    for shape in ((0, 4, 3), (2, 1, 3), (2, 4, 0)):
        B, n = shape[:2]
        score = torch.zeros(B, n, n)
        x = torch.zeros(shape)
        lengths = torch.full((B,), n - 1)
        logz, post, *grads = op("factored_marginals")(score, x, x, x, lengths, None, 1)
        assert logz.shape == (B,) and post.shape == score.shape and all(t.shape == shape for t in grads)
        assert_close(logz, chart_ref.chart_logz(score, None, lengths, 1).double(), torch.float32, terms=8)


# ---- DependencyCRF ---------------------------------------------------------------------------------------------------


def pair(multiroot: bool, seed: int = 0, dtype=torch.float64, L: int = 0) -> tuple[DependencyCRF, DependencyCRF]:
    lengths = torch.tensor([5, 3, 1, 0])
    arc, x, y, z = draw(4, 6, 3, dtype, seed)
    if L:
        arc = arc[..., None] + torch.randn(L, generator=generator(seed + 1), dtype=torch.float64).to(dtype)
    return DependencyCRF(arc, lengths, multiroot=multiroot, sib_factors=(x, y, z)), DependencyCRF(
        arc, lengths, dense(x, y, z), multiroot
    )


@pytest.mark.parametrize("multiroot", [False, True])
@pytest.mark.parametrize("L", [0, 2])
def test_every_query(multiroot: bool, L: int) -> None:
    ours, given = pair(multiroot, L=L)
    close = lambda a, b: assert_close(a, b.detach(), terms=512)
    close(ours.log_partition, given.log_partition)
    close(ours.marginals, given.marginals[0])
    close(ours.entropy(), given.entropy())
    close(ours.log_count, given.log_count)
    close(ours.max, given.max)
    assert torch.equal(ours.argmax, given.argmax) and torch.equal(ours.mbr(), given.mbr())
    value, trees = ours.kbest(3)
    close(value, given.kbest(3)[0])
    assert torch.equal(trees, given.kbest(3)[1])
    close(ours.max_marginals(), given.max_marginals())
    draws = (ours.sample((5,), generator(3)), given.sample((5,), generator(3)))
    assert torch.equal(*draws)
    close(ours.log_prob(draws[0]), given.log_prob(draws[0]))
    half = draws[0].clone()
    half[..., ::2] = -1
    close(
        ours.log_prob(half, partial=True) if not L else ours.log_prob(draws[0]),
        given.log_prob(half, partial=True) if not L else given.log_prob(draws[0]),
    )


def test_between_two_distributions() -> None:
    (p, p_), (q, q_) = pair(True, 1), pair(True, 2)
    q._chart = q._chart._replace(table=q._chart.table.clamp(min=-3))
    q_._chart = q_._chart._replace(table=q_._chart.table.clamp(min=-3))
    assert_close(p.cross_entropy(q), p_.cross_entropy(q_), terms=512)
    assert_close(p.kl_divergence(q), p_.kl_divergence(q_), terms=512)
    assert_close(q.kl_divergence(q), torch.zeros(4, dtype=torch.float64), terms=512)
    first = DependencyCRF(q._chart.table, q.lengths, multiroot=True)
    assert_close(p.cross_entropy(first), p_.cross_entropy(first), terms=512)
    assert_close(first.cross_entropy(q), first.cross_entropy(q_), terms=512)
    with pytest.raises(ValueError, match="sib_factors in both"):
        p.cross_entropy(q_)


def test_gradients() -> None:
    arc, x, y, z = (t.requires_grad_() for t in draw(3, 5, 2, p=0.0))
    lengths = torch.tensor([4, 2, 0])
    f = lambda a, x, y, z: tree.dependency_log_partition(a, lengths, sib_factors=(x, y, z))
    assert gradcheck(f, (arc, x, y, z)) and gradgradcheck(f, (arc, x, y, z))
    entropy = lambda a, x, y, z: DependencyCRF(a, lengths, sib_factors=(x, y, z)).entropy()
    assert gradcheck(entropy, (arc, x, y, z))
    log_prob = lambda a, x, y, z: DependencyCRF(a, lengths, sib_factors=(x, y, z)).log_prob(torch.tensor([[0, 0, 1, 2, 1]] * 3))
    assert gradcheck(log_prob, (arc, x, y, z)) and gradgradcheck(log_prob, (arc, x, y, z))


def test_gradients_agree_with_the_dense_ones() -> None:
    arc, x, y, z = draw(20, 12, 4, torch.float64, p=0.0)
    lengths = torch.arange(20) % 12
    grads = []
    for factored in (True, False):
        leaves = [t.clone().requires_grad_() for t in (arc, x, y, z)]
        given = {"sib_factors": tuple(leaves[1:])} if factored else {"sib": dense(*leaves[1:])}
        tree.dependency_log_partition(leaves[0], lengths, **given).sum().backward()
        grads.append([t.grad for t in leaves])
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, terms=256)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half(dtype: torch.dtype) -> None:
    arc, x, y, z = (t.requires_grad_() for t in draw(3, 6, 2, dtype, p=0.0))
    out = tree.dependency_log_partition(arc, None, sib_factors=(x, y, z))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert x.grad.dtype == dtype and arc.grad.isfinite().all()


def test_compile() -> None:
    arc, x, y, z = draw(3, 5, 2, p=0.0)
    f = lambda a, x, y, z: tree.dependency_log_partition(a, None, sib_factors=(x, y, z)).sum()
    results = []
    for g in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in (arc, x, y, z)]
        g(*leaves).backward()
        results.append([t.grad for t in leaves])
    for a, b in zip(*results, strict=True):
        assert_close(a, b, terms=64)


def test_errors() -> None:
    arc, x, y, z = draw(2, 5, 3, torch.float32, p=0.0)
    for given, error, match in (
        (x, TypeError, "three tensors"),
        ((x, y), TypeError, "three tensors"),
        ((x, y, z.double()), TypeError, "z of dtype"),
        ((x, y[..., :2], z), ValueError, "y of shape"),
        ((x[:1], y, z), ValueError, "x of shape"),
        ((x, y, 3), TypeError, "z to be a torch.Tensor"),
    ):
        with pytest.raises(error, match=match):
            DependencyCRF(arc, sib_factors=given)
    with pytest.raises(ValueError, match="sib_factors without sib and grand"):
        DependencyCRF(arc, sib=dense(x, y, z), sib_factors=(x, y, z))
