"""A small binary network trained on bits follows its float simulation step by step."""

from __future__ import annotations

import torch
from cases import generator
from structops import binary as B
from structops import nn as N
from torch import Tensor, nn
from torch.nn import functional as F


def simulated_sign(x: Tensor) -> Tensor:
    through = x * (x.abs() <= 1)
    return through + (torch.where(x >= 0, 1.0, -1.0).to(x.dtype) - through).detach()


class Net(nn.Module):
    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.head = N.BinaryConv2d(8, 8, 3, padding=1), N.BinaryLinear(8 * 16, 4)
        self.act = N.RPReLU(8)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        if self.packed:
            h = self.act(self.norm(self.conv(h)))
            return self.head(h.flatten(1))
        h = self.norm(F.conv2d(simulated_sign(h), simulated_sign(self.conv.weight), padding=1))
        a = self.act
        u = h + a.shift[:, None, None]
        h = torch.where(u > 0, u, a.slope[:, None, None] * u) + a.offset[:, None, None]
        return F.linear(simulated_sign(h.flatten(1)), simulated_sign(self.head.weight), self.head.bias)


def losses(packed: bool) -> list[float]:
    torch.manual_seed(3)
    net = Net(packed).double()
    optimiser = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    g, found = generator(5), []
    for _ in range(15):
        x = torch.randn(16, 1, 4, 4, generator=g, dtype=torch.float64)
        target = x.flatten(1)[:, :4].argmax(1)
        loss = F.cross_entropy(net(x) / 8, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


def test_training_on_bits_is_the_simulation() -> None:
    on_bits, simulated = losses(True), losses(False)
    assert max(abs(a - b) for a, b in zip(on_bits, simulated, strict=True)) < 1e-9
    assert on_bits[-1] < on_bits[0]


def test_quantized_weights_follow_too() -> None:
    """ReAct's sign and a magnitude-aware weight in a linear layer: the public functions compose with torch."""
    g = generator(1)
    x, w = torch.randn(6, 20, generator=g, dtype=torch.float64), torch.randn(3, 20, generator=g, dtype=torch.float64).requires_grad_()
    shift = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    F.linear(B.rsign(x, shift), B.magnitude_aware_sign(w)).square().sum().backward()
    assert w.grad.isfinite().all() and shift.grad.ne(0).any()
