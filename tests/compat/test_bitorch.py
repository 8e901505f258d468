"""bitorch on structops: its quantizations, and layers converted through its own registry."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from structops.compat import bitorch as compat

bitorch = pytest.importorskip("bitorch", reason="bitorch is not installed")
layers, quantizations = pytest.importorskip("bitorch.layers"), pytest.importorskip("bitorch.quantizations")


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install()
    compat.install()
    yield
    compat.uninstall()


def outcome(quantization, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = quantization(x)
    y.backward(torch.linspace(-1, 1, x.numel()).reshape(x.shape))
    return y.detach(), x.grad


@pytest.mark.parametrize(
    "make",
    [
        lambda q: q.Sign(), lambda q: q.ApproxSign(), lambda q: q.SwishSign(), lambda q: q.SteHeaviside(), lambda q: q.InputDoReFa(2),
        lambda q: q.WeightDoReFa(1), lambda q: q.WeightDoReFa(3),
    ],
)  # fmt: skip
def test_quantizations_are_the_same(make) -> None:
    x = torch.randn(500)
    x[::7] = 0
    x[1::7] = 1
    want = outcome(make(quantizations), x)
    compat.install()
    try:
        got = outcome(make(quantizations), x)
    finally:
        compat.uninstall()
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-6)
    assert torch.equal(outcome(make(quantizations), x)[0], want[0])


def test_convert(installed: None) -> None:
    """A model of three layers, converted: equal results from packed weights."""
    model = torch.nn.Sequential(
        layers.QConv2d(3, 8, 3, stride=2, padding=1), layers.QConv2d(8, 16, 3, padding=2, groups=2, dilation=2), torch.nn.Flatten(),
        layers.QLinear(16 * 4 * 4, 10),
    )  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    want = model(x).detach()
    layers.convert(model, bitorch.RuntimeMode.CPU)
    assert type(model[0].layer_implementation).__name__ == "StructopsQConv2d"
    assert torch.equal(model(x), want)


@pytest.mark.parametrize("change", ["load", "assign", "copy"])
def test_another_weight_is_packed(installed: None, change: str) -> None:
    make = lambda: torch.nn.Sequential(layers.QLinear(70, 4, bias=False, input_quantization="sign", weight_quantization="sign"))
    other, x = make(), torch.randn(3, 70)
    want = other(x)
    layer = layers.convert(make(), bitorch.RuntimeMode.CPU)[0].layer_implementation
    layer(x)
    if change == "copy":
        layer = copy.deepcopy(layer)
    layer.load_state_dict(other[0].state_dict(), assign=change == "assign")
    assert torch.equal(layer(x), want)


def test_what_bits_cannot_run_is_refused_with_a_reason(installed: None) -> None:
    model = torch.nn.Sequential(layers.QLinear(8, 4, input_quantization="inputdorefa"))
    with pytest.raises(RuntimeError, match="'inputdorefa' is not a sign"):
        layers.convert(model, bitorch.RuntimeMode.CPU)
