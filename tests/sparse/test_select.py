"""select and select_bwd: the gradient of min and max."""

from __future__ import annotations

import pytest
import torch
from cases import FEATURES, FLOATS, INTEGERS, generator, small_integers, values
from compare import assert_close, assert_same
from structops import _ladder as ladder
from structops.kernels.sparse import select_ref
from torch.autograd import gradcheck, gradgradcheck

select, select_bwd = torch.ops.structops.select, torch.ops.structops.select_bwd
N, M = 23, 11


def shapes() -> list[tuple[tuple, tuple]]:
    flat = [((M, F), (N, F)) for F in FEATURES]
    return [((M,), (N,)), *flat, ((3, M, 1), (3, N, 1)), ((2, M, 5), (2, N, 5)), ((2, M, 40), (2, N, 40))]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Indices from -2 to M + 1: outside [0, M) means no source."""
    for n, (src_shape, idx_shape) in enumerate(shapes()):
        idx = torch.randint(-2, M + 2, idx_shape, generator=generator(n)).to(INTEGERS[n % 2])
        src = small_integers(*src_shape, dtype=dtype)
        assert_same(on_threads(lambda: select(src, idx)), select_ref.select(src, idx), src_shape)
        grad = values(*idx_shape, dtype=dtype) if dtype.is_floating_point else small_integers(*idx_shape, dtype=dtype)
        out = on_threads(lambda: select_bwd(grad, idx, M))
        if dtype.is_floating_point:
            assert_close(out, select_ref.select_bwd(grad.double(), idx, M), dtype, terms=N, magnitude=1.5, what=idx_shape)
        else:
            assert_same(out, select_ref.select_bwd(grad, idx, M), idx_shape)


@pytest.mark.parametrize(("sources", "F"), [(40, 20), (9_000, 72), (20_000, 40)], ids=["one panel", "panels in cache", "panels beyond"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_large(isa: str, dtype: torch.dtype, sources: int, F: int, on_threads) -> None:
    rows = 5_000
    idx = torch.randint(0, sources, (rows, F), generator=generator(1))
    grad = values(rows, F, dtype=dtype)
    out = on_threads(lambda: select_bwd(grad, idx, sources))
    expected = torch.zeros(sources, F, dtype=torch.float64).scatter_add(0, idx, grad.double())
    assert_close(out, expected, dtype, terms=200, magnitude=1.5)
    src = values(sources, F, dtype=dtype)
    assert_same(on_threads(lambda: select(src, idx)), src.gather(0, idx))


def test_each_is_the_others_derivative() -> None:
    idx = torch.randint(-1, M + 1, (N, 3), generator=generator(1))
    src, grad = values(M, 3).requires_grad_(), values(N, 3).requires_grad_()
    for fn, leaf in ((lambda s: ladder.select(s, idx), src), (lambda g: ladder.select_bwd(g, idx, M), grad)):
        assert gradcheck(fn, (leaf,))
        assert gradgradcheck(fn, (leaf,))


def test_zero_sizes(poison: None) -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert select(torch.zeros(4, 3), none).shape == (0, 3)
    assert_same(select_bwd(torch.zeros(0, 3), none, 4), torch.zeros(4, 3))
    assert_same(select(torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.int64)), torch.zeros(2, 3))
    assert select_bwd(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int32), 0).shape == (0, 3)
    assert select(torch.zeros(4, 0), torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)
