"""compat.supar: what is written in torch. Lexicalised trees by enumeration, mean field and belief propagation by their sums."""

from __future__ import annotations

import doctest

import pytest
import torch
from cases import generator
from compare import assert_close
from structops.compat.supar import structs
from structops.compat.supar.structs import lexicalized, semiring
from torch import Tensor


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def lexicalised(i: int, j: int) -> list[tuple[int, list, list]]:
    """(head word, arcs (dependent, head), spans) of every tree over the posts i..j; words are numbered from 1."""
    if j == i + 1:
        return [(j, [], [(i, j)])]
    found = []
    for k in range(i + 1, j):
        for h, arcs, spans in lexicalised(i, k):
            for g, more, others in lexicalised(k, j):
                for head, dep in ((h, g), (g, h)):
                    found.append((head, [*arcs, *more, (dep, head)], [(i, j), *spans, *others]))
    return found


@pytest.mark.parametrize("chained", [False, True])
def test_lexicalised_scores_that_depend_on_each_other(chained: bool) -> None:
    s = rand(2, 4, 4)
    other = (lambda t: 2 * t) if chained else (lambda t: t)
    want = structs.BiLexicalizedConstituencyCRF([s, other(s)])
    s = s.clone().requires_grad_()
    got = structs.BiLexicalizedConstituencyCRF([s, other(s)])
    for a, b in zip(got.marginals, want.marginals, strict=True):
        assert_close(a.detach(), b, terms=64)
    assert_close(got.entropy.detach(), want.entropy, terms=64)


def test_lexicalised_trees() -> None:
    lens = torch.tensor([4, 1, 3, 0])
    s = [rand(4, 5, 5).requires_grad_(), rand(4, 5, 5, seed=1)]
    p = structs.BiLexicalizedConstituencyCRF(s, lens)
    q = structs.BiLexicalizedConstituencyCRF([rand(4, 5, 5, seed=2), rand(4, 5, 5, seed=3)], lens)
    for b, n in enumerate(lens.tolist()):
        if n == 0:
            assert p.log_partition[b] == 0
            continue
        every = lexicalised(0, n)
        totals = []
        for crf in (p, q):
            dep, con = (t[b].detach() for t in crf.scores)
            totals.append(torch.stack([dep[h, 0] + sum(dep[a] for a in arcs) + sum(con[c] for c in spans) for h, arcs, spans in every]))
        log_p = totals[0] - totals[0].logsumexp(0)
        log_q = totals[1] - totals[1].logsumexp(0)
        assert_close(p.log_partition[b].detach(), totals[0].logsumexp(0), terms=64)
        assert_close(p.max[b].detach(), totals[0].max(), terms=64)
        assert_close(p.entropy[b].detach(), -(log_p.exp() * log_p).sum(), terms=256)
        assert_close(p.kl(q)[b].detach(), (log_p.exp() * (log_p - log_q)).sum(), terms=256)
        h, arcs, spans = every[int(totals[0].argmax())]
        heads, brackets = p.argmax
        assert heads[b].tolist() == [dict([*arcs, (h, 0)]).get(d, 0) for d in range(5)]
        assert [tuple(c) for c in brackets[b]] == sorted(spans, key=lambda c: (c[0], -c[1]))
    cons = torch.zeros(4, 5, 5, dtype=torch.bool)
    for b, tree in enumerate(p.argmax[1]):
        for left, right in tree:
            cons[b, left, right] = True
    assert_close(p.log_prob((p.argmax[0], cons)).detach(), (p.max - p.log_partition).detach(), terms=64)
    assert torch.autograd.grad(p.entropy.sum(), s[0])[0].isfinite().all()
    for call in (lambda: p.kmax(2), lambda: p.sample()):
        with pytest.raises(NotImplementedError):
            call()
    assert doctest.testmod(lexicalized).failed == 0


def test_mean_field_of_heads() -> None:
    N = 5
    mask = torch.tensor([[False, True, True, True, True], [False, True, True, False, False]])
    arc, sib = rand(2, N, N), rand(2, N, N, N, seed=1)
    want = arc.clone()
    for _ in range(2):
        p, new = want.softmax(-1), arc.clone()
        for b, n in enumerate((4, 2)):
            for d in range(n + 1):
                for h in range(n + 1):
                    new[b, d, h] += sum(p[b, s, h] * sib[b, d, h, s] for s in range(n + 1) if s not in (d, h))
        want = new
    module = structs.DependencyMFVI(2)
    assert_close(module((arc, sib), mask), want.softmax(-1), terms=64)
    target = torch.zeros(2, N, dtype=torch.int64)
    loss, _ = module((arc, sib), mask, target)
    assert_close(loss, -want.log_softmax(-1)[..., 0][mask].mean(), terms=64)


def test_belief_propagation_of_heads() -> None:
    """By the messages written out."""
    N, mask = 4, torch.tensor([[False, True, True, True]])
    arc, sib = rand(1, N, N), rand(1, N, N, N, seed=1)
    module = structs.DependencyLBP(3)
    q, message = arc[0], torch.zeros(N, N, N, dtype=torch.float64)
    for _ in range(3):
        q = q.log_softmax(-1)
        out = torch.zeros_like(message)
        for d in range(N):  # the arc of d tells the arc of s, by head of s
            for s in range(N):
                m = q[d] - message[d, :, s]
                allowed = torch.tensor([s not in (d, h) for h in range(N)])
                told = torch.logaddexp(m.logsumexp(0), torch.where(allowed, m + sib[0, d, :, s], -1e300))
                out[s, :, d] = told.log_softmax(0)
        message = out
        q = arc[0].clone()
        for d in range(N):
            for h in range(N):
                q[d, h] += sum(message[d, h, s] for s in range(N) if s not in (d, h))
    assert_close(module((arc, sib), mask)[0], q.softmax(-1), terms=256)


def test_binary_variables() -> None:
    N = 4
    mask = torch.ones(2, N, N, dtype=torch.bool)
    edge, a, b, c = rand(2, N, N), rand(2, N, N, N, seed=1), rand(2, N, N, N, seed=2), rand(2, N, N, N, seed=3)
    p, want = edge.sigmoid(), edge.clone()
    for d in range(N):
        for h in range(N):
            for k in range(N):
                if k not in (d, h):
                    want[:, d, h] += p[:, k, h] * a[:, d, h, k] + p[:, d, k] * b[:, d, h, k] + p[:, k, d] * c[:, d, h, k]
    assert_close(structs.SemanticDependencyMFVI(1)((edge, a, b, c), mask), want.sigmoid(), terms=64)
    zero = torch.zeros_like(a)
    assert_close(structs.SemanticDependencyLBP(2)((edge, zero, zero, zero), mask), edge.sigmoid(), terms=64)
    spans = edge.clone()
    for i in range(N):
        for j in range(N):
            spans[:, i, j] += sum(p[:, i, k] * a[:, i, j, k] for k in range(N) if k not in (i, j))
    assert_close(structs.ConstituencyMFVI(1)((edge, a), mask), spans.sigmoid(), terms=64)
    target = torch.zeros(2, N, N, dtype=torch.int64)
    for module in (structs.SemanticDependencyMFVI(), structs.SemanticDependencyLBP()):
        loss, marginals = module((edge, a, b, c), mask, target)
        assert loss.isfinite() and marginals.shape == edge.shape


def test_semirings() -> None:
    x = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    assert torch.equal(semiring.Semiring.times(x, x), x * x) and torch.equal(semiring.Semiring.prod(x), x.prod(-1))
    assert torch.allclose(semiring.LogSemiring.dot(x, x), (2 * x).logsumexp(-1))
    assert torch.equal(semiring.MaxSemiring.add(x, x + 1), x + 1) and semiring.LogSemiring.one == 0
