"""compat.supar: layouts and conventions against enumeration, and the defects that it does not share."""

from __future__ import annotations

import doctest
import itertools
import sys

import pytest
import torch
from cases import generator
from compare import assert_close, assert_same
from structops.compat import supar
from structops.compat.supar.structs import (
    ConstituencyCRF,
    Dependency2oCRF,
    DependencyCRF,
    LinearChainCRF,
    MatrixTree,
    SemiMarkovCRF,
)
from structops.compat.supar.structs.fn import mst
from torch import Tensor
from tree_cases import NINF, bracketings, chart, forbid, is_tree, projective_trees, siblings

LENS = torch.tensor([4, 2, 3])
N, B = 5, 3


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def structures(name: str, multiroot: bool = False, seed: int = 0):
    """(distribution, for every sentence the scores of all its structures)."""
    if name in ("first", "second"):
        arc, sib = chart(B, N, name == "second", seed=seed)
        every = []
        for b, n in enumerate(LENS.tolist()):
            trees = projective_trees(n, not multiroot)
            arcs = [sum(arc[b, d, h] for d, h in enumerate(t, 1)) for t in trees]
            if name == "second":
                arcs = [a + sum(sib[(b, *c)] for c in siblings(t)) for a, t in zip(arcs, trees, strict=True)]
            every.append(torch.stack(arcs))
        return (DependencyCRF(arc, LENS, multiroot) if sib is None else Dependency2oCRF((arc, sib), LENS, multiroot)), every
    if name in ("span", "labelled"):
        L = 2 if name == "labelled" else 1
        s = rand(B, N, N, L, seed=seed)
        every = [
            torch.stack([sum(s[(b, *c, k)] for c, k in zip(t, labels, strict=True)) for t in bracketings(0, n) for labels in itertools.product(range(L), repeat=len(t))])
            for b, n in enumerate(LENS.tolist())
        ]  # fmt: skip
        return (ConstituencyCRF(s, LENS, True) if L > 1 else ConstituencyCRF(s[..., 0], LENS)), every
    T = 3
    trans = rand(T + 1, T + 1, seed=seed + 1) if name == "chain" else rand(T, T, seed=seed + 1)
    if name == "chain":
        s = rand(B, N, T, seed=seed)
        every = [
            torch.stack([
                sum(s[b, i, t] for i, t in enumerate(tags)) + sum(trans[p, q] for p, q in zip((-1, *tags), (*tags, -1), strict=True))
                for tags in itertools.product(range(T), repeat=n)
            ])
            for b, n in enumerate(LENS.tolist())
        ]  # fmt: skip
        return LinearChainCRF(s, trans, LENS), every
    s, every = rand(B, N, N, T, seed=seed), []
    for b, n in enumerate(LENS.tolist()):
        found = []
        for cuts in itertools.product((False, True), repeat=n - 1):
            begins = [0, *(i + 1 for i, c in enumerate(cuts) if c), n]
            spans = [(i, j - 1) for i, j in itertools.pairwise(begins)]
            for tags in itertools.product(range(T), repeat=len(spans)):
                score = sum(s[b, i, j, t] for (i, j), t in zip(spans, tags, strict=True))
                found.append(score + sum(trans[p, q] for p, q in itertools.pairwise(tags)))
        every.append(torch.stack([torch.as_tensor(f) for f in found]))
    return SemiMarkovCRF(s, trans, LENS), every


NAMES = [
    ("first", False),
    ("first", True),
    ("second", False),
    ("second", True),
    ("span", False),
    ("labelled", False),
    ("chain", False),
    ("segments", False),
]


@pytest.mark.parametrize(("name", "multiroot"), NAMES)
def test_sums_and_extremes(name: str, multiroot: bool) -> None:
    (p, every), (q, others) = (structures(name, multiroot, seed) for seed in (0, 9))
    logz, logy = (torch.stack([e.logsumexp(0) for e in x]) for x in (every, others))
    prob = [(e - e.logsumexp(0)).exp() for e in every]
    assert_close(p.log_partition, logz, terms=64)
    assert_close(p.max, torch.stack([e.max() for e in every]), terms=64)
    entropy = logz - torch.stack([(w * e).sum() for w, e in zip(prob, every, strict=True)])
    cross = logy - torch.stack([(w * e).sum() for w, e in zip(prob, others, strict=True)])
    assert_close(p.entropy, entropy, terms=256)
    assert_close(p.cross_entropy(q), cross, terms=256)
    assert_close(p.kl(q), cross - entropy, terms=256)
    best = torch.stack([torch.cat([e.sort(descending=True).values, e.new_full((3,), NINF)])[:3] for e in every])
    assert_close(p.kmax(3), best, terms=64)
    assert p.log_partition is p.log_partition  # once


@pytest.mark.parametrize(("name", "multiroot"), [n for n in NAMES if n[0] in ("first", "second")])
def test_heads(name: str, multiroot: bool) -> None:
    p, every = structures(name, multiroot)
    lists = [projective_trees(n, not multiroot) for n in LENS.tolist()]
    want = torch.zeros(B, N, dtype=torch.int64)
    for b, (trees, scores) in enumerate(zip(lists, every, strict=True)):
        want[b, 1 : LENS[b] + 1] = torch.tensor(trees[int(scores.argmax())])
    assert_same(p.argmax, want)
    assert_same(p.mode, want)
    assert p.topk(2).shape == (B, N, 2) and p.sample().shape == (B, N)
    assert_same(p.topk(2)[..., 0], want)
    value = want
    if name == "second":
        sibs = torch.zeros(B, N, N, dtype=torch.int64)
        for b, n in enumerate(LENS.tolist()):
            for d, h, s in siblings(tuple(want[b, 1 : n + 1].tolist())):
                sibs[b, d, h] = s
        value = (want, sibs)
        assert [t.shape for t in p.marginals] == [(B, N, N), (B, N, N, N)]
    else:
        assert p.marginals.shape == (B, N, N)
    assert_close(p.log_prob(value), p.max - p.log_partition, terms=64)
    assert_close(p.log_prob(value, partial=True), p.max - p.log_partition, terms=64)
    nothing = torch.full_like(want, -1)
    empty = p.log_prob((nothing, value[1]) if name == "second" else nothing, partial=True)
    assert_same(empty, torch.zeros(B, dtype=torch.float64))  # in both root modes


@pytest.mark.parametrize("multiroot", [False, True])
def test_matrix_tree_and_mst(multiroot: bool) -> None:
    """At any scale of the scores, with exact single roots; the scores stay as they are."""
    for scale in (1, 30, 60):
        arc = scale * chart(B, N, seed=4)[0]
        copy = arc.clone()
        p = MatrixTree(arc, LENS, multiroot)
        for b, n in enumerate(LENS.tolist()):
            trees = [t for t in itertools.product(range(n + 1), repeat=n) if is_tree(t) and (multiroot or t.count(0) == 1)]
            scores = torch.stack([sum(arc[b, d, h] for d, h in enumerate(t, 1)) for t in trees])
            assert_close(p.log_partition[b], scores.logsumexp(0), terms=64, magnitude=scale)
            best = torch.zeros(N, dtype=torch.int64)
            best[1 : n + 1] = torch.tensor(trees[int(scores.argmax())])
            assert_same(p.argmax[b], best)
            assert_close(p.max[b], scores.max(), terms=64, magnitude=scale)
            prob = (scores - scores.logsumexp(0)).exp()
            assert_close(p.entropy[b], scores.logsumexp(0) - (prob * scores).sum(), terms=256, magnitude=scale)
        assert_same(mst(arc, p.mask, multiroot), p.argmax)
        assert_same(arc, copy)
        nothing = torch.full((B, N), -1)
        assert_same(p.log_prob(nothing, partial=True), torch.zeros(B, dtype=torch.float64))
        assert_close(p.log_prob(p.argmax), p.max - p.log_partition, terms=64, magnitude=scale)
    assert p.sample().shape == (B, N)
    assert p.topk(2).shape == (B, N, 2)
    assert_same(p.topk(2)[..., 0], p.argmax)
    assert_same(p.kmax(2)[:, 0], p.max)


def test_constituents() -> None:
    for name in ("span", "labelled"):
        p, _ = structures(name)
        chart_ = torch.full((B, N, N), -1)
        for b, tree in enumerate(p.argmax):
            assert len(tree) == 2 * LENS[b] - 1 and tree[0][:2] == [0, LENS[b]]
            for row in tree:
                chart_[b, row[0], row[1]] = row[2] if name == "labelled" else 0
        assert_close(p.log_prob(chart_), p.max - p.log_partition, terms=64)
        assert_close(p.log_prob(chart_, partial=True), p.log_prob(chart_), terms=64)
        if name == "span":
            assert_close(p.log_prob(chart_ >= 0), p.log_prob(chart_))
        assert [t[0] for t in p.topk(2)] == p.argmax and [len(t) for t in p.topk(2)] == [2] * B
        assert p.marginals.shape == p.scores.shape and len(p.sample()) == B


def test_chains() -> None:
    p, _ = structures("chain")
    assert p.argmax.shape == (B, N) and p.topk(3).shape == (B, N, 3) and (p.argmax[1, 2:] == 0).all()
    assert_close(p.log_prob(p.argmax), p.max - p.log_partition, terms=64)
    assert_close(p.marginals.sum(-1), (torch.arange(N) < LENS[:, None]).double(), terms=64)
    assert_close(LinearChainCRF(p.scores).log_partition, p.scores.logsumexp(-1).sum(1), terms=64)
    p, _ = structures("segments")
    value = torch.full((B, N, N), -1)
    post = torch.zeros(B, N, N, 3, dtype=torch.float64)
    for b, segments in enumerate(p.argmax):
        assert segments[0][0] == 0 and segments[-1][1] == LENS[b] - 1
        for l, r, t in segments:
            value[b, l, r] = t
            post[b, l, r, t] = 1
    assert_close(p.log_prob(value), p.max - p.log_partition, terms=64)
    assert [t[0] for t in p.topk(2)] == p.argmax
    cold = SemiMarkovCRF(p.scores * 1e5, p.trans * 1e5, LENS)
    assert_close(cold.marginals, post, terms=64, magnitude=1e5)


@pytest.mark.parametrize("name", ["first", "second", "labelled", "chain", "segments"])
def test_gradients_and_the_callers_tensors(name: str) -> None:
    p, _ = structures(name)
    given = p.scores[0] if isinstance(p.scores, tuple) else p.scores
    p.argmax, p.marginals, p.entropy, p.kmax(2)
    assert not given.requires_grad
    leaf = given.clone().requires_grad_()
    new = (
        Dependency2oCRF((leaf, p.scores[1]), LENS)
        if name == "second"
        else type(p)(
            leaf,
            *((p.trans,) if name in ("chain", "segments") else ()),
            lens=LENS,
            **({"label": True} if name == "labelled" else {}),
        )
    )
    (g,) = torch.autograd.grad(new.log_partition.sum(), leaf)
    assert_close(g, p.marginals[0] if name == "second" else p.marginals, terms=64)


def test_forbidden_scores_and_half_precision() -> None:
    s = forbid(rand(B, N, N), 0.3, seed=3).requires_grad_()
    p = DependencyCRF(s, LENS, True)
    assert p.marginals.isfinite().all()
    p.log_partition[p.log_partition > NINF].sum().backward()
    assert s.grad.isfinite().all()
    half = DependencyCRF(s.detach().half(), LENS, True)
    assert half.log_partition.dtype == torch.float32
    many = DependencyCRF(torch.zeros(1, 3, 3), multiroot=True)
    assert many.kmax(5)[0].tolist() == [0.0, 0.0, 0.0, NINF, NINF] and (many.topk(5)[0, :, 3:] == 0).all()


def test_affine_scorers() -> None:
    x, y, z = (rand(2, 4, 3, seed=i) for i in range(3))
    for bias_x, bias_y, n_out in itertools.product((False, True), (False, True), (1, 2)):
        for decompose in (False, True):
            two = supar.Biaffine(
                3, n_out, scale=1, bias_x=bias_x, bias_y=bias_y, decompose=decompose, init=torch.nn.init.normal_
            ).double()
            three = supar.Triaffine(
                3, n_out, bias_x=bias_x, bias_y=bias_y, decompose=decompose, init=torch.nn.init.normal_
            ).double()
            one = torch.ones(2, 4, 1, dtype=torch.float64)
            bx, by = torch.cat([x, one], -1) if bias_x else x, torch.cat([y, one], -1) if bias_y else y
            W = two.weight if not decompose else torch.einsum("oi,oj->oij", *two.weight)
            want = torch.stack([bx[b] @ W[o] @ by[b].T / 3 for b in range(2) for o in range(n_out)]).reshape(2, n_out, 4, 4)
            assert_close(two(x, y), (want if n_out > 1 else want[:, 0]).detach(), terms=64)
            if decompose:
                a, c, d = three.weight
                W = a[:, :, None, None] * d[:, None, :, None] * c[:, None, None, :]
            else:
                W = three.weight
            want = sum(
                W[None, :, i, k, j, None, None, None] * z[:, None, :, k, None, None] * bx[:, None, None, :, i, None] * by[:, None, None, None, :, j]
                for i in range(bx.shape[2]) for j in range(by.shape[2]) for k in range(3)
            )  # fmt: skip
            assert_close(three(x, y, z), (want if n_out > 1 else want[:, 0]).detach(), terms=64)
    assert (supar.Biaffine(3)(x.float(), y.float()) == 0).all() and supar.Biaffine(3, n_proj=5)(x.float(), y.float()).shape == (
        2,
        4,
        4,
    )


def test_docstring_examples() -> None:
    for module in (supar.structs.tree, supar.structs.chain, supar.structs.fn, supar.modules):
        failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
        assert tried > 0 and failed == 0, module


def test_install() -> None:
    before = {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "supar"}
    supar.install(force=True)
    try:
        from supar.structs import DependencyCRF as found
        from supar.structs.tree import ConstituencyCRF as other

        assert found is DependencyCRF and other is ConstituencyCRF
    finally:
        supar.uninstall()
    assert {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "supar"} == before


def test_bad_input() -> None:
    bad = [
        (ValueError, "scores of shape", lambda: ConstituencyCRF(rand(2, 3, 3), None, True)),
        (ValueError, "scores of shape", lambda: ConstituencyCRF(rand(2, 3, 3, 2))),
        (TypeError, "labels", lambda: ConstituencyCRF(rand(2, 3, 3, 2), None, True).log_prob(torch.zeros(2, 3, 3, dtype=torch.bool))),
        (ValueError, "value of shape", lambda: ConstituencyCRF(rand(2, 3, 3)).log_prob(torch.zeros(2, 3, dtype=torch.bool))),
        (ValueError, "trans of shape", lambda: LinearChainCRF(rand(2, 3, 3), rand(3, 3))),
        (ValueError, "sibs of shape", lambda: Dependency2oCRF((rand(2, 3, 3), rand(2, 3, 3, 3))).log_prob((torch.zeros(2, 3).long(), torch.zeros(2, 3).long()))),
        (ValueError, "lengths within", lambda: DependencyCRF(rand(2, 3, 3), torch.tensor([3, 1]))),
        (ValueError, "a mask of booleans", lambda: mst(rand(2, 3, 3), torch.ones(2, 3))),
        (NotImplementedError, "one sample", lambda: DependencyCRF(rand(2, 3, 3)).sample((3,))),
    ]  # fmt: skip
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()
