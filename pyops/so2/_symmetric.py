"""Symmetric polynomials that couple copies of one row of irreps to an irrep, and the lists that the kernels read
(csrc/so2/symmetric_contraction.h).

A path of degree n couples n copies one after the other, ((l1 l2) l12 l3) .. -> L. Contracted with n times the same row it is a
polynomial, so it is kept as its coefficients on monomials: [2 L + 1, monomials of degree n].
"""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from math import sqrt
from typing import NamedTuple

import numpy as np

from ._cg import wigner_3j_dense
from ._irreps import Irrep, Irreps

MOST_DEGREE = 4


@cache
def monomials(variables: int, degree: int) -> list[tuple[int, ...]]:
    return list(combinations_with_replacement(range(variables), degree))


def coupled(irreps: Irreps, degree: int, out: Irrep) -> list[np.ndarray]:
    """Every path of ``degree`` copies of ``irreps`` to ``out``, in the order and normalisation of MACE.

    Couplings are sorted by the (l, parity) they reach, stably, after every step; each has Wigner 3j symbols times sqrt(2 l + 1). At
    degree 4 only irreps of natural parity, (-1)^l, occur on the way.
    """
    D, lmax, at = irreps.dim, irreps.lmax, irreps.offsets()
    level: list[tuple[int, int, np.ndarray]] = []
    for term, begin in zip(irreps, at, strict=True):
        unit = np.zeros((term.dim, D))
        unit[:, begin : begin + term.dim] = np.eye(term.dim)
        level.append((term.l, term.p, unit))
    level.sort(key=lambda path: path[:2])
    for n in range(2, degree + 1):
        number = {m: i for i, m in enumerate(monomials(D, n))}
        raised = np.array([[number[tuple(sorted((*m, v)))] for v in range(D)] for m in monomials(D, n - 1)])
        reach = (degree - n) * lmax + out.l  # what lies beyond never comes back
        found = []
        for l, p, left in level:
            for term, begin in zip(irreps, at, strict=True):
                for degree_out in range(abs(l - term.l), min(l + term.l, reach) + 1):
                    parity = p * term.p
                    if degree == MOST_DEGREE and parity != (-1) ** degree_out:
                        continue
                    if n == degree and (degree_out, parity) != (out.l, out.p):
                        continue
                    table = wigner_3j_dense(degree_out, l, term.l) * sqrt(2 * degree_out + 1)
                    product = np.zeros((2 * degree_out + 1, len(number)))
                    terms = np.einsum("mij,ia->maj", table, left)
                    np.add.at(product.T, raised[:, begin : begin + term.dim].T, terms.transpose(2, 1, 0))
                    product[np.abs(product) < 1e-12] = 0
                    found.append((degree_out, parity, product))
        level = sorted(found, key=lambda path: path[:2])
    return [table for l, p, table in level if (l, p) == (out.l, out.p)]


def first_independent(paths: list[np.ndarray]) -> list[np.ndarray]:
    """The first paths that are linearly independent as polynomials."""
    kept: list[np.ndarray] = []
    basis: list[np.ndarray] = []
    for path in paths:
        rest = path.reshape(-1).copy()
        for _ in range(2):
            for b in basis:
                rest -= (rest @ b) * b
        if np.linalg.norm(rest) > 1e-9 * max(float(np.linalg.norm(path)), 1e-9):
            basis.append(rest / np.linalg.norm(rest))
            kept.append(path)
    return kept


def _split(term: tuple[int, ...], pairs: dict[tuple[int, int], int], D: int) -> tuple[int, int]:
    """The two factors (0 is 1, then components, then pairs) whose product is the monomial; pairs in use are preferred."""
    if len(term) <= 2:
        return 1 + term[0], 1 + term[1] if len(term) == 2 else 0
    choices = []
    for i in range(len(term)):
        for j in range(i + 1, len(term)):
            rest = tuple(v for n, v in enumerate(term) if n not in (i, j))
            choices.append((tuple(sorted((term[i], term[j]))), rest))
    new = lambda c: (c[0] not in pairs) + (len(c[1]) == 2 and c[1] not in pairs)
    pair, rest = min(choices, key=new)
    number = lambda q: 1 + D + pairs.setdefault(q, len(pairs))
    return number(pair), number(rest) if len(rest) == 2 else 1 + rest[0]


class Block(NamedTuple):
    """The paths ``start``, ``start + 1``, .. of one degree to the output components from ``at`` on."""

    start: int
    degree: int
    at: int
    tables: np.ndarray  # [paths, 2 L + 1, monomials]


def lists(D: int, O: int, P: int, blocks: list[Block]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(lists, coefficients, sizes) of P paths to O output components, from monomials in D."""
    found = []  # (output component, -degree, monomial), first path, the paths' coefficients
    for block in blocks:
        kept = np.argwhere((block.tables != 0).any(0))
        found += [((block.at + m, -block.degree, a), block.start, block.tables[:, m, a]) for m, a in kept.tolist()]
    found.sort(key=lambda term: term[0])
    pairs: dict[tuple[int, int], int] = {}
    variables = np.full((len(found), MOST_DEGREE), -1)
    uses: list[list[int]] = [[] for _ in range(D)]
    factors, entries = [], []
    for t, ((_, degree, a), start, column) in enumerate(found):
        monomial = monomials(D, -degree)[a]
        factors.append(_split(monomial, pairs, D))
        variables[t, : len(monomial)] = monomial
        for position, v in enumerate(monomial):
            uses[v].append(MOST_DEGREE * t + position)
        entries += [(t, start + n, column[n]) for n in np.flatnonzero(column)]
    of_term, of_path = (np.array([e[i] for e in entries], np.int64) for i in (0, 1))
    value = np.array([e[2] for e in entries], np.float64)
    by_path = np.lexsort((of_term, of_path))
    term_out = np.array([key[0] for key, *_ in found], np.int64)
    ends = lambda numbers, count: np.searchsorted(numbers, np.arange(count + 1))
    parts = [
        ends(term_out, O), factors, variables, term_out, [(1 + i, 1 + j) for i, j in pairs],
        ends(of_term, len(found)), of_path, ends(of_path[by_path], P), of_term[by_path],
        np.cumsum([0, *map(len, uses)]), [u for use in uses for u in use],
    ]  # fmt: skip
    flat = np.concatenate([np.asarray(part, np.int64).reshape(-1) for part in parts]).astype(np.int32)
    return flat, np.stack([value, value[by_path]]), [D, O, P, len(found), len(pairs), value.size, sum(map(len, uses))]
