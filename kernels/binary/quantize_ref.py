"""Reference of quantize, quantize_bwd and channel_stats: the specification of csrc/binary/quantize.h in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import codes as C


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _rows(t: Tensor, channels: int, inner: int) -> Tensor:
    """[outer, C, inner] of the accumulator's dtype."""
    return t.reshape(-1, channels, inner).to(_accumulator(t))


def _vector(v: Tensor | None, other: float, like: Tensor) -> Tensor:
    return like.new_full((), other) if v is None else v[:, None]


def _sign(v: Tensor, zero: float) -> Tensor:
    return torch.where(v.isnan(), v, torch.where(v == 0, zero, torch.sign(v)))


def _levels(v: Tensor, n: float) -> Tensor:
    return torch.round(v.clamp(0, 1) * n) / n


def forward(u: Tensor, kind: int, zero: float, t: float, scale: Tensor, extra: Tensor | None) -> Tensor:
    """F(u); prelu and tanh_levels with their vectors."""
    if kind == C.SIGN:
        return _sign(u, zero)
    if kind == C.HEAVISIDE:
        return torch.where(u == 0, zero, (u > 0).to(u.dtype)).where(~u.isnan(), u)
    if kind == C.TERNARY:
        limit = t if extra is None else extra
        on = u.abs() > limit if zero == 0 else u.abs() >= limit
        return torch.where(u.isnan(), u, torch.where(on, torch.sign(u), 0))
    if kind == C.LEVELS:
        return _levels(u, t)
    if kind == C.HARDTANH:
        return u.clamp(-1, 1)
    if kind == C.SINE:
        return torch.sin(t * u)
    if kind == C.SQUARE:
        return _sign(torch.sin(t * u), zero)
    if kind == C.PRELU_FORWARD:
        return torch.where(u > 0, u, scale * u) + (0 if extra is None else extra)
    if kind == C.TANH_LEVELS:
        return 2 * _levels(torch.tanh(u) * scale / 2 + 0.5, t) - 1
    return u


def slope(u: Tensor, kind: int, p: float, q: float, terms: int, scale: Tensor, limit: Tensor | None = None) -> Tensor:
    """S(u); ``limit`` stands for p in clip."""
    one = torch.ones_like(u)
    if kind == C.CLIP:
        return (u.abs() <= (p if limit is None else limit)).to(u.dtype)
    if kind == C.CLIP_STRICT:
        return (u.abs() < p).to(u.dtype)
    if kind == C.BOX:
        return ((u >= 0) & (u <= p)).to(u.dtype)
    if kind == C.POLY:
        return (2 - 2 * u.abs()).clamp(min=0)
    if kind == C.SWISH:
        e = torch.exp(-(p * u).abs().clamp(max=1000))  # 1 / (1 + cosh z) = 2 e / (1 + e)^2, tanh(z / 2) = (1 - e) / (1 + e)
        z = (p * u).abs().clamp(max=1000)
        return p * (2 - z * (1 - e) / (1 + e)) * 2 * e / (1 + e) ** 2
    if kind == C.BELL:
        return q * p * (1 - torch.tanh(p * u) ** 2)
    if kind == C.FOURIER:
        total = sum(torch.cos((2 * i + 1) * p * u) for i in range(terms + 1))
        return torch.where(u.abs() <= 1, 4 * p / math.pi * total, 0)
    if kind == C.COSINE:
        return p * torch.cos(p * u)
    if kind == C.PRELU:
        return torch.where(u > 0, one, scale * one)
    return one


def _levels_of_codes(kind: int, bits: int) -> tuple[int, int]:
    """(L, the code of slope 0)."""
    if kind in C.SIGNED_SLOPES:
        return 2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1
    return 2**bits - 1, 0


def slope_top(kind: int, p: float, q: float, terms: int) -> float:
    """The largest slope: the value of the highest code."""
    return {C.POLY: 2.0, C.SWISH: p, C.BELL: q * p, C.FOURIER: 4 * p / math.pi * (terms + 1), C.COSINE: p}.get(kind, 1.0)


def _pack(code: Tensor, bits: int) -> Tensor:
    per = 8 // bits
    flat = code.reshape(-1).long()
    padded = torch.cat([flat, flat.new_zeros(-flat.numel() % per)]).reshape(-1, per)
    return (padded << (torch.arange(per, device=flat.device) * bits)).sum(1).to(torch.uint8)


def _unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    per = 8 // bits
    shifted = packed.long()[:, None] >> (torch.arange(per, device=packed.device) * bits)
    return (shifted & (2**bits - 1)).reshape(-1)[:n]


def quantize(
    x, shift, gain, scale, extra, channels, inner, kind, surrogate, zero, t, p, q, terms, code_bits, save_sign, scaled, learned_step
):
    """Same signature and results as torch.ops.structops.quantize."""
    v = _rows(x, channels, inner)
    u = (v + _vector(shift, 0.0, v)) * _vector(gain, 1.0, v)
    by, more = _vector(scale, 1.0, v), None if extra is None else extra[:, None]
    special = kind in (C.PRELU_FORWARD, C.TANH_LEVELS)
    if kind == C.PRELU_FORWARD and scale is None:
        by = v.new_zeros(())
    y = forward(u, kind, zero, t, by, more)
    parts = []
    if code_bits:
        if surrogate == C.PRELU:
            code = (u > 0).long()
        else:
            L, middle = _levels_of_codes(surrogate, code_bits)
            s = slope(u, surrogate, p, q, terms, by, more if kind == C.SIGN else None)
            code = (torch.round(s * (L / slope_top(surrogate, p, q, terms))).nan_to_num(0) + middle).long()
        parts.append(_pack(code, code_bits))
    if save_sign:
        parts.append(_pack(y > 0, 1))
    codes = torch.cat(parts) if parts else x.new_empty(0, dtype=torch.uint8)
    out = y if special or scale is None else y * by
    return out.to(x.dtype).reshape(x.shape), codes


def quantize_bwd(
    grad, x, codes, shift, gain, scale, extra, channels, inner, kind, surrogate, zero, t, p, q, terms, code_bits, save_sign, scaled,
    learned_step, want_shift, want_scale, want_extra,
):  # fmt: skip
    """Same signature and results as torch.ops.structops.quantize_bwd."""
    g = _rows(grad, channels, inner)
    by, more = _vector(scale, 1.0, g), None if extra is None else extra[:, None]
    if surrogate == C.PRELU and scale is None:
        by = g.new_zeros(())
    u = None if x is None else (_rows(x, channels, inner) + _vector(shift, 0.0, g)) * _vector(gain, 1.0, g)
    n = g.numel()
    if code_bits:
        L, middle = _levels_of_codes(surrogate, code_bits)
        code = _unpack(codes[: (n * code_bits + 7) // 8], code_bits, n).reshape(g.shape)
        if surrogate == C.PRELU:
            s = torch.where(code > 0, g.new_ones(()), by)
        else:
            s = (code - middle).to(g.dtype) * (slope_top(surrogate, p, q, terms) / L)
    elif u is None:
        s = torch.ones_like(g)
    else:
        s = slope(u, surrogate, p, q, terms, by, more if kind == C.SIGN else None)
    dx = g * s * _vector(gain, 1.0, g) * (by if scaled else 1)
    total = lambda v, want: v.double().sum((0, 2)).to(g.dtype) if want else g.new_empty(0)
    d_scale = g.new_empty(0)
    if want_scale:
        if kind == C.PRELU_FORWARD:
            f = torch.where(u > 0, 0, u)
        elif save_sign:
            low = 0 if kind == C.HEAVISIDE else -1
            f = torch.where(_unpack(codes[(n * code_bits + 7) // 8 :], 1, n).reshape(g.shape) > 0, 1, low).to(g.dtype)
        else:
            f = forward(u, kind, zero, t, by, more)
        d_scale = total(g * (f - u * s if learned_step else f), True)
    return dx.to(grad.dtype).reshape(grad.shape), total(dx, want_shift), d_scale, total(g, want_extra)


def channel_stats(x, y, shift, channels, inner):
    """Same signature and results as torch.ops.structops.channel_stats."""
    acc = _accumulator(x)
    v = (_rows(x, channels, inner) + _vector(shift, 0.0, x.new_zeros((), dtype=acc))).double()
    if v.numel() == 0:
        return x.new_zeros(5, channels, dtype=acc)
    product = torch.zeros_like(v) if y is None else v * _rows(y, channels, inner).double()
    rows = [v.sum((0, 2)), v.abs().sum((0, 2)), (v * v).sum((0, 2)), v.abs().amax((0, 2)), product.sum((0, 2))]
    return torch.stack(rows).to(acc)
