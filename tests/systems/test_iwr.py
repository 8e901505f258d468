"""Random subnetworks: edge-popup and biprop masks in linear layers and convolutions, and iterative weight recycling."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn, sign, straight_through
from structops import binary
from torch.nn import functional as F

SYSTEM = "IWR: randomly initialised subnetworks with iterative weight recycling, on edge-popup and biprop"
OPERATORS = (
    "structops.binary.edge_popup", "structops.binary.biprop", "structops.binary.topk_mask", "structops.binary.recycle_weights",
    "structops.binary.packed_linear", "structops.binary.PackedWeight",
)  # fmt: skip
LAYERS = {
    "linear": (F.linear, (4, 9), (7, 9), {}),
    "conv2d": (F.conv2d, (2, 3, 5, 5), (4, 3, 3, 3), {"padding": 1, "stride": 2}),
}  # fmt: skip


def mask(score, keep: float):
    """1 at the largest magnitudes; of equal ones the first."""
    kept = score.numel() - int((1 - keep) * score.numel())
    order = torch.sort(score.detach().abs().flatten(), descending=True, stable=True).indices[:kept]
    return torch.zeros(score.numel(), dtype=score.dtype).index_fill(0, order, 1.0).reshape(score.shape)


def popup(weight, score, keep):
    """weight times the mask, which passes its gradient on to the score."""
    return weight * straight_through(mask(score, keep), score)


def biprop(weight, score, keep):
    m = mask(score, keep)
    alpha = (m * weight.abs()).sum() / m.sum()
    return straight_through(alpha * sign(weight) * m, score * weight.abs().detach())


def operands(layer: str):
    product, x, w, geometry = LAYERS[layer]
    score = randn(*w, seed=2)
    score.view(-1)[::5] = 0.25  # ties
    return lambda x, w: product(x, w, **geometry), randn(*x), randn(*w, seed=1), score


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer: str, keep: float) -> None:
    """Values, and gradients straight through the mask: to the score g w everywhere (biprop g |w|), to the weight where kept."""
    product, x, w, score = operands(layer)
    agree(
        lambda x, w, s: product(x, binary.edge_popup(w, s, keep)), lambda x, w, s: product(x, popup(w, s, keep)), x, w, score,
    )  # fmt: skip
    agree(lambda x, s: product(x, binary.biprop(w, s, keep)), lambda x, s: product(x, biprop(w, s, keep)), x, score)


def test_mask() -> None:
    """As many bits as asked, those of the largest magnitudes, the first of equal ones."""
    _, _, _, score = operands("conv2d")
    for keep in (0.0, 0.3, 0.85, 1.0):
        bits = binary.topk_mask(score, keep)
        ones = [int(bits[k // 8]) >> k % 8 & 1 for k in range(score.numel())]
        assert ones == mask(score, keep).flatten().int().tolist() if keep else sum(ones) == 0


def test_ternary_inference() -> None:
    """{-alpha, 0, alpha} as two planes of bits: the product of floats with it, and an eighth of the memory at least."""
    x, w, score = randn(5, 128).float(), randn(40, 128, seed=1).float(), randn(40, 128, seed=2).float()
    q = binary.biprop(w, score, 0.4)
    packed = binary.PackedWeight(q.sign(), kind="ternary")
    alpha = q.abs().max().expand(40).contiguous()
    torch.testing.assert_close(binary.packed_linear(x, packed, scale=alpha), F.linear(x, q), rtol=1e-4, atol=1e-3)
    assert packed.nbytes <= w.numel() * 4 // 8


def test_recycling() -> None:
    """The weights of the lowest scores become those of the highest, in order; nothing else changes."""
    _, _, w, score = operands("conv2d")
    got = binary.recycle_weights(w, score, 0.2).flatten()
    size, n = score.abs().flatten(), int(0.2 * w.numel())
    order = torch.sort(size, descending=True, stable=True).indices
    highest, lowest = order[:n], order[-n:].sort().values  # of equal ones the last are the lowest
    lowest = lowest[torch.sort(size[lowest], stable=True).indices]
    want = w.flatten().clone()
    want[lowest] = w.flatten()[highest]
    assert torch.equal(got, want)
    counts = [int((got == v).sum()) for v in w.flatten()[highest]]
    assert min(counts) == 2 and got.numel() == w.numel()
