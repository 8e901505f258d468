"""What every quantizer does: checks, the layout of channels, what is saved for backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import wants_derivative
from ..kernels import codes as C
from ._quantize import channel_stats, quantize

EXACT_IN_ONE_BIT = C.CLIP, C.CLIP_STRICT, C.BOX
SIGNED = C.SIGN, C.HEAVISIDE, C.SQUARE


def number(op: str, name: str, value: Any, low: float = -math.inf, strict: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        check.fail(TypeError, op, f"{name} to be a number", type(value).__name__)
    if not (value > low if strict else value >= low) or value == math.inf:
        check.fail(ValueError, op, f"{name} to be finite and {'above' if strict else 'at least'} {low:g}", value)
    return float(value)


def zero_value(op: str, value: Any, allowed: tuple = (-1, 0, 1)) -> float:
    if value not in allowed or isinstance(value, bool):
        check.fail(ValueError, op, f"sign_zero to be one of {', '.join(map(str, allowed))}", repr(value))
    return float(value)


def code_bits(op: str, value: Any, slope: int) -> int:
    if value is None:
        return 0
    allowed = (2, 4, 8)
    if value not in allowed or isinstance(value, bool):
        check.fail(ValueError, op, f"slope_bits to be None or one of {allowed}", repr(value))
    return int(value)


def accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def layout(op: str, x: Tensor, dim: Any) -> tuple[int, int]:
    """(channels, inner): one channel without ``dim``."""
    if dim is None:
        return 1, 1
    dim = check.axis(op, dim, x.dim())
    inner = 1
    for s in x.shape[dim + 1 :]:
        inner = inner * s
    return max(x.shape[dim], 1), max(inner, 1)


def vector(op: str, name: str, v: Any, x: Tensor, channels: int) -> Tensor | None:
    """A number or tensor as the [C] of the accumulator's dtype that kernels read; differentiable."""
    if v is None:
        return None
    if isinstance(v, (int, float)) and not isinstance(v, bool):
        return torch.full((channels,), float(v), dtype=accumulator(x), device=x.device)
    check.dense(op, name, v)
    check.same_device(op, x=x, **{name: v})
    if v.numel() not in (1, channels):
        check.fail(ValueError, op, f"{name} with 1 or {channels} elements", list(v.shape))
    return v.to(accumulator(x)).reshape(-1).expand(channels).contiguous()


def apply(
    x: Tensor, channels: int, inner: int, forward: int, slope: int, *, shift: Tensor | None = None, gain: Tensor | None = None,
    scale: Tensor | None = None, extra: Tensor | None = None, zero: float = 1.0, t: float = 0.0, p: float = 1.0, q: float = 1.0,
    terms: int = 0, bits: int = 0, scaled: bool = False, learned_step: bool = False,
) -> Tensor:  # fmt: skip
    """One call of the kernel. Clipping slopes keep one exact bit, others x or ``bits`` bits, learned scales the sign."""
    wanted = wants_derivative(x, shift, scale, extra)
    save_sign = scale is not None and forward in SIGNED and wants_derivative(scale)
    keeps_x = learned_step and wanted
    if slope in EXACT_IN_ONE_BIT and not keeps_x:
        bits = 1
    out, _ = quantize(
        x.contiguous(), shift, None if gain is None else gain.detach(), scale, extra, channels, inner, forward, slope, zero, t, p,
        q, terms, bits if wanted and not keeps_x else 0, save_sign and not keeps_x, scaled, learned_step,
    )  # fmt: skip
    return out


def stats(x: Tensor, channels: int, inner: int, shift: Tensor | None = None, y: Tensor | None = None) -> Tensor:
    """[5, C]: sums of v, |v|, v^2, the largest |v|, and the sum of v y, with v = x + shift. Not differentiable."""
    with torch.no_grad():
        return channel_stats(x.detach().contiguous(), y, None if shift is None else shift.detach(), channels, inner)
