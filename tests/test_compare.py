"""The comparators and oracles themselves: they accept rounding and fail on planted errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from cases import FLOATS, REDUCES, first_extreme, generator, reduce_rows, remembered, to_csr, values
from compare import assert_close, assert_same, error_bound
from structops.kernels import codes as C
from structops.kernels.sparse import spmm_ref

SUMMED = 1000


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounding_is_accepted(dtype: torch.dtype) -> None:
    t = values(SUMMED, 20, dtype=dtype)
    wide = t.double()
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    running = torch.zeros(20, dtype=acc)
    for row in t.to(acc):
        running = running + row
    assert_close(running.to(dtype), wide.sum(0), dtype, terms=SUMMED, magnitude=1.5)
    assert_close(t, wide, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "plant",
    ["one missing term", "one doubled term", "wrong sign", "nan", "inf", "zero", "neighbour", "half precision"],
)
def test_planted_errors_fail(dtype: torch.dtype, plant: str) -> None:
    t = values(12, 20, dtype=dtype)
    expected = t.double().sum(0)
    out = expected.to(dtype, copy=True)
    if plant == "one missing term":
        out[3] -= t[5, 3]
    elif plant == "one doubled term":
        out[3] += t[5, 3]
    elif plant == "wrong sign":
        out[3] = -out[3]
    elif plant == "nan":
        out[3] = float("nan")
    elif plant == "inf":
        out[3] = float("inf")
    elif plant == "zero":
        out[3] = 0
    elif plant == "neighbour":
        out = out.roll(1)
    elif dtype.itemsize == 2:
        out[3] *= 1 + 4 * torch.finfo(dtype).eps
    else:
        out = out.bfloat16().to(dtype)
    with pytest.raises(AssertionError, match=r"wrong|NaN or infinity differs"):
        assert_close(out, expected, dtype, terms=12, magnitude=1.5)


def test_special_values() -> None:
    nan, inf = float("nan"), float("inf")
    expected = torch.tensor([nan, inf, -inf, 1.0], dtype=torch.float64)
    assert_close(expected.clone(), expected)
    assert_same(expected.clone(), expected)
    for i, wrong in [(0, 0.0), (0, inf), (1, -inf), (1, nan), (2, 1e308), (3, nan), (3, inf)]:
        out = expected.clone()
        out[i] = wrong
        with pytest.raises(AssertionError):
            assert_close(out, expected)
        with pytest.raises(AssertionError):
            assert_same(out, expected)


def test_shape_and_dtype_count() -> None:
    a = torch.zeros(2, 3, dtype=torch.float64)
    for wrong in (a[:1], a[..., None], a.reshape(3, 2)):
        with pytest.raises(AssertionError, match="shape"):
            assert_close(wrong, a)
        with pytest.raises(AssertionError, match="shape"):
            assert_same(wrong, a)
    with pytest.raises(AssertionError, match="dtype"):
        assert_close(a.float(), a, torch.float64)
    with pytest.raises(AssertionError, match="dtype"):
        assert_same(a.float(), a)


def test_same_is_bitwise() -> None:
    a = torch.randn(10, generator=generator(1))
    b = a.clone()
    b[4] = torch.nextafter(b[4], torch.tensor(9.0))
    with pytest.raises(AssertionError, match="1 of 10 differ"):
        assert_same(b, a)
    with pytest.raises(AssertionError):
        assert_same(torch.tensor([1, 2]), torch.tensor([1, 3]))


def test_bounds_grow_with_length_and_shrink_with_precision() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert error_bound(one, torch.float32, 1000) > error_bound(one, torch.float32, 10)
    assert error_bound(one, torch.float64, 1000) < 1e-11 < error_bound(one, torch.float32, 10) < 1e-4
    assert error_bound(one, torch.float32) < error_bound(one, torch.float16) < error_bound(one, torch.bfloat16) < 0.01
    assert (error_bound(one, torch.float32, torch.tensor([1.0, 100.0])).diff() > 0).all()


def test_first_extreme_is_the_references() -> None:
    m = torch.randint(-2, 3, (7, 50, 1), generator=generator(2)).double()
    spikes = torch.rand(m.shape, generator=generator(3))
    m[spikes < 0.2] = float("nan")
    m[(spikes > 0.2) & (spikes < 0.35)] = float("-inf")
    m[(spikes > 0.35) & (spikes < 0.5)] = float("inf")
    m[:, 0] = float("nan")
    for largest in (False, True):
        for skip_nan in (False, True):
            _, expected = spmm_ref.first_extreme(m.transpose(0, 1)[None, :, :, 0].transpose(1, 2), largest, skip_nan)
            assert_same(first_extreme(m[:, :, 0], largest, skip_nan), expected[0])


@pytest.mark.parametrize("reduce", REDUCES)
def test_oracle_is_the_reference(reduce: str) -> None:
    """Two independent statements of every reduction agree."""
    index = torch.randint(6, (40,), generator=generator(4))
    index[index == 3] = 2
    rowptr, _, eid = to_csr(torch.stack([index, index]), 6)
    e = values(40, 3)
    code = C.REDUCES[reduce]
    expected, _ = spmm_ref.spmm(None, e, rowptr, None, eid, None, None, None, None, C.COPY_E, code, 0, C.EMPTY[code], False, True)
    assert_close(reduce_rows(e[eid], rowptr, reduce), expected, terms=40)
    assert_close(reduce_rows(e[eid].requires_grad_(), rowptr, reduce), expected, terms=40)


@pytest.mark.parametrize("edges", [10, 200, 5000, 200_000])
def test_poison_reaches_every_allocation(poison: None, edges: int) -> None:
    """torch.empty holds NaN; so do rows that an operator leaves out (here by an eid that names one edge only)."""
    from conftest import junk_fill

    if junk_fill() is None:
        pytest.skip("this torch has no junk-filling allocator")
    assert torch.empty(100).isnan().all()
    repeated = torch.zeros(edges, dtype=torch.int64)
    out = torch.ops.structops.segment_softmax(torch.zeros(edges, 4), torch.tensor([0, edges]), repeated, False)
    assert out[0].isfinite().all() and out[1:].isnan().all()


def test_remembered_references() -> None:
    """Equal arguments give a copy of the earlier result; other bits, other options and what needs a gradient are computed."""
    calls = []

    def double(x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        calls.append(scale)
        return scale * x

    module = remembered(SimpleNamespace(double=double))
    x = values(3, dtype=torch.bfloat16)
    module.double(x).zero_()
    assert_same(module.double(x.clone()), 2 * x)
    assert len(calls) == 1
    for other in (2 * x, x[:2], x[None], x.half(), x.float().requires_grad_(), x.float().requires_grad_()):
        assert_same(module.double(other).detach(), 2 * other.detach())
    assert_same(module.double(x, scale=3.0), 3 * x)
    assert len(calls) == 8
