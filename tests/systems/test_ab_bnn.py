"""A&B BNN: a residual block without batch norm whose multiplications are by powers of two."""

from __future__ import annotations

import torch
from agreement import agree, randn, sign, straight_through
from structops import binary
from torch.nn import functional as F

SYSTEM = "A&B BNN: add and bit operations only, smooth sign, standardised binary weights, power-of-two RPReLU"
OPERATORS = (
    "structops.binary.sign", "structops.binary.magnitude_aware_sign", "structops.binary.binary_conv2d", "structops.binary.q_prelu",
    "structops.binary.power_of_two",
)  # fmt: skip
C, ALPHA, GAMMA, GAIN = 6, 0.25, 1.7, 1.3


def standardised(w):
    """gamma fan_in^-1/2 (w - mean) / (std + eps), a filter at a time."""
    flat = w.flatten(1)
    z = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
    return (GAMMA * flat.shape[1] ** -0.5 * z).reshape(w.shape)


def ours(x, w, bias, exponent, before, after):
    a = binary.sign(x, "sigmoid", shift=bias, dim=1)
    q = GAIN * binary.magnitude_aware_sign(standardised(w))
    y = ALPHA * F.conv2d(a, q, padding=1) + x
    return binary.q_prelu(y, exponent, 1, before, after)


def formula(x, w, bias, exponent, before, after):
    by = lambda v: v[:, None, None]
    u = x + by(bias)
    a = straight_through(sign(u), 2 * torch.sigmoid(3 * u))
    z = standardised(w)
    size = z.abs().flatten(1).mean(1)[:, None, None, None].detach()
    y = ALPHA * F.conv2d(a, GAIN * straight_through(size * sign(z), size * z.clamp(-1, 1)), padding=1) + x
    u = y + by(before)
    return torch.where(u > 0, u, by(torch.exp2(straight_through(exponent.round(), exponent))) * u) + by(after)


def operands():
    return randn(2, C, 5, 5), randn(C, C, 3, 3, seed=1), *(randn(C, seed=2 + i) for i in range(4))


def test_block() -> None:
    agree(ours, formula, *operands())


def test_block_on_bits() -> None:
    """Inference: the convolution, its scales, the residual and the shift-PReLU in one call on packed bits."""
    x, w, bias, exponent, before, after = operands()
    q = GAIN * binary.magnitude_aware_sign(standardised(w))
    scale = ALPHA * q.abs().flatten(1).amax(1)
    slope = binary.power_of_two(torch.exp2(exponent.round()))
    assert torch.equal(torch.frexp(slope)[0].abs(), torch.full((C,), 0.5, dtype=slope.dtype))
    got = binary.binary_conv2d(
        binary.pack(x + bias[:, None, None], 1), binary.PackedWeight(q), padding=1, scale=scale.float(), residual=x.float(),
        prelu=(before.float(), slope.float(), after.float()),
    )  # fmt: skip
    torch.testing.assert_close(got.double(), formula(x, w, bias, exponent, before, after), rtol=1e-5, atol=1e-5)


def test_identities() -> None:
    """Scaling before a sign is void, so it can be removed; multiplication by the slope is exact, as a shift of the exponent."""
    x, b = randn(4, C), randn(C, seed=1)
    for beta in (0.3, 7.0):
        assert torch.equal(binary.sign(beta * (x + b / beta), "sigmoid"), binary.sign(x, "sigmoid", shift=b / beta, dim=1))
    e = torch.tensor([-3.0, -1.0, 0.0, -2.4, -0.6, 1.0], dtype=torch.float64)
    y = binary.q_prelu(-x.abs(), e, 1)
    assert torch.equal(y, torch.ldexp(-x.abs(), e.round().int()))
