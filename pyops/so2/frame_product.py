"""The SO(2) tensor product: features of the edge frame multiplied order by order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import _check as check
from .._check import shaped
from ..kernels.so2.wigner_ref import order
from ._shapes import computing, degrees, orders

__all__ = ["so2_product_paths", "so2_tensor_product"]

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def so2_product_paths(mmax: int) -> list[tuple[int, int, int]]:
    """The paths (m1, m2, m3) of :func:`so2_tensor_product`, m1 + m2 = m3 >= 0 with signed m1 and m2.

    A negative order stands for the complex conjugate, so that (-1, 2, 1) is the product m2 - m1. Sorted by m3, then m1; of m3 = 0
    only m1 >= 0, as (m, -m, 0) and (-m, m, 0) are conjugates.

    >>> import structops
    >>> structops.so2.so2_product_paths(1)
    [(0, 0, 0), (1, -1, 0), (0, 1, 1), (1, 0, 1)]
    """
    mmax = check.size("so2_product_paths", "mmax", mmax)
    return [(m, k - m, k) for k in range(mmax + 1) for m in range(k - mmax if k else 0, mmax + 1)]


def so2_tensor_product(x: Tensor, y: Tensor, weight: Tensor, *, lmax: int, mmax: int | None = None) -> Tensor:
    """Product of two edge-frame features along all paths m1 + m2 = m3, |m1 - m2| = m3: ``z_m3 = sum w x_m1 y_m2`` with the complex
    ``x_m = x_+m + i x_-m`` and ``x_-m`` its conjugate, for every degree and channel by itself.

    Args:
        x, y: ``[E, n, C]``, rows in :func:`frame_order`; float32, float64, or 16-bit floats (computed in float32).
        weight: ``[P, lmax + 1, C]``, or ``[E, P, lmax + 1, C]`` for weights of each edge, for the P paths of
            :func:`so2_product_paths`. Real of x's dtype: the product also commutes with mirror planes through the edge. Complex
            (complex64 for float32 and 16-bit floats, complex128 for float64): all products that commute with turns about it.
            Weights where l < max(|m1|, |m2|, m3) do nothing.
        lmax, mmax: lmax <= 8, mmax <= lmax (default lmax). Orders beyond mmax are dropped.

    Returns:
        ``[E, n, C]``; for m3 = 0 the real part. Not normalised: 1 / sqrt(number of paths) belongs into the weight.

    :func:`so2_linear` before and after mixes degrees and channels. Commutes with turns about the edge. Differentiable to any order;
    keeps w x of every path for the backward, about 2 P / (2 mmax + 1) times the size of x. Deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the SO(2) tensor product of QHNetV2, arXiv:2506.09398.

    >>> import torch, structops
    >>> x = torch.tensor([[[1.], [0.], [3.], [4.]]])
    >>> w = torch.ones(len(structops.so2.so2_product_paths(1)), 2, 1)
    >>> structops.so2.so2_tensor_product(x, x, w, lmax=1).flatten()
    tensor([ 1., 25.,  0.,  0.])
    """
    op = "so2_tensor_product"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "x", x, (None, len(order(lmax, mmax)), None))
    shaped(op, "y", y, tuple(x.shape), x)
    given, C = x.dtype, x.shape[2]
    x, y = computing(x, y)
    weight = _weight(op, weight, given, x, (len(so2_product_paths(mmax)), lmax + 1, C))
    a, b = _signed(x, lmax, mmax), _signed(y, lmax, mmax)
    ib = {m: _times_i(z) for m, z in b.items() if m}
    sums: list[list[Tensor]] = [[] for _ in range(mmax + 1)]
    for p, (m1, m2, m3) in enumerate(so2_product_paths(mmax)):
        w, left = weight[..., p, m3:, :].unsqueeze(-3), a[m1][:, :, m3:]
        if not w.is_complex():
            left = w * left
        elif m1 == 0:
            left = torch.cat([w.real * left, w.imag * left], 1)
        else:
            left = w.real * left + w.imag * _times_i(left)
        if m3 == 0:
            # The real part of left conj(b): b is conjugated already.
            sums[0].append((left * b[-m2]).sum(1, keepdim=True) if m1 else left[:, :1] * b[0])
            continue
        right = b[m2][:, :, m3:]
        if left.shape[1] == 1 or m2 == 0:
            sums[m3].append(left * right)
        else:
            sums[m3].append(torch.addcmul(left[:, :1] * right, left[:, 1:], ib[m2][:, :, m3:]))
    return torch.cat([sum(terms[1:], terms[0]).flatten(1, 2) for terms in sums], 1).to(given)


def _signed(x: Tensor, lmax: int, mmax: int) -> dict[int, Tensor]:
    """x_m for m = -mmax..mmax, real and imaginary part ``[E, 2, lmax + 1, C]``, 0 where l < |m|; real ``[E, 1, ..]`` for m = 0."""
    first, *rest = orders(x, lmax, mmax)
    found = {0: first}
    for m, part in enumerate(rest, 1):
        found[m] = pad(part, (0, 0, m, 0))
        real, imaginary = found[m].split(1, 1)
        found[-m] = torch.cat([real, -imaginary], 1)
    return found


def _times_i(z: Tensor) -> Tensor:
    real, imaginary = z.split(1, 1)
    return torch.cat([-imaginary, real], 1)


def _weight(op: str, weight: Any, given: torch.dtype, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(weight, Tensor) or not weight.is_complex():
        check.dense(op, "weight", weight)
        wanted = given
    else:
        wanted = COMPLEX[x.dtype]
    if weight.dtype != wanted:
        check.fail(TypeError, op, f"weight of dtype {given} or {COMPLEX[x.dtype]}", weight.dtype)
    if weight.device != x.device:
        check.fail(ValueError, op, f"weight on {x.device}", weight.device)
    if tuple(weight.shape) not in (shape, (x.shape[0], *shape)):
        check.fail(ValueError, op, f"weight of shape {list(shape)} or {[x.shape[0], *shape]}", list(weight.shape))
    return weight if weight.is_complex() else weight.to(x.dtype)
