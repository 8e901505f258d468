"""segment_order (top-k, quantiles, medians of segments)."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, small_integers, values
from compare import assert_close, assert_same
from structops.kernels.sparse import segment_order_ref
from structops.sparse import segment_median, segment_quantile, segment_topk
from torch.autograd import gradcheck, gradgradcheck

raw = torch.ops.structops.segment_order
SIZES = (3, 0, 1, 40, 700, 2, 0)
PTR = torch.tensor([0, *SIZES]).cumsum(0)
L = sum(SIZES)


def groups(src):
    return [src[a:b] for a, b in zip(PTR.tolist(), PTR.tolist()[1:], strict=False)]


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_raw_positions(isa: str, dtype: torch.dtype, largest: bool, poison: None, on_threads) -> None:
    for n, shape in enumerate([(L,), (L, 1), (L, 3), (2, L, 4)]):
        ptr = PTR.to(INTEGERS[n % 2])
        src = small_integers(*shape, dtype=dtype) if n % 2 else (100 * values(*shape)).to(dtype)
        if dtype.is_floating_point:
            (src if src.dim() < 3 else src[1])[5] = float("nan")
        for k in (1, 4, 33, 60):
            got = on_threads(lambda: raw(src, ptr, None, k, largest))
            assert_same(got, segment_order_ref.segment_order(src, ptr, None, k, largest), (shape, k))
        for k in (1, 2, 6):
            rank = torch.randint(-1, 45, (len(SIZES), k)).to(ptr.dtype)
            got = on_threads(lambda: raw(src, ptr, rank, k, largest))
            assert_same(got, segment_order_ref.segment_order(src, ptr, rank, k, largest), (shape, k, "rank"))


def test_special_values(isa: str) -> None:
    inf, nan = float("inf"), float("nan")
    src = torch.tensor([0.0, -0.0, nan, -inf, inf, 0.0])
    ptr = torch.tensor([0, 6])
    assert segment_topk(src, ptr, 6)[1].tolist() == [[2, 4, 0, 1, 5, 3]]
    assert segment_topk(src, ptr, 6, largest=False)[1].tolist() == [[3, 0, 1, 5, 4, 2]]
    assert segment_topk(src, ptr, 7, fill_value=-inf)[0][0, 6] == -inf
    assert segment_quantile(src, ptr, 0.5).isnan().all()
    assert segment_quantile(torch.tensor([inf, inf, -inf]), torch.tensor([0, 2, 3]), 0.5).tolist() == [inf, -inf]


@pytest.mark.parametrize("ordered", [False, True])
def test_long_rows_of_every_shape(isa: str, ordered: bool) -> None:
    """Quickselect's bad inputs: sorted, equal, organ pipe."""
    n = 5000
    ramp = torch.arange(n, dtype=torch.float64)
    for src in (ramp, ramp.flip(0), torch.zeros(n).double(), torch.minimum(ramp, n - ramp), ramp % 7):
        ptr = torch.tensor([0, n])
        expected = torch.sort(src, stable=True, descending=ordered).indices[:100]
        assert_same(segment_topk(src, ptr, 100, largest=ordered)[1][0], expected)


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles(isa: str, interpolation: str) -> None:
    src, q = values(L, 3), torch.tensor([0.0, 0.1, 0.5, 0.73, 1.0], dtype=torch.float64)
    got = segment_quantile(src, PTR, q, interpolation)
    expected = [
        torch.quantile(g, q, dim=0, interpolation=interpolation) if len(g) else torch.zeros(5, 3, dtype=torch.float64)
        for g in groups(src)
    ]
    assert_close(got, torch.stack(expected), terms=4)
    assert_same(segment_quantile(src, PTR, 0.5, interpolation), got[:, 2])
    assert_same(segment_median(src, PTR)[0], src[:3].median(0).values)


def test_gradients(poison: None) -> None:
    src, ptr = values(9, 2).requires_grad_(), torch.tensor([0, 4, 4, 9])
    for fn in (
        lambda s: segment_topk(s, ptr, 3, fill_value=2.0)[0],
        lambda s: segment_quantile(s, ptr, torch.tensor([0.3, 0.9])),
        lambda s: segment_quantile(s, ptr, 0.4, "midpoint", fill_value=1.0),
    ):
        assert gradcheck(fn, (src,))
        assert gradgradcheck(lambda s: fn(s) ** 2, (src,))
    (g,) = torch.autograd.grad(segment_topk(src, ptr, 3)[0].sum(), src)
    assert g.sum() == 12


def test_compile_and_empty() -> None:
    src, ptr = values(9, 2), torch.tensor([0, 4, 4, 9])
    compiled = torch.compile(
        lambda s: segment_topk(s, ptr, 2)[0] + segment_quantile(s, ptr, 0.3)[:, None], fullgraph=True, backend="aot_eager"
    )
    assert_close(compiled(src), segment_topk(src, ptr, 2)[0] + segment_quantile(src, ptr, 0.3)[:, None])
    torch._dynamo.reset()
    zero = torch.zeros(1, dtype=torch.int64)
    assert segment_topk(torch.zeros(0, 3), zero, 2)[0].shape == (0, 2, 3)
    assert segment_topk(torch.zeros(0), torch.zeros(3, dtype=torch.int64), 2)[1].tolist() == [[-1, -1]] * 2
    assert segment_topk(torch.zeros(4, 0), torch.tensor([0, 4]), 2)[0].shape == (1, 2, 0)
    assert segment_topk(torch.zeros(4), torch.tensor([0, 4]), 0)[0].shape == (1, 0)


def test_bad_input() -> None:
    src, ptr = torch.zeros(4), torch.tensor([0, 4])
    for kind, call in (
        (ValueError, lambda: segment_topk(src, torch.tensor([0, 5]), 1)),
        (ValueError, lambda: segment_topk(src, torch.tensor([0, 3, 2, 4]), 1)),
        (ValueError, lambda: segment_topk(src, ptr, -1)),
        (TypeError, lambda: segment_topk(src, ptr, 1.5)),
        (TypeError, lambda: segment_topk(src.to(torch.complex64), ptr, 1)),
        (ValueError, lambda: segment_quantile(src, ptr, 1.5)),
        (ValueError, lambda: segment_quantile(src, ptr, float("nan"))),
        (ValueError, lambda: segment_quantile(src, ptr, 0.5, "cubic")),
        (TypeError, lambda: segment_quantile(src.long(), ptr, 0.5)),
    ):
        with pytest.raises(kind, match="segment_"):
            call()
