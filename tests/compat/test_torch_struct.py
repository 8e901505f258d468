"""compat.torch_struct: layouts and conventions against structops.tree and enumeration, and the defects it does not share."""

from __future__ import annotations

import doctest
import itertools
import sys

import pytest
import torch
from cases import generator
from compare import assert_close, assert_same
from structops import tree
from structops.compat import torch_struct
from structops.compat.torch_struct import (
    HMM,
    DependencyCRF,
    LinearChainCRF,
    NonProjectiveDependencyCRF,
    SemiMarkovCRF,
    SentCFG,
    TreeCRF,
)
from torch import Tensor
from tree_cases import NINF, is_tree

LENGTHS = torch.tensor([4, 2, 3])
N, B, C, K = 4, 3, 2, 3


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def make(name: str, seed: int = 0, lengths: Tensor | None = LENGTHS):
    shape = {
        "dep": (N, N),
        "single": (N, N),
        "labelled": (N, N, C),
        "tree": (N, N, C),
        "chain": (N - 1, C, C),
        "segments": (N - 1, K, C, C),
    }[name]
    kind = {"tree": TreeCRF, "chain": LinearChainCRF, "segments": SemiMarkovCRF}.get(name, DependencyCRF)
    options = {"multiroot": False} if name == "single" else {}
    return kind(rand(B, *shape, seed=seed), lengths, **options)


def every_event(name: str, n: int) -> Tensor:
    """All structures of one sentence of n words as events [count, 1, ..], from the k best of uniform potentials."""
    p = make(name)
    uniform = type(p)(
        torch.zeros_like(p.log_potentials[:1]), torch.tensor([n]), **({"multiroot": False} if name == "single" else {})
    )
    events = uniform.topk(int(uniform.count))
    assert len({tuple(e.flatten().tolist()) for e in events}) == len(events) == uniform.count
    return events


NAMES = ["dep", "single", "labelled", "tree", "chain", "segments"]


@pytest.mark.parametrize("name", NAMES)
def test_all_queries_by_enumeration(name: str) -> None:
    p, q = make(name), make(name, seed=5)
    for b, n in enumerate(LENGTHS.tolist()):
        events = every_event(name, n)[:, 0]
        s, t = ((events * d.log_potentials[b]).flatten(1).sum(1) for d in (p, q))
        prob = (s - s.logsumexp(0)).exp()
        assert_close(p.partition[b], s.logsumexp(0), terms=64)
        assert_close(p.marginals[b], torch.einsum("s,s...->...", prob, events), terms=64)
        assert_close(p.entropy[b], -(prob * prob.log()).sum(), terms=256)
        cross = t.logsumexp(0) - (prob * t).sum()
        assert_close(p.cross_entropy(q)[b], cross, terms=256)
        assert_close(p.kl(q)[b], cross - p.entropy[b], terms=512)
        ranked, order = s.sort(descending=True)
        k = min(3, len(ranked))
        assert_close(p.kmax(3)[:k, b], ranked[:k], terms=64)
        assert (p.kmax(3)[k:, b] == NINF).all() and (p.topk(3)[k:, b] == 0).all()
        assert_same(p.topk(3)[:k, b], events[order[:k]])
        assert_same(p.argmax[b], events[order[0]])
        assert_close(p.max[b], ranked[0], terms=64)
        assert p.count[b] == len(events)
        value = torch.zeros(len(events), *p.log_potentials.shape, dtype=torch.int64)
        value[:, b] = events.long()
        assert_close(p.log_prob(value)[:, b], prob.log(), terms=64)
    drawn = p.sample((7,))
    assert drawn.shape == (7, *p.log_potentials.shape) and drawn.dtype == torch.float64
    assert p.log_prob(drawn).isfinite().all() and (p.marginals[drawn.sum(0) > 0] > 0).all()
    assert p.batch_shape == (B,) and p.event_shape == p.log_potentials.shape[1:]
    frequency = p.sample((2000,)).mean(0)
    assert ((frequency - p.marginals).abs() < 0.08).all()


@pytest.mark.parametrize("name", NAMES)
def test_events_and_sequences(name: str) -> None:
    p = make(name)
    event = p.argmax.long()
    if name == "labelled":
        event = event.sum(-1)
    sequence, extra = p.from_event(event)
    if name == "tree":
        assert_same(sequence, event)
    else:
        assert_same(p.to_event(sequence, extra, LENGTHS), event)


def test_counts() -> None:
    lengths = torch.arange(1, 6)
    zeros = lambda *shape: torch.zeros(5, *shape, dtype=torch.float64)
    assert DependencyCRF(zeros(5, 5), lengths).count.tolist() == [1, 3, 12, 55, 273]
    assert DependencyCRF(zeros(5, 5), lengths, multiroot=False).count.tolist() == [1, 2, 7, 30, 143]
    assert TreeCRF(zeros(5, 5, 1), lengths).count.tolist() == [1, 1, 2, 5, 14]
    assert LinearChainCRF(zeros(4, 2, 2), lengths).count.tolist() == [2, 4, 8, 16, 32]
    assert SemiMarkovCRF(zeros(4, 3, 1, 1), lengths).count.tolist() == [1, 1, 2, 3, 5]  # steps of 1 and 2


def test_layout_of_dependencies() -> None:
    """ts[b, h, m] is arc[b, m + 1, h + 1], ts[b, m, m] is arc[b, m + 1, 0]."""
    p = make("dep")
    arc = torch.zeros(B, N + 1, N + 1, dtype=torch.float64)
    for h, m in itertools.product(range(N), repeat=2):
        arc[:, m + 1, 0 if h == m else h + 1] = p.log_potentials[:, h, m]
    for multiroot in (False, True):
        want = tree.DependencyCRF(arc, LENGTHS, None, multiroot)
        got = DependencyCRF(p.log_potentials, LENGTHS, multiroot=multiroot)
        assert_same(got.partition, want.log_partition)
        heads, _ = got.from_event(got.argmax)
        assert_same(heads, want.argmax[:, 1:].clamp(min=0))
    spans = make("tree")
    score = torch.zeros(B, N + 1, N + 1, C, dtype=torch.float64)
    score[:, :N, 1:] = spans.log_potentials
    assert_same(spans.partition, tree.SpanCRF(score, LENGTHS).log_partition)


def test_the_root_mode_belongs_to_the_object() -> None:
    p = rand(1, 4, 4)
    multi = DependencyCRF(p, multiroot=True)
    single = DependencyCRF(p, multiroot=False)
    assert multi.partition > single.partition


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_the_callers_tensors(name: str) -> None:
    p = make(name)
    p.argmax, p.marginals, p.entropy, p.count  # noqa: B018
    assert not p.log_potentials.requires_grad and not p.marginals.requires_grad
    leaf = p.log_potentials.clone().requires_grad_()
    again = type(p)(leaf, LENGTHS, **({"multiroot": False} if name == "single" else {}))
    (g,) = torch.autograd.grad(again.partition.sum(), leaf)
    assert_close(g, p.marginals, terms=64)
    (g,) = torch.autograd.grad(again.max.sum(), leaf)
    assert_same(g, p.argmax)


def test_lengths_may_all_be_short() -> None:
    for name in NAMES:
        short = make(name, lengths=torch.tensor([2, 2, 2]))
        cut = 1 if name in ("chain", "segments") else 2
        pot = short.log_potentials[:, :cut] if cut == 1 else short.log_potentials[:, :2, :2]
        alone = type(short)(pot, **({"multiroot": False} if name == "single" else {}))
        assert_close(short.partition, alone.partition, terms=16)


@pytest.mark.parametrize("multiroot", [False, True])
@pytest.mark.parametrize("scale", [1, 30, 100])
def test_non_projective(multiroot: bool, scale: float) -> None:
    pot = scale * rand(B, N, N)
    p = NonProjectiveDependencyCRF(pot, LENGTHS, multiroot=multiroot)
    q = NonProjectiveDependencyCRF(scale * rand(B, N, N, seed=3), LENGTHS, multiroot=multiroot)
    for b, n in enumerate(LENGTHS.tolist()):
        trees = [t for t in itertools.product(range(n + 1), repeat=n) if is_tree(t) and (multiroot or t.count(0) == 1)]
        heads = torch.zeros(len(trees), N, dtype=torch.int64)
        heads[:, :n] = torch.tensor(trees)
        events = DependencyCRF.to_event(heads, None, torch.full((len(trees),), n)).double()
        s, t = ((events * d.log_potentials[b]).flatten(1).sum(1) for d in (p, q))
        prob = s.softmax(0)
        assert_close(p.partition[b], s.logsumexp(0), terms=64, magnitude=scale)
        assert_close(p.marginals[b], torch.einsum("s,s...->...", prob, events), terms=256, magnitude=scale)
        assert_close(p.entropy[b], s.logsumexp(0) - (prob * s).sum(), terms=256, magnitude=scale)
        assert_close(p.cross_entropy(q)[b], t.logsumexp(0) - (prob * t).sum(), terms=256, magnitude=scale)
        assert_same(p.argmax[b], events[s.argmax()])
        assert_close(p.max[b], s.max(), terms=64, magnitude=scale)
        assert p.count[b] == len(trees)
    assert_same(torch_struct.deptree_part(pot, multiroot, LENGTHS), p.partition)
    assert_same(torch_struct.deptree_nonproj(pot, multiroot, LENGTHS), p.marginals)
    assert p.log_prob(p.sample((5,))).isfinite().all()


def test_hmm() -> None:
    transition, emission, init = (rand(*s).log_softmax(0) for s in ((C, C), (5, C), (C,)))
    seen = torch.tensor([[0, 3, 4], [1, 1, 2]])
    want = []
    for row in seen.tolist():
        total = [
            init[z[0]]
            + sum(emission[o, s] for o, s in zip(row, z, strict=True))
            + sum(transition[b, a] for a, b in itertools.pairwise(z))
            for z in itertools.product(range(C), repeat=3)
        ]
        want.append(torch.stack(total).logsumexp(0))
    assert_close(HMM(transition, emission, init, seen).partition, torch.stack(want), terms=64)


def test_docstring_examples() -> None:
    for module in (torch_struct.distributions, torch_struct.chains, torch_struct.grammar, torch_struct.alignments):
        failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
        assert tried > 0 and failed == 0, module


def test_install() -> None:
    before = {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "torch_struct"}
    torch_struct.install(force=True)
    try:
        from torch_struct import TreeCRF as found

        assert found is TreeCRF
    finally:
        torch_struct.uninstall()
    assert {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "torch_struct"} == before


def test_grammar() -> None:
    """The recurrence of CKY in torch, and its gradients; events that score what max says."""
    NT, T = 2, 3
    pots = (rand(2, 4, T), rand(2, NT, NT + T, NT + T), rand(2, NT))
    d = SentCFG(pots, torch.tensor([4, 3]))
    assert_close(d.kmax(5)[0], d.max, terms=32)
    for few, events in zip(d.kmax(5), zip(*d.topk(5), strict=True), strict=True):
        assert_close(d.log_prob(events) + d.partition, few, terms=64)
    leaves = [t.clone().requires_grad_() for t in pots]
    want = torch_struct.CKY().sum(tuple(leaves), lengths=torch.tensor([4, 3]))
    assert_close(d.partition, want.detach(), terms=64)
    for got, grad in zip(d.marginals, torch.autograd.grad(want.sum(), leaves), strict=True):
        assert_close(got, grad, terms=64)
    best = d.argmax
    assert_close(d.log_prob(best) + d.partition, d.max, terms=32)
    assert [t.sum(tuple(range(1, t.dim()))).tolist() for t in best] == [[4.0, 3.0], [3.0, 2.0], [1.0, 1.0]]
    drawn = d.sample(5)
    assert drawn[1].shape == (5, 2, NT, NT + T, NT + T) and d.log_prob(drawn).shape == (5, 2)
    assert_close(d.kl(d), torch.zeros(2, dtype=torch.float64), terms=64)


def test_bad_input() -> None:
    p = rand(2, 3, 3)
    bad = [
        (ValueError, "log_potentials of shape", lambda: DependencyCRF(p[:, :2])),
        (ValueError, "log_potentials of shape", lambda: TreeCRF(p)),
        (ValueError, "log_potentials of shape", lambda: LinearChainCRF(p)),
        (ValueError, "log_potentials of shape", lambda: SemiMarkovCRF(p[:, :, None, None])),
        (ValueError, "value of shape", lambda: DependencyCRF(p).log_prob(p[:1])),
        (ValueError, "lengths within", lambda: DependencyCRF(p, [4, 1])),
        (TypeError, "terms, rules, roots", lambda: SentCFG(p)),
        (ValueError, "log_potentials of shape", lambda: torch_struct.AlignmentCRF(p)),
    ]
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()
