"""Geometric (Clifford) algebras: products of multivectors, plain and with a weight for every path of grades."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ._bilinear import Table, bilinear
from ._shapes import table
from ._symmetric import Block, lists, monomials
from ._symmetric_ops import symmetric_contraction as contraction_op
from .contraction import NO_DIRECTIONS

NMAX = 6
TYPES = ("grade", "quaternion")


class CliffordAlgebra:
    """The real geometric algebra of p generators of square +1, q of square -1 and r of square 0, in that order; p + q + r <= 6.

    A multivector is a row of ``dim = 2^n`` numbers, one for each blade: 1, e1, .., en, e12, e13, .., by grade and then in
    lexicographic order.

    Args:
        signature: ``(p, q, r)``; ``(p,)`` and ``(p, q)`` stand for zeros behind. The diagonal of the form is :attr:`metric`.

    Attributes:
        n, dim, metric: the numbers of generators and of blades; the squares of the generators.
        blades: the generators of every blade, as tuples of 1..n. grades: the number of them.

    Products are sparse maps of ``4^n`` signs (fewer where squares are 0), not dense ``8^n`` tables.

    Raises:
        TypeError, ValueError: not up to three counts, or more than 6 generators.

    >>> import torch, structops
    >>> spacetime = structops.so2.CliffordAlgebra((1, 3))
    >>> spacetime.blades[:6], spacetime.dim
    (((), (1,), (2,), (3,), (4,), (1, 2)), 16)
    >>> e2 = spacetime.embed(torch.tensor([0., 1., 0., 0.]))
    >>> spacetime.geometric_product(e2, e2)[0]
    tensor(-1.)
    """

    def __init__(self, signature: Sequence[int]) -> None:
        op = "CliffordAlgebra"
        if not isinstance(signature, Sequence) or isinstance(signature, str) or not 1 <= len(signature) <= 3:
            check.fail(TypeError, op, "signature (p, q, r)", repr(signature))
        p, q, r = (*(check.size(op, "signature", s) for s in signature), 0, 0)[:3]
        if p + q + r > NMAX:
            check.fail(ValueError, op, f"at most {NMAX} generators", p + q + r)
        self.signature = (p, q, r)
        self.metric = (1,) * p + (-1,) * q + (0,) * r
        self.n = len(self.metric)
        self.dim = 2**self.n
        self.blades = tuple(b for k in range(self.n + 1) for b in combinations(range(1, self.n + 1), k))
        self.grades = tuple(map(len, self.blades))
        kinds = {"grade": self.grades, "quaternion": tuple(g % 4 for g in self.grades)}
        self._types = kinds
        terms = _terms(self.metric, self.blades)
        i, j, k, coef = zip(*terms, strict=True)
        self._product = Table(i, j, k, coef, (self.dim,) * 3)
        self._paths = {name: tuple(sorted({(kind[i], kind[j], kind[k]) for i, k, j, _ in terms})) for name, kind in kinds.items()}

    def __repr__(self) -> str:
        return f"CliffordAlgebra({self.signature})"

    # ---- products ----------------------------------------------------------------------------------------------------

    @autocast.promotes
    def geometric_product(self, x: Tensor, y: Tensor) -> Tensor:
        """The product ``[..., dim]`` of multivectors ``x`` and ``y`` ``[..., dim]``, whose leading dimensions broadcast.

        float32, float64, bfloat16 or float16 (accumulated in float32). Differentiable to any order by the same kernel; saves x and
        y. Deterministic.

        Raises:
            TypeError, ValueError: a wrong dtype, shape or device.
        """
        op = "geometric_product"
        x, y = (self._multivector(op, name, t)[..., None, :] for name, t in (("x", x), ("y", y)))
        return bilinear(x, y, self._product, "mul_ir", op).squeeze(-2)

    @autocast.promotes
    def weighted_product(self, x: Tensor, y: Tensor, weight: Tensor, types: str = "grade") -> Tensor:
        """The product with a weight for every path: ``out[c] = sum over paths (a, b, d) of weight[c, path] <<x[c]>_a <y[c]>_d>_b``.

        Args:
            x, y: ``[..., C, dim]``, whose leading dimensions broadcast; float32, float64, bfloat16 or float16.
            weight: ``[C, paths]`` in the order of :meth:`paths`.
            types: ``"grade"``, or ``"quaternion"``: grades modulo 4.

        Returns:
            ``[..., C, dim]``.

        Equivariant under the orthogonal group of the form for any weights. Differentiable three times; saves x, y and weight and
        forms nothing larger. Deterministic.

        Raises:
            TypeError, ValueError: a wrong dtype, shape, device or type.

        Source: Ruhe et al. 2023 (arXiv:2305.11141); quaternion types: Filimoshina and Shirokov 2025 (GLGENN, arXiv:2506.09625).

        >>> import torch, structops
        >>> plane = structops.so2.CliffordAlgebra((2,))
        >>> x, weight = torch.randn(5, 3, 4), torch.ones(3, len(plane.paths()))
        >>> torch.allclose(plane.weighted_product(x, x, weight), plane.geometric_product(x, x), atol=1e-5)
        True
        """
        op = "weighted_product"
        for name, t in (("x", x), ("y", y)):
            if self._multivector(op, name, t).dim() < 2:
                check.fail(ValueError, op, f"{name} of shape [..., C, {self.dim}]", list(t.shape))
        check.dense(op, "weight", weight)
        wanted = [x.shape[-2], len(self.paths(types))]
        if list(weight.shape) != wanted:
            check.fail(ValueError, op, f"weight of shape {wanted}", list(weight.shape))
        if weight.dtype != x.dtype:
            check.fail(TypeError, op, f"weight of dtype {x.dtype}, as x", weight.dtype)
        check.same_device(op, x=x, y=y, weight=weight)
        try:
            batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        except RuntimeError:
            check.fail(ValueError, op, "leading dimensions of x and y that broadcast", [list(x.shape[:-2]), list(y.shape[:-2])])
        if x.shape[-2] != y.shape[-2]:
            check.fail(ValueError, op, f"y with {x.shape[-2]} channels, as x", y.shape[-2])
        if y.dtype != x.dtype:
            check.fail(TypeError, op, f"y of dtype {x.dtype}, as x", y.dtype)
        rows = batch.numel()
        both = torch.cat([t.expand(*batch, *t.shape[-2:]).reshape(rows, *t.shape[-2:]) for t in (x, y)], -1)
        node = torch.arange(rows, device=x.device)
        one_element = torch.arange(2, device=x.device) * rows
        plan = _polynomials(self.metric, self.blades, self.types(types), x.device)
        weight = weight.T.contiguous().unsqueeze(0)
        out = contraction_op(both, weight, None, *NO_DIRECTIONS, one_element, node, *plan, 0, True, False, False, True)[2]
        return out.reshape(*batch, *out.shape[-2:])

    def paths(self, types: str = "grade") -> tuple[tuple[int, int, int], ...]:
        """The (type of x, type of the result, type of y) that occur in products, in lexicographic order."""
        return self._paths[check.choice("paths", "types", types, TYPES)]

    def types(self, types: str = "grade") -> tuple[int, ...]:
        """The type of every blade: its grade, or that modulo 4."""
        return self._types[check.choice("types", "types", types, TYPES)]

    # ---- involutions, norms, parts -----------------------------------------------------------------------------------

    def reverse(self, x: Tensor) -> Tensor:
        """Products of vectors in the opposite order: grade k times ``(-1)^(k (k - 1) / 2)``. ``[..., dim]``."""
        return self._signed("reverse", x, lambda k: k * (k - 1) // 2)

    def grade_involution(self, x: Tensor) -> Tensor:
        """Every vector negated: grade k times ``(-1)^k``. ``[..., dim]``."""
        return self._signed("grade_involution", x, lambda k: k)

    def conjugate(self, x: Tensor) -> Tensor:
        """Clifford conjugation, reverse and grade involution in one. ``[..., dim]``."""
        return self._signed("conjugate", x, lambda k: k * (k + 1) // 2)

    def square_norm(self, x: Tensor, types: str | None = None) -> Tensor:
        """The invariant form ``<reverse(x) x>_0``, ``[..., 1]``, or that of the part of every type, ``[..., T]``. Of either sign.

        T = n + 1 for ``"grade"``, ``min(n + 1, 4)`` for ``"quaternion"``. Differentiable to any order.
        """
        op = "square_norm"
        self._multivector(op, "x", x)
        kinds = (0,) * self.dim if types is None else self.types(check.choice(op, "types", types, TYPES))
        squares = [1] * self.dim
        for i, blade in enumerate(self.blades):
            for g in blade:
                squares[i] *= self.metric[g - 1]
        forms = [[s if k == t else 0 for t in range(max(kinds) + 1)] for s, k in zip(squares, kinds, strict=True)]
        return (x * x) @ torch.tensor(forms, dtype=x.dtype, device=x.device)

    def norm(self, x: Tensor, types: str | None = None, eps: float = 1e-16) -> Tensor:
        """``(square_norm(x)^2 + eps)^(1/4)``: the length, smooth where the form vanishes. Shapes as :meth:`square_norm`."""
        return (self.square_norm(x, types).square() + eps).pow(0.25)

    def embed(self, x: Tensor, grade: int = 1) -> Tensor:
        """The multivector ``[..., dim]`` whose part of one grade is ``x`` ``[..., binomial(n, grade)]``, by default a vector."""
        part = self._part("embed", grade)
        if check.dense("embed", "x", x).dim() < 1 or x.shape[-1] != part.stop - part.start:
            check.fail(ValueError, "embed", f"x of shape [..., {part.stop - part.start}]", list(x.shape))
        return torch.nn.functional.pad(x, (part.start, self.dim - part.stop))

    def project(self, x: Tensor, grade: int) -> Tensor:
        """The part of one grade, ``[..., binomial(n, grade)]``. A view of ``x``."""
        return self._multivector("project", "x", x)[..., self._part("project", grade)]

    # ------------------------------------------------------------------------------------------------------------------

    def _multivector(self, op: str, name: str, x: Any) -> Tensor:
        check.dense(op, name, x)
        if x.dim() < 1 or x.shape[-1] != self.dim:
            check.fail(ValueError, op, f"{name} of shape [..., {self.dim}]", list(x.shape))
        return x

    def _signed(self, op: str, x: Tensor, power) -> Tensor:
        self._multivector(op, "x", x)
        return x * torch.tensor([(-1.0) ** power(k) for k in self.grades], dtype=x.dtype, device=x.device)

    def _part(self, op: str, grade: Any) -> slice:
        if check.size(op, "grade", grade) > self.n:
            check.fail(ValueError, op, f"grade in 0..{self.n}", grade)
        start = self.grades.index(grade)
        return slice(start, start + self.grades.count(grade))


@cache
def _terms(metric: tuple[int, ...], blades: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, int, int, int], ...]:
    """(i, k, j, sign) with blade i times blade k = sign times blade j, where it is not 0."""
    masks = [sum(1 << (g - 1) for g in blade) for blade in blades]
    place = {m: i for i, m in enumerate(masks)}
    found = []
    for i, a in enumerate(masks):
        for k, b in enumerate(masks):
            sign = 1
            for g, square in enumerate(metric):
                if b >> g & 1:  # e_g passes the generators of a behind it, then meets its own
                    sign *= (-1) ** (a >> (g + 1)).bit_count() * (square if a >> g & 1 else 1)
            if sign:
                found.append((i, k, place[a ^ b], sign))
    return tuple(found)


@table
def _polynomials(metric: tuple, blades: tuple, kind: tuple, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
    """The weighted product as polynomials of degree 2 in the components of x and then of y, one path after the other."""
    terms, dim = _terms(metric, blades), len(blades)
    number = {m: n for n, m in enumerate(monomials(2 * dim, 2))}
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for i, k, j, sign in terms:
        path = found.setdefault((kind[i], kind[j], kind[k]), np.zeros((1, dim, len(number))))
        path[0, j, number[i, dim + k]] = sign
    flat, coef, sizes = lists(2 * dim, dim, len(found), [Block(n, 2, 0, found[p]) for n, p in enumerate(sorted(found))])
    return torch.from_numpy(flat).to(device), torch.from_numpy(coef).to(device), sizes
