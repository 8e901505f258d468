"""BiBench's eight binarisation algorithms in linear layers and convolutions of one and two dimensions."""

from __future__ import annotations

import math

import pytest
import torch
from agreement import agree, clipped_sign, polynomial_sign, randn, sign, straight_through
from structops import binary
from torch.nn import functional as F

SYSTEM = "BiBench: BNN, XNOR, DoReFa, Bi-Real, XNOR++, ReActNet, ReCU and FDA, in linear, conv1d and conv2d layers"
OPERATORS = (
    "structops.binary.sign", "structops.binary.xnor_weight", "structops.binary.xnor_activation", "structops.binary.approx_sign",
    "structops.binary.xnorpp_scale", "structops.binary.rsign", "structops.binary.rprelu", "structops.binary.recu_weight",
    "structops.binary.recu_activation", "structops.binary.fda_sign", "structops.binary.binary_linear",
    "structops.binary.binary_conv1d", "structops.binary.binary_conv2d",
)  # fmt: skip
LAYERS = {
    "linear": (F.linear, (4, 6), (5, 6), {}),
    "conv1d": (F.conv1d, (2, 4, 7), (5, 4, 3), {"padding": 1}),
    "conv2d": (F.conv2d, (2, 4, 5, 5), (5, 4, 3, 3), {"padding": 1, "stride": 2}),
}  # fmt: skip
OMEGA, TERMS, TAU = 0.5, 9, 0.85


def by_channel(t, like):
    """A vector along dimension 1 of like."""
    return t.reshape(-1, *(1,) * (like.dim() - 2))


def mean_size(t):
    return t.abs().flatten(1).mean(1).reshape(-1, *(1,) * (t.dim() - 1)).detach()


def fourier(x):
    """Sign with the gradient of the Fourier series of a square wave, inside [-1, 1]."""
    inside = x.abs() <= 1
    series = sum(4 / (math.pi * (2 * i + 1)) * torch.sin((2 * i + 1) * OMEGA * x) for i in range(TERMS + 1))
    return straight_through(sign(x), torch.where(inside, series, series.detach()))


def recu(w):
    """The standardised weight clamped at a quantile of its Laplace model, and its sign."""
    flat = w.flatten(1)
    spread = (flat.var(1, keepdim=True) + 1e-5).sqrt()
    z = 2 * math.sqrt(2) * (flat - flat.mean(1, keepdim=True)) / spread
    limit = float(-z.detach().abs().mean() * math.log(2 - 2 * TAU))
    return straight_through(sign(z), z.clamp(-limit, limit)).reshape(w.shape)


def deviation(x):
    return x / (x.flatten(1).var(1).reshape(-1, *(1,) * (x.dim() - 1)) + 1e-5).sqrt()


def centred(w):
    return w - w.flatten(1).mean(1).reshape(-1, *(1,) * (w.dim() - 1))


def scaled(w, gain=None):
    """mean|w| sign(w): the gradient of the clipped sign, times the scale where it is given."""
    hard = mean_size(w) * sign(w)
    return straight_through(hard, w.clamp(-1, 1) * (mean_size(w) if gain else 1))


# Of every algorithm: activation, weight; then the same by formulas.
CLIP = binary.sign
ALGORITHMS = {
    "bnn": (CLIP, CLIP, clipped_sign, clipped_sign),
    "xnor": (binary.xnor_activation, binary.xnor_weight, scaled, scaled),
    "xnor, linear": (
        binary.xnor_activation, lambda w: binary.xnor_weight(w, peer="xnor"), scaled, lambda w: scaled(centred(w), True),
    ),
    "dorefa": (CLIP, lambda w: binary.xnor_weight(w, peer="dorefa"), clipped_sign, scaled),
    "bi-real": (binary.approx_sign, binary.xnor_weight, polynomial_sign, scaled),
    "recu": (
        binary.recu_activation, lambda w: binary.recu_weight(w, TAU), lambda x: polynomial_sign(deviation(x)), recu,
    ),
    "fda": (
        lambda x: binary.fda_sign(x, TERMS, OMEGA), lambda w: binary.fda_sign(w, TERMS, OMEGA), fourier, fourier,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_quantisers_in_layers(layer: str, name: str) -> None:
    """Forward and surrogate gradients of activation and weight."""
    product, x, w, geometry = LAYERS[layer]
    act, weight, act_formula, weight_formula = ALGORITHMS[name]
    agree(
        lambda x, w: product(act(x), weight(w), **geometry),
        lambda x, w: product(act_formula(x), weight_formula(w), **geometry), randn(*x), 0.7 * randn(*w, seed=1),
    )  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_learned_scales_and_shifts(layer: str) -> None:
    """XNOR++: factors of the result; ReActNet: shifts before the sign, RPReLU after. Both on bits, in training."""
    product, x, w, geometry = LAYERS[layer]
    bits = {"linear": binary.binary_linear, "conv1d": binary.binary_conv1d, "conv2d": binary.binary_conv2d}[layer]
    x, w = randn(*x), 0.7 * randn(*w, seed=1)
    sizes = product(x, w, **geometry).shape[1:]
    factors = [randn(n, seed=2 + i) for i, n in enumerate(sizes)]

    def outer(y, *factors):
        for i, f in enumerate(factors):
            y = y * f.reshape(-1, *(1,) * (len(sizes) - 1 - i))
        return y

    agree(
        lambda x, w, *f: binary.xnorpp_scale(bits(x, w, **geometry), *f),
        lambda x, w, *f: outer(product(clipped_sign(x), clipped_sign(w), **geometry), *f), x, w, *factors,
    )  # fmt: skip

    def react(x, w, shift, gamma, slope, zeta):
        return binary.rprelu(bits(binary.rsign(x, shift), w, **geometry), gamma, slope, zeta)

    def react_formula(x, w, shift, gamma, slope, zeta):
        y = product(polynomial_sign(x + by_channel(shift, x)), clipped_sign(w), **geometry)
        u = y + by_channel(gamma, y)
        return torch.where(u > 0, u, by_channel(slope, y) * u) + by_channel(zeta, y)

    vectors = [randn(sizes[0], seed=12 + i) for i in range(3)]
    agree(react, react_formula, x, w, randn(x.shape[1], seed=11), *vectors)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_inference_on_bits(name: str) -> None:
    """What training simulates in floats, a packed layer computes: integers times the scales."""
    act, weight, _, _ = ALGORITHMS[name]
    x, w = randn(2, 70, 5, 5), 0.7 * randn(6, 70, 3, 3, seed=1)
    a, q = act(x), weight(w)
    packed = binary.PackedWeight(q)
    sample, channel = (t.abs().flatten(1).amax(1) for t in (a, q))
    got = binary.binary_conv2d(a, packed, padding=1, scale=channel.float()) * sample[:, None, None, None]
    torch.testing.assert_close(got.double(), F.conv2d(a, q, padding=1), rtol=1e-5, atol=1e-3)
    integers = binary.binary_conv2d(a, packed, padding=1, out=torch.int32)
    assert torch.equal(integers.double(), F.conv2d(sign(a), sign(q), padding=1))
