"""Neighbour lists of real crystals, and the tensor products of published models."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# name: irreps of nodes, of edges, kept results. The convolutions of MACE-large, SevenNet-0, SevenNet-l3i5 and NequIP-OAM-L.
PROBLEMS = {
    "mace-large": ("128x0e+128x1o+128x2e", "0e+1o+2e+3o", "0e+1o+2e+3o"),
    "sevennet-0": ("128x0e+64x1e+32x2e", "0e+1e+2e", "0e+1e+2e"),
    "sevennet-l3i5": ("128x0e+64x1e+32x2e+32x3e", "0e+1e+2e+3e", "0e+1e+2e+3e"),
    "nequip-oam-l": ("128x0e+64x1o+32x2e+32x3o", "0e+1o+2e+3o", "0e+1o+2e+3o"),
}


@lru_cache(maxsize=2)
def copper(cells: int, cutoff: float = 6.0) -> tuple[Tensor, Tensor]:
    """(edge_index [2, E] sorted by receiver, edge vectors [E, 3]) of face-centred cubic copper, cells^3 cubes of 4 atoms, periodic.

    The list of ``ase.neighborlist`` for ``bulk("Cu", cubic=True) * (cells,) * 3``, while the box is wider than two cutoffs.
    """
    a = 3.61
    assert cells * a > 2 * cutoff
    corner = torch.cartesian_prod(*[torch.arange(cells)] * 3).double()
    base = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64)
    positions = (corner[:, None] + base).reshape(-1, 3)
    rows, cols, vectors = [], [], []
    for v, p in enumerate(positions):
        d = p - positions
        d = (d - cells * (d / cells).round()) * a
        near = torch.nonzero((d.norm(dim=1) < cutoff) & (torch.arange(len(positions)) != v))[:, 0]
        rows.append(torch.full_like(near, v))
        cols.append(near)
        vectors.append(d[near])
    return torch.stack([torch.cat(cols), torch.cat(rows)]), torch.cat(vectors)
