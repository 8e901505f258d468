"""BiPFT's binary linear layers and attention with the rank-one estimate of what binarisation loses."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, clipped_sign, randn, sign, straight_through
from structops import binary
from torch.nn import functional as F

SYSTEM = "BiPFT: binary pretrained transformers, elastic activations, attention with low-rank residuals"
OPERATORS = (
    "structops.binary.bwn", "structops.binary.elastic", "structops.binary.binary_linear", "structops.binary.binary_attention",
    "structops.binary.PackedWeight", "structops.binary.pack",
)  # fmt: skip
HEADS, N, D = 2, 6, 8


def bwn(w):
    """mean|w| sign(w - mean w); the gradient passes unchanged."""
    return straight_through(w.abs().mean() * sign(w - w.mean()), w)


def elastic(x, alpha, signed):
    """alpha sign(x), or alpha clip(round(x / alpha), 0, 1), with the gradients of learned step sizes."""
    a = alpha.clamp(min=1e-5)
    rate = x.numel() ** -0.5
    a = straight_through(a, a * rate)
    if signed:  # to x where |x / alpha| <= 1, to alpha sign(x)
        inside = (x / a.detach()).abs() <= 1
        return straight_through(a.detach() * sign(x), torch.where(inside, x, x.detach()) + a * sign(x))
    z = x / a
    return a * straight_through(z.round().clamp(0, 1), z.clamp(0, 1))


@pytest.mark.parametrize("signed", [True, False])
def test_linear_layer(signed: bool) -> None:
    x, w, b = randn(3, N, D), randn(5, D, seed=1), randn(5, seed=2)
    alpha = torch.tensor([0.8], dtype=torch.float64)
    agree(
        lambda x, alpha, w, b: F.linear(binary.elastic(x, alpha, signed), binary.bwn(w), b),
        lambda x, alpha, w, b: F.linear(elastic(x, alpha, signed), bwn(w), b), x, alpha, w, b,
    )  # fmt: skip


@pytest.mark.parametrize("signed", [True, False])
def test_linear_layer_on_bits(signed: bool) -> None:
    """y = alpha m (XNOR or AND and popcount) + b from packed operands, 32 times smaller than float32; a row of zeros too."""
    x, w, b = randn(7, 256).float(), randn(33, 256, seed=1).float(), randn(33, seed=2).float()
    x[3] = 0
    alpha, weight = torch.tensor([0.8]), binary.bwn(w)
    a = binary.elastic(x, alpha, signed)
    bits = binary.pack(a, values="pm1" if signed else "01")
    packed = binary.PackedWeight(weight)
    assert packed.words.numel() * 8 * 32 == w.numel() * 4
    scale = (alpha * weight.abs().max()).expand(33).contiguous()
    got = binary.binary_linear(bits, packed, b, scale=scale)
    torch.testing.assert_close(got, F.linear(a, weight, b), rtol=1e-5, atol=1e-3)


def ours(q, k, v, alpha, q_mean, q_rest, k_mean, k_rest, residual):
    return binary.binary_attention(
        q, k, v, probability="elastic", scale=0.4, value_scale=0.7, alpha=alpha, rank1=(q_mean, q_rest, k_mean, k_rest),
        value_residual=residual,
    )  # fmt: skip


def dense(q, k, v, alpha, q_mean, q_rest, k_mean, k_rest, residual):
    swap = lambda t: t.transpose(-1, -2)
    scores = clipped_sign(q) @ swap(clipped_sign(k))
    scores = scores + q_mean @ swap(k_rest) + q_rest @ swap(k_mean) + q_rest @ swap(k_rest)
    p = elastic((0.4 * scores).softmax(-1), alpha, False)
    return 0.7 * p @ clipped_sign(v) + p @ residual


def operands():
    heads = [randn(HEADS, N, D, seed=i) for i in range(3)]
    shared = [randn(1, N, 1, seed=4 + i).expand(HEADS, N, 1).contiguous() for i in range(4)]
    return *heads, torch.tensor([0.3], dtype=torch.float64), *shared, randn(HEADS, N, D, seed=9)


def test_attention() -> None:
    """Gradients to queries, keys, values, the learned scale, the rank-one terms and the residual of the values."""
    agree(ours, dense, *operands())


def test_without_scale_everything_attends_alike() -> None:
    """alpha at its clamp: every probability is 1e-5, and of the scores nothing remains."""
    q, k, v, _, *rest = operands()
    got = ours(q, k, v, torch.zeros(1).double(), *rest)
    torch.testing.assert_close(got, (1e-5 * (0.7 * sign(v) + rest[-1])).sum(1, keepdim=True).expand(HEADS, N, D))
