"""segment_reduce and segment_gather: values, winners, gradients, dimensions and dtypes."""

from __future__ import annotations

import pytest
import structops
import torch
from cases import FLOATS, INTEGERS, REDUCES, generator, reduce_rows, small_integers, values, winners
from compare import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import segment_gather, segment_reduce
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

INDPTR = torch.tensor([0, 0, 3, 4, 4, 11, 40, 41, 41])
E, N = 41, 8


def oracle(src: Tensor, indptr: Tensor, reduce: str, dim: int = 0, **kwargs) -> Tensor:
    return reduce_rows(src.movedim(dim, 0), indptr, reduce, **kwargs).movedim(0, dim)


def terms(dim: int, rank: int) -> Tensor:
    return INDPTR.diff().double().reshape(*(1,) * dim, -1, *(1,) * (rank - dim - 1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
def test_values(isa: str, reduce: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for shape, dim in [((E,), 0), ((E, 1), 0), ((E, 5), 0), ((E, 64), 0), ((2, E), 1), ((3, E, 17), 1), ((E, 2, 3), 0), ((2, 3, E, 5), 2), ((2, 3, E), -1)]:
        src = values(*shape, dtype=dtype)
        for indptr in (INDPTR, INDPTR.int()):
            out = on_threads(lambda: segment_reduce(src, indptr, reduce, dim))
            magnitude = oracle(src.double(), INDPTR, reduce, dim).abs().nan_to_num(0, 0, 0) if reduce == "prod" else 1.5
            assert_close(
                out, oracle(src.double(), INDPTR, reduce, dim), dtype, terms=terms(dim % src.dim(), src.dim()),
                magnitude=magnitude, what=shape,
            )  # fmt: skip


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("reduce", ["var", "std"])
def test_unbiased_is_torch_correction(reduce: str, unbiased: bool) -> None:
    src = values(6, 3)
    expected = getattr(src, reduce)(0, correction=int(unbiased))[None]
    assert_close(segment_reduce(src, torch.tensor([0, 6]), reduce, unbiased=unbiased), expected, terms=6)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_integers(isa: str, dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    src = torch.randint(0, 5, (E, 7), generator=generator(1)).to(dtype)
    if info.min < 0:
        src = src - 2
    ptr = INDPTR.tolist()
    groups = [src[a:b].long() for a, b in zip(ptr, ptr[1:], strict=False)]
    full = lambda v: torch.full((7,), v)
    expected = {
        "sum": [g.sum(0) for g in groups],
        "prod": [g.prod(0) for g in groups],
        "mean": [g.sum(0).div(len(g), rounding_mode="floor") if len(g) else full(0) for g in groups],
        "min": [g.amin(0) if len(g) else full(0) for g in groups],
        "max": [g.amax(0) if len(g) else full(0) for g in groups],
    }
    for reduce, rows in expected.items():
        assert_same(segment_reduce(src, INDPTR, reduce), torch.stack(rows).to(dtype), reduce)
    extreme = torch.tensor([info.max, info.min, info.max], dtype=dtype)
    pair = torch.tensor([0, 2, 3])
    assert segment_reduce(extreme, pair, "max").tolist() == [info.max, info.max]
    assert segment_reduce(extreme, pair, "min").tolist() == [info.min, info.max]
    wrapped = (int(info.max) * 2 - info.min) % (info.max - info.min + 1) + info.min
    assert segment_reduce(torch.tensor([info.max, info.max], dtype=dtype), torch.tensor([0, 2])).item() == wrapped
    assert segment_reduce(src, INDPTR, "max", fill_value=3)[0].tolist() == [3] * 7


def test_large_integers_are_exact(isa: str) -> None:
    src = torch.tensor([2**53 + 1, 2**53 + 3, -(2**62)])
    assert segment_reduce(src, torch.tensor([0, 2, 3]), "max").tolist() == [2**53 + 3, -(2**62)]
    assert segment_reduce(src, torch.tensor([0, 2, 3]), "mean").tolist() == [2**53 + 2, -(2**62)]


@pytest.mark.parametrize("skip_nan", [False, True])
@pytest.mark.parametrize("reduce", ["min", "max"])
def test_winners(isa: str, reduce: str, skip_nan: bool, poison: None) -> None:
    for dtype in (*FLOATS, *INTEGERS):
        for shape, dim in [((E,), 0), ((E, 9), 0), ((2, E, 3), 1)]:
            src = small_integers(*shape, dtype=dtype, seed=2)
            if dtype.is_floating_point:
                src[torch.rand(shape, generator=generator(3)) < 0.3] = float("nan")
                src.select(dim, 3).fill_(float("nan"))
            out, arg = segment_reduce(src, INDPTR, reduce, dim, return_arg=True, skip_nan=skip_nan, fill_value=-9)
            rows = src.movedim(dim, 0)
            assert_same(arg, winners(rows, INDPTR, reduce == "max", E, skip_nan).movedim(0, dim), (dtype, shape))
            expected = oracle(src.double(), INDPTR, reduce, dim, fill=-9, skip_nan=skip_nan)
            assert_close(out, expected, dtype)


def test_fill_value() -> None:
    for reduce in REDUCES:
        out = segment_reduce(values(E, 2), INDPTR, reduce, fill_value=7.5)
        assert (out[INDPTR.diff() == 0] == 7.5).all()


def test_views_are_read_as_they_look(isa: str) -> None:
    """Transposed, strided, expanded, flipped and conjugate-view inputs."""
    base = values(E, 6)
    views = {
        "transposed": values(6, E).t(),
        "strided": values(2 * E, 6)[::2],
        "columns": values(E, 12)[:, 1::2],
        "expanded": values(1, 6).expand(E, 6),
        "expanded features": values(E, 1).expand(E, 6),
        "offset": values(E * 6 + 3)[3:].view(E, 6),
        "negative": torch.view_as_complex(values(E, 6, 2)).conj().imag,
    }
    for name, src in views.items():
        for reduce in ("sum", "max", "logsumexp"):
            assert_close(segment_reduce(src, INDPTR, reduce), oracle(src.clone().resolve_neg(), INDPTR, reduce), terms=40, what=name)
    strided = torch.stack([INDPTR, INDPTR], 1)[:, 0]
    assert not strided.is_contiguous()
    assert_same(segment_reduce(base, strided), segment_reduce(base, INDPTR))


def two_orders(fn, src: Tensor) -> list[Tensor]:
    out = fn(src)
    c = torch.randn(out.shape, generator=generator(4), dtype=out.dtype)
    (first,) = torch.autograd.grad(out, src, c, create_graph=True)
    if not first.requires_grad:
        return [first, torch.zeros_like(src)]
    (second,) = torch.autograd.grad((first * torch.randn(first.shape, generator=generator(5), dtype=out.dtype)).sum(), src, allow_unused=True)
    return [first, torch.zeros_like(src) if second is None else second]


@pytest.mark.parametrize("reduce", REDUCES)
def test_gradients(reduce: str, poison: None) -> None:
    for shape, dim in [((E,), 0), ((E, 4), 0), ((2, E, 3), 1), ((E, 2, 2), 0)]:
        src = values(*shape).requires_grad_()
        got = two_orders(lambda s: segment_reduce(s, INDPTR, reduce, dim), src)
        want = two_orders(lambda s: oracle(s, INDPTR, reduce, dim), src)
        bulk = max(1.0, *(w.abs().max().item() for w in want))
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, terms=1024, magnitude=bulk, what=shape)


@pytest.mark.parametrize("reduce", REDUCES)
def test_gradcheck(reduce: str) -> None:
    indptr = torch.tensor([0, 2, 2, 5, 6])
    src = torch.randn(6, 2, dtype=torch.float64, generator=generator(1)).requires_grad_()
    fn = lambda s: segment_reduce(s, indptr, reduce, fill_value=0.5)
    assert gradcheck(fn, (src,), fast_mode=True)
    assert gradgradcheck(fn, (src,), fast_mode=True)


def test_arg_with_gradient() -> None:
    src = values(E, 3).requires_grad_()
    out, arg = segment_reduce(src, INDPTR, "max", return_arg=True)
    assert out.requires_grad and not arg.requires_grad
    out.sum().backward()
    assert src.grad.sum() == (arg < E).sum()


def test_input_is_untouched() -> None:
    src, indptr = values(E, 5), INDPTR.clone()
    keep = src.clone()
    for reduce in REDUCES:
        segment_reduce(src, indptr, reduce)
    assert torch.equal(src, keep) and torch.equal(indptr, INDPTR)


def test_zero_sizes(poison: None) -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    for reduce in REDUCES:
        fill = {"prod": 1.0, "logsumexp": float("-inf")}.get(reduce, 0.0)
        assert segment_reduce(torch.zeros(0, 3), zero, reduce).shape == (0, 3)
        assert_same(segment_reduce(torch.zeros(0, 3), torch.zeros(5, dtype=torch.int32), reduce), torch.full((4, 3), fill))
        assert segment_reduce(torch.zeros(E, 0), INDPTR, reduce).shape == (N, 0)
        assert segment_reduce(torch.zeros(0, E, 3), INDPTR, reduce, 1).shape == (0, N, 3)
        assert segment_reduce(torch.zeros(E, 2, 0), INDPTR, reduce).shape == (N, 2, 0)
    for shape, dim in [((E, 0), 0), ((E, 2, 0), 0), ((2, E, 0), 1)]:
        src = torch.zeros(*shape, requires_grad=True)
        segment_reduce(src, INDPTR, dim=dim).sum().backward()
        assert src.grad.shape == shape


# ---- gather ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.int8, torch.uint8, torch.int16], ids=str)
def test_gather(isa: str, dtype: torch.dtype, poison: None) -> None:
    for shape, dim in [((N,), 0), ((N, 1), 0), ((N, 19), 0), ((2, N), 1), ((3, N, 5), 1), ((N, 2, 3), 0)]:
        src = small_integers(*shape, dtype=dtype)
        for indptr in (INDPTR, INDPTR.int()):
            assert_same(segment_gather(src, indptr, dim), src.repeat_interleave(INDPTR.diff(), dim), shape)


def test_gather_is_the_transpose_of_sum() -> None:
    x, y = values(E, 3), values(N, 3, seed=1)
    assert_close((segment_reduce(x, INDPTR) * y).sum(), (x * segment_gather(y, INDPTR)).sum(), terms=E * 3)
    src = values(N, 3).requires_grad_()
    assert gradcheck(lambda s: segment_gather(s, INDPTR), (src,), fast_mode=True)
    assert gradgradcheck(lambda s: segment_gather(s, INDPTR), (src,), fast_mode=True)


def test_gather_zero_sizes() -> None:
    assert segment_gather(torch.zeros(0, 3), torch.zeros(1, dtype=torch.int64)).shape == (0, 3)
    assert segment_gather(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)).shape == (0, 3)
    assert segment_gather(torch.zeros(2, 0), torch.tensor([0, 1, 4])).shape == (4, 0)


# ---- properties ------------------------------------------------------------------------------------------------------

lengths = st.lists(st.integers(0, 9), min_size=0, max_size=12)


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(1, 20), st.sampled_from(REDUCES), st.integers(0, 2**16))
def test_any_lengths(sizes: list[int], F: int, reduce: str, seed: int) -> None:
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    src = values(sum(sizes), F, seed=seed)
    expected = oracle(src, indptr, reduce)
    assert_close(segment_reduce(src, indptr, reduce), expected, terms=80)


@settings(max_examples=30, deadline=None)
@given(lengths, st.integers(0, 2**16))
def test_order_inside_groups_does_not_matter(sizes: list[int], seed: int) -> None:
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    src = values(sum(sizes), 3, seed=seed)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    shuffled = torch.randperm(len(group), generator=generator(seed))
    order = shuffled[torch.sort(group[shuffled], stable=True).indices]
    for reduce in ("sum", "mean", "var", "logsumexp", "prod"):
        assert_close(segment_reduce(src[order], indptr, reduce), segment_reduce(src, indptr, reduce), terms=80)
    for reduce in ("min", "max"):
        assert_same(segment_reduce(src[order], indptr, reduce), segment_reduce(src, indptr, reduce))


def test_counts() -> None:
    assert segment_reduce(torch.ones(E, dtype=torch.int64), INDPTR).tolist() == INDPTR.diff().tolist()
    assert structops.segment_reduce(torch.ones(E), INDPTR, "mean").tolist() == (INDPTR.diff() > 0).float().tolist()
