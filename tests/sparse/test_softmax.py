"""segment_softmax, scatter_softmax, their logarithms and derivatives."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, to_csr, values
from compare import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import ScatterPlan, scatter_softmax, segment_softmax
from structops.kernels.sparse import softmax_ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

raw, raw_bwd = torch.ops.structops.segment_softmax, torch.ops.structops.segment_softmax_bwd
E, N = 130, 24
COO = random_coo(19, N, E)


def oracle(src: Tensor, indptr: Tensor, eid: Tensor | None = None, log: bool = False) -> Tensor:
    """Differentiable, along dim 0."""
    fn = torch.log_softmax if log else torch.softmax
    rows = src if eid is None else src[eid.long()]
    ptr = indptr.tolist()
    out = torch.cat([fn(rows[a:b], 0) for a, b in zip(ptr, ptr[1:], strict=False)])
    return out if eid is None else out[torch.argsort(eid.long())]


@cache
def expectation(shape: tuple, permuted: bool, log: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Scores, gradient, softmax, the softmax as ``dtype`` holds it, and its backward."""
    rowptr, _, eid = to_csr(COO, N)
    src, grad = 4 * values(*shape, dtype=dtype), values(*shape, dtype=dtype, seed=1)
    expected = softmax_ref.segment_softmax(src.double(), rowptr, eid if permuted else None, log)
    held = expected.to(dtype)
    back = softmax_ref.segment_softmax_bwd(held.double(), grad.double(), rowptr, eid if permuted else None, log)
    return src, grad, expected, held, back


@cache
def hub_case(F: int, log: bool) -> tuple[Tensor, ...]:
    coo = random_coo(9, 7, 500, hub=20_000)
    rowptr, _, eid = to_csr(coo, 7)
    src, grad = 3 * values(coo.shape[1], F), values(coo.shape[1], F, seed=1)
    expected = oracle(src, rowptr, eid, log)
    return rowptr, eid, src, grad, expected, softmax_ref.segment_softmax_bwd(expected, grad, rowptr, eid, log)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, log: bool, poison: None, on_threads) -> None:
    for n, shape in enumerate([(E,), (E, 1), (E, 2), (E, 3), (E, 4), (E, 7), (E, 8), (E, 16), (E, 33), (E, 130), (2, E, 4), (3, E, 17)]):
        rowptr, _, eid = to_csr(COO, N, INTEGERS[n % 2])
        for e in (eid, None):
            src, grad, expected, held, back = expectation(shape, e is not None, log, dtype)
            out = on_threads(lambda: raw(src, rowptr, e, log))
            assert_close(out, expected, dtype, terms=16, what=shape)
            got = on_threads(lambda: raw_bwd(held, grad, rowptr, e, log))
            assert_close(got, back, dtype, terms=32, magnitude=2.0, what=shape)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("F", [1, 4, 5, 16])
def test_hub_rows(isa: str, F: int, log: bool, on_threads) -> None:
    rowptr, eid, wide, wide_grad, expected, back = hub_case(F, log)
    for dtype in (torch.float32, torch.float64):
        src, grad = wide.to(dtype), wide_grad.to(dtype)
        out = on_threads(lambda: raw(src, rowptr, eid, log))
        scale = 1.0 if log else expected.max().item()
        assert_close(out, expected, dtype, terms=200, magnitude=scale)
        got = on_threads(lambda: raw_bwd(out, grad, rowptr, eid, log))
        assert_close(got, back, dtype, terms=20_000, magnitude=scale)


@pytest.mark.parametrize("log", [False, True])
def test_special_values(isa: str, log: bool) -> None:
    """As torch.softmax: a lone -inf has weight 0; a row of only -inf, or with NaN or +inf, is NaN."""
    inf, nan = float("inf"), float("nan")
    rows = [[0.0, -inf], [-inf, -inf], [nan, 1.0], [inf, 1.0], [1e30, -1e30], [-1e4, -1e4], [700.0, -700.0], [88.0, -88.0, 89.0]]
    indptr = torch.tensor([0] + [len(r) for r in rows]).cumsum(0)
    for dtype in FLOATS:
        for F in (1, 3, 4, 16, 40):
            src = torch.tensor([v for r in rows for v in r]).to(dtype)[:, None].expand(-1, F)
            expected = oracle(src.double(), indptr, log=log)
            assert_close(segment_softmax(src, indptr, log=log), expected, dtype, terms=4, magnitude=1.0, what=F)


@pytest.mark.parametrize("log", [False, True])
def test_public_shapes(log: bool) -> None:
    rowptr, _, _ = to_csr(COO, N)
    for shape, dim in [((E,), 0), ((E, 3), 0), ((2, E), 1), ((2, E, 5), 1), ((E, 2, 2), 0), ((2, 2, E), -1)]:
        src = values(*shape)
        expected = oracle(src.movedim(dim, 0), rowptr, log=log).movedim(0, dim)
        assert_close(segment_softmax(src, rowptr, dim, log=log), expected, terms=16)
        index = COO[1]
        order = torch.sort(index, stable=True).indices
        wanted = oracle(src.movedim(dim, 0), rowptr, order, log).movedim(0, dim)
        for i in (index, index.int(), ScatterPlan(index, N)):
            assert_close(scatter_softmax(src, i, dim=dim, log=log), wanted, terms=16)


@pytest.mark.parametrize("log", [False, True])
def test_gradients(log: bool, poison: None) -> None:
    indptr = torch.tensor([0, 3, 3, 4, 9])
    index = torch.tensor([3, 0, 3, 1, 0, 3, 3, 0, 5])
    src = torch.randn(9, 2, dtype=torch.float64, generator=generator(1)).requires_grad_()
    for fn in (lambda s: segment_softmax(s, indptr, log=log), lambda s: scatter_softmax(s, index, 6, log=log)):
        assert gradcheck(fn, (src,))
        assert gradgradcheck(fn, (src,))
    ours, theirs = segment_softmax(src, indptr, log=log), oracle(src, indptr, log=log)
    c = values(9, 2, seed=3)
    for _ in range(3):  # three orders
        (a,) = torch.autograd.grad((ours * c).sum(), src, create_graph=True)
        (b,) = torch.autograd.grad((theirs * c).sum(), src, create_graph=True)
        assert_close(a, b, terms=64)
        ours, theirs = a.sin(), b.sin()


def test_backward_saves_the_result_only() -> None:
    src = torch.randn(500, 8, requires_grad=True)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        segment_softmax(src, torch.tensor([0, 100, 500]))
    assert sorted(saved) == [3, 4000]


def test_zero_sizes(poison: None) -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    for log in (False, True):
        assert segment_softmax(torch.zeros(0, 3), zero, log=log).shape == (0, 3)
        assert segment_softmax(torch.zeros(0, 3), torch.zeros(4, dtype=torch.int64), log=log).shape == (0, 3)
        assert segment_softmax(torch.zeros(5, 0), torch.tensor([0, 5]), log=log).shape == (5, 0)
        assert segment_softmax(torch.zeros(0, 5, 2), torch.tensor([0, 5]), 1, log=log).shape == (0, 5, 2)
        assert scatter_softmax(torch.zeros(0), zero[:0], log=log).shape == (0,)
    src = torch.zeros(5, 2, 0, requires_grad=True)
    segment_softmax(src, torch.tensor([0, 5])).sum().backward()
    assert src.grad.shape == (5, 2, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=10), st.integers(1, 18), st.integers(0, 2**16))
def test_sums_to_one(sizes: list[int], F: int, seed: int) -> None:
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    src = 20 * values(sum(sizes), F, seed=seed)
    y = segment_softmax(src, indptr)
    total = torch.stack([y[a:b].sum(0) for a, b in zip(indptr.tolist(), indptr.tolist()[1:], strict=False)]) if sizes else y
    assert_close(total, (indptr.diff() > 0).double()[:, None].expand(-1, F), terms=16)
    assert_close(segment_softmax(src, indptr, log=True).exp(), y, terms=64)
    shifted = src + torch.repeat_interleave(torch.arange(len(sizes)), indptr.diff())[:, None]
    assert_close(segment_softmax(shifted, indptr), y, terms=64)


def test_deterministic() -> None:
    rowptr, _, eid = to_csr(COO, N)
    src = values(E, 5)
    assert_same(raw(src, rowptr, eid, False), raw(src, rowptr, eid, False))
