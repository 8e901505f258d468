"""BiPer's convolution: weights by a periodic function in two stages, activations divided by their deviation, learned scales."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, polynomial_sign, randn, sign, straight_through
from structops import binary
from torch.nn import functional as F

SYSTEM = "BiPer: binary neural networks with a periodic function of the weights"
OPERATORS = ("structops.binary.biper_weight", "structops.binary.recu_activation", "structops.binary.binary_conv2d")
OMEGA = 20.0


def activation(x):
    """Sign of every sample over its standard deviation."""
    return polynomial_sign(x / (x.flatten(1).var(1)[:, None, None, None] + 1e-5).sqrt())


def weight(w, stage):
    wave = torch.sin(OMEGA * w)
    return wave if stage == 1 else straight_through(sign(wave), wave)


@pytest.mark.parametrize(("stride", "padding", "groups", "size"), [(1, 1, 1, 5), (2, 1, 1, 7), (1, 0, 3, 4), (2, 0, 1, 6)])
def test_second_stage_on_bits(stride: int, padding: int, groups: int, size: int) -> None:
    """The convolution of signs on bits equals that of floats; gradients to activations, weights and scales."""
    geometry = {"stride": stride, "padding": padding, "groups": groups}

    def ours(x, w, scale):
        return binary.binary_conv2d(binary.recu_activation(x), binary.biper_weight(w, OMEGA), scale=scale, **geometry)

    def dense(x, w, scale):
        return F.conv2d(activation(x), weight(w, 2), **geometry) * scale[:, None, None]

    agree(ours, dense, randn(2, 6, size, size), randn(6, 6 // groups, 3, 3, seed=1) / 10, randn(6, seed=2))


def test_integers_are_exact() -> None:
    x, w = randn(2, 70, 6, 6), randn(5, 70, 3, 3, seed=1)
    bits = binary.binary_conv2d(x, binary.biper_weight(w, OMEGA), padding=1, out=torch.int32)
    assert torch.equal(bits.double(), F.conv2d(sign(x), weight(w, 2), padding=1))


def test_first_stage_is_smooth() -> None:
    """Weights are the sine itself, and its gradient the exact one."""
    x = randn(2, 3, 5, 5)
    agree(
        lambda x, w: F.conv2d(binary.recu_activation(x), binary.biper_weight(w, OMEGA, stage=1)),
        lambda x, w: F.conv2d(activation(x), weight(w, 1)), x, randn(4, 3, 3, 3, seed=1) / 10,
    )  # fmt: skip
    w = (randn(3, 2) / 10).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: binary.biper_weight(w, OMEGA, stage=1), w)
