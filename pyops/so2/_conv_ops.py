"""The SO(2) linear map and its weight gradient: bilinear, so each one's derivatives are the other and its own transpose."""

from __future__ import annotations

from .._dispatch import define
from ..kernels.so2.wigner_ref import order


def weight_numel(lmax: int, mmax: int, Cin: int, Cout: int, extra: int) -> int:
    """Numbers of the flat weight."""
    total = (lmax + 1) * Cin * ((lmax + 1) * Cout + extra)
    return total + sum(2 * (lmax + 1 - m) ** 2 * Cin * Cout for m in range(1, mmax + 1))


def _conv_fake(x, weight, bias, lmax, mmax, Cin, Cout, extra, transpose, three):
    n = len(order(lmax, mmax))
    return x.new_empty(x.shape[0], n * Cin if transpose else extra + n * Cout)


def _conv_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.shape, ctx.transpose, ctx.three = inputs[3:8], inputs[8], inputs[9]
    ctx.bias = None if inputs[2] is None else inputs[2].shape[0]


def _conv_backward(ctx, g):
    x, weight = ctx.saved_tensors
    g = g.contiguous()
    dx = dw = db = None
    if ctx.needs_input_grad[0]:
        dx = so2_conv(g, weight, None, *ctx.shape, not ctx.transpose, ctx.three)
    if ctx.needs_input_grad[1]:
        dw = so2_conv_wgrad(g, x, *ctx.shape) if ctx.transpose else so2_conv_wgrad(x, g, *ctx.shape)
    if ctx.bias is not None and ctx.needs_input_grad[2]:
        db = g[:, : ctx.bias].sum(0)
    return dx, dw, db, *(None,) * 7


def _wgrad_fake(x, grad, lmax, mmax, Cin, Cout, extra):
    return x.new_empty(weight_numel(lmax, mmax, Cin, Cout, extra))


def _wgrad_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.shape = inputs[2:]


def _wgrad_backward(ctx, h):
    x, g = ctx.saved_tensors
    h = h.contiguous()
    dx = so2_conv(g, h, None, *ctx.shape, True, False) if ctx.needs_input_grad[0] else None
    dg = so2_conv(x, h, None, *ctx.shape, False, False) if ctx.needs_input_grad[1] else None
    return dx, dg, *(None,) * 5


so2_conv = define("so2_conv", _conv_fake, _conv_setup, _conv_backward, (0, 1, 2))
so2_conv_wgrad = define("so2_conv_wgrad", _wgrad_fake, _wgrad_setup, _wgrad_backward, (0, 1))
