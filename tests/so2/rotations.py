"""Random rotations and their matrices on irreps, from the harmonics themselves; graphs of crystals where ASE is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from structops import Graph
from structops.kernels.so2.sph_ref import spherical_harmonics
from structops.so2 import Irreps
from torch import Tensor


def random_rotation(seed: int = 0) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q)


def wigner(l: int, R: Tensor) -> Tensor:
    """D with Y(R x) = D Y(x), by least squares over random points: independent of any formula for D."""
    x = torch.randn(8 * l + 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    part = slice(l * l, (l + 1) ** 2)
    y, turned = (spherical_harmonics(p, l, 0, True)[:, part] for p in (x, x @ R.T))
    return torch.linalg.lstsq(y, turned).solution.T


def act(irreps: Irreps, rows: Tensor, R: Tensor, inversion: bool = False, layout: str = "mul_ir") -> Tensor:
    """Rows of irreps rotated by R, then inverted."""
    parts = []
    for term, part in zip(irreps, irreps.slices(), strict=True):
        D = wigner(term.l, R) * (term.p if inversion else 1)
        block = rows[:, part]
        if layout == "mul_ir":
            parts.append((block.reshape(-1, term.mul, term.dim) @ D.T).reshape(len(rows), -1))
        else:
            parts.append((D @ block.reshape(-1, term.dim, term.mul)).reshape(len(rows), -1))
    return torch.cat(parts, 1)


def random_graph(N: int, E: int, seed: int = 0) -> Graph:
    """Unsorted, with parallel edges; the last node has no edge into it, nor has the first out of it."""
    g = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(min(1, N - 1), N, (E,), generator=g), torch.randint(0, max(N - 1, 1), (E,), generator=g)
    return Graph(torch.stack([src, dst]), num_nodes=N)


def crystal(cutoff: float = 4.0, repeat: int = 2) -> tuple[Graph, Tensor, Tensor, Tensor]:
    """(graph, positions, edge shifts, edge index) of copper: of its edges many lie exactly along y."""
    build = pytest.importorskip("ase.build", reason="ASE is not installed")
    neighbors = pytest.importorskip("ase.neighborlist", reason="ASE is not installed")
    atoms = build.bulk("Cu", "fcc", a=3.6, cubic=True) * (repeat, 1, 1)
    i, j, S = neighbors.neighbor_list("ijS", atoms, cutoff)
    index = torch.from_numpy(np.stack([j, i]))
    shift = torch.from_numpy(S @ atoms.cell.array)
    return Graph(index, num_nodes=len(atoms)), torch.from_numpy(atoms.positions), shift, index
