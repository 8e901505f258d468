"""Attention within segments: values, every gradient, second order, masks, and torch's own attention of nested tensors."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from cases import FLOATS, INTEGERS, generator
from compare import assert_close, assert_same
from structops import Graph
from structops._ladder._segment_attention import pairs
from structops.sparse import dot_attention, segment_attention
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

raw, raw_bwd = torch.ops.structops.segment_attention, torch.ops.structops.segment_attention_bwd
# Beyond a tile and a block, several segments in a tile, without queries, without keys, with one key.
QUERIES, KEYS = torch.tensor([3, 0, 1, 97, 4, 30]), torch.tensor([5, 2, 0, 150, 1, 11])


def pointer(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


QPTR, KPTR, OFFSET = pointer(QUERIES), pointer(KEYS), pointer(QUERIES * KEYS)
NQ, NK, P = int(QPTR[-1]), int(KPTR[-1]), int(OFFSET[-1])


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers that every dtype holds exactly."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).bfloat16().to(dtype)


def dense(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """One masked matrix of scores for all segments."""
    same = torch.repeat_interleave(torch.arange(6), QUERIES)[:, None] == torch.repeat_interleave(torch.arange(6), KEYS)
    score = scale * torch.einsum("qhd,khd->hqk", q, k)
    if bias is not None:  # row-major order of the pairs is the order of `same`
        score = score + torch.zeros_like(score).masked_scatter(same.expand_as(score), bias.T)
    score = score.masked_fill(~same, float("-inf"))
    alive = same.any(1)
    p = torch.zeros_like(score)
    p = torch.index_put(p, (torch.arange(q.shape[1])[:, None], alive.nonzero()[:, 0]), score[:, alive].softmax(2))
    return torch.einsum("hqk,khd->qhd", p, v).contiguous()


@cache
def case(H: int, K: int, D: int, biased: bool, dtype: torch.dtype):
    shapes = (NQ, H, K), (NK, H, K), (NK, H, D), (P, H) if biased else None
    operands = [None if s is None else randn(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes)]
    leaves = [None if t is None else t.double().requires_grad_() for t in operands]
    out = dense(*leaves, 0.25)
    grad = randn(NQ, H, D, seed=9, dtype=dtype)
    found = iter(torch.autograd.grad(out, [t for t in leaves if t is not None], grad.double()))
    return operands, grad, out.detach(), [None if t is None else next(found) for t in operands]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_and_gradients(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (H, K, D, biased) in enumerate([(4, 32, 32, False), (1, 1, 1, True), (3, 5, 70, True), (2, 33, 17, False)]):
        operands, grad, want, wanted = case(H, K, D, biased, dtype)
        tail = QPTR.to(INTEGERS[n % 2]), KPTR.to(INTEGERS[n % 2]), OFFSET if biased else None, 0.25
        out, lse = on_threads(lambda: raw(*operands, *tail))
        assert_close(out, want, dtype, terms=200, magnitude=3.0, what=(H, K, D))
        exact = want.to(dtype)  # what the backward is given
        found = on_threads(lambda: raw_bwd(*operands, exact, lse, grad, *tail))
        for name, got, expected in zip(("query", "key", "value", "bias"), found, wanted, strict=True):
            if expected is None:
                assert got.numel() == 0
            elif dtype in (torch.bfloat16, torch.float16):  # <g, out> comes from the rounded result
                assert got.dtype == dtype
                atol = 0.02 * (1 + float(expected.abs().max()))
                torch.testing.assert_close(got.double(), expected, atol=atol, rtol=0.02, msg=f"{name} {(H, K, D)}")
            else:
                assert_close(got, expected, dtype, terms=1000, magnitude=1 + float(expected.abs().max()), what=(name, H, K, D))


def test_it_is_attention_over_all_pairs() -> None:
    """The same as dot_attention on the complete bipartite graphs, whose edges stand in the order of bias."""
    q, k, v, bias = (randn(*s, seed=i) for i, s in enumerate(((NQ, 2, 8), (NK, 2, 8), (NK, 2, 5), (P, 2))))
    rowptr, col = pairs(QPTR, KPTR, NQ)
    graph = Graph.from_csr(rowptr, col, NK)
    torch.testing.assert_close(segment_attention(q, k, v, QPTR, KPTR, bias), dot_attention(graph, q, k, v, bias))


def test_two_orders() -> None:
    qptr, kptr = torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 4, 6])
    inputs = tuple(randn(*s, seed=i).requires_grad_() for i, s in enumerate(((5, 2, 3), (6, 2, 3), (6, 2, 4), (12, 2))))
    run = lambda q, k, v, bias: segment_attention(q, k, v, qptr, kptr, bias, scale=0.7)
    assert gradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(lambda q, k, v: segment_attention(q, k, v, qptr, kptr), inputs[:3], fast_mode=True)


def test_nested_tensors() -> None:
    """torch's attention over jagged tensors."""
    counts = QUERIES[QUERIES > 0]
    ptr = pointer(counts)
    q, k, v = (randn(int(ptr[-1]), 2, 16, seed=i, dtype=torch.float32) for i in range(3))
    nested = (torch.nested.nested_tensor_from_jagged(t, ptr).transpose(1, 2) for t in (q, k, v))
    want = torch.nn.functional.scaled_dot_product_attention(*nested).transpose(1, 2).values()
    torch.testing.assert_close(segment_attention(q, k, v, ptr), want, atol=1e-5, rtol=1e-5)


def test_masked_and_infinite_scores(isa: str) -> None:
    q, v = torch.zeros(5, 1, 2), torch.tensor([[[1.0]], [[3.0]]], requires_grad=True)
    inf = float("inf")
    bias = torch.tensor([0.0, -inf, -inf, -inf, inf, 0.0, float("nan"), 0.0, 0.0, 0.0])[:, None].requires_grad_()
    out = segment_attention(q, q[:2], v, torch.tensor([0, 5]), torch.tensor([0, 2]), bias)
    assert out[[0, 1, 4]].flatten().tolist() == [1.0, 0.0, 2.0] and out[2:4].isnan().all()
    dv, db = torch.autograd.grad(out[:2].sum(), (v, bias))
    assert db[:4].flatten().tolist() == [0.0] * 4
    assert dv.shape == v.shape


def test_sizes_of_zero(isa: str) -> None:
    none = torch.zeros(0, 2, 3, requires_grad=True)
    out = segment_attention(none, none, none, torch.zeros(4, dtype=torch.int64))
    assert out.shape == (0, 2, 3)
    out.sum().backward()
    keyless = segment_attention(torch.ones(2, 2, 3), none, none, torch.tensor([0, 2]), torch.tensor([0, 0]))
    assert keyless.shape == (2, 2, 3) and not keyless.any()
    x = torch.ones(2, 2, 0)
    assert segment_attention(x, x, torch.ones(2, 2, 1), torch.tensor([0, 2])).flatten().tolist() == [1.0] * 4
    assert segment_attention(torch.ones(2, 0, 3), torch.ones(2, 0, 3), torch.ones(2, 0, 3), torch.tensor([0, 2])).shape == (2, 0, 3)


def test_a_segment_does_not_see_its_neighbours(isa: str) -> None:
    q, k, v = (randn(n, 2, 9, seed=i, dtype=torch.float32) for i, n in enumerate((NQ, NK, NK)))
    whole = segment_attention(q, k, v, QPTR, KPTR)
    for i in range(6):
        (a, b), (c, d) = QPTR[i : i + 2].tolist(), KPTR[i : i + 2].tolist()
        alone = segment_attention(q[a:b], k[c:d], v[c:d], torch.tensor([0, b - a]), torch.tensor([0, d - c]))
        assert_same(whole[a:b], alone, i)


X = torch.ones(4, 2, 3)
PTR = torch.tensor([0, 1, 4])


@pytest.mark.parametrize(
    "args, kind, text",
    [
        ((X[0], X, X, PTR), ValueError, "query"),
        ((X.int(), X, X, PTR), TypeError, "query"),
        ((X, X[:, :1], X, PTR), ValueError, "key"),
        ((X, X, X[:3], PTR), ValueError, "value"),
        ((X, X, X.double(), PTR), TypeError, "value"),
        ((X, X, X, torch.tensor([0, 5])), ValueError, "q_indptr"),
        ((X, X, X, torch.tensor([0, 3, 2, 4])), ValueError, "q_indptr"),
        ((X, X, X, PTR.float()), TypeError, "q_indptr"),
        ((X, X[:3], X[:3], PTR), TypeError, "k_indptr"),
        ((X, X, X, PTR, torch.tensor([0, 4])), ValueError, "k_indptr"),
        ((X, X, X, PTR, None, torch.ones(9, 2)), ValueError, "bias"),
        ((X, X, X, PTR, None, torch.ones(10, 1)), ValueError, "bias"),
    ],
)
def test_bad_input(args: tuple, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        segment_attention(*args)
