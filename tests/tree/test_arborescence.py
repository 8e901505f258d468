"""Maximum spanning trees and checks of trees, against enumeration and the reference."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FLOATS, generator, remembered
from compare import assert_close, assert_same
from structops import backends, tree
from structops.kernels.tree import arborescence_ref as reference
from structops.tree import MatrixTreeCRF
from torch import Tensor
from tree_cases import NINF, forbid, is_projective, is_tree

reference = remembered(reference)

MODES = (True, False)


def op(name: str):
    return backends.implementation(name)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def trees(n: int, multiroot: bool) -> list[tuple[int, ...]]:
    every = itertools.product(*([h for h in range(n + 1) if h != d] for d in range(1, n + 1)))
    return [t for t in every if is_tree(t) and (multiroot or n == 0 or t.count(0) == 1)]


# ---- arborescence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("n", range(6))
def test_enumeration(isa: str, n: int, multiroot: bool) -> None:
    """No ties: the tree itself. With many arcs forbidden too, and with ties (small integers) its value."""
    every = torch.tensor([(0, *t) for t in trees(n, multiroot)]).reshape(-1, n + 1)
    B = 40
    lengths = torch.full((B,), n)
    for p, integers in ((0.0, False), (0.4, False), (0.0, True), (0.4, True)):
        s = normal(B, n + 2, n + 2, seed=n)
        s = forbid(s.mul(2).round() if integers else s, p, n)
        value, heads = op("arborescence")(s, lengths, multiroot)
        totals = s[:, torch.arange(1, n + 1), every[:, 1:]].sum(2)
        want = totals.amax(1) if n else torch.zeros(B, dtype=torch.float64)
        assert_close(value, want, terms=n)
        some = (want > NINF).nonzero().squeeze(1)
        assert (heads[want == NINF] == -1).all()
        assert (heads[:, 0] == -1).all() and (heads[:, n + 1 :] == -1).all()
        if n and not integers:
            assert_same(heads[some, 1 : n + 1], every[totals.argmax(1)][some, 1:])
        picked = s[some[:, None], torch.arange(1, n + 1), heads[some, 1 : n + 1]].sum(1)
        assert_close(picked, want[some], terms=n)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("multiroot", MODES)
def test_reference(isa: str, dtype: torch.dtype, multiroot: bool, on_threads, poison: None) -> None:
    lengths = torch.tensor([30, 0, 1, 2, 17, 9, 30, 25])
    for p, cyclic in ((0.0, False), (0.5, False), (0.9, False), (0.0, True)):
        s = normal(8, 31, 31)
        if cyclic:  # cycles within cycles: neighbours, then neighbours of pairs, and so on prefer each other
            d = torch.arange(31)
            s = s - 8 * (d[:, None] ^ d).clamp(min=1).double().log2().floor() - 100 * (d == 0)
        s = forbid(s, p).to(dtype)
        outside = torch.arange(31) > lengths[:, None]
        junk = s.masked_fill(outside[:, None] | outside[:, :, None] | torch.eye(31, dtype=torch.bool), float("nan"))
        junk[:, 0] = float("nan")
        value, heads = on_threads(lambda: op("arborescence")(junk, lengths, multiroot))
        want, _ = reference.arborescence(s.double(), lengths, multiroot)
        assert_close(value, want, torch.float64 if dtype == torch.float64 else torch.float32, terms=30, magnitude=8)
        flags = op("tree_check")(heads, lengths)
        found = want > NINF
        assert ((flags[found] & 1) == 1).all() and (multiroot or ((flags[found] & 4) == 4).all())
        assert (heads[~found] == -1).all()


@pytest.mark.parametrize("multiroot", MODES)
def test_one_root_is_exact(isa: str, multiroot: bool) -> None:
    """Differences of 1 decide beside root scores of 1e12 in float64: a penalty on root arcs large enough would round them away."""
    n = 6
    s = normal(20, n + 1, n + 1).mul(8).round() + normal(20, n + 1, n + 1, seed=1).mul(100).round() / 1024
    s[:, :, 0] += 1e12
    value, heads = op("arborescence")(s, torch.full((20,), n), multiroot)
    every = torch.tensor(trees(n, multiroot))
    reduced = s.clone()
    reduced[:, :, 0] -= 1e12
    roots = (every == 0).sum(1)
    totals = reduced[:, torch.arange(1, n + 1), every].sum(2)
    totals = torch.where(roots == roots.max(), totals, NINF)
    best = totals.amax(1)
    assert_close(value, best + 1e12 * int(roots.max()), terms=n, magnitude=1e12)
    picked = reduced[torch.arange(20)[:, None], torch.arange(1, n + 1), heads[:, 1:]].sum(1)
    assert (picked - best).abs().max() < 0.01


def test_edges(isa: str) -> None:
    s = normal(4, 5, 5)
    s[1, 2, 3] = float("nan")
    s[2, 3] = NINF
    lengths = torch.tensor([4, 4, 4, 0])
    for multiroot in MODES:
        value, heads = op("arborescence")(s, lengths, multiroot)
        assert value[0].isfinite() and value[1].isnan() and value[2] == NINF and value[3] == 0
        assert (heads[1:] == -1).all()
    value, heads = op("arborescence")(s[:0], lengths[:0], True)
    assert value.shape == (0,) and heads.shape == (0, 5)


def test_public_function() -> None:
    s = normal(3, 6, 6).requires_grad_()
    value, heads = tree.maximum_spanning_tree(s, [5, 3, 0])
    value.sum().backward()
    want = torch.zeros_like(s)
    for b, n in enumerate((5, 3, 0)):
        want[b, torch.arange(1, n + 1), heads[b, 1 : n + 1]] = 1
    assert_same(s.grad, want)
    strided = s.detach().transpose(1, 2)
    assert_same(tree.maximum_spanning_tree(strided)[1], tree.maximum_spanning_tree(strided.contiguous())[1])
    for call, error, word in (
        (lambda: tree.maximum_spanning_tree(s[0]), ValueError, "score"),
        (lambda: tree.maximum_spanning_tree(s.int()), TypeError, "score"),
        (lambda: tree.maximum_spanning_tree(s, [6, 1, 1]), ValueError, "lengths"),
        (lambda: tree.maximum_spanning_tree(s, multiroot="no"), TypeError, "multiroot"),
        (lambda: tree.is_tree(s), TypeError, "heads"),
        (lambda: tree.is_tree(heads[0]), ValueError, "heads"),
        (lambda: tree.is_projective(heads, [6, 0, 0]), ValueError, "lengths"),
    ):
        with pytest.raises(error, match=word):
            call()


# ---- k best ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("n", range(6))
def test_kbest_by_enumeration(isa: str, n: int, multiroot: bool) -> None:
    """The values of all trees in order; the trees are different, and have these values."""
    every = torch.tensor([(0, *t) for t in trees(n, multiroot)]).reshape(-1, n + 1)
    B, K = 10, 20
    lengths = torch.full((B,), n)
    for p, integers in ((0.0, False), (0.4, False), (0.2, True)):
        s = normal(B, n + 2, n + 2, seed=n)
        s = forbid(s.mul(2).round() if integers else s, p, n)
        totals = s[:, torch.arange(1, n + 1), every[:, 1:]].sum(2)
        want = totals.sort(1, descending=True)[0][:, :K]
        want = torch.nn.functional.pad(want, (0, K - want.shape[1]), value=NINF)
        for op_ in (op("arborescence_kbest"), reference.arborescence_kbest):
            value, heads = op_(s, lengths, multiroot, K)
            assert_close(value, want, terms=n)
            for b in range(B):
                real = want[b] > NINF
                found = heads[b, real, 1 : n + 1]
                assert len({tuple(t) for t in found.tolist()}) == int(real.sum())
                assert_close(s[b, torch.arange(1, n + 1), found].sum(1), want[b, real], terms=n)
                assert (heads[b, ~real] == -1).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("multiroot", MODES)
def test_kbest_reference(isa: str, dtype: torch.dtype, multiroot: bool, on_threads, poison: None) -> None:
    lengths = torch.tensor([9, 0, 1, 70, 5])
    s = forbid(normal(5, 72, 72), 0.3).to(dtype)
    outside = torch.arange(72) > lengths[:, None]
    junk = s.masked_fill(outside[:, None] | outside[:, :, None] | torch.eye(72, dtype=torch.bool), float("nan"))
    junk[:, 0] = float("nan")
    value, heads = on_threads(lambda: op("arborescence_kbest")(junk, lengths, multiroot, 6))
    short = torch.tensor([9, 0, 1, 0, 5])  # the reference is slow
    want, _ = reference.arborescence_kbest(s.double(), short, multiroot, 6)
    want = torch.where((lengths == 70)[:, None], value.double(), want)
    assert_close(value, want, torch.float64 if dtype == torch.float64 else torch.float32, terms=30, magnitude=8)
    assert_same(heads[:, 0], op("arborescence")(s, lengths, multiroot)[1])
    assert (value[3, :-1] >= value[3, 1:]).all()
    trees_ = heads[3].clamp(min=0)
    flags = op("tree_check")(trees_, torch.full((6,), 70))
    assert (flags & 1).all() and (multiroot or (flags & 4).all()) and len({tuple(t) for t in trees_.tolist()}) == 6


def test_kbest_edges() -> None:
    s = normal(3, 5, 5)
    s[1, 2, 3] = float("nan")
    value, heads = op("arborescence_kbest")(s, torch.tensor([4, 4, 0]), True, 3)
    assert value[1].isnan().all() and (heads[1] == -1).all()
    assert value[2].tolist() == [0.0, NINF, NINF]
    assert op("arborescence_kbest")(s[:0], torch.zeros(0, dtype=torch.int64), True, 2)[1].shape == (0, 2, 5)


def test_kbest_of_the_distribution() -> None:
    s = normal(2, 5, 5, seed=3).requires_grad_()
    crf = MatrixTreeCRF(s, [4, 3])
    value, heads = crf.kbest(4)
    assert_close(crf.log_prob(heads.transpose(0, 1)).t() + crf.log_partition[:, None], value.detach(), terms=16)
    (grad,) = torch.autograd.grad(value[:, 1].sum(), s)
    assert grad.sum() == 7 and grad[0].gather(1, heads[0, 1].clamp(min=0)[:, None])[1:].sum() == 4
    labelled = MatrixTreeCRF(torch.stack([s.detach(), s.detach() - 0.1], -1), [4, 3])
    best, trees_ = labelled.kbest(5)
    assert (best[:, :-1] >= best[:, 1:]).all() and trees_.shape == (2, 5, 5, 2)


# ---- max-marginals ---------------------------------------------------------------------------------------------------


def by_trees(score: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """The best tree of the scores without the other arcs to a word, for every arc."""
    B, N, _ = score.shape
    through, own, at = torch.full_like(score, NINF), torch.eye(N, dtype=torch.bool), torch.arange(N)
    for dep in range(1, N):
        held = score[:, None].repeat(1, N, 1, 1)
        held[:, :, dep] = torch.where(own, held[:, :, dep], NINF)
        value, _ = op("arborescence")(held.flatten(0, 1), lengths.repeat_interleave(N), multiroot)
        there = (at != dep) & (at <= lengths[:, None]) & (dep <= lengths[:, None])
        through[:, dep] = torch.where(there, value.reshape(B, N), NINF)
    return through


@pytest.mark.parametrize("multiroot", MODES)
@pytest.mark.parametrize("n", range(1, 6))
def test_max_marginals_by_enumeration(isa: str, n: int, multiroot: bool) -> None:
    every = torch.tensor([(0, *t) for t in trees(n, multiroot)]).reshape(-1, n + 1)
    B, lengths = 20, torch.full((20,), n)
    for p, integers in ((0.0, False), (0.4, False), (0.7, False), (0.2, True)):
        s = normal(B, n + 2, n + 2, seed=n)
        s = forbid(s.mul(2).round() if integers else s, p, n)
        totals = s[:, torch.arange(1, n + 1), every[:, 1:]].sum(2)
        want = torch.full_like(s, NINF)
        for d in range(1, n + 1):
            for h in range(n + 1):
                used = every[:, d] == h
                if used.any():
                    want[:, d, h] = totals[:, used].amax(1)
        for op_ in (op("arborescence_max_marginals"), reference.arborescence_max_marginals):
            assert_close(op_(s, lengths, multiroot), want, terms=4 * n)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("multiroot", MODES)
def test_max_marginals_by_trees(isa: str, dtype: torch.dtype, multiroot: bool, on_threads, poison: None) -> None:
    """Cycles within cycles, words that only one root can reach, root scores far above the others; junk is not read."""
    N = 25
    lengths, d = torch.tensor([24, 0, 1, 2, 17, 9, 24, 12]), torch.arange(N)
    for p, cyclic, rooted in ((0.0, 0, 0), (0.5, 0, 0), (0.85, 0, 0), (0.0, 1, 0), (0.5, 1, 0), (0.0, 0, 40)):
        s = normal(8, N, N, seed=cyclic)
        s = s - cyclic * (8 * (d[:, None] ^ d).clamp(min=1).double().log2().floor() + 100 * (d == 0)) + rooted * (d == 0)
        s = forbid(s, p).to(dtype)
        outside = d > lengths[:, None]
        junk = s.masked_fill(outside[:, None] | outside[:, :, None] | torch.eye(N, dtype=torch.bool), float("nan"))
        junk[:, 0] = float("nan")
        got = on_threads(lambda: op("arborescence_max_marginals")(junk, lengths, multiroot))
        want = by_trees(s.double(), lengths, multiroot)
        accumulator = torch.float64 if dtype == torch.float64 else torch.float32
        assert_close(got, want, accumulator, terms=4 * N, magnitude=100 if cyclic or rooted else 8)
        assert (got > NINF).any()


def test_max_marginals_edges(isa: str) -> None:
    s = normal(4, 5, 5)
    s[1, 2, 3], s[2, 4, 1], s[3, 3] = float("nan"), float("inf"), NINF
    lengths, own = torch.tensor([4, 4, 4, 4]), torch.eye(5, dtype=torch.bool)
    for multiroot in MODES:
        got = op("arborescence_max_marginals")(s, lengths, multiroot)
        best, _ = op("arborescence")(s, lengths, multiroot)
        assert_close(got[0, 1:].amax(1), best[0].expand(4), terms=16)
        assert (got[1:3, 1:].isnan() == ~own[1:]).all() and (got[3] == NINF).all() and (got[:, 0] == NINF).all()
        assert (got[:, own] == NINF).all()
        assert_same(got.isnan(), reference.arborescence_max_marginals(s, lengths, multiroot).isnan())
        for shape in ((0, 5), (3, 1)):
            empty = op("arborescence_max_marginals")(torch.zeros(*shape, shape[1]), torch.zeros(shape[0]).long(), multiroot)
            assert empty.shape == (*shape, shape[1]) and (empty == NINF).all()


# ---- tree_check ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(5))
def test_every_head_sequence(isa: str, n: int, on_threads) -> None:
    every = list(itertools.product(range(-1, n + 2), repeat=n))
    rows = torch.tensor([(99, *t, 99) for t in every]).reshape(-1, n + 2)
    lengths = torch.full((len(every),), n)
    flags = on_threads(lambda: op("tree_check")(rows, lengths))
    fine = [all(0 <= h <= n for h in t) and is_tree(t) for t in every]
    want = [ok * (1 + 2 * is_projective(t) + 4 * (n == 0 or t.count(0) == 1)) for ok, t in zip(fine, every, strict=True)]
    assert_same(flags, torch.tensor(want))
    assert_same(reference.tree_check(rows, lengths), flags)
    assert_same(tree.is_tree(rows, lengths), (flags & 1) == 1)
    assert_same(tree.is_tree(rows, lengths, multiroot=False), (flags & 5) == 5)
    assert_same(tree.is_projective(rows, lengths), (flags & 2) == 2)


def test_long_sequences(isa: str) -> None:
    """Chains, stars and random trees of up to 600 words, with one cycle planted in half of them."""
    rng, N = generator(4), 601
    lengths = torch.randint(300, N, (64,), generator=rng)
    heads = torch.zeros(64, N, dtype=torch.int64)
    for b in range(64):
        order = torch.randperm(int(lengths[b]), generator=rng) + 1
        place = torch.arange(1, len(order))
        before = [place - 1, 0 * place, (torch.rand(len(place), generator=rng) * place).long()][b % 3]
        heads[b, order[1:]] = order[before]
        if b % 2:
            heads[b, order[0]] = order[-1]
    flags = op("tree_check")(heads, lengths)
    assert_same(flags, reference.tree_check(heads, lengths))
    assert ((flags & 1) == (torch.arange(64) + 1) % 2).all()
