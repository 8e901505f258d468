"""Comparators: results against float64 expectations, with bounds that follow from the length of the accumulation."""

from __future__ import annotations

import torch
from torch import Tensor

# float32 accumulates the 16-bit types.
ACCUMULATOR = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def error_bound(expected: Tensor, dtype: torch.dtype, terms: int | Tensor = 1, magnitude: float | Tensor = 1.0) -> Tensor:
    """Largest accepted |actual - expected| of a value of ``dtype`` that accumulated ``terms`` numbers of size ``magnitude``.

    Rounding errors of a running sum of n numbers of random sign grow as eps * n; storing adds half a unit of ``dtype``.
    """
    acc = ACCUMULATOR.get(dtype, dtype)
    eps = torch.finfo(acc).eps
    size = expected.abs().nan_to_num(0.0, 0.0, 0.0)
    bound = 4 * eps * (magnitude * torch.as_tensor(terms, dtype=torch.float64) + size)
    if acc != dtype:
        info = torch.finfo(dtype)
        bound = bound + 0.51 * info.eps * size + info.smallest_normal * info.eps
    return bound


def assert_close(
    actual: Tensor,
    expected: Tensor,
    dtype: torch.dtype | None = None,
    *,
    terms: int | Tensor = 1,
    magnitude: float | Tensor = 1.0,
    what: object = "",
) -> None:
    """``actual`` has the shape of the float64 ``expected``, the given ``dtype``, the same NaN and infinities, and values in bounds."""
    dtype = dtype or actual.dtype
    assert actual.dtype == dtype, f"{what}: dtype {actual.dtype}, expected {dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}, expected {list(expected.shape)}"
    if not dtype.is_floating_point:
        return assert_same(actual, expected.to(dtype), what)
    a, e = actual.detach().double(), expected.detach().double()
    special = ~e.isfinite()
    same = torch.where(e.isnan(), a.isnan(), a == e)
    assert same[special].all(), f"{what}: NaN or infinity differs: {a[special & ~same][:4].tolist()}, expected {e[special & ~same][:4].tolist()}"
    over = (a - e).abs() - error_bound(e, dtype, terms, magnitude)
    wrong = ~special & ~(over <= 0)
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(f"{what}: {int(wrong.sum())} of {wrong.numel()} wrong; at {where} {a[where].item()}, expected {e[where].item()}")


def assert_same(actual: Tensor, expected: Tensor, what: object = "") -> None:
    """Equal bit for bit, except that any NaN equals any NaN and 0 equals -0."""
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {list(actual.shape)}, expected {list(expected.shape)}"
    same = actual == expected
    if actual.is_floating_point():
        same |= actual.isnan() & expected.isnan()
    if not same.all():
        where = tuple((~same).nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {int((~same).sum())} of {same.numel()} differ; at {where} {actual[where].item()}, expected {expected[where].item()}"
        )
