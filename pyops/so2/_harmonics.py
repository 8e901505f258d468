"""Spherical harmonics in e3nn's conventions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from . import _sph_ops as ops
from ._cg import LMAX, wigner_3j_dense
from ._irreps import Irreps

NORMS = {"integral": 0, "component": 1, "norm": 2}


def vectors(op: str, name: str, x: Any) -> Tensor:
    check.dense(op, name, x)
    if x.dim() < 1 or x.shape[-1] != 3:
        check.fail(ValueError, op, f"{name} of shape [..., 3]", list(x.shape))
    return x


def degree(op: str, name: str, value: Any) -> int:
    value = check.size(op, name, value)
    if value > LMAX:
        check.fail(ValueError, op, f"{name} in 0..{LMAX}", value)
    return value


def degrees(op: str, l: Any) -> list[int]:
    """Degrees from an int, a list, or irreps, whose parities must be those of the harmonics of a vector."""
    if isinstance(l, (int, torch.SymInt)):
        return [degree(op, "l", l)]
    if not isinstance(l, str) and not hasattr(l, "lmax"):
        found = list(l)
        if all(isinstance(i, int) for i in found):
            return [degree(op, "l", i) for i in found]
    irreps = Irreps(l)
    wrong = [str(t) for t in irreps if t.p != (-1) ** t.l]
    if wrong and any(t.p != 1 for t in irreps):
        check.fail(ValueError, op, "l of parity (-1)^l, or of even parity throughout", wrong[0])
    return [degree(op, "l", t.l) for t in irreps for _ in range(t.mul)]


def spherical_harmonics(l: Any, x: Tensor, normalize: bool, normalization: str = "integral") -> Tensor:
    """Real spherical harmonics ``[..., sum of 2 l + 1]`` of vectors, polar axis y, components m = -l..l; l = 1 is (x, y, z).

    Args:
        l: a degree, a list of degrees, or irreps such as ``"0e + 1o + 2e"``; at most 12.
        x: ``[..., 3]``, float32, float64, bfloat16 or float16 (computed in float32).
        normalize: whether x is divided by its length first; otherwise polynomials of degree l in x.
        normalization: of the harmonics on the unit sphere: ``integral`` (orthonormal), ``component`` (mean square 1) or
            ``norm`` (sum of squares 1 for each degree).

    Differentiable to any order, exact at the poles too; saves x. A zero vector with ``normalize`` counts as 0: degree 0 keeps its
    constant, higher degrees and all derivatives are 0. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or degree.

    Convention of ``e3nn.o3.spherical_harmonics``; csrc/so2/sph.h.

    >>> import torch, structops
    >>> structops.so2.spherical_harmonics([0, 1], torch.tensor([[0., 0., 2.]]), True, "component")
    tensor([[1.0000, 0.0000, 0.0000, 1.7321]])
    """
    op = "spherical_harmonics"
    vectors(op, "x", x)
    check.flags(op, normalize=normalize)
    norm = NORMS[check.choice(op, "normalization", normalization, tuple(NORMS))]
    wanted = degrees(op, l)
    if not wanted:
        return x.new_empty(*x.shape[:-1], 0)
    lmax = max(wanted)
    rows = ops.spherical_harmonics(x.reshape(-1, 3).contiguous(), lmax, norm, normalize)
    if wanted != list(range(lmax + 1)):
        low = wanted[0]
        if wanted == list(range(low, lmax + 1)):
            rows = rows[:, low * low :]
        else:
            rows = torch.cat([rows[:, i * i : (i + 1) ** 2] for i in wanted], 1)
    return rows.reshape(*x.shape[:-1], rows.shape[1])


def spherical_harmonics_derivatives(
    lmax: int, x: Tensor, normalize: bool, normalization: str = "integral", order: int = 1
) -> tuple[Tensor, ...]:
    """Spherical harmonics of degrees 0..lmax ``[..., S]`` with their gradients ``[..., 3, S]`` and Hessians ``[..., 3, 3, S]``.

    Args:
        lmax: largest degree, at most 12. x, normalize, normalization: as in :func:`spherical_harmonics`.
        order: 1 for (values, gradients), 2 for (values, gradients, Hessians).

    All results are differentiable in x. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, degree or order.

    >>> import torch, structops
    >>> y, dy = structops.so2.spherical_harmonics_derivatives(1, torch.tensor([[1., 2., 3.]]), False, "norm")
    >>> dy[0, :, 1:].round()
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    op = "spherical_harmonics_derivatives"
    vectors(op, "x", x)
    check.flags(op, normalize=normalize)
    lmax = degree(op, "lmax", lmax)
    norm = NORMS[check.choice(op, "normalization", normalization, tuple(NORMS))]
    if order not in (1, 2):
        check.fail(ValueError, op, "order 1 or 2", order)
    found = ops.jet(x.reshape(-1, 3).contiguous(), lmax, norm, normalize, order)[: order + 1]
    return tuple(t.reshape(*x.shape[:-1], *t.shape[1:]) for t in found)


def wigner_3j(l1: int, l2: int, l3: int, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """Wigner 3j symbols in the real basis, ``[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]``, the sum of squares 1; degrees at most 12.

    Invariant under rotation of all three axes. Exact to the last digits of float64; entries forbidden by selection rules are 0.

    Raises:
        ValueError: a degree above 12, or l3 outside |l1 - l2|..l1 + l2.

    Convention of ``e3nn.o3.wigner_3j``.

    >>> import structops
    >>> structops.so2.wigner_3j(1, 1, 0)[:, :, 0].diagonal()
    tensor([0.5774, 0.5774, 0.5774])
    """
    return torch.tensor(wigner_3j_dense(l1, l2, l3), dtype=dtype or torch.get_default_dtype(), device=device)
