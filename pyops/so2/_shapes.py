"""Argument checks that the rotation and convolution functions share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .._check import shaped as shaped

MAX_L = 8


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
