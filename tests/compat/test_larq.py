"""The quantizers of larq by name, against the formulas of its documentation in float64."""

from __future__ import annotations

import pytest
import torch
from structops.compat import larq
from torch import Tensor

Q = larq.quantizers
X = torch.tensor([-1.5, -1.0, -0.3, -0.05, 0.0, 0.05, 0.3, 1.0, 1.5], dtype=torch.float64)


def run(name, x: Tensor = X) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = Q.get(name)(x)
    y.backward(torch.full_like(x, 0.5))
    return y.detach(), x.grad * 2


@pytest.mark.parametrize("name", ["ste_sign", "SteSign", Q.SteSign()])
def test_ste_sign(name) -> None:
    y, g = run(name)
    assert torch.equal(y, torch.where(X >= 0, 1.0, -1.0).double()) and torch.equal(g, (X.abs() <= 1).double())
    assert torch.equal(run(Q.SteSign(clip_value=None))[1], torch.ones_like(X))
    assert torch.equal(run(Q.SteSign(clip_value=0.3))[1], (X.abs() <= 0.3).double())


def test_the_others() -> None:
    clip = (X.abs() <= 1).double()
    y, g = run("approx_sign")
    torch.testing.assert_close(g, (2 - 2 * X.abs()).clamp(min=0))
    y, g = run("ste_heaviside")
    assert torch.equal(y, (X > 0).double()) and torch.equal(g, clip)
    y, g = run("swish_sign")
    torch.testing.assert_close(g, 5 * (2 - 5 * X * torch.tanh(2.5 * X)) / (1 + torch.cosh(5 * X)))
    y, g = run("ste_tern")
    assert torch.equal(y, torch.sign(X) * (X.abs() >= 0.05)) and torch.equal(g, clip)
    y, _ = run(Q.SteTern(ternary_weight_networks=True))
    assert torch.equal(y, torch.sign(X) * (X.abs() >= 0.7 * X.abs().mean()))
    y, g = run("dorefa_quantizer")
    torch.testing.assert_close(y, torch.round(X.clamp(0, 1) * 3) / 3)
    assert torch.equal(g, ((X >= 0) & (X <= 1)).double())
    y, g = run(Q.DoReFa(3, "weights"))
    t = torch.tanh(X)
    top = t.abs().max()
    torch.testing.assert_close(y, 2 * torch.round((t / (2 * top) + 0.5) * 7) / 7 - 1)
    torch.testing.assert_close(g, (1 - t * t) / top)
    w = torch.stack([X, 2 * X], -1)
    y, g = run("magnitude_aware_sign", w)
    size = w.abs().mean(0)
    torch.testing.assert_close(y, size * torch.where(w >= 0, 1.0, -1.0))
    torch.testing.assert_close(g, size * (w.abs() <= 1))


def test_get() -> None:
    assert Q.get(None) is None and Q.get(torch.sign) is torch.sign
    made = Q.get({"class_name": "DoReFa", "config": {"k_bit": 4, "mode": "weights"}})
    assert made.precision == 4 and made.mode == "weights" and Q.NoOp(precision=8).precision == 8
    with pytest.raises(ValueError, match="Could not interpret"):
        Q.get("wrong")
    with pytest.raises(ValueError, match="Invalid DoReFa"):
        Q.DoReFa(2, "both")
