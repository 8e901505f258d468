"""What the rotation and convolution functions share: checks of arguments, tables and constants that are kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import lasting

MAX_L = 8
F = TypeVar("F", bound=Callable)


def table(make: F) -> F:
    """A cached function of hashable arguments whose result is a constant of compiled code."""
    known = cache(make)

    def get(*args: Any) -> Any:
        with lasting():
            return known(*args)

    # What torch.compiler.assume_constant_result does, which imports the compiler and Triton first.
    get._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return get  # type: ignore[return-value]


class Constants:
    """Tensors that an operator keeps, made from arrays, and their copies on the devices that have asked for them."""

    def __init__(self, *arrays: np.ndarray) -> None:
        with lasting():
            self.tensors = tuple(torch.from_numpy(a) for a in arrays)
        self._copies: dict[torch.device, tuple[Tensor, ...]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device.type == "cpu":
            return self.tensors
        if device not in self._copies:
            with lasting():
                self._copies[device] = tuple(t.to(device) for t in self.tensors)
        return self._copies[device]


def degrees(op: str, lmax: Any, mmax: Any) -> tuple[int, int]:
    """lmax and mmax, checked; mmax None is lmax."""
    lmax = check.size(op, "lmax", lmax)
    mmax = lmax if mmax is None else check.size(op, "mmax", mmax)
    if lmax > MAX_L:
        check.fail(ValueError, op, f"lmax <= {MAX_L}", lmax)
    if mmax > lmax:
        check.fail(ValueError, op, f"mmax <= lmax = {lmax}", mmax)
    return lmax, mmax


def computing(*tensors: Tensor | None) -> list[Tensor | None]:
    """The operands as the kernels take them: contiguous, 16-bit floats as float32."""
    found = []
    for t in tensors:
        if t is not None and t.dtype in (torch.bfloat16, torch.float16):
            t = t.float()
        found.append(None if t is None else t.contiguous())
    return found


def orders(x: Tensor, lmax: int, mmax: int) -> list[Tensor]:
    """Rows of order m as ``[E, 1, lmax + 1, C]`` for m = 0 and ``[E, 2, lmax + 1 - m, C]`` for m > 0: views."""
    signs = [1 + (m > 0) for m in range(mmax + 1)]
    parts = x.split([s * (lmax + 1 - m) for m, s in enumerate(signs)], 1)
    return [p.unflatten(1, (s, -1)) for p, s in zip(parts, signs, strict=True)]
