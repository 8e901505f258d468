"""Derivatives of the quantizers: quantize -> quantize_bwd -> quantize_bwd and torch functions, to any order.

A quantizer is the pair of a forward and a surrogate slope (csrc/binary/quantize.h). The backward is a function of the gradient
and of x like any other, and is differentiated as such; codes of the slope are constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C

# Positions of the arguments of quantize.
X, SHIFT, GAIN, SCALE, EXTRA = range(5)
STATIC = 13  # channels .. learned_step


def _bytes(numel: int, code_bits: int, save_sign: bool) -> int:
    return (numel * code_bits + 7) // 8 + ((numel + 7) // 8 if save_sign else 0)


def _fake(
    x, shift, gain, scale, extra, channels, inner, forward, slope, zero, t, p, q, terms, code_bits, save_sign, scaled, learned_step
):
    return torch.empty_like(x), x.new_empty(_bytes(x.numel(), code_bits, save_sign), dtype=torch.uint8)


def _setup(ctx, inputs, output):
    x, shift, gain, scale, extra = inputs[:5]
    forward, slope, code_bits, save_sign = inputs[7], inputs[8], inputs[14], inputs[15]
    reads_x = (slope != C.IDENTITY and code_bits == 0) or (ctx.needs_input_grad[SCALE] and not save_sign)
    keeps_codes = code_bits or save_sign
    ctx.save_for_backward(
        x if reads_x else None, output[1] if keeps_codes else None, shift if reads_x else None, gain, scale, extra
    )
    ctx.static = inputs[5:]
    ctx.shift_grad = ctx.needs_input_grad[SHIFT]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.set_materialize_grads(False)
    assert not (ctx.needs_input_grad[EXTRA] and forward != C.PRELU_FORWARD)


def _backward(ctx, g, _):
    if g is None:
        return (None,) * (5 + STATIC)
    needs = ctx.needs_input_grad
    wants = needs[SHIFT], needs[SCALE], needs[EXTRA]
    dx, d_shift, d_scale, d_extra = quantize_bwd(g.contiguous(), *ctx.saved_tensors, *ctx.static, *wants)
    return (
        dx if needs[X] else None, d_shift if wants[0] else None, None, d_scale if wants[1] else None, d_extra if wants[2] else None,
        *(None,) * STATIC,
    )  # fmt: skip


def _bwd_fake(
    grad, x, codes, shift, gain, scale, extra, channels, inner, forward, slope, zero, t, p, q, terms, code_bits, save_sign, scaled,
    learned_step, want_shift, want_scale, want_extra,
):  # fmt: skip
    acc = torch.float64 if grad.dtype == torch.float64 else torch.float32
    vector = lambda want: grad.new_empty(channels if want else 0, dtype=acc)
    return torch.empty_like(grad), vector(want_shift), vector(want_scale), vector(want_extra)


def _bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:7])
    ctx.static, ctx.wants = inputs[7:20], inputs[20:]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.set_materialize_grads(False)


def _signs(plane: Tensor, like: Tensor, forward: int) -> Tensor:
    """F from its bits."""
    bit = (plane[:, None] >> torch.arange(8, dtype=torch.uint8, device=plane.device)) & 1
    value = bit.reshape(-1)[: like.numel()].reshape(like.shape).to(like.dtype)
    return value if forward == C.HEAVISIDE else 2 * value - 1


def _curvature(u: Tensor, slope: int, p: float, q: float, terms: int) -> Tensor:
    """dS/du."""
    if slope == C.POLY:
        return torch.where(u.abs() < 1, -2 * torch.sign(u), 0)
    if slope == C.BELL:
        t = torch.tanh(p * u)
        return -2 * q * p * p * t * (1 - t * t)
    if slope == C.COSINE:
        return -p * p * torch.sin(p * u)
    if slope == C.FOURIER:
        total = sum((2 * i + 1) * p * torch.sin((2 * i + 1) * p * u) for i in range(terms + 1))
        return torch.where(u.abs() <= 1, -4 * p / math.pi * total, 0)
    z = (p * u).clamp(-80, 80)  # swish
    t, d = torch.tanh(z / 2), 1 + torch.cosh(z)
    return p * p * (-t * (3 - z * t) - z / d) / d


def _bwd_backward(ctx, h, h_shift, h_scale, h_extra):
    g, x, codes, shift, gain, scale, extra = ctx.saved_tensors
    channels, inner, forward, slope, _, _, p, q, terms, code_bits, save_sign, scaled, learned_step = ctx.static
    needs = ctx.needs_input_grad
    h_shift, h_scale, h_extra = (v if want else None for v, want in zip((h_shift, h_scale, h_extra), ctx.wants, strict=True))
    if h_scale is not None and learned_step:
        raise NotImplementedError("structops.binary: the gradient of a learned step size is not differentiable")
    rows = lambda v: v.reshape(-1, channels, inner)
    spread = lambda v: v[:, None].to(g.dtype).expand(rows(g).shape).reshape(g.shape)
    again = lambda v, s: quantize_bwd(v.contiguous(), x, codes, shift, gain, scale, extra, *s, False, False, False)[0]
    plain = (*ctx.static[:11], False, False)
    along = h if h is not None else torch.zeros_like(g)
    if h_shift is not None:
        along = along + spread(h_shift)
    dg = again(along, ctx.static)
    if h_extra is not None:
        dg = dg + spread(h_extra)
    dx = d_scale = None
    u = None
    if x is not None:
        u = (x if shift is None else x + spread(shift)) * (1 if gain is None else spread(gain))
    if h_scale is not None:
        if forward == C.PRELU_FORWARD:
            f = u.clamp(max=0)
        elif save_sign:
            f = _signs(codes[_bytes(g.numel(), code_bits, False) :], g, forward)
        else:
            f = quantize(x, shift, gain, None, extra, *ctx.static[:9], 0, False, False, False)[0]
        dg = dg + spread(h_scale) * f
    if u is not None and needs[1]:
        dx = torch.zeros_like(g)
        if slope not in C.STEPPED_SLOPES and code_bits == 0:
            scales = (1 if gain is None else spread(gain) ** 2) * (spread(scale) if scaled and scale is not None else 1)
            dx = g * along * _curvature(u, slope, p, q, terms) * scales
        if h_scale is not None:
            through = (
                (u < 0) * spread(gain if gain is not None else h_scale.new_ones(channels)) if forward == C.PRELU_FORWARD else None
            )
            dx = dx + (again(g * spread(h_scale), plain) if through is None else g * spread(h_scale) * through)
    if needs[5] and not learned_step:
        total = lambda v: rows(v).sum((0, 2)).to(scale.dtype)
        if slope == C.PRELU and u is not None:
            d_scale = total(g * along * (u <= 0))
        elif scaled:
            d_scale = total(along * again(g, plain))
    d_shift = None
    if needs[3] and dx is not None:
        d_shift = rows(dx).sum((0, 2)).to(shift.dtype)
    return (dg, dx, None, d_shift, None, d_scale, *(None,) * 17)


def _stats_fake(x, y, shift, channels, inner):
    return x.new_empty(5, channels, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


quantize = define("quantize", _fake, _setup, _backward, (X, SHIFT, SCALE, EXTRA))
quantize_bwd = define("quantize_bwd", _bwd_fake, _bwd_setup, _bwd_backward, (0, 1, 3, 5))
channel_stats = define("channel_stats", _stats_fake, None, None, ())
