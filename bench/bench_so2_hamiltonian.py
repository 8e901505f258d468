"""Blocks of a Hamiltonian from features of pairs, with weights of each pair: hamiltonian_blocks.

The peer is QHNet's formula: for every triple of degrees one einsum of features with weights and one with e3nn's dense Wigner 3j
table, its weights already grouped by degrees. The molecules of QH9 have about 18 atoms: 306 pairs each.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops import so2
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

SHELLS = {"def2-SVP": "3s2p1d", "def2-TZVP": "5s3p2d1f"}
DEGREES = {"3s2p1d": (0, 0, 0, 1, 1, 2), "5s3p2d1f": (0,) * 5 + (1,) * 3 + (2,) * 2 + (3,)}


def cases(level: str) -> Iterator[Case]:
    molecules, C = at_level(level, smoke=(0, 4), quick=(1, 128), default=(4, 128), full=(16, 128))
    P = 306 * molecules or 20
    for basis in at_level(level, smoke=("def2-SVP",), quick=("def2-SVP",), default=("def2-SVP",), full=SHELLS):
        irreps = so2.hamiltonian_irreps(SHELLS[basis])
        size = 4 * P * (irreps.num_irreps * C + (irreps.lmax + 1) ** 2 * C + irreps.dim)
        for direction, passes in ((FWD, 1), (BOTH, 3)):
            traffic = Traffic(passes * size, passes * size, passes * 2 * P * irreps.dim * C)
            build = partial(_build, direction, basis, P, C)
            yield Case("hamiltonian_blocks", direction, f"{P} pairs", f"{basis}, {P} pairs, {C} channels", C, build, traffic)


def _groups(shells: str) -> dict[tuple[int, int, int], list[list[int]]]:
    """(l1, l2, L) -> the places among the weights of every pair of shells of these degrees, [shells of l1][shells of l2]."""
    degrees = DEGREES[shells]
    paths = sorted(
        (L, (-1) ** (k + l), a, b)
        for a, k in enumerate(degrees)
        for b, l in enumerate(degrees)
        for L in range(abs(k - l), k + l + 1)
    )
    found: dict[tuple[int, int, int], list[list[int]]] = {}
    for n, (L, _, a, b) in enumerate(paths):
        rows = found.setdefault((degrees[a], degrees[b], L), [])
        first = a - degrees.index(degrees[a])
        rows += [[]] if len(rows) == first else []
        rows[first].append(n)
    return found


def _expand(x: Tensor, weights: dict, tables: dict, shells: str) -> Tensor:
    sums: dict[tuple[int, int], Tensor] = {}
    for (k, l, L), w in weights.items():
        mixed = torch.einsum("zuvc,zmc->zuvm", w, x[:, L * L : (L + 1) ** 2])
        part = torch.einsum("zuvm,ijm->zuivj", mixed, tables[k, l, L]).flatten(1, 2).flatten(2, 3)
        sums[k, l] = sums[k, l] + part if (k, l) in sums else part
    degrees = sorted(set(DEGREES[shells]))
    return torch.cat([torch.cat([sums[k, l] for l in degrees], 2) for k in degrees], 1)


@lru_cache(maxsize=1)
def _inputs(basis: str, P: int, C: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    irreps, g = so2.hamiltonian_irreps(SHELLS[basis]), torch.Generator().manual_seed(0)
    shapes = (P, (irreps.lmax + 1) ** 2, C), (P, irreps.num_irreps, C), (P, round(irreps.dim**0.5), round(irreps.dim**0.5))
    return tuple(torch.randn(*s, generator=g).to(device) for s in shapes)


def _grouped(basis: str, x: Tensor, w: Tensor, grad: Tensor, direction: str, tables: dict):
    """The run of the einsums: weights grouped beforehand, their gradients put into the order of ours."""
    groups = _groups(SHELLS[basis])
    weights = {t: w.detach()[:, torch.tensor(at)].requires_grad_(direction == BOTH) for t, at in groups.items()}
    run = runner(lambda: _expand(x, weights, tables, SHELLS[basis]), direction, (x, *weights.values()), grad)
    places = torch.tensor([n for at in groups.values() for row in at for n in row], device=w.device).argsort()

    def both():
        out, dx, *dw = run()
        return out, dx, torch.cat([g.flatten(1, 2) for g in dw], 1)[:, places]

    return both if direction == BOTH else run


@lru_cache(maxsize=1)
def _reference(direction: str, basis: str, P: int, C: int, device: str) -> tuple[Tensor, ...]:
    x, w, grad = (t.double().requires_grad_(direction == BOTH) for t in _inputs(basis, P, C, device))
    tables = {t: _table(*t, torch.float64, device) for t in _groups(SHELLS[basis])}
    return _grouped(basis, x, w, grad.detach(), direction, tables)()


def _table(k: int, l: int, L: int, dtype: torch.dtype, device: str) -> Tensor:
    return (2 * L + 1) ** 0.5 * so2.wigner_3j(k, l, L, dtype, device)


def _build(direction: str, basis: str, P: int, C: int, device: str) -> Prepared:
    x, w, grad = (t.detach().requires_grad_(direction == BOTH) for t in _inputs(basis, P, C, device))
    ours = runner(lambda: structops.so2.hamiltonian_blocks(x, SHELLS[basis], weight=w), direction, (x, w), grad.detach())
    module, reason = load("e3nn")
    theirs = None
    if module:
        from e3nn import o3

        tables = {(k, l, L): (2 * L + 1) ** 0.5 * o3.wigner_3j(k, l, L).float().to(device) for k, l, L in _groups(SHELLS[basis])}
        theirs = _grouped(basis, x, w, grad.detach(), direction, tables)
    reference = partial(_reference, direction, basis, P, C, device)
    return Prepared(Provider(OURS, ours), [Provider("e3nn einsums", theirs, reason)], reference)


def test_hamiltonian(case, bench_case):
    bench_case(case)
