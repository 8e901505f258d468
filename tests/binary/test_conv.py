"""Convolutions on bits against float convolutions of signs: bits_conv."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import binary
from structops.binary._conv import window
from test_linear import Ste, quarters, sign
from torch import Tensor

CHANNELS = [
    (1, 1, 3),
    (3, 1, 5),
    (31, 1, 2),
    (64, 1, 65),
    (65, 1, 9),
    (128, 2, 20),
    (6, 3, 9),
    (5, 5, 5),
    (70, 70, 140),
    (130, 130, 130),
    (96, 3, 33),
]
SHAPES = [
    (1, 1, 1, 0),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    ((5, 3), (2, 3), (2, 1), (2, 0)),
    ((2, 3), 1, 2, "same"),
    (3, 3, 2, 2),
    (3, 2, 1, "same_tf"),
    (7, 1, 1, 3),
]


def simulate(x: Tensor, w: Tensor, stride, padding, dilation, groups: int, pad_value: int, signs=sign) -> Tensor:
    win = window("simulate", tuple(x.shape[2:]), tuple(w.shape[2:]), stride, padding, dilation, groups, pad_value)
    pads = win.pads if x.dim() == 4 else win.pads[:2]
    conv = F.conv2d if x.dim() == 4 else F.conv1d
    return conv(F.pad(signs(x), pads, value=pad_value), signs(w), None, stride, 0, dilation, groups)


def sizes(k) -> tuple[int, int]:
    return k if isinstance(k, tuple) else (k, k)


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_equals_the_float_convolution(channels: tuple[int, int, int], isa: str) -> None:
    C, groups, O = channels
    for (k, stride, dilation, padding), pad_value in itertools.product(SHAPES, (0, 1, -1)):
        x, w = torch.randint(-2, 3, (2, C, 9, 8)).double(), torch.randint(-2, 3, (O, C // groups, *sizes(k))).double()
        want = simulate(x, w, stride, padding, dilation, groups, pad_value)
        how = (None, stride, padding, dilation, groups)
        assert torch.equal(binary.binary_conv2d(x, w, *how, pad_value=pad_value), want)
        packed = binary.PackedWeight(w, groups=groups)
        for polarity in (1, -1):
            bits = binary.binary_conv2d(binary.pack(x, 1, polarity=polarity), packed, *how, pad_value=pad_value, out="bits")
            bits.validate()
            assert bits.shape == want.shape and torch.equal(binary.unpack(bits), sign(want.float()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_geometry(data) -> None:
    draw = lambda low, high: data.draw(st.integers(low, high))
    groups, Cg, Og = draw(1, 4), draw(1, 70), draw(1, 20)
    k, stride, dilation, padding = ((draw(1, 4), draw(1, 4)) for _ in range(4))
    H, W = ((k[i] - 1) * dilation[i] + draw(1, 6) for i in range(2))
    x, w = torch.randn(draw(0, 2), groups * Cg, H, W), torch.randn(groups * Og, Cg, *k)
    pad_value, sign_zero = draw(-1, 1), data.draw(st.sampled_from((1, -1)))
    got = binary.binary_conv2d(x, w, None, stride, padding, dilation, groups, pad_value=pad_value, sign_zero=sign_zero)
    assert torch.equal(got, simulate(x, w, stride, padding, dilation, groups, pad_value))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_sequences_and_layouts(memory: torch.memory_format, isa: str) -> None:
    x, w = torch.randn(2, 70, 13), torch.randn(9, 70, 3)
    for stride, padding, dilation, pad_value in ((1, 1, 1, 0), (2, 3, 2, 1), (1, "same", 2, -1)):
        want = simulate(x, w, stride, padding, dilation, 1, pad_value)
        assert torch.equal(binary.binary_conv1d(x, w, None, stride, padding, dilation, pad_value=pad_value), want)
        bits = binary.binary_conv1d(
            binary.pack(x, 1), binary.PackedWeight(w), None, stride, padding, dilation, pad_value=pad_value, out="bits"
        )
        assert bits.shape == want.shape and torch.equal(binary.unpack(bits), sign(want))
    y = torch.randn(2, 70, 6, 5).to(memory_format=memory)
    v = torch.randn(4, 70, 3, 3).to(memory_format=memory)
    assert torch.equal(binary.binary_conv2d(y, v, padding=1), simulate(y, v, 1, 1, 1, 1, 0))
    assert torch.equal(binary.pack(y, 1).words, binary.pack(y.contiguous(), 1).words)


@pytest.mark.parametrize("groups", [1, 2, 70])
def test_epilogue(groups: int, isa: str) -> None:
    C, O = 70, 140
    x, w = torch.randn(2, C, 6, 5), torch.randn(O, C // groups, 3, 3)
    dot = simulate(x, w, 1, 1, 1, groups, 0)
    scale, bias, slope, gamma, zeta, shift = (quarters(O) for _ in range(6))
    residual = quarters(2, O, 6, 5)
    per = lambda t: t.reshape(1, -1, 1, 1)
    t = dot * per(scale) + per(bias) + residual + per(gamma)
    full = torch.where(t > 0, t, t * per(slope)) + per(zeta)
    call = dict(padding=1, groups=groups, scale=scale, residual=residual, prelu=(gamma, slope, zeta))
    assert torch.equal(binary.binary_conv2d(x, w, bias, **call), full)
    assert torch.equal(binary.unpack(binary.binary_conv2d(x, w, bias, shift=shift, **call)), sign(full + per(shift)))
    assert torch.equal(binary.binary_conv2d(x.double(), w, bias.double(), **call), full.double())
    threshold = torch.stack([torch.arange(O) % 9 - 4, -(torch.arange(O) % 2)]).int()
    bits = binary.binary_conv2d(
        binary.pack(x, 1), binary.PackedWeight(w, groups=groups), padding=1, groups=groups, threshold=threshold
    )
    assert torch.equal(binary.unpack(bits) > 0, (dot >= per(threshold[0])) ^ per(threshold[1]).bool())


@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("case", [(6, 1, 4, 3, 1, 1, 1), (6, 3, 9, (2, 3), 2, "same_tf", 1), (4, 4, 8, 3, 1, 2, 2)], ids=str)
def test_gradients(case: tuple, pad_value: int) -> None:
    C, groups, O, k, stride, padding, dilation = case
    make = lambda *s: (torch.randint(-8, 9, s) / 4).double().requires_grad_()
    x, w, scale, bias = make(2, C, 7, 6), make(O, C // groups, *sizes(k)), make(O), make(O)
    got = binary.binary_conv2d(x, w, bias, stride, padding, dilation, groups, pad_value=pad_value, scale=scale)
    want = simulate(x, w, stride, padding, dilation, groups, pad_value, lambda t: Ste.apply(t, 1.0))
    want = want * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
    assert torch.equal(got, want)
    g = torch.randint(-3, 4, got.shape).double()
    for a, b in zip(
        torch.autograd.grad(got, (x, w, scale, bias), g), torch.autograd.grad(want, (x, w, scale, bias), g), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-9)
    (gx,) = torch.autograd.grad(
        binary.binary_conv2d(x, w, None, stride, padding, dilation, groups).square().sum(), x, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="second derivatives"):
        gx.sum().backward()


def test_gradients_of_sequences() -> None:
    x, w = torch.randn(2, 5, 9, requires_grad=True), torch.randn(4, 5, 3, requires_grad=True)
    got, want = binary.binary_conv1d(x, w, padding=1), simulate(x, w, 1, 1, 1, 1, 0, lambda t: Ste.apply(t, 1.0))
    for a, b in zip(torch.autograd.grad(got.sum(), (x, w)), torch.autograd.grad(want.sum(), (x, w)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, w: binary.binary_conv2d(x[0], w), ValueError, "x"),
        (lambda x, w: binary.binary_conv2d(x, w[0]), ValueError, "weight"),
        (lambda x, w: binary.binary_conv2d(x, w, groups=2), ValueError, "groups"),
        (lambda x, w: binary.binary_conv2d(x, w, groups=0), ValueError, "groups"),
        (lambda x, w: binary.binary_conv2d(x, w, stride=0), ValueError, "stride"),
        (lambda x, w: binary.binary_conv2d(x, w, stride=(1, 2, 3)), ValueError, "stride"),
        (lambda x, w: binary.binary_conv2d(x, w, stride=1.5), TypeError, "stride"),
        (lambda x, w: binary.binary_conv2d(x, w, padding=-1), ValueError, "padding"),
        (lambda x, w: binary.binary_conv2d(x, w, padding="full"), ValueError, "padding"),
        (lambda x, w: binary.binary_conv2d(x, w, padding="same", stride=2), ValueError, "same_tf"),
        (lambda x, w: binary.binary_conv2d(x, w, dilation=4), ValueError, "window"),
        (lambda x, w: binary.binary_conv2d(x, w, pad_value=2), ValueError, "pad_value"),
        (lambda x, w: binary.binary_conv2d(binary.pack(x), w), ValueError, "dimension 1"),
        (lambda x, w: binary.binary_conv2d(x, binary.PackedWeight(w.repeat(2, 1, 1, 1), groups=2)), ValueError, "groups"),
        (lambda x, w: binary.binary_conv2d(x, w, residual=torch.zeros(2)), ValueError, "residual"),
    ],
)
def test_bad_input(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(torch.randn(1, 4, 5, 5), torch.randn(3, 4, 3, 3))
