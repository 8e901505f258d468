"""Products of functions on the sphere, in the coefficients of their real spherical harmonics."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._dispatch import lasting
from ..kernels.so2 import sph_ref
from ._bilinear import Table, bilinear
from ._cg import LMAX, wigner_3j_dense

__all__ = ["gaunt_product"]

METHODS = ("sparse", "grid", "fourier")


@autocast.promotes
def gaunt_product(x: Tensor, y: Tensor, lmax: int | None = None, method: str = "sparse") -> Tensor:
    """Coefficients of the product of two functions on the sphere, channel by channel: with f = sum of x_lm Y_lm and
    g = sum of y_lm Y_lm, ``out_lm`` is the integral of f g Y_lm.

    Args:
        x: ``[..., (L1 + 1)^2, C]`` coefficients of orthonormal real harmonics (``normalization="integral"``), l by l.
        y: ``[..., (L2 + 1)^2, C]``. Leading dimensions broadcast.
        lmax: largest degree of the result, up to L1 + L2 (its default): higher ones are 0.
        method: ``sparse``, by Gaunt coefficients; ``grid``, by values on a Gauss-Legendre grid that integrates exactly;
            ``fourier``, by Fourier series on the torus. The same numbers up to rounding.

    Returns ``[..., (lmax + 1)^2, C]``. float32, float64, bfloat16, float16 (sparse: accumulated in float32; fourier: float32 and
    float64). Differentiable to any order in x and y. ``sparse`` is one kernel, saves x and y, and is deterministic; the others are
    matrix products and transforms of torch, and keep values on the grid.

    It is the Clebsch-Gordan product with path weights ``sqrt((2 l1 + 1) (2 l2 + 1) (2 l3 + 1) / 4 pi) (l1 l2 l3; 0 0 0)``: paths
    with odd l1 + l2 + l3, such as cross products, are absent.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, degrees beyond 12, before any kernel runs.

    Source: Gaunt tensor products, Luo et al. (arXiv:2401.10216); Xie et al., The Price of Freedom (arXiv:2506.13523).

    >>> import torch, structops
    >>> constant = torch.tensor([[2.0], [0.0], [0.0], [0.0]])
    >>> vector = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> (structops.so2.gaunt_product(constant, vector, lmax=1) * (4 * torch.pi) ** 0.5)[:, 0].round(decimals=4)
    tensor([0., 2., 4., 6.])
    """
    op = "gaunt_product"
    check.choice(op, "method", method, METHODS)
    degrees = [_degree(op, name, t) for name, t in (("x", x), ("y", y))]
    lmax = sum(degrees) if lmax is None else check.size(op, "lmax", lmax)
    if lmax > sum(degrees):
        check.fail(ValueError, op, f"lmax up to L1 + L2 = {sum(degrees)}", lmax)
    if max(lmax, *degrees) > LMAX:
        check.fail(ValueError, op, f"degrees up to {LMAX}", max(lmax, *degrees))
    if method == "sparse":
        return bilinear(x, y, gaunt_table(*degrees, lmax), op=op)
    if y.dtype != x.dtype:
        check.fail(TypeError, op, f"y of dtype {x.dtype}, as x", y.dtype)
    check.same_device(op, x=x, y=y)
    if x.shape[-1] != y.shape[-1]:
        check.fail(ValueError, op, f"y with {x.shape[-1]} channels, as x", y.shape[-1])
    try:
        torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        check.fail(ValueError, op, "leading dimensions of x and y that broadcast", [list(x.shape[:-2]), list(y.shape[:-2])])
    if method == "grid":
        first, second, back = (m.to(x) for m in _grid(*degrees, lmax))
        return back @ ((first @ x) * (second @ y))
    if x.dtype not in (torch.float32, torch.float64):
        check.fail(TypeError, op, "x of dtype float32 or float64 for method fourier", x.dtype)
    if not x.numel() or not y.numel():  # torch.fft takes no empty batches
        return gaunt_product(x, y, lmax, "sparse")
    real, width = x.dtype, 2 * sum(degrees) + 1
    first, second, back = (
        m.to(x.device, torch.complex64 if real == torch.float32 else torch.complex128) for m in _fourier(*degrees, lmax)
    )
    values = [
        torch.fft.ifft2((m @ t.to(m.dtype)).unflatten(-2, (width, width)), dim=(-3, -2), norm="forward").real
        for m, t in ((first, x), (second, y))
    ]
    series = torch.fft.fft2(values[0] * values[1], dim=(-3, -2), norm="forward").flatten(-3, -2)
    return (back @ series).real


def _degree(op: str, name: str, t: Any) -> int:
    check.dense(op, name, t)
    root = isqrt(t.shape[-2]) if t.dim() >= 2 else 0
    if root == 0 or root * root != t.shape[-2]:
        check.fail(ValueError, op, f"{name} of shape [..., (L + 1)^2, C]", list(t.shape))
    return root - 1


@lru_cache(maxsize=64)
def gaunt_table(l1: int, l2: int, l3: int) -> Table:
    """Integrals of three real harmonics of degrees up to l1, l2, l3.

    The middle entry of a table of 3j symbols is that of m = 0, so its sign makes the product that of the harmonics.
    """
    slots: tuple[list, list, list] = [], [], []
    values: list[np.ndarray] = []
    for a in range(l1 + 1):
        for b in range(l2 + 1):
            for c in range(abs(a - b), min(a + b, l3) + 1, 2):
                table = wigner_3j_dense(a, b, c)
                table = table * table[a, b, c] * sqrt((2 * a + 1) * (2 * b + 1) * (2 * c + 1) / (4 * pi))
                at = np.nonzero(table)
                for slot, l, part in zip(slots, (a, b, c), at, strict=True):
                    slot.append(l * l + part)
                values.append(table[at])
    i, j, k = map(np.concatenate, slots)
    return Table(i, j, k, np.concatenate(values), ((l1 + 1) ** 2, (l2 + 1) ** 2, (l3 + 1) ** 2))


def _harmonics(theta: Tensor, phi: Tensor, l: int) -> Tensor:
    """Orthonormal harmonics [theta * phi, (l + 1)^2] in float64; theta from the polar axis y, around the whole circle if given."""
    theta, phi = theta[:, None], phi[None, :]
    points = torch.stack([theta.sin() * phi.sin(), theta.cos() + 0 * phi, theta.sin() * phi.cos()], -1)
    return sph_ref.spherical_harmonics(points.reshape(-1, 3), l, 0, False)


@lru_cache(maxsize=16)
@lasting()
def _grid(l1: int, l2: int, l3: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values of both functions on a grid, and the integrals with the harmonics of the result, exact to degree l1 + l2 + l3."""
    total = l1 + l2 + l3
    nodes, weights = np.polynomial.legendre.leggauss(total // 2 + 1)
    phi = torch.arange(total + 1, dtype=torch.float64) * (2 * pi / (total + 1))
    first, second, third = (_harmonics(torch.from_numpy(np.arccos(nodes)), phi, l) for l in (l1, l2, l3))
    area = torch.from_numpy(weights).repeat_interleave(total + 1) * (2 * pi / (total + 1))
    return first, second, (third * area[:, None]).T.contiguous()


@lru_cache(maxsize=16)
@lasting()
def _fourier(l1: int, l2: int, l3: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fourier series of harmonics in both angles [width^2, D], theta around the circle, and the integrals of such series with the
    harmonics of the result [D3, width^2]."""
    n = 2 * (l1 + l2) + 1
    angle = torch.arange(n, dtype=torch.float64) * (2 * pi / n)
    series = lambda l: torch.fft.fft2(_harmonics(angle, angle, l).reshape(n, n, -1), dim=(0, 1), norm="forward")
    first, second, third = (series(l) for l in (l1, l2, l3))
    u = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    m = (u[:, None] + u[None, :]).round()
    # The integral of exp(i m theta) sin(theta) over 0 .. pi.
    even = torch.where(m % 2 == 0, 2 / (1 - m * m), torch.zeros_like(m))
    overlap = torch.complex(even, torch.where(m.abs() == 1, m * pi / 2, torch.zeros_like(m)))
    mirrored = third.roll(-1, 1).flip(1)  # the series of phi at -v
    back = 2 * pi * torch.einsum("uw,wvk->kuv", overlap, mirrored)
    return first.flatten(0, 1), second.flatten(0, 1), back.flatten(1, 2)
