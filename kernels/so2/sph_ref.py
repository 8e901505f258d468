"""Reference of spherical_harmonics and its derivatives: the explicit polynomials, differentiated by autograd; float64."""

from __future__ import annotations

from math import comb, factorial, pi, sqrt

import torch
from torch import Tensor


def _scale(l: int, norm: int) -> float:
    return (1.0, sqrt(4 * pi), sqrt(4 * pi / (2 * l + 1)))[norm]


def _evaluate(x: Tensor, lmax: int, norm: int, normalize: bool) -> Tensor:
    if normalize:
        square = (x * x).sum(-1, keepdim=True)
        x = torch.where(square == 0, 0, x / torch.where(square == 0, 1, square).sqrt())
    Y, Z, X = x.unbind(-1)
    r2 = X * X + Y * Y + Z * Z
    circle = [(torch.ones_like(X), torch.zeros_like(X))]  # (X + iY)^m
    for _ in range(lmax):
        re, im = circle[-1]
        circle.append((re * X - im * Y, re * Y + im * X))
    columns = []
    for l in range(lmax + 1):
        found = {}
        for m in range(l + 1):
            factor = sqrt((2 * l + 1) / (4 * pi) * (1 if m == 0 else 2) * factorial(l - m) / factorial(l + m)) * _scale(l, norm)
            polynomial = torch.zeros_like(X)
            for k in range((l - m) // 2 + 1):
                c = (-1) ** k * comb(l, k) * comb(2 * l - 2 * k, l) * factorial(l - 2 * k) / factorial(l - 2 * k - m) / 2**l
                polynomial = polynomial + c * r2**k * Z ** (l - 2 * k - m)
            found[m], found[-m] = (factor * polynomial * part for part in circle[m]) if m else (factor * polynomial,) * 2
        columns += [found[m] for m in range(-l, l + 1)]
    return torch.stack(columns, -1)


def spherical_harmonics(x: Tensor, lmax: int, norm: int, normalize: bool) -> Tensor:
    return _evaluate(x.double(), lmax, norm, normalize).to(x.dtype)


def spherical_harmonics_bwd(x: Tensor, g: Tensor, lmax: int, norm: int, normalize: bool) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().double().requires_grad_()
        (gx,) = torch.autograd.grad((_evaluate(leaf, lmax, norm, normalize) * g.detach().double()).sum(), leaf)
    return gx.to(x.dtype)


def spherical_harmonics_jet(x: Tensor, lmax: int, norm: int, normalize: bool, order: int) -> tuple[Tensor, Tensor, Tensor]:
    S = (lmax + 1) ** 2
    with torch.enable_grad():
        leaf = x.detach().double().requires_grad_()
        y = _evaluate(leaf, lmax, norm, normalize)
        first, second = leaf.new_zeros(x.shape[0], 3, S), leaf.new_zeros(x.shape[0], 3, 3, S)
        for s in range(S):
            (d,) = torch.autograd.grad(y[:, s].sum(), leaf, create_graph=True, materialize_grads=True)
            first[:, :, s] = d.detach()
            for a in range(3 if order == 2 and d.requires_grad else 0):
                (h,) = torch.autograd.grad(d[:, a].sum(), leaf, retain_graph=True, materialize_grads=True)
                second[:, a, :, s] = h
    return y.detach().to(x.dtype), first.to(x.dtype), second.to(x.dtype) if order == 2 else x.new_empty(0)
