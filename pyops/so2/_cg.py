"""Real Clebsch-Gordan coefficients (Wigner 3j symbols) in e3nn's basis and normalisation, sparse, float64.

The complex coefficients are exact square roots of rationals (Racah's formula in integers); the change to the real basis has two
terms per row. The polar axis is y: components m = -l..l of l = 1 are x, y, z. The squares of a table sum to 1.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import factorial, sqrt

import numpy as np

from .. import _check as check

LMAX = 12


def _complex(j1: int, m1: int, j2: int, m2: int, j3: int) -> float:
    """<j1 m1 j2 m2 | j3 m1+m2> in the Condon-Shortley phase."""
    m3 = m1 + m2
    if abs(m3) > j3:
        return 0.0
    f = factorial
    total = Fraction(0)
    for k in range(max(0, j2 - j3 - m1, j1 - j3 + m2), min(j1 + j2 - j3, j1 - m1, j2 + m2) + 1):
        below = f(k) * f(j1 + j2 - j3 - k) * f(j1 - m1 - k) * f(j2 + m2 - k) * f(j3 - j2 + m1 + k) * f(j3 - j1 - m2 + k)
        total += Fraction((-1) ** k, below)
    triangle = Fraction((2 * j3 + 1) * f(j1 + j2 - j3) * f(j1 - j2 + j3) * f(-j1 + j2 + j3), f(j1 + j2 + j3 + 1))
    square = total**2 * triangle * f(j3 + m3) * f(j3 - m3) * f(j1 + m1) * f(j1 - m1) * f(j2 + m2) * f(j2 - m2)
    return (1 if total >= 0 else -1) * sqrt(square)


def _real_basis(l: int) -> np.ndarray:
    """Rows: complex m; columns: real m, with the phase (-i)^l that makes real tables real."""
    q = np.zeros((2 * l + 1, 2 * l + 1), complex)
    q[l, l] = 1
    for m in range(1, l + 1):
        sign = (-1) ** m
        q[l - m, l + m], q[l - m, l - m] = 1 / sqrt(2), -1j / sqrt(2)
        q[l + m, l + m], q[l + m, l - m] = sign / sqrt(2), 1j * sign / sqrt(2)
    return (-1j) ** l * q


@cache
def wigner_3j_dense(l1: int, l2: int, l3: int) -> np.ndarray:
    """``[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]`` float64, read-only. Zero entries are exact zeros."""
    for name, l in (("l1", l1), ("l2", l2), ("l3", l3)):
        if not 0 <= l <= LMAX:
            check.fail(ValueError, "wigner_3j", f"{name} in 0..{LMAX}", l)
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        check.fail(ValueError, "wigner_3j", f"l3 in |l1 - l2|..l1 + l2 = {abs(l1 - l2)}..{l1 + l2}", l3)
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l3:
                table[l1 + m1, l2 + m2, l3 + m1 + m2] = _complex(l1, m1, l2, m2, l3)
    real = np.einsum("ia,kb,nc,ikn->abc", _real_basis(l1), _real_basis(l2), _real_basis(l3).conj(), table, optimize=True).real
    real[np.abs(real) < 1e-13] = 0
    real /= np.linalg.norm(real)
    real.flags.writeable = False
    return real
