"""Attention, embeddings and masked linear layers against float simulations in torch."""

from __future__ import annotations

import math

import pytest
import structops
import torch
from cases import generator
from compare import assert_close, assert_same
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


def test_attention_keeps_bits() -> None:
    q, k, v = (torch.randn(2, 128, 64, requires_grad=True) for _ in range(3))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel() * t.element_size()), t)[1], lambda t: t):
        B.binary_attention(q, k, v, probability="bool", scale=0.1)
    n, p = 2 * 128 * 64, 2 * 128 * 128
    assert sum(kept) <= 3 * n * 2 // 8 + 2 * p // 8 + 64  # two bits a number, two a score, the size


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
    assert gradcheck(lambda x, b: B.block_sparse_linear(x, graph, b), (x.requires_grad_(), blocks.requires_grad_()))


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
        (lambda: B.binary_attention(*(torch.zeros(2, 3),) * 3, sign_zero=0), ValueError),
        (lambda: B.binary_embedding(torch.tensor([3]), torch.zeros(3, 2)), IndexError),
        (lambda: B.binary_embedding(torch.tensor([-1]), torch.zeros(3, 2)), IndexError),
        (lambda: B.binary_embedding(torch.tensor([0.0]), torch.zeros(3, 2)), TypeError),
        (lambda: B.binary_embedding_bag(torch.tensor([0]), torch.tensor([0, 3]), torch.zeros(3, 2)), ValueError),
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
