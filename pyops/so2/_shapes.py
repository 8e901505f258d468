"""Argument checks that the rotation and convolution functions share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import _check as check
from .._check import shaped as shaped

MAX_L = 8
F = TypeVar("F", bound=Callable)


def table(make: F) -> F:
    """A cached function of hashable arguments whose result is a constant of compiled code."""
    known = cache(make)

    @torch.compiler.assume_constant_result
    def get(*args: Any) -> Any:
        with torch.inference_mode(False):
            return known(*args)

    return get  # type: ignore[return-value]


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
