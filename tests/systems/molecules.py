"""Real molecules (ASE's g2 set) as complete graphs, and rotation matrices on irreps."""

from __future__ import annotations

import pytest
import torch
from agreement import randn
from structops.kernels.so2.wigner_ref import wigner_full
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
