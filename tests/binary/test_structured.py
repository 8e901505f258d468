"""Attention, embeddings and masked linear layers against float simulations in torch."""

from __future__ import annotations

import math

import pytest
import structops
import torch
from cases import generator
from compare import assert_close, assert_same
from structops import backends
from structops.binary import _attention as attention
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

B = structops.binary


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def sgn(x: Tensor) -> Tensor:
    y = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    through = x * (x.abs() <= 1)
    return through + (y - through).detach()


# ---- attention -------------------------------------------------------------------------------------------------------


def simulated(q, k, v, probability, scale, alpha, rank1, residual, mask):
    scores = sgn(q) @ sgn(k).transpose(-1, -2)
    if rank1 is not None:
        qm, qr, km, kr = rank1
        t = lambda a, b: a @ b.transpose(-1, -2)
        scores = scores + t(qm, kr) + t(qr, km) + t(qr, kr)
    scores = scores * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if probability == "softmax":
        p = scores.softmax(-1)
    elif probability == "bool":
        p = scores * (scores.abs() < 1) if mask is None else torch.where(scores.abs() < 1, scores, 0.0)
        p = p + ((scores > 0).to(p.dtype) - p).detach()
    else:
        p = B.elastic(scores.softmax(-1), alpha, False)
    context = p @ sgn(v)
    return context if residual is None else context + p @ residual


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("probability", ["softmax", "bool", "elastic"])
def test_attention(probability: str, full: bool, poison: None) -> None:
    for lead, M, L, D, O in (((), 3, 5, 4, 2), ((2, 3), 17, 70, 65, 33)):
        leaves = [rand(*lead, M, D), rand(*lead, L, D, seed=1), rand(*lead, L, O, seed=2)]
        alpha = torch.tensor([0.3 if L < 10 else 0.04], dtype=torch.float64)
        extra = [0.1 * rand(*lead, n, 1, seed=i) for i, n in enumerate((M, M, L, L))] + [rand(*lead, L, O, seed=8)] if full else []
        mask = (rand(*lead, M, L, seed=9) > -1) if full else None
        if mask is not None:
            mask[..., 0] = True
        scale = 0.37 / math.sqrt(D)
        results = []
        for run in (B.binary_attention, simulated):
            q, k, v, a, *more = (t.clone().requires_grad_() for t in (*leaves, alpha, *extra))
            rank1, residual = (tuple(more[:4]), more[4]) if full else (None, None)
            if run is simulated:
                y = simulated(q, k, v, probability, scale, a, rank1, residual, mask)
            else:
                kw = dict(probability=probability, scale=scale, rank1=rank1, value_residual=residual, mask=mask)
                y = run(q, k, v, alpha=a if probability == "elastic" else None, **kw)
            y.backward(rand(*y.shape, seed=5))
            results.append([y.detach(), *(None if t.grad is None else t.grad for t in (q, k, v, a, *more))])
        for i, (mine, theirs) in enumerate(zip(*results, strict=True)):
            assert (mine is None) == (theirs is None), i
            if mine is not None:
                assert_close(mine, theirs, terms=4096, magnitude=8.0, what=(probability, i))


@pytest.mark.parametrize("probability", ["softmax", "elastic", "bool"])
@pytest.mark.parametrize("columns", [5, 1])
def test_queries_without_a_place(probability: str, columns: int) -> None:
    mask = torch.ones(2, 1, 4, columns, dtype=torch.bool)
    mask[0, :, 1] = mask[1] = False
    operands = [torch.randn(2, 3, n, 16).requires_grad_() for n in (4, 5, 5)]
    more = {"alpha": torch.tensor([0.3])} if probability == "elastic" else {}
    f = lambda mask, *t: B.binary_attention(*t, probability=probability, mask=mask, scale=torch.tensor([0.1, 0.2, 0.3])[:, None, None], **more)
    y = f(mask, *operands)
    gone = ~mask.any(-1, keepdim=True).expand_as(y)
    assert (y[gone] == 0).all()
    assert torch.equal(y[~gone], f(None, *operands)[~gone])
    for g in torch.autograd.grad(y.square().sum(), operands):
        assert g.isfinite().all() and (g[1] == 0).all() and (g[0] != 0).any()


def test_attention_keeps_bits() -> None:
    q, k, v = (torch.randn(2, 128, 64, requires_grad=True) for _ in range(3))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel() * t.element_size()), t)[1], lambda t: t):
        B.binary_attention(q, k, v, probability="bool", scale=0.1)
    n, p = 2 * 128 * 64, 2 * 128 * 128
    assert sum(kept) <= 3 * n * 2 // 8  # two bits a number, nothing of the scores
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel() * t.element_size()), t)[1], lambda t: t):
        B.binary_attention(q, k, v, probability="bool", scale=0.1, value_residual=torch.zeros(2, 128, 64))
    assert sum(kept) <= 3 * n * 2 // 8 + 2 * p // 8 + 4 * (p + n) + 64  # two bits a score and what the float product keeps


SCALES = (0.37, -0.05, 0.0, math.inf, 1e-30)


@pytest.mark.parametrize("tie", [">", ">="])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_bool_scores_become_bits(dtype: torch.dtype, tie: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probabilities and gradients as floats give, for scales of every kind, in blocks of groups and of rows."""
    G, M, L, D, O = 6, 19, 70, 9, 5
    size = 8.0 if dtype.itemsize >= 4 else 64.0  # the gradient of every probability is rounded to the dtype
    q, k, v = rand(2, 3, M, D), rand(2, 3, L, D, seed=1), rand(2, 3, L, O, seed=2)
    masks = (None, rand(M, L, seed=3) > 0, rand(2, 1, 1, L, seed=4) > 0, rand(M, 1, seed=5) > 0)
    for block, mask, number in zip((1 << 20, 3 * M * L, 4 * L, 1, 1 << 20), (*masks, None), SCALES, strict=True):
        monkeypatch.setattr(attention, "BLOCK", block)
        for learned in (False, True):
            leaves = [t.to(dtype).clone().requires_grad_() for t in (q, k, v)]
            scale = torch.full((1,) * 4, number, dtype=dtype).requires_grad_() if learned else number
            y = B.binary_attention(*leaves, probability="bool", scale=scale, mask=mask, tie=tie)
            g = rand(*y.shape, seed=6).to(dtype)
            y.backward(g)
            wide = [t.detach().double().clone().requires_grad_() for t in leaves]
            dots = sgn(wide[0]) @ sgn(wide[1]).transpose(-1, -2)
            scores = dots.detach().to(dtype) * (scale.detach() if learned else scale)
            on, passes = scores >= 0 if tie == ">=" else scores > 0, scores.abs() < 1
            if mask is not None:
                on, passes = on & mask, passes & mask
            by = torch.tensor(number, dtype=torch.float64).requires_grad_()
            surrogate = torch.where(passes, dots * by, 0.0)
            p = surrogate + (on.double() - surrogate).detach()
            want = p @ sgn(wide[2])
            want.backward(g.double())
            assert torch.equal(y.double(), want.round().detach()), (number, learned)
            for mine, theirs in zip(leaves, wide, strict=True):
                assert_close(mine.grad, theirs.grad, terms=4096, magnitude=size, what=number)
            if learned:
                assert_close(scale.grad.reshape(()), by.grad, terms=4 * G * M * L, magnitude=size, what=number)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5, 2), (2, 0, 4, 5, 2), (2, 3, 0, 5, 2), (2, 3, 4, 0, 2), (2, 3, 4, 5, 0)])
def test_bool_attention_of_nothing(sizes: tuple[int, ...], poison: None) -> None:
    G, M, L, D, O = sizes
    for mask in (None, torch.ones(M, L).bool(), torch.tensor(True)):
        leaves = [torch.ones(G, *s, requires_grad=True) for s in ((M, D), (L, D), (L, O))]
        y = B.binary_attention(*leaves, probability="bool", mask=mask, tie=">=")
        assert torch.equal(y, torch.full((G, M, O), float(L)))
        y.sum().backward()
        for t in leaves:
            assert t.grad.shape == t.shape
        assert leaves[2].grad.eq(M).all()


@pytest.mark.skipif(backends.native is None, reason="the reference unpacks")
def test_bool_attention_makes_no_scores() -> None:
    """Scores of 4096 by 4096 floats would be 64 MB, their bits are 2 MB."""
    q, k, v = (torch.randn(4096, 32) for _ in range(3))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        B.binary_attention(q, k, v, probability="bool")
    assert max(e.cpu_memory_usage for e in profile.events()) < 8 << 20


def test_bool_ties() -> None:
    q, k = torch.ones(1, 2), torch.tensor([[1.0, -1.0]])  # a score of 0
    v = torch.ones(1, 1)
    assert B.binary_attention(q, k, v, probability="bool").item() == 0
    assert B.binary_attention(q, k, v, probability="bool", tie=">=").item() == 1


# ---- embeddings ------------------------------------------------------------------------------------------------------


def test_embedding_and_bag() -> None:
    w, index = rand(20, 70), torch.randint(0, 20, (3, 11), generator=generator(1))
    for weight in (w, B.pack(w)):
        got = B.binary_embedding(index, weight)
        assert torch.equal(got.double(), torch.where(w >= 0, 1.0, -1.0).double()[index])
        offsets = torch.tensor([0, 4, 4, 9])
        for reduce in ("sum", "mean", "max"):
            bag = B.binary_embedding_bag(index.reshape(-1), offsets, weight, reduce)
            want = F.embedding_bag(index.reshape(-1), torch.where(w >= 0, 1.0, -1.0).double(), offsets, mode=reduce)
            assert_close(bag.double(), want, terms=8 if weight is w else 2**30)
    a, b = w.clone().requires_grad_(), w.clone().requires_grad_()
    B.binary_embedding_bag(index.reshape(-1), offsets, a).square().sum().backward()
    F.embedding_bag(index.reshape(-1), sgn(b), offsets).square().sum().backward()
    assert_close(a.grad, b.grad, terms=256)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_bags_of_bits_are_exact(reduce: str, isa: str, poison: None) -> None:
    """Every meaning of bits, against sums of integers: bags that are empty, long, and longer than a byte counts."""
    for D in (1, 64, 200, 777):
        w, g = rand(300, D), generator(D)
        sizes = torch.cat([torch.tensor([0, 1, 2, 7, 8, 9, 247, 248, 249, 1000, 0]), torch.randint(0, 50, (20,), generator=g)])
        index, ends = torch.randint(0, 300, (int(sizes.sum()),), generator=g), sizes.cumsum(0)
        for bits in (B.pack(w), B.pack(w, polarity=-1), B.pack(w, values="01")):
            rows = B.unpack(bits, torch.float64)
            want = F.embedding_bag(index, rows, ends - sizes, mode=reduce)
            for i in (index, index.int()):
                got = B.binary_embedding_bag(i, (ends - sizes).to(i.dtype), bits, reduce)
                assert torch.equal(got, want.float())
            assert torch.equal(B.binary_embedding(index, bits).double(), rows[index])


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("rows", [12, 500])
def test_learned_bags(rows: int, reduce: str) -> None:
    """Values, gradients of any order and the sign of zero, for tables smaller and larger than what the bags name."""
    w, g = rand(rows, 5), generator(2)
    w[::3, 1] = 0
    index, offsets = torch.randint(0, rows, (40,), generator=g), torch.tensor([0, 0, 3, 17, 17, 30])
    for sign_zero in (-1, 0, 1):
        got = B.binary_embedding_bag(index.int(), offsets.int(), w, reduce, sign_zero=sign_zero)
        table = torch.where(w == 0, float(sign_zero), w.sign())
        assert_close(got, F.embedding_bag(index, table, offsets, mode=reduce), terms=64)
    if reduce == "max":  # torch gives the gradient of equal signs to another row
        return
    a, b = w.clone().requires_grad_(), w.clone().requires_grad_()
    B.binary_embedding_bag(index, offsets, a, reduce).square().sum().backward()
    F.embedding_bag(index, sgn(b), offsets, mode=reduce).square().sum().backward()
    assert_close(a.grad, b.grad, terms=256)
    y = B.binary_embedding_bag(index, offsets, a, reduce, clip=None).square().sum()
    (first,) = torch.autograd.grad(y, a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), a)
    bags = F.embedding_bag(index, torch.eye(rows, dtype=torch.float64), offsets, mode=reduce)
    assert_close(second, 4 * bags.t() @ (bags @ first.detach()), terms=1024, magnitude=64.0)


@pytest.mark.skipif(backends.native is None, reason="the reference unpacks")
def test_a_bag_makes_nothing_of_its_rows() -> None:
    """The floats of the rows would be 64 MB; the result is 16 KB."""
    bits, index = B.pack(torch.ones(1000, 256)), torch.zeros(1 << 16, dtype=torch.int64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        B.binary_embedding_bag(index, torch.arange(0, 1 << 16, 1 << 12), bits)
    assert max(e.cpu_memory_usage for e in profile.events()) < 1 << 20


def test_bags_on_threads(on_threads) -> None:
    bits, index = B.pack(rand(5000, 200)), torch.randint(0, 5000, (60000,), generator=generator(3))
    on_threads(lambda: B.binary_embedding_bag(index, torch.arange(0, 60000, 30), bits))


# ---- masked linear layers --------------------------------------------------------------------------------------------


def test_sparse_linear_is_the_masked_product() -> None:
    mask = rand(7, 9, seed=1) > 0.3
    graph, dense = B.mask_graph(mask), rand(7, 9, seed=2) * mask
    x, bias = rand(2, 5, 9), rand(7, seed=4)
    leaves = [t.clone().requires_grad_() for t in (x, dense[mask], bias)]
    other = [t.clone().requires_grad_() for t in (x, dense, bias)]
    y, want = B.sparse_linear(leaves[0], graph, leaves[1], leaves[2]), F.linear(*other)
    g = rand(2, 5, 7, seed=5)
    y.backward(g)
    want.backward(g)
    assert_close(y.detach(), want.detach(), terms=64)
    assert_close(leaves[0].grad, other[0].grad, terms=64)
    assert_close(leaves[1].grad, other[1].grad[mask], terms=64)
    assert_close(leaves[2].grad, other[2].grad, terms=64)
    assert gradcheck(lambda x, v: B.sparse_linear(x, graph, v), (leaves[0], leaves[1]))
    assert gradgradcheck(lambda x, v: B.sparse_linear(x, graph, v), (leaves[0], leaves[1]))


def test_block_sparse_linear() -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]])
    graph, blocks = B.mask_graph(mask), rand(6, 2, 5, seed=1)
    dense = torch.zeros(4, 3, 2, 5, dtype=torch.float64)
    dense[mask.bool()] = blocks
    dense = dense.permute(0, 2, 1, 3).reshape(8, 15)
    x, bias = rand(6, 15), rand(8, seed=3)
    assert_close(B.block_sparse_linear(x, graph, blocks, bias), F.linear(x, dense, bias), terms=64)
    leaves = x.requires_grad_(), blocks.requires_grad_()
    assert gradcheck(lambda x, b: B.block_sparse_linear(x, graph, b), leaves)
    assert gradgradcheck(lambda x, b: B.block_sparse_linear(x, graph, b), leaves)
    for shape in ((), (2, 3), (0,)):
        x = rand(*shape, 15, seed=4)
        assert_close(B.block_sparse_linear(x, graph, blocks.detach(), bias), F.linear(x, dense, bias), terms=64)


def test_prune_and_regrow() -> None:
    """Against a sort of the dense matrix, over several steps."""
    O, I = 11, 13
    mask = rand(O, I, seed=1) > 0.5
    graph, values = B.mask_graph(mask), rand(int(mask.sum()), seed=2)
    E = values.numel()
    for step in range(4):
        score = rand(O, I, seed=10 + step)
        dense, taken = torch.zeros(O, I, dtype=torch.float64), torch.zeros(O, I, dtype=torch.bool)
        src, dst = graph.edge_index()
        taken[dst.long(), src.long()] = True
        dense[taken] = values
        drop = int(0.3 * E)
        weakest = torch.where(taken, dense.abs(), math.inf).reshape(-1).sort().indices[:drop]
        best = torch.where(taken, -math.inf, score).reshape(-1).sort(descending=True).indices[:drop]
        want, now = dense.reshape(-1).clone(), taken.reshape(-1).clone()
        want[weakest], now[weakest], now[best] = 0, False, True
        before = values
        graph, values, origin = B.prune_regrow(graph, values, 0.3, score)
        assert values.numel() == E and graph.num_edges == E
        assert_same(values, want[now])
        assert torch.equal(B.mask_graph(now.reshape(O, I)).col, graph.col)
        assert torch.equal(values[origin >= 0], before[origin[origin >= 0]]) and int((origin < 0).sum()) == drop
    again = [B.prune_regrow(graph, values, 0.3, generator=generator(4))[0].col for _ in range(2)]
    assert torch.equal(*again)


def test_hebbian_score() -> None:
    x, y = rand(50, 4), rand(50, 3, seed=1)
    want = torch.corrcoef(torch.cat([y, x], 1).t())[:3, 3:].abs()
    assert_close(B.hebbian_score(x, y), want, terms=256)
    assert B.hebbian_score(torch.ones(5, 2), torch.randn(5, 1)).eq(0).all()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: B.binary_attention(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3)), ValueError),
        (lambda: B.binary_attention(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, 3)), ValueError),
        (lambda: B.binary_attention(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), probability="max"), ValueError),
        (lambda: B.binary_attention(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), probability="elastic"), ValueError),
        (lambda: B.binary_attention(torch.zeros(2, 3), torch.zeros(2, 3).double(), torch.zeros(2, 3)), TypeError),
        (lambda: B.binary_attention(*(torch.zeros(2, 3),) * 3, mask=torch.zeros(2, 2)), TypeError),
        (lambda: B.binary_attention(*(torch.zeros(2, 3),) * 3, probability="bool", mask=torch.ones(3, 2).bool()), ValueError),
        (lambda: B.binary_attention(*(torch.zeros(2, 3),) * 3, mask=torch.ones(1, 2, 2).bool()), ValueError),
        (lambda: B.binary_attention(*(torch.zeros(2, 3),) * 3, sign_zero=0), ValueError),
        (lambda: B.binary_embedding(torch.tensor([3]), torch.zeros(3, 2)), IndexError),
        (lambda: B.binary_embedding(torch.tensor([-1]), torch.zeros(3, 2)), IndexError),
        (lambda: B.binary_embedding(torch.tensor([0.0]), torch.zeros(3, 2)), TypeError),
        (lambda: B.binary_embedding_bag(torch.tensor([0]), torch.tensor([0, 3]), torch.zeros(3, 2)), ValueError),
        (lambda: B.binary_embedding_bag(torch.tensor([0, 3]), torch.tensor([0]), B.pack(torch.zeros(3, 2))), IndexError),
        (lambda: B.binary_embedding_bag(torch.tensor([0, 1]), torch.tensor([1]), B.pack(torch.zeros(3, 2))), ValueError),
        (lambda: B.binary_embedding_bag(torch.tensor([0, 1]), torch.tensor([0, 3]), B.pack(torch.zeros(3, 2))), ValueError),
        (lambda: B.binary_embedding_bag(torch.tensor([0, 1]), torch.tensor([0, 2, 1]), B.pack(torch.zeros(3, 2))), ValueError),
        (lambda: B.binary_embedding_bag(torch.tensor([0]), torch.tensor([0]), B.pack(torch.zeros(3, 2), 0)), ValueError),
        (lambda: B.binary_embedding_bag(torch.tensor([0.0]), torch.tensor([0]), B.pack(torch.zeros(3, 2))), TypeError),
        (lambda: B.binary_embedding_bag(torch.tensor([0]), torch.tensor([0]), B.pack(torch.zeros(3, 2)), "min"), ValueError),
        (lambda: B.sparse_linear(torch.zeros(2, 3), B.mask_graph(torch.ones(2, 2)), torch.zeros(4)), ValueError),
        (lambda: B.sparse_linear(torch.zeros(2, 2), B.mask_graph(torch.ones(2, 2)), torch.zeros(3)), ValueError),
        (lambda: B.sparse_linear(torch.zeros(2, 2), torch.ones(2, 2), torch.zeros(4)), TypeError),
        (lambda: B.block_sparse_linear(torch.zeros(2, 2), B.mask_graph(torch.ones(2, 2)), torch.zeros(4, 1, 2)), ValueError),
        (lambda: B.prune_regrow(B.mask_graph(torch.ones(2, 2)), torch.zeros(4), 1.5), ValueError),
        (lambda: B.hebbian_score(torch.zeros(2, 2), torch.zeros(3, 2)), ValueError),
        (lambda: B.mask_graph(torch.zeros(2)), ValueError),
    ],
)
def test_bad_input(call, kind) -> None:
    with pytest.raises(kind):
        call()
