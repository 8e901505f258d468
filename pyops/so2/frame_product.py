"""The SO(2) tensor product: features of the edge frame multiplied order by order."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from ..kernels.so2.wigner_ref import order
from ._bilinear import Table, sparse_bilinear
from ._shapes import computing, degrees, table

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


@autocast.promotes
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
    scaled, multiplied = _tables(lmax, mmax, weight.is_complex(), x.device)
    parts = torch.view_as_real(weight).movedim(-1, -4) if weight.is_complex() else weight.unsqueeze(-4)
    w = parts.reshape(x.shape[0] if parts.dim() == 5 else 1, parts.shape[-4:-1].numel(), C).contiguous()
    left = sparse_bilinear(x, w, *scaled, 2, False, False)
    return sparse_bilinear(left, y, *multiplied, 2, False, False).to(given)


@table
def _tables(lmax: int, mmax: int, complex_weight: bool, device: torch.device) -> tuple[tuple, tuple]:
    """x times the weights ``[parts, P, lmax + 1]`` to rows (path, l, part), and those times y to the result."""
    paths = so2_product_paths(mmax)
    rows = [(abs(m), m < 0, l) for l, m in order(lmax, mmax)]
    row = {key: n for n, key in enumerate(rows)}  # (order, imaginary, l)
    size = len(paths) * (lmax + 1)
    scaled: list[tuple[int, int, int, float]] = []
    multiplied: list[tuple[int, int, int, float]] = []
    between = 0
    for p, (m1, m2, m3) in enumerate(paths):
        sign1, sign2 = (-1.0 if m < 0 else 1.0 for m in (m1, m2))
        for l in range(max(abs(m1), abs(m2), m3), lmax + 1):
            w = p * (lmax + 1) + l
            left = {False: between}
            scaled.append((row[abs(m1), False, l], w, between, 1.0))
            if m1 or complex_weight:
                left[True] = between + 1
            if m1:
                scaled.append((row[abs(m1), True, l], w, between + 1, sign1))
            if complex_weight:
                scaled.append((row[abs(m1), False, l], size + w, between + 1, 1.0))
                if m1:
                    scaled.append((row[abs(m1), True, l], size + w, between, -sign1))
            between += len(left)
            for (i, at), j in itertools.product(left.items(), (False, True)):
                if (j and not m2) or (i != j and not m3):
                    continue
                coef = (sign2 if j else 1.0) * (-1.0 if i and j else 1.0)
                multiplied.append((at, row[abs(m2), j, l], row[m3, i != j, l], coef))

    def lists(terms: list[tuple[int, int, int, float]], *sizes: int) -> tuple:
        i, j, k, coef = zip(*terms, strict=True)
        return Table(i, j, k, coef, sizes).on(device)

    return lists(scaled, len(rows), size * (1 + complex_weight), between), lists(multiplied, between, len(rows), len(rows))


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
