"""Products of vector fields on the sphere: the tensor product of vector spherical harmonics."""

from __future__ import annotations

from functools import cache
from math import pi

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ..kernels.so2.sph_ref import spherical_harmonics
from ._bilinear import Table, bilinear
from ._cg import wigner_3j_dense
from ._harmonics import degree
from ._irreps import Irreps
from ._product import LAYOUTS

# kind: ranks of x, y and the result.
KINDS = {"cross": (1, 1, 1), "dot": (1, 1, 0), "scale": (0, 1, 1)}


class VectorSphericalProduct:
    """The pointwise product of two fields on the sphere, on their coefficients in scalar and vector spherical harmonics.

    A scalar field is ``sum of x_lm Y_lm``, a vector field ``sum of x_ljm Y_ljm`` over ``l <= lmax`` and ``j = |l - 1|..l + 1``;
    ``Y_ljm`` couples ``Y_l`` with the axes to degree j; both bases are orthonormal. Coefficients are irreps of degree l or j,
    ordered by l, then j, then m. Unlike products of scalar fields (Gaunt), ``cross`` has antisymmetric parts, such as the cross
    product of two vectors.

    Args:
        lmax1, lmax2, lmax_out: the largest l of each field, at most 12. The product reaches ``lmax1 + lmax2``; what is above
            ``lmax_out`` is cut off.
        kind: ``"cross"`` (vector x vector to vector), ``"dot"`` (vector . vector to scalar) or ``"scale"`` (scalar times vector).

    Attributes:
        irreps_in1, irreps_in2, irreps_out: with the parities of polar vectors in, of axial ones out of ``cross``.

    Raises:
        TypeError, ValueError: a degree or kind out of range.

    Source: Xie et al. 2025, The Price of Freedom (arXiv:2506.13523).

    >>> import torch, structops
    >>> cross = structops.so2.VectorSphericalProduct(0, 0, 0)
    >>> x, y = torch.tensor([[1., 0., 0.]]), torch.tensor([[0., 1., 0.]])
    >>> cross.irreps_out, (cross(x, y) * (4 * torch.pi) ** 0.5).round(decimals=4).tolist()
    (1x1e, [[0.0, 0.0, 1.0]])
    """

    def __init__(self, lmax1: int, lmax2: int, lmax_out: int, kind: str = "cross") -> None:
        op = "VectorSphericalProduct"
        self.lmax = tuple(degree(op, name, l) for name, l in (("lmax1", lmax1), ("lmax2", lmax2), ("lmax_out", lmax_out)))
        self.kind = check.choice(op, "kind", kind, KINDS)
        signs = (1, 1, -1 if kind == "cross" else 1)
        self.irreps_in1, self.irreps_in2, self.irreps_out = (
            Irreps([(1, j, s * (-1) ** (l + rank)) for l in range(lmax + 1) for j in _degrees(l, rank)])
            for lmax, rank, s in zip(self.lmax, KINDS[kind], signs, strict=True)
        )
        self._table = _table(*self.lmax, kind)

    def __repr__(self) -> str:
        return f"VectorSphericalProduct({', '.join(map(str, self.lmax))}, {self.kind!r})"

    @autocast.promotes
    def __call__(self, x: Tensor, y: Tensor, layout: str = "mul_ir") -> Tensor:
        """Each channel's product: ``[..., C, irreps_out.dim]`` from ``[..., C, irreps_in1.dim]`` and ``[..., C, irreps_in2.dim]``.

        Leading dimensions broadcast. ``layout="ir_mul"`` has the channels last. float32, float64, bfloat16 or float16 (accumulated
        in float32). Differentiable to any order by the same kernel; saves x and y. Deterministic.

        Raises:
            TypeError, ValueError: a wrong dtype, shape, device or layout.
        """
        op = "VectorSphericalProduct"
        check.choice(op, "layout", layout, LAYOUTS)
        return bilinear(x, y, self._table, layout, op)


def _degrees(l: int, rank: int) -> list[int]:
    return list(range(abs(l - 1), l + 2)) if rank else [l]


@cache
def _coupling(l: int, rank: int) -> np.ndarray:
    """The harmonics of one l: ``[2 l + 1, 3 or 1, coefficients]`` from (m, axis)."""
    if rank == 0:
        return np.eye(2 * l + 1)[:, None]
    return np.concatenate([np.sqrt(2 * j + 1) * wigner_3j_dense(l, 1, j) for j in _degrees(l, 1)], 2)


def _axes(kind: str) -> np.ndarray:
    """The product of one point: [axes of x, of y, of the result]."""
    if kind == "cross":
        eye = np.eye(3)
        return np.stack([np.stack([np.cross(a, b) for b in eye]) for a in eye])
    return np.eye(3)[:, :, None] if kind == "dot" else np.eye(3)[None]


def _grid(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [P, 3] and weights that integrate polynomials of a degree over the sphere."""
    z, w = np.polynomial.legendre.leggauss(degree // 2 + 1)
    phi = np.arange(degree + 1) * 2 * pi / (degree + 1)
    r = np.sqrt(1 - z * z)[:, None]
    points = np.stack(np.broadcast_arrays(r * np.cos(phi), r * np.sin(phi), z[:, None]), -1).reshape(-1, 3)
    return points, np.repeat(w * 2 * pi / (degree + 1), degree + 1)


@cache
def _table(lmax1: int, lmax2: int, lmax_out: int, kind: str) -> Table:
    lmax, ranks = (lmax1, lmax2, lmax_out), KINDS[kind]
    points, weight = _grid(sum(lmax))
    Y = spherical_harmonics(torch.from_numpy(points), max(lmax), 0, True).numpy()
    harmonics = [Y[:, l * l : (l + 1) ** 2] for l in range(max(lmax) + 1)]
    start = lambda l, rank: l * l * (3 if rank else 1)
    index: list[np.ndarray] = []
    values: list[np.ndarray] = []
    axes = _axes(kind)
    for l1 in range(lmax1 + 1):
        for l2 in range(lmax2 + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, lmax_out) + 1, 2):
                ls = (l1, l2, l3)
                gaunt = np.einsum("p,pa,pb,pc->abc", weight, *(harmonics[l] for l in ls), optimize=True)
                couple = (_coupling(l, rank) for l, rank in zip(ls, ranks, strict=True))
                block = np.einsum("abc,amp,bnq,clr,mnl->pqr", gaunt, *couple, axes, optimize=True)
                block[np.abs(block) < 1e-13] = 0
                at = block.nonzero()
                index.append(np.stack([n + start(l, rank) for n, l, rank in zip(at, ls, ranks, strict=True)]))
                values.append(block[at])
    i, j, k = np.concatenate(index, 1)
    sizes = [start(l + 1, rank) for l, rank in zip(lmax, ranks, strict=True)]
    return Table(i, j, k, np.concatenate(values), sizes)
