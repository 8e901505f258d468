"""Quantizers of weights, and of activations to a few levels, with the scales that networks give them.

A weight's output channel is dimension ``dim`` (0). Scales that are statistics of the weight are constants of the backward, as in
the papers; learned scales and shifts get gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _check as check
from ..kernels import codes as C
from . import _layout as lay
from ._signs import standardised


def _mean_size(w: Tensor, channels: int, inner: int, shift: Tensor | None = None) -> Tensor:
    """mean |w + shift| of every channel."""
    return lay.stats(w, channels, inner, shift)[1] / max(w.numel() // channels, 1)


def magnitude_aware_sign(w: Tensor, dim: int = 0, clip: float = 1.0, *, sign_zero: int = 1) -> Tensor:
    """``mean|w| * sign(w)`` by channel; the gradient is also scaled by it, inside the clip (larq). Saves one bit.

    >>> import torch, structops
    >>> structops.binary.magnitude_aware_sign(torch.tensor([[1.0, -3.0]]))
    tensor([[ 2., -2.]])
    """
    return _scaled_sign("magnitude_aware_sign", w, dim, clip, sign_zero, True)


def xnor_weight(w: Tensor, dim: int | None = 0, clip: float = 1.0, *, sign_zero: int = 1, peer: str = "bireal") -> Tensor:
    """``mean|w| * sign(w)`` by channel, saving one bit a weight.

    ``peer``: ``bireal`` passes the gradient unscaled where abs(w) <= clip (Bi-Real Net, ReActNet, the XNOR convolution of
    BiBench); ``xnor`` centres each channel first and scales the gradient (its linear layer); ``dorefa`` passes it unscaled where
    abs(w) < clip; ``bwn`` is :func:`bwn`.

    >>> import torch, structops
    >>> structops.binary.xnor_weight(torch.tensor([[1.0, -3.0]]))
    tensor([[ 2., -2.]])
    """
    op = "xnor_weight"
    check.choice(op, "peer", peer, ("bireal", "xnor", "dorefa", "bwn"))
    if peer == "bwn":
        return bwn(w, dim, sign_zero=sign_zero)
    if peer == "xnor":
        check.dense(op, "w", w)
        dims = [d for d in range(w.dim()) if dim is None or d != dim % w.dim()]
        w = w - w.mean(dims, keepdim=True)
    return _scaled_sign(op, w, dim, clip, sign_zero, peer == "xnor", C.CLIP_STRICT if peer == "dorefa" else C.CLIP)


def _scaled_sign(op, w, dim, clip, sign_zero, scaled, slope=C.CLIP):
    check.dense(op, "w", w)
    channels, inner = lay.layout(op, w, dim)
    p, zero = lay.number(op, "clip", clip, 0), lay.zero_value(op, sign_zero)
    scale = _mean_size(w, channels, inner)
    return lay.apply(w, channels, inner, C.SIGN, slope, scale=scale, zero=zero, p=p, scaled=scaled)


def xnor_activation(x: Tensor, *, sign_zero: int = 1) -> Tensor:
    """``mean|x| * sign(x)`` of every sample ``[B, ...]``; the gradient passes unscaled where abs(x) <= 1. Saves one bit.

    >>> import torch, structops
    >>> structops.binary.xnor_activation(torch.tensor([[1.0, -3.0], [0.5, 0.5]]))
    tensor([[ 2.0000, -2.0000],
            [ 0.5000,  0.5000]])
    """
    return _scaled_sign("xnor_activation", x, 0, 1.0, sign_zero, False)


def bwn(w: Tensor, dim: int | None = None, *, sign_zero: int = 1) -> Tensor:
    """``mean|w| * sign(w - mean(w))`` of the tensor, or of every channel of ``dim``; the gradient passes unchanged (BiT, BiPFT).

    Saves nothing.

    >>> import torch, structops
    >>> structops.binary.bwn(torch.tensor([[1.0, 3.0]]))
    tensor([[-2.,  2.]])
    """
    op = "bwn"
    check.dense(op, "w", w)
    channels, inner = lay.layout(op, w, dim)
    s = lay.stats(w, channels, inner) / max(w.numel() // channels, 1)
    return lay.apply(w, channels, inner, C.SIGN, C.IDENTITY, shift=-s[0], scale=s[1], zero=lay.zero_value(op, sign_zero))


def elastic(
    x: Tensor, alpha: Tensor, signed: bool = True, *, shift: Tensor | None = None, dim: int | None = None, sign_zero: int = 1
) -> Tensor:
    """Learned scale (BiT, BiPFT): ``alpha * sign(x + shift)``, or ``alpha * clamp(round(x / alpha), 0, 1)``.

    Args:
        x: any shape. alpha: positive, one number or one a channel of ``dim``; below 1e-5 it counts as 1e-5.
        signed: {-alpha, alpha}, else {0, alpha}.

    The gradient of x passes where abs(x / alpha) <= 1 (0 <= x / alpha <= 1). That of alpha is ``sum g sign(x)`` (of learned step
    size quantization: ``sum g (round(x / alpha) - x / alpha)`` inside, ``sum g round`` outside), divided by the root of the number
    of elements a channel. Saves two bits where signed, else x.

    >>> import torch, structops
    >>> structops.binary.elastic(torch.tensor([-1.0, 0.5, 3.0]), torch.tensor([2.0]), False)
    tensor([0., 0., 2.])
    """
    op = "elastic"
    check.dense(op, "x", x)
    check.dense(op, "alpha", alpha)
    check.flags(op, signed=signed)
    channels, inner = lay.layout(op, x, dim)
    a = alpha.clamp(min=1e-5)
    f = 1 / math.sqrt(max(x.numel() // channels, 1))
    a = a * f + (a - a * f).detach()
    scale, move = lay.vector(op, "alpha", a, x, channels), lay.vector(op, "shift", shift, x, channels)
    assert scale is not None
    gain = 1 / scale.detach()
    zero = lay.zero_value(op, sign_zero)
    if signed:
        return lay.apply(x, channels, inner, C.SIGN, C.CLIP, shift=move, gain=gain, scale=scale, zero=zero, scaled=True)
    return lay.apply(x, channels, inner, C.LEVELS, C.BOX, shift=move, gain=gain, scale=scale, t=1.0, scaled=True, learned_step=True)


def dorefa(x: Tensor, k: int = 2, mode: str = "activations", *, peer: str = "larq") -> Tensor:
    """DoReFa to ``k`` bits.

    Args:
        x: any shape. k: 1 to 16 bits, n = 2 ** k - 1.
        mode: ``activations``: ``round(clamp(x, 0, 1) n) / n``.
            ``weights``: ``2 round((t / (2 max|t|) + 1/2) n) / n - 1``, t = tanh(x).
        peer: ``larq``: the gradient of the clamp (one bit), of tanh / max|t| (x). ``bitorch``: the gradient unchanged.

    Rounds half to even: with one bit, a weight of 0 becomes -1.

    >>> import torch, structops
    >>> structops.binary.dorefa(torch.tensor([-1.0, 0.3, 0.6, 2.0]), 2)
    tensor([0.0000, 0.3333, 0.6667, 1.0000])
    """
    op = "dorefa"
    check.dense(op, "x", x)
    k = check.size(op, "k", k)
    if not 1 <= k <= 16:
        check.fail(ValueError, op, "k between 1 and 16", k)
    check.choice(op, "mode", mode, ("activations", "weights"))
    check.choice(op, "peer", peer, ("larq", "bitorch"))
    n = float(2**k - 1)
    if mode == "activations":
        return lay.apply(x, 1, 1, C.LEVELS, C.BOX if peer == "larq" else C.IDENTITY, t=n)
    top = torch.tanh(lay.stats(x, 1, 1)[3])
    inverse = torch.where(top == 0, torch.ones_like(top), 1 / top)
    slope = C.BELL if peer == "larq" else C.IDENTITY
    return lay.apply(x, 1, 1, C.TANH_LEVELS, slope, scale=inverse, t=n, scaled=peer == "larq")


def ternary(x: Tensor, threshold: float | str = 0.05, clip: float = 1.0, *, scaled: bool = False, dim: int | None = None) -> Tensor:
    """-1, 0 or 1 by a threshold; the gradient passes where abs(x) <= clip. Saves one bit.

    Args:
        threshold: a number: +-1 where abs(x) >= threshold (larq's SteTern). ``"twn"``: 0.7 mean abs(x) (ternary weight networks).
            ``"mean"``: ``clamp(round(x / mean|x|), -1, 1)`` with the gradient unchanged (BitNet b1.58).
        scaled: times the mean size of the weights that are kept (``"twn"``, whose gradient is scaled too) or of all (``"mean"``).
        dim: statistics by channel rather than of the whole tensor.

    >>> import torch, structops
    >>> structops.binary.ternary(torch.tensor([-0.5, 0.01, 0.05]))
    tensor([-1.,  0.,  1.])
    """
    op = "ternary"
    check.dense(op, "x", x)
    check.flags(op, scaled=scaled)
    channels, inner = lay.layout(op, x, dim)
    p = lay.number(op, "clip", clip, 0)
    if not isinstance(threshold, str):
        if scaled:
            check.fail(ValueError, op, "scaled only with threshold 'twn' or 'mean'", threshold)
        return lay.apply(x, channels, inner, C.TERNARY, C.CLIP, t=lay.number(op, "threshold", threshold, 0), p=p)
    check.choice(op, "threshold", threshold, ("twn", "mean"))
    size = _mean_size(x, channels, inner)
    if threshold == "mean":
        scale = size.clamp(min=1e-5)
        return lay.apply(x, channels, inner, C.TERNARY, C.IDENTITY, extra=0.5 * scale, scale=scale if scaled else None, zero=0.0)
    limit, scale = 0.7 * size, None
    if scaled:
        with torch.no_grad():
            rows = x.detach().reshape(-1, channels, inner).abs().to(limit.dtype)
            kept = rows >= limit[:, None]
            scale = (rows * kept).sum((0, 2)) / kept.sum((0, 2)).clamp(min=1)
    return lay.apply(x, channels, inner, C.TERNARY, C.CLIP, extra=limit, scale=scale, p=p, scaled=scaled)


def recu_weight(w: Tensor, tau: float = 0.85, dim: int = 0, *, sign_zero: int = 1) -> Tensor:
    """ReCU: the sign of the standardised weight, with the gradient of a clamp at its ``tau`` quantile under a Laplace model.

    ``w1 = 2 sqrt(2) (w - mean) / std`` by channel, ``Q = -mean|w1| log(2 - 2 tau)`` over all; the gradient passes where
    abs(w1) <= Q, and through the mean and the deviation (unbiased, plus 1e-5 in the variance). ``tau`` in [0.5, 1).
    No value is read on the host. Saves w and one bit. Differentiable once.

    >>> import torch, structops
    >>> structops.binary.recu_weight(torch.tensor([[0.5, 1.5, 2.5]]))
    tensor([[-1.,  1.,  1.]])
    """
    op = "recu_weight"
    check.dense(op, "w", w)
    tau = lay.number(op, "tau", tau, 0.5)
    if tau >= 1:
        check.fail(ValueError, op, "tau below 1", tau)
    channels, inner = lay.layout(op, w, dim)
    zero = lay.zero_value(op, sign_zero)
    w, mean, variance = standardised(w, channels, inner, True)
    gain = 2 * math.sqrt(2) * variance.rsqrt()
    limit = -math.log(2 - 2 * tau) * (_mean_size(w, channels, inner, -mean) * gain).mean()
    return lay.apply(
        w, channels, inner, C.SIGN, C.CLIP, shift=-mean, gain=gain, extra=limit.expand(channels).contiguous(), zero=zero
    )


def irnet_weight(w: Tensor, t: float = 1.0, k: float = 1.0, dim: int = 0, *, sign_zero: int = 1) -> Tensor:
    """IR-Net: sign of the standardised weight times a power of two near its mean size, slope k t (1 - tanh(t w)^2).

    The gradient passes through the mean and the deviation. Saves w. Differentiable once.

    >>> import torch, structops
    >>> structops.binary.irnet_weight(torch.tensor([[-1.0, 1.0]]))
    tensor([[-0.5000,  0.5000]])
    """
    op = "irnet_weight"
    check.dense(op, "w", w)
    p, q = lay.number(op, "t", t, 0, True), lay.number(op, "k", k, 0, True)
    channels, inner = lay.layout(op, w, dim)
    zero = lay.zero_value(op, sign_zero)
    w, mean, variance = standardised(w, channels, inner, True)
    gain = variance.rsqrt()
    scale = torch.exp2(torch.round(torch.log2((_mean_size(w, channels, inner, -mean) * gain).clamp(min=1e-30))))
    return lay.apply(w, channels, inner, C.SIGN, C.BELL, shift=-mean, gain=gain, scale=scale, zero=zero, p=p, q=q, scaled=True)


def biper_weight(w: Tensor, omega: float = 20.0, stage: int = 2, *, sign_zero: int = 1, slope_bits: int | None = None) -> Tensor:
    """BiPer: the square wave ``sign(sin(omega w))`` with the gradient ``omega cos(omega w)``; stage 1 gives ``sin(omega w)``.

    Saves w, or ``slope_bits`` (2, 4 or 8) bits of the cosine. Differentiable to any order.

    >>> import torch, structops
    >>> structops.binary.biper_weight(torch.tensor([0.1, 0.2, -0.1]))
    tensor([ 1., -1., -1.])
    """
    op = "biper_weight"
    check.dense(op, "w", w)
    omega = lay.number(op, "omega", omega, 0, True)
    if stage not in (1, 2) or isinstance(stage, bool):
        check.fail(ValueError, op, "stage 1 or 2", repr(stage))
    bits = lay.code_bits(op, slope_bits, C.COSINE)
    zero = lay.zero_value(op, sign_zero)
    return lay.apply(w, 1, 1, C.SINE if stage == 1 else C.SQUARE, C.COSINE, zero=zero, t=omega, p=omega, bits=bits)


def xnorpp_scale(y: Tensor, *factors: Tensor) -> Tensor:
    """XNOR-Net++: ``y [B, C, *]`` times the outer product of learned vectors, one a dimension after the first.

    The product is formed once at its own size; gradients of all factors. Differentiable to any order.

    >>> import torch, structops
    >>> structops.binary.xnorpp_scale(torch.ones(1, 2, 2), torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]))
    tensor([[[ 3.,  5.],
             [ 6., 10.]]])
    """
    op = "xnorpp_scale"
    check.dense(op, "y", y)
    if not 1 <= len(factors) < y.dim():
        check.fail(ValueError, op, f"1 to {y.dim() - 1} factors", len(factors))
    scale = y.new_ones(())
    for i, f in enumerate(factors):
        check.dense(op, f"factors[{i}]", f)
        if f.dim() != 1 or f.shape[0] not in (1, y.shape[1 + i]):
            check.fail(ValueError, op, f"factors[{i}] of shape [{y.shape[1 + i]}]", list(f.shape))
        scale = scale[..., None] * f
    return y * scale.reshape(*scale.shape, *(1,) * (y.dim() - 1 - len(factors)))
