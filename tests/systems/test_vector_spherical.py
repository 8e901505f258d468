"""The Price of Freedom: products of vector fields on the sphere, against the same fields on a grid."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from agreement import agree, randn
from structops.so2 import VectorSphericalProduct, spherical_harmonics, wigner_3j

SYSTEM = "Price of Freedom: vector-spherical-harmonic products"
OPERATORS = ("structops.so2.VectorSphericalProduct", "structops.so2.spherical_harmonics", "structops.so2.wigner_3j")


def grid(degree: int):
    """Points and weights, exact for polynomials of the degree."""
    z, w = np.polynomial.legendre.leggauss(degree // 2 + 1)
    phi = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    r = np.sqrt(1 - z**2)
    points = np.stack([np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi)), np.outer(z, np.ones_like(phi))], -1).reshape(-1, 3)
    return torch.from_numpy(points), torch.from_numpy(np.repeat(w, degree + 1) * 2 * np.pi / (degree + 1))


@cache
def to_grid(lmax: int, degree: int):
    """Values of every vector harmonic, [points, 3, coefficients]."""
    points, _ = grid(degree)
    parts = []
    for l in range(lmax + 1):
        for j in range(abs(l - 1), l + 2):
            table = wigner_3j(l, 1, j, torch.float64) * (2 * j + 1) ** 0.5
            parts.append(torch.einsum("pa,amk->pmk", spherical_harmonics(l, points, True), table))
    return torch.cat(parts, 2)


def test_cross_product_equals_the_one_on_a_grid() -> None:
    L, out = 2, 3
    product, degree = VectorSphericalProduct(L, L, out), 2 * L + out
    weight = grid(degree)[1]

    def by_grid(x, y):
        a, b = (torch.einsum("pmk,ck->cpm", to_grid(L, degree), t) for t in (x, y))
        return torch.einsum("cpm,pmk,p->ck", torch.linalg.cross(a, b), to_grid(out, degree), weight)

    agree(product, by_grid, randn(3, product.irreps_in1.dim), randn(3, product.irreps_in2.dim, seed=1))


def test_cross_product_of_vectors_is_reachable() -> None:
    """Every result of degree 1 and even parity from two vectors is a multiple of their cross product, and not all are 0; results of
    degree 0 and even parity are multiples of their dot product."""
    x, y = randn(9, 3), randn(9, 3, seed=1)
    want = {1: torch.linalg.cross(x, y), 0: (x * y).sum(1, keepdim=True)}
    for kind, j in (("cross", 1), ("dot", 0)):
        product = VectorSphericalProduct(2, 2, 2, kind)
        polar = [s for t, s in zip(product.irreps_in1, product.irreps_in1.slices(), strict=True) if (t.l, t.p) == (1, -1)]
        factors = []
        for a in polar:
            for b in polar:
                left, right = (torch.zeros(9, product.irreps_in1.dim, dtype=torch.float64) for _ in range(2))
                left[:, a], right[:, b] = x, y
                z = product(left, right)
                for t, s in zip(product.irreps_out, product.irreps_out.slices(), strict=True):
                    if (t.l, t.p) == (j, 1):
                        factor = (z[:, s] * want[j]).sum() / want[j].square().sum()
                        torch.testing.assert_close(z[:, s], factor * want[j], atol=1e-12, rtol=0)
                        factors.append(float(factor.abs()))
        assert len(polar) == 2 and max(factors) > 0.1
