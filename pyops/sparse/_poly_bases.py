"""Polynomial bases as three-term recurrences, Gibbs damping factors, and Chebyshev coefficients of functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import lasting

BASES = ("monomial", "chebyshev", "chebyshev2", "legendre", "jacobi", "bernstein")
DAMPINGS = ("jackson", "fejer", "lanczos", "lorentz", "vekic", "wang")


@lru_cache(maxsize=256)
def recurrence(basis: str, K: int, jacobi: tuple[float, float] = (0.0, 0.0)) -> tuple[tuple[float, ...], ...]:
    """(a, b, c) of ``h_{k+1} = (a_k p + b_k) h_k + c_k h_{k-1}``, h_0 = 1. Bernstein coefficients are converted first."""
    if basis == "monomial":
        return (1.0,) * K, (0.0,) * K, (0.0,) * K
    if basis in ("chebyshev", "bernstein"):
        return tuple(1.0 if k == 0 else 2.0 for k in range(K)), (0.0,) * K, tuple(0.0 if k == 0 else -1.0 for k in range(K))
    if basis == "chebyshev2":
        return (2.0,) * K, (0.0,) * K, tuple(0.0 if k == 0 else -1.0 for k in range(K))
    al, be = (0.0, 0.0) if basis == "legendre" else jacobi
    a, b, c = [(al + be + 2) / 2], [(al - be) / 2], [0.0]
    for k in range(1, K):
        n, s = k + 1, 2 * (k + 1) + al + be
        scale = 2 * n * (n + al + be) * (s - 2)
        a.append((s - 1) * s * (s - 2) / scale)
        b.append((s - 1) * (al * al - be * be) / scale)
        c.append(-2 * (n + al - 1) * (n + be - 1) * s / scale)
    return tuple(a[:K]), tuple(b[:K]), tuple(c[:K])


def _nodes(K: int) -> Tensor:
    """The angles of the K + 1 Chebyshev points."""
    return (torch.arange(K + 1, dtype=torch.float64) + 0.5) * (math.pi / (K + 1))


def _from_values(values: Tensor) -> Tensor:
    """Chebyshev coefficients of the polynomial with these values [K + 1, ...] at the Chebyshev points."""
    K = values.shape[0] - 1
    angle = _nodes(K)
    basis = torch.cos(torch.arange(K + 1, dtype=torch.float64)[:, None] * angle)
    basis[0] /= 2
    return (2 / (K + 1)) * (basis @ values)


@lru_cache(maxsize=64)
@lasting()
def bernstein_to_chebyshev(K: int) -> Tensor:
    """[K + 1, K + 1]: column k holds the Chebyshev coefficients in p of the Bernstein polynomial B_k((1 - p) / 2).

    Its entries lie in [-2, 2]; by way of powers the same filter would need coefficients that grow like 3^K and cancel.
    """
    t = (1 - torch.cos(_nodes(K))) / 2
    rows = [math.comb(K, k) * t**k * (1 - t) ** (K - k) for k in range(K + 1)]
    return _from_values(torch.stack(rows, 1))


def gibbs_damping(
    name: str,
    order: int,
    *,
    mu: float = 3.0,
    xi: float = 4.0,
    wang: tuple[float, float] = (1.0, 4.0),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Factors ``g [order + 1]``, g_0 = 1, that damp the oscillation of a truncated Chebyshev series beside a jump.

    With N = order + 1 and r = k / N: ``jackson`` ((N + 1 - k) cos(w k) + sin(w k) cot w) / (N + 1), w = pi / (N + 1); ``fejer``
    1 - r; ``lanczos`` sinc(r)^mu; ``lorentz`` sinh(xi (1 - r)) / sinh xi; ``vekic`` (1 - tanh((r - 1/2) / (r (1 - r)))) / 2;
    ``wang`` exp(-(a r)^b) with ``wang=(a, b)``. Jackson's and Fejer's kernels are positive: a damped step stays in [0, 1].

    Source: the kernel polynomial method, arXiv:cond-mat/0504627.

    >>> gibbs_damping("fejer", 3).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    check.choice("gibbs_damping", "name", name, DAMPINGS)
    N = check.size("gibbs_damping", "order", order) + 1
    k = torch.arange(N, dtype=torch.float64)
    r = k / N
    if name == "jackson":
        w = math.pi / (N + 1)
        g = ((N + 1 - k) * torch.cos(w * k) + torch.sin(w * k) / math.tan(w)) / (N + 1)
    elif name == "fejer":
        g = 1 - r
    elif name == "lanczos":
        g = torch.sinc(r) ** mu
    elif name == "lorentz":
        g = torch.sinh(xi * (1 - r)) / math.sinh(xi)
    elif name == "vekic":
        g = (1 - torch.tanh((r - 0.5) / (r * (1 - r)).clamp(min=1e-300))) / 2
    else:
        g = torch.exp(-((wang[0] * r) ** wang[1]))
    g[0] = 1
    return g.to(dtype)


def chebyshev_coefficients(fn: Callable[[Tensor], Tensor], order: int, *, damping: str | None = None) -> Tensor:
    """Chebyshev coefficients ``[order + 1]``, float64, of the polynomial that equals ``fn`` at the order + 1 Chebyshev points.

    Args:
        fn: function of a float64 tensor of points.
        order: the degree.
        damping: a name of :func:`gibbs_damping`.

    Not differentiable. Exact for polynomials of that degree.

    >>> chebyshev_coefficients(lambda p: 2 * p * p - 1, 3).round(decimals=6).abs().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    check.size("chebyshev_coefficients", "order", order)
    c = _from_values(fn(torch.cos(_nodes(order))))
    return c if damping is None else c * gibbs_damping(damping, order)


def levy_coefficients(gamma: float, order: int, *, damping: str | None = None) -> Tensor:
    """Chebyshev coefficients ``[order + 1]``, float64, of the fractional Laplacian ``(I - P)^gamma``, P's spectrum in [-1, 1].

    ``lambda^gamma`` is not smooth at 0 unless gamma is an integer, so the error falls only like ``order^(-2 gamma)``.

    >>> levy_coefficients(1.0, 2).round(decimals=6).tolist()
    [1.0, -1.0, -0.0]
    """
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not gamma > 0:
        check.fail(ValueError, "levy_coefficients", "gamma > 0", gamma)
    return chebyshev_coefficients(lambda p: (1 - p).clamp(min=0) ** gamma, order, damping=damping)
