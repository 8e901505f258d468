"""Signs of activations with their surrogate gradients.

Zero has no sign: ``sign_zero`` says what it becomes (-1, 0 or 1). torch.sign gives 0, packed bits give 1 or -1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..kernels import codes as C
from . import _layout as lay

SURROGATES = {
    "identity": C.IDENTITY, "clip": C.CLIP, "clip_strict": C.CLIP_STRICT, "poly": C.POLY, "swish": C.SWISH, "sigmoid": C.BELL,
    "tanh": C.BELL, "fourier": C.FOURIER,
}  # fmt: skip
DEFAULTS = {"swish": 5.0, "sigmoid": 3.0, "tanh": 1.0, "fourier": 0.1}


def sign(
    x: Tensor,
    surrogate: str = "clip",
    *,
    sign_zero: int = 1,
    clip: float = 1.0,
    width: float | None = None,
    height: float = 1.0,
    terms: int = 9,
    shift: Tensor | None = None,
    dim: int | None = None,
    slope_bits: int | None = None,
) -> Tensor:
    """Sign of ``x + shift`` with a surrogate gradient: the gradient is multiplied by a slope S(x + shift).

    Args:
        x: any shape; float32, float64, bfloat16 or float16. The result has its dtype.
        surrogate: ``identity`` 1; ``clip`` 1[abs(x) <= clip]; ``clip_strict`` 1[abs(x) < clip]; ``poly`` max(0, 2 - 2 abs(x));
            ``swish`` the derivative of SignSwish, width beta = 5; ``sigmoid`` 2 a s(a x) (1 - s(a x)), width a = 3;
            ``tanh`` height * t * (1 - tanh(t x)^2), width t; ``fourier`` the series of a square wave of frequency ``width`` = 0.1,
            ``terms`` + 1 terms, inside [-1, 1].
        sign_zero: the value at 0.
        shift: learned shift, one number or one a channel of ``dim``; its gradient is the sum of the gradients of x.
        slope_bits: keep 2, 4 or 8 bits of the slope for backward instead of x. ``clip`` keeps one exact bit, ``identity`` nothing.

    Differentiable to any order; the slope's own derivative is used, 0 for clip. Deterministic. NaN stays NaN.

    Raises:
        TypeError, ValueError: before any kernel runs.

    Sources: arXiv:1602.02830 (clip), 1808.00278 (poly), 1812.11800 (swish), 1909.10788 (tanh), 2110.07614 (fourier).

    >>> import torch, structops
    >>> x = torch.tensor([-2.0, -0.25, 0.0, 0.5], requires_grad=True)
    >>> structops.binary.sign(x, "poly").sum().backward()
    >>> x.grad
    tensor([0.0000, 1.5000, 2.0000, 1.0000])
    """
    op = "sign"
    check.dense(op, "x", x)
    slope = SURROGATES[check.choice(op, "surrogate", surrogate, SURROGATES)]
    width = lay.number(op, "width", DEFAULTS.get(surrogate, 1.0) if width is None else width, 0, True)
    height = lay.number(op, "height", height, 0, True)
    p, q = width, height
    if surrogate in ("clip", "clip_strict"):
        p = lay.number(op, "clip", clip, 0)
    elif surrogate == "sigmoid":  # 2 a s (1 - s) is the bell of t = a / 2
        p, q = width / 2, height
    terms = check.size(op, "terms", terms)
    bits = lay.code_bits(op, slope_bits, slope)
    channels, inner = lay.layout(op, x, dim)
    zero = lay.zero_value(op, sign_zero)
    return lay.apply(
        x, channels, inner, C.SIGN, slope, shift=lay.vector(op, "shift", shift, x, channels), zero=zero, p=p, q=q, terms=terms,
        bits=0 if slope == C.IDENTITY else bits,
    )  # fmt: skip


def approx_sign(x: Tensor, *, sign_zero: int = 1, slope_bits: int | None = None) -> Tensor:
    """Sign whose gradient is that of the piecewise polynomial of Bi-Real Net: max(0, 2 - 2 abs(x)). See :func:`sign`.

    >>> import torch, structops
    >>> structops.binary.approx_sign(torch.tensor([-3.0, 0.0]))
    tensor([-1.,  1.])
    """
    return sign(x, "poly", sign_zero=sign_zero, slope_bits=slope_bits)


def swish_sign(x: Tensor, beta: float = 5.0, *, sign_zero: int = 1, slope_bits: int | None = None) -> Tensor:
    """Sign with the gradient of SignSwish, without overflow at any x. See :func:`sign`.

    >>> import torch, structops
    >>> x = torch.zeros(1, requires_grad=True)
    >>> structops.binary.swish_sign(x).backward()
    >>> x.grad
    tensor([5.])
    """
    return sign(x, "swish", width=beta, sign_zero=sign_zero, slope_bits=slope_bits)


def fda_sign(x: Tensor, terms: int = 9, omega: float = 0.1, *, sign_zero: int = 1, slope_bits: int | None = None) -> Tensor:
    """Sign with the gradient of frequency domain approximation, its ``terms`` + 1 cosines summed in closed form. See :func:`sign`.

    >>> import torch, structops
    >>> structops.binary.fda_sign(torch.tensor([-0.5, 2.0]))
    tensor([-1.,  1.])
    """
    return sign(x, "fourier", width=omega, terms=terms, sign_zero=sign_zero, slope_bits=slope_bits)


def rsign(x: Tensor, shift: Tensor, dim: int = 1, *, sign_zero: int = 1, slope_bits: int | None = None) -> Tensor:
    """ReAct-Sign: :func:`approx_sign` of ``x`` plus a learned shift a channel (arXiv:2003.03488).

    >>> import torch, structops
    >>> structops.binary.rsign(torch.tensor([[0.25, 0.25]]), torch.tensor([0.0, -1.0]))
    tensor([[ 1., -1.]])
    """
    return sign(x, "poly", shift=shift, dim=dim, sign_zero=sign_zero, slope_bits=slope_bits)


def rprelu(x: Tensor, shift: Tensor | float, slope: Tensor | float, offset: Tensor | float, dim: int = 1) -> Tensor:
    """ReAct-PReLU: ``u = x + shift``, then ``u`` where positive and ``slope * u`` elsewhere, plus ``offset``.

    Args:
        x: any shape. shift, slope, offset: one number, or one a channel of ``dim``; learned.

    Saves x and the vectors; the gradients of all three vectors come from the one backward pass. Differentiable to any order.

    >>> import torch, structops
    >>> v = torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.0])
    >>> structops.binary.rprelu(torch.tensor([[-3.0, 1.0]]), *v)
    tensor([[-1.,  2.]])
    """
    op = "rprelu"
    check.dense(op, "x", x)
    channels, inner = lay.layout(op, x, dim)
    b, a, z = (lay.vector(op, n, v, x, channels) for n, v in (("shift", shift), ("slope", slope), ("offset", offset)))
    return lay.apply(x, channels, inner, C.PRELU_FORWARD, C.PRELU, shift=b, scale=a, extra=z)


def q_prelu(x: Tensor, exponent: Tensor, dim: int = 1, shift: Tensor | float = 0.0, offset: Tensor | float = 0.0) -> Tensor:
    """:func:`rprelu` whose slope is the power of two ``2 ** round(exponent)``; rounding passes the gradient (A&B BNN).

    >>> import torch, structops
    >>> structops.binary.q_prelu(torch.tensor([[-8.0]]), torch.tensor([-3.2]))
    tensor([[-1.]])
    """
    rounded = exponent + (exponent.round() - exponent).detach()
    return rprelu(x, shift, torch.exp2(rounded), offset, dim)


def heaviside(x: Tensor, clip: float = 1.0, *, sign_zero: int = 0) -> Tensor:
    """1 where ``x > 0``, else 0; ``sign_zero`` (0 or 1) at 0. The gradient passes where abs(x) <= clip; saves one bit.

    >>> import torch, structops
    >>> structops.binary.heaviside(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """
    op = "heaviside"
    check.dense(op, "x", x)
    zero = lay.zero_value(op, sign_zero, (0, 1))
    return lay.apply(x, 1, 1, C.HEAVISIDE, C.CLIP, zero=zero, p=lay.number(op, "clip", clip, 0))


def progressive_sign(x: Tensor, temperature: float, *, sign_zero: int = 1) -> Tensor:
    """``hardtanh(x / max(1 - temperature, 1e-7))``: from hardtanh at 0 to the sign at 1, where it is the identity's :func:`sign`.

    >>> import torch, structops
    >>> structops.binary.progressive_sign(torch.tensor([-0.25, 3.0]), 0.5)
    tensor([-0.5000,  1.0000])
    """
    op = "progressive_sign"
    check.dense(op, "x", x)
    temperature = lay.number(op, "temperature", temperature, 0)
    if temperature >= 1:
        return sign(x, "identity", sign_zero=sign_zero)
    gain = lay.vector(op, "gain", 1 / max(1 - temperature, 1e-7), x, 1)
    return lay.apply(x, 1, 1, C.HARDTANH, C.CLIP, gain=gain)


class _Standardise(torch.autograd.Function):
    """The identity, whose backward adds what a division by the standard deviation of every channel takes from the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, variance: Tensor, mean: Tensor, centred: bool, channels: int, inner: int) -> Tensor:
        ctx.save_for_backward(x, variance, mean)
        ctx.layout = centred, channels, inner
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, d: Tensor):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "structops.binary: quantizers of standardised tensors are differentiable once (no create_graph)"
            )
        x, variance, mean = ctx.saved_tensors
        centred, channels, inner = ctx.layout
        d = d.contiguous()
        n = max(x.numel() // channels, 1)
        along = lay.stats(x, channels, inner, -mean if centred else None, d)[4]
        k = along / (max(n - 1, 1) * variance)
        rows, by = lambda v: v.reshape(-1, channels, inner), lambda v: v[:, None].to(d.dtype)
        # d - (x - mean) k, and where centred less the mean of d
        constant = mean * k - (lay.stats(d, channels, inner)[0] / n if centred else 0)
        out = torch.addcmul(rows(d), rows(x), by(-k)).add_(by(constant))
        return out.reshape(d.shape), None, None, None, None, None


def standardised(x: Tensor, channels: int, inner: int, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x with the gradient of a standardised tensor, its mean [C] and its variance plus 1e-5 [C] (unbiased)."""
    n = x.numel() // channels
    mean = lay.stats(x, channels, inner)[0] / max(n, 1)
    variance = lay.stats(x, channels, inner, -mean)[2] / max(n - 1, 1) + 1e-5
    if torch.is_grad_enabled() and x.requires_grad:
        x = _Standardise.apply(x.contiguous(), variance, mean, centred, channels, inner)
    return x, mean, variance


def recu_activation(x: Tensor, *, sign_zero: int = 1) -> Tensor:
    """Sign of a sample ``[B, ...]`` divided by its own standard deviation, with the gradient of :func:`approx_sign` (ReCU, BiPer).

    The gradient passes through the deviation (unbiased, plus 1e-5). Saves x. Differentiable once.

    >>> import torch, structops
    >>> structops.binary.recu_activation(torch.tensor([[-3.0, 1.0]]))
    tensor([[-1.,  1.]])
    """
    op = "recu_activation"
    check.dense(op, "x", x)
    channels, inner = lay.layout(op, x, 0)
    x, _, variance = standardised(x, channels, inner, False)
    return lay.apply(x, channels, inner, C.SIGN, C.POLY, gain=variance.rsqrt(), zero=lay.zero_value(op, sign_zero))
