"""Activation of signals on the sphere: to a grid, pointwise, and back."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from ._harmonics import spherical_harmonics
from ._shapes import computing, table
from .gate_norm import _act

__all__ = ["s2_activation"]


@table
def _grid(lmax: int, beta: int, alpha: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(to the grid [G, S], back [S, G]): Gauss-Legendre in the cosine of the angle to the y axis, equal steps around it."""
    cosine, weight = np.polynomial.legendre.leggauss(beta)
    around = 2 * pi * np.arange(alpha) / alpha
    sine = np.sqrt(1 - cosine**2)[:, None]
    points = np.stack([sine * np.sin(around), np.broadcast_to(cosine[:, None], (beta, alpha)), sine * np.cos(around)], -1)
    y = spherical_harmonics(
        list(range(lmax + 1)), torch.from_numpy(points.reshape(-1, 3)), normalize=True, normalization="component"
    )
    area = torch.from_numpy(np.repeat(weight / 2 / alpha, alpha))  # sums to 1
    scale = torch.tensor(
        [((2 * l + 1) * (lmax + 1)) ** 0.5 for l in range(lmax + 1) for _ in range(2 * l + 1)], dtype=torch.float64
    )
    return (y / scale).to(device, dtype), (y * area[:, None] * scale).T.contiguous().to(device, dtype)


@autocast.disabled
def s2_activation(x: Tensor, lmax: int, *, act: str | Callable = "silu", resolution: tuple[int, int] | None = None) -> Tensor:
    """Pointwise function of a signal on the sphere: ``f(r) = sum_lm x_lm Y_lm(r) / sqrt((2 l + 1)(lmax + 1))`` with component
    normalisation, then ``act(f)`` back to degrees 0..lmax.

    Args:
        x: ``[..., (lmax + 1)^2, C]``; float32, float64, or 16-bit floats (computed in float32).
        lmax: 0..12.
        act: a name as in :func:`gate`, or a function.
        resolution: points along and around the polar axis, at least (lmax + 1, 2 lmax + 1): with fewer the identity would not come
            back. Default (2 lmax + 2, 3 lmax + 2), with which quadratic functions are exact.

    Returns:
        x's shape and dtype. Equivariant up to the aliasing of ``act``, which falls as the resolution grows.

    Differentiable to any order; keeps the signal on the grid. Deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: eSCN (arXiv:2302.03655) and EquiformerV2 (arXiv:2306.12059; its separable form takes ``act`` of row 0 apart); the
    normalisation of e3nn's ``ToS2Grid``, on a Gauss-Legendre grid.

    >>> import torch, structops
    >>> x = torch.randn(5, 9, 4)
    >>> torch.allclose(structops.so2.s2_activation(x, 2, act="identity"), x, atol=1e-5)
    True
    """
    op = "s2_activation"
    lmax = check.size(op, "lmax", lmax)
    if lmax > 12:
        check.fail(ValueError, op, "lmax <= 12", lmax)
    beta, alpha = _resolution(op, lmax, resolution)
    check.dense(op, "x", x)
    shaped(op, "x", x, (*x.shape[:-2], (lmax + 1) ** 2, None))
    (z,) = computing(x)
    to, back = _grid(lmax, beta, alpha, z.dtype, z.device)
    return (back @ _act(op, "act", act)(to @ z)).to(x.dtype)


def _resolution(op: str, lmax: int, given: Any) -> tuple[int, int]:
    if given is None:
        return 2 * lmax + 2, 3 * lmax + 2
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        check.fail(TypeError, op, "resolution (points along, points around)", repr(given))
    beta, alpha = (check.size(op, "resolution", n) for n in given)
    if beta < lmax + 1 or alpha < 2 * lmax + 1:
        check.fail(ValueError, op, f"resolution of at least ({lmax + 1}, {2 * lmax + 1})", (beta, alpha))
    return beta, alpha
