"""compat.torch_struct: semirings and the classes of dynamic programs, kernels against recurrences and against enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import generator
from compare import assert_close
from structops.compat import torch_struct as ts
from torch import Tensor
from torch.autograd import gradcheck

STRUCTS = {
    "chain": (ts.LinearChain, (3, 2, 2), {}),
    "segments": (ts.SemiMarkov, (3, 3, 2, 2), {}),
    "dep": (ts.DepTree, (4, 4), {}),
    "single": (ts.DepTree, (4, 4), {"multiroot": False}),
    "labelled": (ts.DepTree, (4, 4, 2), {}),
    "spans": (ts.CKY_CRF, (4, 4, 2), {}),
}
LENGTHS = torch.tensor([4, 2, 3])
names = pytest.mark.parametrize("name", STRUCTS)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def make(name: str, semiring=ts.LogSemiring, seed: int = 0):
    kind, shape, options = STRUCTS[name]
    return kind(semiring, **options), rand(3, *shape, seed=seed)


@names
@pytest.mark.parametrize("semiring", [ts.LogSemiring, ts.MaxSemiring, ts.KMaxSemiring(3)])
def test_kernels_against_recurrences(name: str, semiring) -> None:
    struct, p = make(name, semiring)
    assert_close(struct.logpartition(p, LENGTHS)[0], struct._dp_standard(p, LENGTHS)[0], terms=128)
    assert_close(struct.marginals(p, LENGTHS), struct._gradient(p, LENGTHS).detach(), terms=128)


@names
def test_expectations(name: str) -> None:
    struct, p = make(name)
    q = make(name, seed=1)[1]
    kind, _, options = STRUCTS[name]
    evaluate = lambda semiring, x: kind(semiring, **options).sum(x, LENGTHS)
    crf = struct._distribution(p, LENGTHS)
    other = struct._distribution(q, LENGTHS)
    assert_close(evaluate(ts.EntropySemiring, p), crf.entropy, terms=256)
    assert_close(evaluate(ts.CrossEntropySemiring, (p, q)), crf.cross_entropy(other), terms=256)
    assert_close(evaluate(ts.KLDivergenceSemiring, (p, q)), crf.kl(other), terms=256)
    assert_close(evaluate(ts.StdSemiring, torch.ones_like(p)), crf.count, terms=64)
    assert_close(evaluate(ts.StdSemiring, p.exp()).log(), crf.partition, terms=128)


@names
def test_samples(name: str) -> None:
    torch.manual_seed(3)
    kind, _, options = STRUCTS[name]
    _, p = make(name)
    packed = kind(ts.MultiSampledSemiring, **options).marginals(p, LENGTHS)
    struct = kind(ts.LogSemiring, **options)
    for j in range(ts.semirings.SAMPLES):
        one = ts.MultiSampledSemiring.to_discrete(packed, j)
        assert ((one == 0) | (one == 1)).all()
        assert (struct._distribution(p, LENGTHS).log_prob(one[None]) <= 0).all()
    for semiring in (ts.SampledSemiring, ts.GumbelMaxSemiring(0.5), ts.GumbelCRFSemiring(0.5)):
        drawn = kind(semiring, **options)._gradient(p, LENGTHS)
        assert (struct._distribution(p, LENGTHS).log_prob(drawn.detach().round()[None]) > -1e9).all()


def test_samples_have_the_right_frequencies() -> None:
    torch.manual_seed(0)
    p = rand(1, 2, 2, 2)
    total = sum(ts.LinearChain(ts.SampledSemiring)._gradient(p, None) for _ in range(600))
    assert ((total / 600 - ts.LinearChain().marginals(p)).abs() < 0.08).all()


def test_sparsemax() -> None:
    p = rand(2, 3, 2, 2).requires_grad_()
    struct = ts.LinearChain(ts.SparseMaxSemiring)
    assert gradcheck(lambda x: struct.sum(x), (p,))
    marginals = struct.marginals(p)
    assert_close(marginals.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64), terms=16)
    assert torch.autograd.grad(marginals.square().sum(), p)[0].isfinite().all()
    w = ts.semirings.sparsemax(torch.tensor([0.3, 0.2, -5.0]))
    assert torch.allclose(w, torch.tensor([0.55, 0.45, 0.0]))


@pytest.mark.parametrize("semiring", [ts.CrossEntropySemiring, ts.KLDivergenceSemiring])
def test_potentials_that_depend_on_each_other(semiring) -> None:
    p = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator(0))
    want = ts.LinearChain(semiring).marginals((p, 2 * p))
    assert not any(t.requires_grad for t in want)
    p = p.clone().requires_grad_()
    for a, b in zip(ts.LinearChain(semiring).marginals((p, 2 * p)), want, strict=True):
        assert a.requires_grad
        assert_close(a.detach(), b, terms=64)
    with torch.no_grad():
        assert not any(t.requires_grad for t in ts.LinearChain(semiring).marginals((p, 2 * p)))


def test_soft_maximum() -> None:
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    out = ts.TempMax(3.0).sum(x)
    assert out.item() == 2.0
    assert torch.allclose(torch.autograd.grad(out.sum(), x)[0], torch.softmax(3 * x.detach(), -1))


@pytest.mark.parametrize("wrap", [lambda s: ts.CheckpointSemiring(s, 1), lambda s: ts.CheckpointShardSemiring(s, 3)])
@pytest.mark.parametrize("semiring", [ts.LogSemiring, ts.EntropySemiring])
def test_checkpoints(semiring, wrap) -> None:
    a, b = (semiring.convert(rand(2, 3, 4, seed=1)).requires_grad_(), semiring.convert(rand(2, 4, 2, seed=2)).requires_grad_())
    results = []
    for each in (semiring, wrap(semiring)):
        out = each.matmul(a, b)
        results.append((out.detach(), *torch.autograd.grad(out[..., 1].sum(), (a, b))))
    for x, y in zip(*results, strict=True):
        assert_close(x, y, terms=32)


# ---- alignments ------------------------------------------------------------------------------------------------------


def paths(i: int, j: int, N: int, M: int) -> list[list[tuple[int, int, int]]]:
    """Continuations from (i, j) to (N - 1, M - 1) as (row, column, step)."""
    if (i, j) == (N - 1, M - 1):
        return [[]]
    steps = [(0, 1, 0), (1, 1, 1), (1, 0, 2)]
    return [
        [(i + di, j + dj, s), *rest] for di, dj, s in steps if i + di < N and j + dj < M for rest in paths(i + di, j + dj, N, M)
    ]


def test_alignment() -> None:
    p = rand(2, 3, 4, 3)
    lengths = torch.tensor([3, 2])
    dist = ts.AlignmentCRF(p, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        events = [[(0, 0, 1), *rest] for rest in paths(0, 0, n, 4)]
        scores = torch.stack([sum(p[(b, *c)] for c in path) for path in events])
        prob = scores.softmax(0)
        assert_close(dist.partition[b], scores.logsumexp(0), terms=64)
        assert_close(dist.entropy[b], -(prob * prob.log()).sum(), terms=64)
        assert dist.count[b] == len(events)
        top = scores.topk(3)
        assert_close(dist.kmax(3)[:, b], top.values, terms=32)
        for k in range(3):
            want = torch.zeros(3, 4, 3, dtype=torch.float64)
            for c in events[int(top.indices[k])]:
                want[c] = 1
            assert torch.equal(dist.topk(3)[k, b], want)
        marginals = torch.zeros(3, 4, 3, dtype=torch.float64)
        for share, path in zip(prob, events, strict=True):
            for c in path:
                marginals[c] += share
        assert_close(dist.marginals[b].detach(), marginals, terms=64)
    assert torch.equal(dist.argmax, dist.topk(1)[0])
    assert dist.sample((2,)).shape == (2, *p.shape)
    assert_close(dist.kl(dist), torch.zeros(2, dtype=torch.float64), terms=64)
    local = ts.AlignmentCRF(p, local=True).max
    assert (local >= ts.AlignmentCRF(p).max).all()
    with pytest.raises(ValueError, match="lengths within"):
        _ = ts.AlignmentCRF(p, lengths=[4, 1]).partition


def test_gumbel_crf() -> None:
    torch.manual_seed(0)
    p = rand(2, 3, 2, 2).requires_grad_()
    dist = ts.LinearChainCRF(p)
    drawn = dist.gumbel_crf(0.7)
    assert (dist.log_prob(drawn.detach().round()[None]) <= 0).all()
    assert torch.autograd.grad(drawn[:, 0].square().sum(), p)[0].isfinite().all()


# ---- grammars, models of classes one after another -------------------------------------------------------------------


def test_grammar() -> None:
    terms, rules, roots = rand(2, 3, 2), rand(2, 2, 4, 4, seed=1), rand(2, 2, seed=2)
    want = []
    for b in range(2):
        total = []
        for a, x in itertools.product(range(2), repeat=2):
            for t in itertools.product(range(2), repeat=3):
                lex = sum(terms[b, i, t[i]] for i in range(3))
                total.append(roots[b, a] + rules[b, a, x, 2 + t[2]] + rules[b, x, 2 + t[0], 2 + t[1]] + lex)
                total.append(roots[b, a] + rules[b, a, 2 + t[0], x] + rules[b, x, 2 + t[1], 2 + t[2]] + lex)
        want.append(torch.stack(total))
    every = torch.stack(want)
    assert_close(ts.CKY().sum((terms, rules, roots)), every.logsumexp(1), terms=128)
    assert_close(ts.CKY(ts.MaxSemiring).sum((terms, rules, roots)), every.amax(1), terms=32)
    parts = ts.CKY(ts.MaxSemiring).marginals((terms, rules, roots))
    assert_close(ts.CKY().score((terms, rules, roots), parts).detach(), every.amax(1), terms=32)


def test_autoregressive() -> None:
    table = rand(1, 4, 3).float()

    def model(tokens: Tensor, state):
        at = state[0][:, :1]
        n = tokens.shape[1]
        rows = torch.cat([table[0], torch.zeros(1, 3)])[(at + torch.arange(n)).clamp(max=4)]
        return rows, (state[0] + n,)

    auto = ts.Autoregressive(model, (torch.zeros(2, 1, dtype=torch.int64),), 3, 4)
    best, value, _ = auto.greedy_max()
    assert torch.equal(best.argmax(-1)[0], table[0].argmax(-1))
    assert torch.allclose(auto.log_prob(best[None])[0], value)
    every = auto.beam_topk(81)
    assert len({tuple(p.flatten().tolist()) for p in every[:, 0]}) == 81
    assert torch.allclose(auto.log_prob(every).exp().sum(0), torch.ones(2), atol=1e-4)
    torch.manual_seed(0)
    two = auto.sample_without_replacement((2,))
    assert (two[0] != two[1]).flatten(1).any(1).all()
    first = sum(auto.sample_without_replacement((1,))[0] for _ in range(400)) / 400
    assert ((first - table.softmax(-1)).abs() < 0.1).all()
    assert auto.sample((5,)).shape == (5, 2, 4, 3)
