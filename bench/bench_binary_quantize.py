"""Quantizers, forward and backward (operators quantize, quantize_bwd, channel_stats), against the papers' formulation in torch.

The peers keep what autograd keeps of the formula; the saved bytes are in the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic

B = structops.binary


class Clipped(torch.autograd.Function):
    """Sign whose backward masks the gradient: x is kept, as in the public repositories."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1).to(g.dtype)


def _through(forward: Tensor, through: Tensor) -> Tensor:
    return through + (forward - through).detach()


def _sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def _polynomial(x: Tensor) -> Tensor:
    """Bi-Real Net and ReActNet: three masks and a sum."""
    out = torch.sign(x)
    m1, m2, m3 = x < -1, x < 0, x < 1
    o1 = (-1) * m1.to(x.dtype) + (x * x + 2 * x) * (~m1).to(x.dtype)
    o2 = o1 * m2.to(x.dtype) + (-x * x + 2 * x) * (~m2).to(x.dtype)
    o3 = o2 * m3.to(x.dtype) + (~m3).to(x.dtype)
    return out.detach() - o3.detach() + o3


def _swish(x: Tensor, b: float = 5.0) -> Tensor:
    s = torch.sigmoid(b * x)
    return _through(_sign(x), 2 * s * (1 + b * x * (1 - s)) - 1)


def _fourier(x: Tensor, terms: int = 9, w: float = 0.1) -> Tensor:
    total = sum(torch.sin((2 * i + 1) * w * x) / (2 * i + 1) for i in range(terms + 1))
    return _through(_sign(x), torch.where(x.abs() <= 1, 4 / math.pi * total, 0))


def _dorefa(x: Tensor, n: int = 3) -> Tensor:
    c = x.clamp(0, 1)
    return _through(torch.round(c * n) / n, c)


def _elastic(x: Tensor, alpha: Tensor) -> Tensor:
    return alpha * _through(_sign(x), (x / alpha.detach()).clamp(-1, 1) * 1.0)


def _rprelu(x: Tensor, shift: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return torch.nn.functional.prelu(x + shift[:, None, None], slope) + offset[:, None, None]


def _magnitude(w: Tensor) -> Tensor:
    scale = w.detach().abs().mean((1, 2, 3), keepdim=True)
    return scale * _through(_sign(w), w.clamp(-1, 1))


def _biper(w: Tensor) -> Tensor:
    s = torch.sin(20 * w)
    return _through(_sign(s), s)


def _recu(w: Tensor, tau: float = 0.85) -> Tensor:
    w0 = w - w.mean((1, 2, 3), keepdim=True)
    w1 = w0 / (torch.sqrt(w0.var((1, 2, 3), keepdim=True) + 1e-5) / (2 * math.sqrt(2)))
    q = (-w1.abs().mean() * math.log(2 - 2 * tau)).item()
    w2 = w1.clamp(-q, q)
    return _through(_sign(w2), w2)


# name -> (ours, the paper's in torch, vectors of the channel, of a weight, least ratio)
QUANTIZERS = {
    "sign + clip": (lambda x: B.sign(x), Clipped.apply, 0, False),
    "approx_sign": (B.approx_sign, _polynomial, 0, False),
    "approx_sign, 2-bit slopes": (lambda x: B.approx_sign(x, slope_bits=2), None, 0, False),
    "swish_sign": (B.swish_sign, _swish, 0, False),
    "fda_sign": (B.fda_sign, _fourier, 0, False),
    "dorefa 2 bits": (lambda x: B.dorefa(x, 2), _dorefa, 0, False),
    "rprelu": (B.rprelu, _rprelu, 3, False),
    "magnitude_aware_sign": (B.magnitude_aware_sign, _magnitude, 0, True),
    "recu_weight": (B.recu_weight, _recu, 0, True),
    "biper_weight": (B.biper_weight, _biper, 0, True),
}
COARSE = "approx_sign, 2-bit slopes"


def cases(level: str) -> Iterator[Case]:
    activations = at_level(
        level, smoke=[(2, 8, 5)], quick=[(16, 64, 28)], default=[(64, 64, 28)], full=[(64, 64, 56), (64, 512, 7)]
    )
    names = ("sign + clip", "approx_sign") if level == "quick" else QUANTIZERS
    for n, c, s in activations:
        for name in names:
            weight = QUANTIZERS[name][3]
            shape = (8, 4, 3, 3) if level == "smoke" else (512, 512, 3, 3)
            yield _case(name, shape if weight else (n, c, s, s))


def _case(name: str, shape: tuple[int, ...]) -> Case:
    n = math.prod(shape)
    # Forward reads x and writes y and a bit; backward reads g and a bit (or x) and writes dx.
    direction = FWD if name == COARSE else BOTH
    moved = 16 * n + n // 4
    title = "x".join(map(str, shape))
    targets = {"torch, the paper's formula": 3.0}
    return Case(
        f"quantize {name}",
        direction,
        "dense",
        title,
        n,
        partial(_build, name, direction, shape),
        Traffic(moved, moved, 8 * n),
        targets,
    )


@lru_cache(maxsize=2)
def _inputs(shape: tuple[int, ...], device: str):
    g = torch.Generator().manual_seed(0)
    x, grad = torch.randn(shape, generator=g), torch.randn(shape, generator=g)
    vectors = [torch.rand(shape[1], generator=g) for _ in range(3)]
    return x.to(device), grad.to(device), [v.to(device) for v in vectors]


def _build(name: str, direction: str, shape: tuple[int, ...], device: str) -> Prepared:
    ours, paper, count, _ = QUANTIZERS[name]
    x, grad, vectors = _inputs(shape, device)

    def leaves(dtype: torch.dtype):
        return tuple(t.detach().to(dtype).requires_grad_() for t in (x, *vectors[:count]))

    mine = leaves(torch.float32)
    provider = Provider(OURS, runner(lambda: ours(*mine), direction, mine, grad))
    if paper is None:
        wide = leaves(torch.float64)
        return Prepared(provider, [], runner(lambda: B.approx_sign(*wide), direction, wide, grad.double()))
    theirs, wide = leaves(torch.float32), leaves(torch.float64)
    peers = [Provider("torch, the paper's formula", runner(lambda: paper(*theirs), direction, theirs, grad))]
    reference = runner(lambda: paper(*wide), direction, wide, grad.double())
    return Prepared(provider, peers, lambda: tuple(t.double() for t in reference()))


def test_quantize(case, bench_case):
    bench_case(case)
