"""Real molecules (ASE's g2 set) as complete graphs, and rotation matrices on irreps."""

from __future__ import annotations

import pytest
import torch
from agreement import randn
from structops.kernels.so2.wigner_ref import wigner_full
from structops.so2 import wigner_3j
from torch import Tensor

# Water, methanol, ethylene; and a linear molecule that lies along y: every edge is +y or -y.
MOLECULES = ("H2O", "CH3OH", "C2H4", "HCN")


def molecule(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(atomic numbers [N], positions [N, 3] in Å, edge_index [2, N (N - 1)])."""
    collections = pytest.importorskip("ase.collections", reason="ASE is not installed")
    atoms = collections.g2[name]
    numbers, positions = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions)
    if name == "HCN":
        positions = positions[:, [0, 2, 1]]
    N = len(numbers)
    src, dst = torch.cartesian_prod(torch.arange(N), torch.arange(N)).T
    return numbers, positions, torch.stack([src, dst])[:, src != dst]


def edge_vectors(positions: Tensor, edge_index: Tensor) -> Tensor:
    return positions[edge_index[0]] - positions[edge_index[1]]


def rotation(seed: int = 0) -> Tensor:
    q = torch.linalg.qr(randn(3, 3, seed=seed)).Q
    return q * torch.linalg.det(q)


def wigner_of(R: Tensor, degrees) -> Tensor:
    """The block-diagonal matrix of R on consecutive irreps."""
    degrees = list(degrees)
    D = wigner_full(R[None], max(degrees, default=0))
    return torch.block_diag(*(D[l][0] for l in degrees))


def radial_basis(length: Tensor, count: int = 6, cutoff: float = 6.0) -> Tensor:
    """Gaussians ``[E, count]``."""
    centres = torch.linspace(0, cutoff, count, dtype=length.dtype)
    return torch.exp(-((length[:, None] - centres) ** 2) / 2)


def closed_harmonics(vec: Tensor) -> Tensor:
    """Spherical harmonics of degrees 0, 1, 2 of directions, component normalisation, written out: ``[E, 9]``."""
    x, y, z = (vec / vec.norm(dim=1, keepdim=True)).unbind(1)
    one, root = torch.ones_like(x), 15**0.5
    second = [root * x * z, root * x * y, 5**0.5 * (1.5 * y * y - 0.5), root * y * z, root / 2 * (z * z - x * x)]
    return torch.stack([one, *(3**0.5 * t for t in (x, y, z)), *second], 1)


def dense_product(x: list[Tensor], y: Tensor, weight: Tensor, paths) -> list[Tensor]:
    """Channel-wise products with harmonics, path by path: x of degree l ``[E, C, 2 l + 1]``, y ``[E, 9]``, weight ``[E, P * C]``,
    paths of (degree of x, of y, of the result, coefficient); one ``[E, C, 2 l + 1]`` for every path."""
    C, found = x[0].shape[1], []
    for n, (i, j, k, coefficient) in enumerate(paths):
        table = coefficient * wigner_3j(i, j, k, torch.float64)
        w = weight[:, n * C : (n + 1) * C]
        found.append(torch.einsum("abc,eua,eb,eu->euc", table, x[i], y[:, j * j : (j + 1) ** 2], w))
    return found


def coupled(features: list[Tensor], degree: int) -> list[tuple[tuple[int, int], Tensor]]:
    """MACE's product basis by its recursion: all couplings of ``degree`` copies of ``features [N, C, 2 l + 1]`` of natural parity,
    one copy after the other, as ((l, parity), ``[N, C, 2 l + 1]``) in the order of their weights."""
    level = [((l, (-1) ** l), f) for l, f in enumerate(features)]
    level.sort(key=lambda path: path[0])
    first = level
    for _ in range(degree - 1):
        found = []
        for (l, p), left in level:
            for m, f in enumerate(features):
                for k in range(abs(l - m), l + m + 1):
                    table = wigner_3j(k, l, m, torch.float64) * (2 * k + 1) ** 0.5
                    found.append(((k, p * (-1) ** m), torch.einsum("kij,nci,ncj->nck", table, left, f)))
        level = sorted(found, key=lambda path: path[0])
    return level if degree > 1 else first


def dense_contraction(features: list[Tensor], weight: Tensor, terms, correlation: int) -> list[Tensor]:
    """Weighted sums of the product basis: weight ``[N, paths, C]`` in the order terms, then degrees; ``[N, C, 2 l + 1]`` each."""
    levels, at, results = [coupled(features, d) for d in range(1, correlation + 1)], 0, []
    for term in terms:
        total = 0.0
        for level in levels:
            for reached, value in level:
                if reached == term:
                    total, at = total + weight[:, at, :, None] * value, at + 1
        results.append(total)
    assert at == weight.shape[1]
    return results
