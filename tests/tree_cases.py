"""Trees by enumeration, and random charts. Shared by the tests of tests/tree and tests/compat."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from cases import generator
from structops.kernels.codes import DEP_MULTI, DEP_SINGLE, SPAN
from torch import Tensor

KINDS = (DEP_MULTI, DEP_SINGLE, SPAN)
NINF = float("-inf")


# ---- enumeration -----------------------------------------------------------------------------------------------------


def is_tree(heads: tuple[int, ...]) -> bool:
    """heads[d - 1] is the head of word d; 0 is the root."""
    for d in range(1, len(heads) + 1):
        seen, at = set(), d
        while at:
            if at in seen:
                return False
            seen.add(at)
            at = heads[at - 1]
    return True


def is_projective(heads: tuple[int, ...]) -> bool:
    arcs = [(min(d, h), max(d, h)) for d, h in enumerate(heads, 1)]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)


@cache
def projective_trees(n: int, single: bool) -> list[tuple[int, ...]]:
    """Every projective tree over n words, as heads of the words."""
    every = itertools.product(range(n + 1), repeat=n)
    trees = [h for h in every if all(d != h[d - 1] for d in range(1, n + 1)) and is_tree(h) and is_projective(h)]
    return [h for h in trees if not single or n == 0 or h.count(0) == 1]


@cache
def bracketings(i: int, j: int) -> list[tuple[tuple[int, int], ...]]:
    """Every binary bracketing of posts i..j, as spans in pre-order."""
    if j <= i:
        return [()]
    if j == i + 1:
        return [((i, j),)]
    return [((i, j), *a, *b) for r in range(i + 1, j) for a in bracketings(i, r) for b in bracketings(r, j)]


def siblings(heads: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(dep, head, sib) of every dependent that has an adjacent sibling between itself and its head."""
    found = []
    for d, h in enumerate(heads, 1):
        between = [r for r in range(min(d, h) + 1, max(d, h)) if heads[r - 1] == h]
        if between:
            found.append((d, h, max(between) if d > h else min(between)))
    return found


def tree_cells(kind: int, n: int) -> list[tuple[list, list]]:
    """Of every tree its cells of score and of sib."""
    if kind == SPAN:
        return [(list(spans), []) for spans in bracketings(0, n)]
    return [([(d, h) for d, h in enumerate(heads, 1)], siblings(heads)) for heads in projective_trees(n, kind == DEP_SINGLE)]


def scores(kind: int, n: int, score: Tensor, sib: Tensor | None = None) -> Tensor:
    """Scores of all trees of one sentence, differentiable."""
    totals = []
    for cells, sibs in tree_cells(kind, n):
        total = score.new_zeros(())
        for c in cells:
            total = total + score[c]
        for c in sibs if sib is not None else ():
            total = total + sib[c]
        totals.append(total)
    return torch.stack(totals)


# ---- closed forms ----------------------------------------------------------------------------------------------------


def log_tree_count(kind: int, n: int) -> float:
    """Logarithm of the number of trees: projective multi-root C(3n, n) / (2n + 1), single root, binary bracketings."""
    from math import lgamma

    binomial = lambda a, b: lgamma(a + 1) - lgamma(b + 1) - lgamma(a - b + 1)
    if n == 0:
        return 0.0
    if kind == DEP_MULTI:
        return binomial(3 * n, n) - float(np.log(2 * n + 1))
    if kind == DEP_SINGLE:
        return binomial(3 * n - 2, n - 1) - float(np.log(n))
    return binomial(2 * n - 2, n - 1) - float(np.log(n))


# ---- operands --------------------------------------------------------------------------------------------------------


def chart(B: int, N: int, second: bool = False, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 1.0):
    """(score, sib or None) of normal numbers; junk outside what is read is the caller's business."""
    rng = generator(seed)
    score = (scale * torch.randn(B, N, N, generator=rng, dtype=torch.float64)).float().to(dtype)
    sib = (scale * torch.randn(B, N, N, N, generator=rng, dtype=torch.float64)).float().to(dtype) if second else None
    return score, sib


def forbid(score: Tensor, p: float, seed: int = 0) -> Tensor:
    """-inf at a share p of the cells."""
    return torch.where(torch.rand(score.shape, generator=generator(seed)) < p, NINF, score)
