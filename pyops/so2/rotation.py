"""Wigner matrices of edge directions, and rotations into and out of the edge frame."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from ..kernels.so2.wigner_ref import dense, order, packed_size
from . import _frame_ops as ops
from ._shapes import computing, degrees


def frame_order(lmax: int, mmax: int | None = None) -> list[tuple[int, int]]:
    """(l, m) of every row of the edge frame: m = 0 for all l, then for m = 1, 2, ..: +m for l >= m, -m for l >= m.

    >>> import structops
    >>> structops.so2.frame_order(1)
    [(0, 0), (1, 0), (1, 1), (1, -1)]
    """
    return order(*degrees("frame_order", lmax, mmax))


@autocast.promotes
def wigner(vec: Tensor, lmax: int, mmax: int | None = None, *, gamma: Tensor | None = None) -> Tensor:
    """Real Wigner matrices of the rotations that turn edge vectors onto the y axis, packed.

    Args:
        vec: ``[E, 3]``, float32, float64, bfloat16 or float16; any lengths. Evaluated in float64. A vector of length 0 has no
            direction: its matrix is NaN.
        lmax, mmax: degrees 0..lmax <= 8; rows ``|m| <= mmax`` (default lmax).
        gamma: ``[E]``, an additional turn about y in the edge frame (radians; not differentiable). Default 0.

    Returns:
        ``[E, R]``: for every l the rows m = -min(l, mmax)..min(l, mmax) of D^l, 2l + 1 numbers each; e3nn's real basis, in which
        D^1 is the 3x3 rotation. :func:`wigner_dense` unpacks it.

    The gauge is fixed: the smallest rotation onto y, and beyond the seam e_y < -0.85 that of the vector turned by pi about x.
    Exact and smooth at +y and -y; the seam is the one place where the matrix, never a rotated-and-rotated-back result, jumps.
    Differentiable in ``vec`` to any order. Deterministic, edge by edge. Saves the result.

    Raises:
        TypeError, ValueError: wrong dtypes, shapes or degrees, naming the argument.

    Source: recursion of Ivanic and Ruedenberg (1996, erratum 1998); conventions of e3nn and fairchem.

    >>> import torch, structops
    >>> D = structops.so2.wigner(torch.tensor([[0., 2., 0.]]), lmax=1)
    >>> D.shape
    torch.Size([1, 10])
    """
    op = "wigner"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "vec", vec, (None, 3))
    if gamma is not None:
        shaped(op, "gamma", gamma, (vec.shape[0],), vec)
        if gamma.requires_grad:
            check.fail(ValueError, op, "gamma without a gradient (detach it)", "one that requires a gradient")
    out = ops.so2_wigner(*computing(vec, gamma), lmax, mmax)
    return out.to(vec.dtype)


def wigner_dense(wigner: Tensor, lmax: int, mmax: int | None = None) -> Tensor:
    """Packed Wigner matrices ``[E, R]`` as dense ones ``[E, n, (lmax + 1)^2]``, rows in :func:`frame_order`. Differentiable.

    >>> import torch, structops
    >>> D = structops.so2.wigner(torch.randn(5, 3), lmax=2, mmax=1)
    >>> structops.so2.wigner_dense(D, lmax=2, mmax=1).shape
    torch.Size([5, 7, 9])
    """
    op = "wigner_dense"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "wigner", wigner, (None, packed_size(lmax, mmax)))
    return dense(wigner, lmax, mmax)


@autocast.promotes
def rotate(x: Tensor, wigner: Tensor, lmax: int, mmax: int | None = None) -> Tensor:
    """Features into the edge frame: ``z = D x``.

    Args:
        x: ``[E, (lmax + 1)^2, C]``, l-primary (index l^2 + l + m). wigner: ``[E, R]`` from :func:`wigner`, of the same dtype.

    Returns:
        ``[E, n, C]``, rows in :func:`frame_order` (m-primary), ``|m| <= mmax``.

    Differentiable in both to any order; saves both. Deterministic. 16-bit floats are computed in float32.

    >>> import torch, structops
    >>> x, r = torch.randn(5, 9, 4), torch.randn(5, 3)
    >>> D = structops.so2.wigner(r, lmax=2)
    >>> z = structops.so2.rotate(x, D, lmax=2)
    >>> torch.allclose(structops.so2.rotate_back(z, D, lmax=2), x, atol=1e-5)
    True
    """
    op = "rotate"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "x", x, (None, (lmax + 1) ** 2, None))
    shaped(op, "wigner", wigner, (x.shape[0], packed_size(lmax, mmax)), x)
    return ops.so2_rotate(*computing(x, wigner), lmax, mmax).to(x.dtype)


@autocast.promotes
def rotate_back(z: Tensor, wigner: Tensor, lmax: int, mmax: int | None = None) -> Tensor:
    """Out of the edge frame: ``x = D^T z``, ``[E, n, C]`` to ``[E, (lmax + 1)^2, C]``. Rows beyond ``mmax`` count as 0.

    Otherwise as :func:`rotate`. No rescaling of l > mmax (fairchem 1.x has one: ``structops.compat.fairchem``).

    >>> import torch, structops
    >>> D = structops.so2.wigner(torch.randn(5, 3), lmax=2, mmax=1)
    >>> structops.so2.rotate_back(torch.randn(5, 7, 4), D, lmax=2, mmax=1).shape
    torch.Size([5, 9, 4])
    """
    op = "rotate_back"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "z", z, (None, len(order(lmax, mmax)), None))
    shaped(op, "wigner", wigner, (z.shape[0], packed_size(lmax, mmax)), z)
    return ops.so2_rotate_back(*computing(z, wigner), lmax, mmax).to(z.dtype)


def edge_order(edge_index: Tensor, vec: Tensor | None = None) -> Tensor:
    """A permutation ``[E]`` that sorts edges by destination, source and, for parallel edges, ``vec``.

    Sums over edges run in this order whatever order the edges came in: results are then the same bits for every permutation
    of the input, as long as no two edges agree in all three.

    >>> import torch, structops
    >>> structops.so2.edge_order(torch.tensor([[2, 0, 1], [1, 1, 0]]))
    tensor([2, 1, 0])
    """
    op = "edge_order"
    check.index(op, "edge_index", edge_index)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        check.fail(ValueError, op, "edge_index of shape [2, E]", list(edge_index.shape))
    perm = torch.arange(edge_index.shape[1], device=edge_index.device)
    keys = [] if vec is None else list(shaped(op, "vec", vec, (edge_index.shape[1], 3)).detach().unbind(1))
    for key in (*keys, edge_index[0], edge_index[1]):
        perm = perm[torch.sort(key[perm], stable=True).indices]
    return perm
