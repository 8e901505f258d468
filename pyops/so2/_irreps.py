"""Irreducible representations of O(3) with multiplicities, in e3nn's notation and order."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .. import _check as check

_TERM = re.compile(r"\s*(?:(\d+)\s*x\s*)?(\d+)\s*([eoy])\s*")
_COUNT = 2**31


class Irrep(NamedTuple):
    """One term of an :class:`Irreps`: ``mul`` copies of degree ``l`` and parity ``p`` (1 even, -1 odd)."""

    mul: int
    l: int
    p: int

    @property
    def dim(self) -> int:
        """Components of one copy."""
        return 2 * self.l + 1

    def __str__(self) -> str:
        return f"{self.mul}x{self.l}{'e' if self.p == 1 else 'o'}"


class Irreps(tuple[Irrep, ...]):
    """A direct sum of irreps such as ``"128x0e + 64x1o"``; ``1y`` stands for the parity of the spherical harmonic, (-1)^l.

    Args:
        irreps: a string, another Irreps (e3nn's too), or an iterable of (mul, (l, p)) or (mul, l, p).

    Order and repeated terms are kept, as in e3nn: a row holds the terms one after the other, each ``[mul, 2 l + 1]`` (layout
    ``mul_ir``) or ``[2 l + 1, mul]`` (``ir_mul``).

    Raises:
        ValueError: what cannot be read. TypeError: not a string or an iterable.

    >>> from structops.so2 import Irreps
    >>> irreps = Irreps("8x0e + 4x1o")
    >>> irreps.dim, irreps.lmax, irreps.slices()
    (20, 1, [slice(0, 8, None), slice(8, 20, None)])
    """

    def __new__(cls, irreps: Any = "") -> Irreps:
        if type(irreps) is cls:
            return irreps
        terms = _parse(irreps) if isinstance(irreps, str) else _from_terms(irreps)
        return super().__new__(cls, terms)

    @classmethod
    def spherical_harmonics(cls, lmax: int, p: int = -1) -> Irreps:
        """One copy of each l = 0..lmax with parity p^l."""
        return cls([(1, l, p**l) for l in range(check.size("Irreps", "lmax", lmax) + 1)])

    @property
    def dim(self) -> int:
        """Length of a row."""
        return sum(t.mul * t.dim for t in self)

    @property
    def num_irreps(self) -> int:
        return sum(t.mul for t in self)

    @property
    def lmax(self) -> int:
        """Largest degree of a term with copies; -1 if there is none."""
        return max((t.l for t in self if t.mul), default=-1)

    def offsets(self) -> list[int]:
        """Where each term begins in a row."""
        found, at = [], 0
        for t in self:
            found.append(at)
            at += t.mul * t.dim
        return found

    def slices(self) -> list[slice]:
        """The slice of a row that each term takes."""
        return [slice(at, at + t.mul * t.dim) for at, t in zip(self.offsets(), self, strict=True)]

    def __add__(self, other: Any) -> Irreps:
        return Irreps([*self, *Irreps(other)])

    def __str__(self) -> str:
        return "+".join(map(str, self))

    def __repr__(self) -> str:
        return str(self)


def _parse(text: str) -> list[Irrep]:
    if not text.strip():
        return []
    found = []
    for part in text.split("+"):
        match = _TERM.fullmatch(part)
        if match is None:
            check.fail(ValueError, "Irreps", "terms such as 128x0e or 1o joined by +", repr(text))
        mul, l, parity = match.groups()
        found.append(_term(mul or 1, l, {"e": 1, "o": -1, "y": (-1) ** int(l)}[parity]))
    return found


def _from_terms(terms: Any) -> list[Irrep]:
    try:
        items = list(terms)
    except TypeError:
        check.fail(TypeError, "Irreps", "a string or an iterable of (mul, l, p)", type(terms).__name__)
    found = []
    for item in items:
        if isinstance(item, str):
            found += _parse(item)
            continue
        try:
            parts = tuple(item)
            if len(parts) == 2:
                ir = parts[1]
                parts = (parts[0], ir.l, ir.p) if hasattr(ir, "l") else (parts[0], *ir)
            mul, l, p = parts
            found.append(_term(mul, l, p))
        except (TypeError, IndexError):
            check.fail(ValueError, "Irreps", "(mul, l, p) or (mul, (l, p))", repr(item))
    return found


def _term(mul: Any, l: Any, p: Any) -> Irrep:
    mul, l, p = int(mul), int(l), int(p)
    if mul < 0 or l < 0 or p not in (1, -1) or mul * (2 * l + 1) >= _COUNT:
        check.fail(ValueError, "Irreps", "mul >= 0, l >= 0 and parity 1 or -1", f"({mul}, {l}, {p})")
    return Irrep(mul, l, p)
