"""Derivatives of spherical harmonics, of every order.

    spherical_harmonics -> spherical_harmonics_bwd -> itself and a constant linear map of spherical_harmonics

dR = A_a R with constant sparse matrices A_a that lower the degree by one, so that with B(x, g) = spherical_harmonics_bwd of solid
harmonics and a cotangent v of it:  the gradient in g is sum_a v_a A_a R(x), and that in x is B(x, sum_a v_a A_a' g).
"""

from __future__ import annotations

from functools import cache
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from .._dispatch import define, is_eager, lasting, wants_derivative


def is_traced(t: Tensor) -> bool:
    """Whether values made now belong to a graph: torch.compile, export, torch.func and fake tensors."""
    return not is_eager() or type(t) is not Tensor


@cache
def _lowering(lmax: int, norm: int) -> np.ndarray:
    """A [3, S, S] float64: the derivatives along x, y, z of column s are row s of A_a times the harmonics."""
    S = (lmax + 1) ** 2
    A = np.zeros((3, S, S))
    scale = lambda l: (1.0, sqrt(4 * pi), sqrt(4 * pi / (2 * l + 1)))[norm]
    for l in range(1, lmax + 1):
        k = sqrt((2 * l + 1) / (2 * l - 1)) * scale(l) / scale(l - 1)
        row, low = l * l + l, (l - 1) ** 2 + l - 1  # of m = 0

        def put(axis: int, m: int, n: int, value: float, row: int = row, low: int = low) -> None:
            A[axis, row + m, low + n] = value

        for m in range(l + 1):
            if m < l:
                for sign in (1, -1):
                    put(1, sign * m, sign * m, k * sqrt(l * l - m * m))
            up, down = k / 2 * sqrt((l + m) * (l + m - 1)), k / 2 * sqrt((l - m) * (l - m - 1))
            if m == 0 and l > 1:
                put(2, 0, 1, -sqrt(2) * down)
                put(0, 0, -1, -sqrt(2) * down)
            if m == 1:
                put(2, 1, 0, sqrt(2) * up)
                put(0, -1, 0, sqrt(2) * up)
            if m > 1:
                put(2, m, m - 1, up)
                put(2, -m, 1 - m, up)
                put(0, m, 1 - m, -up)
                put(0, -m, m - 1, up)
            if 0 < m < l - 1:
                put(2, m, m + 1, -down)
                put(2, -m, -m - 1, -down)
                put(0, m, -m - 1, -down)
                put(0, -m, m + 1, down)
    return A


def lowering(like: Tensor, lmax: int, norm: int) -> Tensor:
    """The matrices A_a as a tensor like another."""
    if is_traced(like):  # a constant of the graph
        return torch.tensor(_lowering(lmax, norm).tolist(), dtype=like.dtype, device=like.device)
    return _lowered(lmax, norm, like.dtype, like.device)


@cache
def _lowered(lmax: int, norm: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with lasting():
        return torch.tensor(_lowering(lmax, norm), dtype=dtype, device=device)


def along(x: Tensor, v: Tensor, lmax: int, norm: int) -> Tensor:
    """The derivatives of the solid harmonics at x along v, [N, S]."""
    R, A = spherical_harmonics(x, lmax, norm, False), lowering(x, lmax, norm)
    return sum(v[:, a, None] * (R @ A[a].T) for a in range(3))  # type: ignore[return-value]


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / |x| and 1 / |x|, both 0 at the origin; differentiable. [N, 3], [N, 1]."""
    square = (x * x).sum(1, keepdim=True)
    zero = square == 0
    inverse = torch.where(zero, 0, torch.where(zero, 1, square).rsqrt())
    return x * inverse, inverse


# ---- spherical_harmonics ---------------------------------------------------------------------------------------------


def _value_fake(x, lmax, norm, normalize):
    return x.new_empty(x.shape[0], (lmax + 1) ** 2)


def _value_setup(ctx, inputs, output):
    x, *ctx.args = inputs
    ctx.save_for_backward(x)


def _value_backward(ctx, g):
    (x,) = ctx.saved_tensors
    return spherical_harmonics_bwd(x, g.contiguous(), *ctx.args), None, None, None


spherical_harmonics = define("spherical_harmonics", _value_fake, _value_setup, _value_backward, (0,))


# ---- spherical_harmonics_bwd -----------------------------------------------------------------------------------------


def _bwd_fake(x, g, lmax, norm, normalize):
    return x.new_empty(x.shape[0], 3)


def _bwd_setup(ctx, inputs, output):
    x, g, *ctx.args = inputs
    ctx.save_for_backward(x, g)


def _bwd_backward(ctx, v):
    """With u = x / |x|, P = 1 - u u':  the result is P B(u, g) / |x|, and <v, result> = <P v / |x|, B(u, g)>."""
    x, g = ctx.saved_tensors
    lmax, norm, normalize = ctx.args
    dx = dg = None
    u, turned = x, v
    if normalize:
        u, inverse = unit(x)
        s = (u * v).sum(1, keepdim=True)
        turned = (v - s * u) * inverse
    if ctx.needs_input_grad[1]:
        dg = along(u.contiguous(), turned, lmax, norm)
    if ctx.needs_input_grad[0]:
        A = lowering(x, lmax, norm)
        lowered = sum((turned[:, a, None] * g) @ A[a] for a in range(3))
        dx = spherical_harmonics_bwd(x, lowered.contiguous(), lmax, norm, normalize)
        if normalize:  # 1 / |x| and P vary too
            B = spherical_harmonics_bwd(u.contiguous(), g, lmax, norm, False)
            q = (u * B).sum(1, keepdim=True)
            b = (v * B).sum(1, keepdim=True)
            dx = dx - (u * (b - s * q) + (v - s * u) * q + (B - q * u) * s) * inverse**2
    return dx, dg, None, None, None


spherical_harmonics_bwd = define("spherical_harmonics_bwd", _bwd_fake, _bwd_setup, _bwd_backward, (0, 1))


# ---- spherical_harmonics_jet -----------------------------------------------------------------------------------------


def _jet_fake(x, lmax, norm, normalize, order):
    N, S = x.shape[0], (lmax + 1) ** 2
    return x.new_empty(N, S), x.new_empty(N, 3, S), x.new_empty((N, 3, 3, S) if order == 2 else (0,))


jet_kernel = define("spherical_harmonics_jet", _jet_fake, None, None, ())


def jet(x: Tensor, lmax: int, norm: int, normalize: bool, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """(Y, dY, d2Y), all differentiable where x needs a gradient: then from torch functions of the solid harmonics."""
    if not wants_derivative(x):
        return jet_kernel(x, lmax, norm, normalize, order)
    A = lowering(x, lmax, norm)
    u, inverse = unit(x) if normalize else (x, None)
    R = spherical_harmonics(u.contiguous(), lmax, norm, False)
    G = torch.stack([R @ A[a].T for a in range(3)], 1)
    d = G
    if normalize:
        degree = torch.tensor([float(l) for l in range(lmax + 1) for _ in range(2 * l + 1)], dtype=x.dtype, device=x.device)
        d = (G - degree * u[:, :, None] * R[:, None]) * inverse[:, :, None]
    if order == 1:
        return R, d, x.new_empty(0)
    H = torch.stack([G @ A[a].T for a in range(3)], 1)
    if normalize:
        outer, eye = u[:, :, None, None] * u[:, None, :, None], torch.eye(3, dtype=x.dtype, device=x.device)[None, :, :, None]
        cross = u[:, :, None, None] * G[:, None] + u[:, None, :, None] * G[:, :, None]
        H = (H - degree * cross + degree * R[:, None, None] * ((degree + 2) * outer - eye)) * (inverse**2)[:, :, None, None]
    return R, d, H
