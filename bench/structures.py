"""Neighbour lists of real structures, and the tensor products of published models."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# name: irreps of nodes, of edges, kept results. The convolutions of MACE-large, SevenNet-0, SevenNet-l3i5 and NequIP-OAM-L.
PROBLEMS = {
    "mace-large": ("128x0e+128x1o+128x2e", "0e+1o+2e+3o", "0e+1o+2e+3o"),
    "sevennet-0": ("128x0e+64x1e+32x2e", "0e+1e+2e", "0e+1e+2e"),
    "sevennet-l3i5": ("128x0e+64x1e+32x2e+32x3e", "0e+1e+2e+3e", "0e+1e+2e+3e"),
    "nequip-oam-l": ("128x0e+64x1o+32x2e+32x3o", "0e+1o+2e+3o", "0e+1o+2e+3o"),
}


class Structure(NamedTuple):
    title: str
    edge_index: Tensor  # [2, E], sorted by receiver
    vectors: Tensor  # [E, 3] float64, from receiver to sender, in Angstrom
    num_nodes: int

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]


def available(kind: str) -> bool:
    return kind == "copper" or importlib.util.find_spec("ase") is not None


@lru_cache(maxsize=2)
def structure(name: str, size: int = 4, cutoff: float = 6.0) -> Structure:
    """``copper``: size^3 cubic cells of a crystal; ``water``: a periodic box of size^3 molecules, more than two cutoffs wide, from
    4 on at 6 Angstrom; ``g2``: all molecules of ASE's g2 set. The last two need ASE, copper needs nothing."""
    index, vectors, N = {"copper": _copper, "water": _water, "g2": _g2}[name](size, cutoff)
    kind = {"copper": "atoms of copper", "water": "atoms of water", "g2": "atoms of the g2 molecules"}[name]
    return Structure(f"{N} {kind} at {cutoff:g} Å, {index.shape[1]} edges", index, vectors, N)


def _copper(size: int, cutoff: float) -> tuple[Tensor, Tensor, int]:
    """Atoms at the points of even sum of a lattice of half cells: the differences within the cutoff are the same everywhere."""
    half = 3.61 / 2
    cells = torch.cartesian_prod(*(torch.arange(size),) * 3)
    points = (2 * cells[:, None] + torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
    n = int(cutoff / half) + 1
    reach = torch.cartesian_prod(*(torch.arange(-n, n + 1),) * 3)
    square = reach.square().sum(1)
    shifts = reach[(reach.sum(1) % 2 == 0) & (square > 0) & (square.double().sqrt() * half < cutoff)]
    number = torch.full((2 * size,) * 3, -1)
    number[points.unbind(1)] = torch.arange(len(points))
    src = number[((points[:, None] + shifts) % (2 * size)).reshape(-1, 3).unbind(1)]
    dst = torch.arange(len(points)).repeat_interleave(len(shifts))
    return torch.stack([src, dst]), (shifts.double() * half).repeat(len(points), 1), len(points)


def _near(positions: Tensor, cutoff: float, box: float | None = None) -> tuple[Tensor, Tensor]:
    d = positions - positions[:, None]
    if box is not None:
        assert box > 2 * cutoff  # the nearest image is the only one
        d = d - (d / box).round() * box
    dst, src = torch.nonzero((d.norm(dim=2) < cutoff) & ~torch.eye(len(positions), dtype=torch.bool), as_tuple=True)
    return torch.stack([src, dst]), d[dst, src]


def _water(size: int, cutoff: float) -> tuple[Tensor, Tensor, int]:
    """At the density of the liquid, each molecule turned by a rotation of its own."""
    from ase.build import molecule

    generator = torch.Generator().manual_seed(0)
    atoms = torch.from_numpy(molecule("H2O").positions)
    turns = torch.linalg.qr(torch.randn(size**3, 3, 3, generator=generator, dtype=torch.float64)).Q
    centers = torch.cartesian_prod(*(torch.arange(size),) * 3) * 3.107
    positions = (atoms @ turns + centers[:, None]).reshape(-1, 3)
    return *_near(positions, cutoff, size * 3.107), len(positions)


def _g2(_size: int, cutoff: float) -> tuple[Tensor, Tensor, int]:
    from ase.collections import g2

    found, N = [], 0
    for name in g2.names:
        index, vectors = _near(torch.from_numpy(g2[name].positions), cutoff)
        found.append((index + N, vectors))
        N += len(g2[name])
    index, vectors = zip(*found, strict=True)
    return torch.cat(index, 1), torch.cat(vectors), N
