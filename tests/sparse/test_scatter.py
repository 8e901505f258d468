"""scatter_reduce and the raw scatter operator."""

from __future__ import annotations

from functools import cache

import pytest
import structops
import torch
from cases import FLOATS, INTEGERS, REDUCES, generator, near_one, reduce_rows, small_integers, to_csr, values, winners
from compare import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import ScatterPlan, scatter_reduce, segment_reduce
from structops.kernels import codes as C
from structops.kernels.sparse import scatter_ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

E, N = 60, 9
raw = torch.ops.structops.scatter
RAW_REDUCES = REDUCES[:5]


@cache
def indices(seed: int = 0) -> Tensor:
    """Unsorted, with groups 2 and 7 empty."""
    rows = torch.tensor([0, 1, 3, 4, 5, 6, 8])
    return rows[torch.randint(len(rows), (E,), generator=generator(seed))]


def sort(index: Tensor, num: int) -> tuple[Tensor, Tensor]:
    rowptr, _, perm = to_csr(torch.stack([index, index]), num)
    return rowptr, perm


def oracle(src: Tensor, index: Tensor, num: int, reduce: str, dim: int = 0, **kwargs) -> Tensor:
    rowptr, perm = sort(index.long(), num)
    return reduce_rows(src.movedim(dim, 0)[perm], rowptr, reduce, **kwargs).movedim(0, dim)


@cache
def raw_expectation(shape: tuple, reduce: str, fill: float, narrow: bool) -> Tensor:
    src = values(*shape, dtype=torch.bfloat16 if narrow else torch.float32).double()
    return scatter_ref.scatter(src, indices(), N, C.REDUCES[reduce], False, fill, False)[0]


@cache
def hub_case(reduce: str, F: int, narrow: bool) -> tuple[Tensor, Tensor, Tensor]:
    total, num = 70_000, 500
    index = torch.randint(num, (total,), generator=generator(1))
    index[torch.randperm(total, generator=generator(2))[:20_000]] = 3
    src = (near_one if reduce == "prod" else values)(total, F, dtype=torch.bfloat16 if narrow else torch.float32)
    return index, src, oracle(src.double(), index, num, reduce, fill=0.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduce", RAW_REDUCES)
def test_raw_values(isa: str, reduce: str, dtype: torch.dtype, poison: None) -> None:
    for shape in [(E,), (E, 1), (E, 3), (E, 8), (E, 17), (E, 33), (E, 130), (3, E, 1), (3, E, 5)]:
        for itype in INTEGERS:
            index = indices().to(itype)
            src = values(*shape, dtype=dtype)
            for fill in (C.EMPTY[C.REDUCES[reduce]], -2.0):
                args = (index, N, C.REDUCES[reduce], False, fill, False)
                expected = raw_expectation(shape, reduce, fill, dtype.itemsize == 2)
                out, arg = raw(src, *args)
                assert arg.numel() == 0
                assert_close(out, expected, dtype, terms=E, magnitude=1.5, what=(shape, itype, fill))


@pytest.mark.parametrize("skip_nan", [False, True])
@pytest.mark.parametrize("reduce", ["min", "max"])
def test_raw_winners(isa: str, reduce: str, skip_nan: bool, poison: None) -> None:
    for dtype in (*FLOATS, *INTEGERS):
        for shape in [(E,), (E, 1), (E, 19), (2, E, 5)]:
            src = small_integers(*shape, dtype=dtype, seed=1)
            if dtype.is_floating_point:
                src[torch.rand(shape, generator=generator(2)) < 0.3] = float("nan")
                src[torch.rand(shape, generator=generator(3)) < 0.1] = float("-inf")
                src.movedim(-2 if src.dim() > 1 else 0, 0)[indices() == 4] = float("nan")
            args = (indices(), N, C.REDUCES[reduce], True, -7.0, skip_nan)
            out, arg = raw(src, *args)
            expected, where = scatter_ref.scatter(src, *args)
            assert_same(out, expected, (dtype, shape))
            assert_same(arg, where, (dtype, shape))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("reduce", ["sum", "min", "max", "prod"])
def test_raw_integers(isa: str, reduce: str, dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    for F in (1, 2, 7, 16, 33):
        src = small_integers(E, F, dtype=dtype)
        if reduce != "prod":
            src[::4] = info.max
            src[1::4] = info.min
        args = (indices(), N, C.REDUCES[reduce], False, 5.0, False)
        assert_same(raw(src, *args)[0], scatter_ref.scatter(src, *args)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduce", RAW_REDUCES)
@pytest.mark.parametrize("F", [1, 20])
def test_hub_and_threads(isa: str, reduce: str, dtype: torch.dtype, F: int, on_threads) -> None:
    """70 000 edges, 20 000 of them into one row; the same bits on any number of threads."""
    index, src, expected = hub_case(reduce, F, dtype.itemsize == 2)
    src = src.to(dtype)
    out = on_threads(lambda: raw(src, index, 500, C.REDUCES[reduce], False, 0.0, False))[0]
    assert_close(out, expected, dtype, terms=20_000, magnitude=expected.abs() if reduce == "prod" else 1.5)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_public_values(dtype: torch.dtype, reduce: str, poison: None) -> None:
    index = indices()
    for shape, dim in [((E,), 0), ((E, 4), 0), ((2, E), 1), ((2, E, 17), 1), ((E, 2, 3), 0), ((2, 2, E), -1)]:
        src = values(*shape, dtype=dtype)
        expected = oracle(src.double(), index, N, reduce, dim)
        for given_index in (index, index.int(), ScatterPlan(index, N), ScatterPlan(index.int(), N)):
            assert_close(scatter_reduce(src, given_index, N, reduce, dim), expected, dtype, terms=E, magnitude=2.0, what=(shape, given_index))
    assert scatter_reduce(values(E), index, reduce=reduce).shape == (int(index.max()) + 1,)


@pytest.mark.parametrize("reduce", REDUCES)
def test_scatter_is_segment_after_sorting(reduce: str) -> None:
    rowptr, perm = sort(indices(), N)
    src = values(E, 5)
    assert_close(scatter_reduce(src, indices(), N, reduce), segment_reduce(src[perm], rowptr, reduce), terms=E)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_public_integers(dtype: torch.dtype) -> None:
    src = torch.randint(0, 4, (E, 3), generator=generator(1)).to(dtype)
    rowptr, perm = sort(indices(), N)
    for reduce in ("sum", "mean", "min", "max", "prod"):
        for index in (indices(), ScatterPlan(indices(), N)):
            assert_same(scatter_reduce(src, index, N, reduce), segment_reduce(src[perm], rowptr, reduce), reduce)


def elementwise(src: Tensor, index: Tensor, num: int, reduce: str, dim: int) -> tuple[Tensor, Tensor]:
    """Every column of ``index`` (expanded to src) on its own."""
    s, i = src.movedim(dim, -1), index.movedim(dim, -1)
    shape = (*s.shape[:-1], num)
    out, arg = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.int64)
    for at in torch.ones(s.shape[:-1]).nonzero().tolist():
        key = tuple(at)
        rowptr, perm = sort(i[key], num)
        out[key] = reduce_rows(s[key].double()[perm], rowptr, reduce)
        padded = torch.cat([perm, torch.tensor([src.shape[dim]])])
        arg[key] = padded[winners(s[key][perm], rowptr, True, src.shape[dim])]
    return out.movedim(-1, dim), arg.movedim(-1, dim)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(
    ("shape", "index_shape", "dim"),
    [
        ((12, 3), (12, 3), 0), ((12, 3), (12, 1), 0), ((3, 12), (3, 12), 1), ((3, 12), (1, 12), 1), ((3, 12, 2), (3, 12), 1),
        ((3, 12, 2), (1, 12, 1), 1), ((3, 12, 2), (3, 12, 2), 1), ((3, 12, 2), (3, 1, 1), 1), ((12, 3, 2), (12, 3), 0),
        ((12, 3, 2), (12, 1, 2), 0), ((2, 3, 12), (2, 3, 12), 2),
    ],
)  # fmt: skip
def test_index_of_several_dimensions(shape: tuple, index_shape: tuple, dim: int, reduce: str) -> None:
    src = values(*shape)
    index = torch.randint(5, index_shape, generator=generator(1))
    full = index.reshape(*index_shape, *(1,) * (len(shape) - len(index_shape))).expand(shape)
    expected, where = elementwise(src, full, 6, reduce, dim)
    assert_close(scatter_reduce(src, index, 6, reduce, dim), expected, terms=24)
    assert_close(scatter_reduce(src, full, 6, reduce, dim), expected, terms=24)
    if reduce == "max":
        assert_same(scatter_reduce(src, index, 6, reduce, dim, return_arg=True)[1], where)
    leaf = src.clone().requires_grad_()
    assert gradcheck(lambda s: scatter_reduce(s, index, 6, reduce, dim, fill_value=0.0), (leaf,), fast_mode=True)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("planned", [False, True])
def test_gradients(reduce: str, planned: bool) -> None:
    src = torch.randn(E, 3, dtype=torch.float64, generator=generator(1)).requires_grad_()
    index = ScatterPlan(indices(), N) if planned else indices()
    fn = lambda s: scatter_reduce(s, index, N, reduce, fill_value=0.5)
    assert gradcheck(fn, (src,), fast_mode=True)
    assert gradgradcheck(fn, (src,), fast_mode=True)
    (got,) = torch.autograd.grad(fn(src).square().sum(), src)
    (want,) = torch.autograd.grad(oracle(src, indices(), N, reduce, fill=0.5).square().sum(), src)
    assert_close(got, want, terms=256, magnitude=max(1.0, want.abs().max().item()))


def test_integer_index_types_and_gradient() -> None:
    src = values(E, 2).requires_grad_()
    for reduce in REDUCES:
        grads = [torch.autograd.grad(scatter_reduce(src, i, N, reduce).nan_to_num(0, 0, 0).sum(), src)[0] for i in (indices(), indices().int())]
        assert_same(*grads, reduce)


def test_winners_with_and_without_gradient() -> None:
    src = values(E, 4)
    for reduce in ("min", "max"):
        rowptr, perm = sort(indices(), N)
        padded = torch.cat([perm, torch.tensor([E])])
        where = padded[winners(src[perm], rowptr, reduce == "max", E)]
        for leaf in (src, src.clone().requires_grad_()):
            for index in (indices(), ScatterPlan(indices(), N)):
                out, arg = scatter_reduce(leaf, index, N, reduce, return_arg=True)
                assert_same(arg, where)
                inside = where < E
                assert torch.equal(out.detach()[inside], src.gather(0, where.clamp(max=E - 1))[inside])


def test_large_outputs_take_the_sorted_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both routes of an unsorted sum give the same numbers."""
    from structops.sparse import _scatter

    src = values(E, 16)
    direct = {r: scatter_reduce(src, indices(), N, r) for r in REDUCES}
    monkeypatch.setattr(_scatter, "_DIRECT_SCATTER_BYTES", 0)
    for r, out in direct.items():
        assert_close(scatter_reduce(src, indices(), N, r), out, terms=E, what=r)


def test_zero_sizes(poison: None) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for reduce in REDUCES:
        fill = {"prod": 1.0, "logsumexp": float("-inf")}.get(reduce, 0.0)
        assert_same(scatter_reduce(torch.zeros(0, 3), none, 2, reduce), torch.full((2, 3), fill))
        assert scatter_reduce(torch.zeros(0, 3), none, None, reduce).shape == (0, 3)
        assert scatter_reduce(torch.zeros(0, 3), none, 0, reduce).shape == (0, 3)
        assert scatter_reduce(torch.zeros(E, 0), indices(), N, reduce).shape == (N, 0)
        assert scatter_reduce(torch.zeros(0, E), indices(), N, reduce, 1).shape == (0, N)
        for shape, dim in [((0, 3), 1), ((3, 0, 2), 1), ((0, 2), 0), ((3, 4, 0), 1), ((2, 0), 1)]:
            index = torch.zeros(shape, dtype=torch.int64)
            wanted = list(shape)
            wanted[dim] = 2
            assert_same(scatter_reduce(torch.zeros(shape), index, 2, reduce, dim), torch.full(wanted, fill if shape[dim] == 0 else 0.0))


def test_plan() -> None:
    plan = ScatterPlan(indices())
    assert (plan.dim_size, plan.num_edges) == (9, E)
    assert repr(plan) == f"ScatterPlan(num_edges={E}, dim_size=9, device=cpu)"
    index = indices().int().clone()
    plan = ScatterPlan(index, N)
    before = scatter_reduce(values(E), plan)
    index.zero_()
    assert_same(scatter_reduce(values(E), plan), before)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=40), st.integers(1, 9), st.sampled_from(REDUCES), st.integers(0, 2**16))
def test_any_index(index: list[int], F: int, reduce: str, seed: int) -> None:
    i = torch.tensor(index, dtype=torch.int64)
    src = values(len(index), F, seed=seed)
    assert_close(scatter_reduce(src, i, 8, reduce), oracle(src, i, 8, reduce), terms=40)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_permuting_edges(seed: int) -> None:
    order = torch.randperm(E, generator=generator(seed))
    src = values(E, 3, seed=seed)
    for reduce in REDUCES:
        assert_close(scatter_reduce(src[order], indices()[order], N, reduce), scatter_reduce(src, indices(), N, reduce), terms=E)


def test_repeated_runs_give_the_same_bits() -> None:
    src, index = torch.randn(50_000, 8), torch.randint(100, (50_000,))
    first = structops.scatter_reduce(src, index, 100)
    for _ in range(3):
        assert_same(structops.scatter_reduce(src, index, 100), first)
