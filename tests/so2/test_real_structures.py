"""Energies and forces on real structures: all of ASE's g2 molecules at once, a water box, copper with edges exactly along +-y."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from rotations import random_rotation
from structops import Graph
from structops.so2 import (
    CPTensorProduct,
    TensorProduct,
    channelwise_instructions,
    edge_block,
    spherical_harmonics,
    tp_conv,
    weight_shapes,
    wigner_3j,
)
from torch import Tensor

CUTOFF, C = 5.0, 3
STRUCTURES = ("g2", "water", "copper")


class Structure(NamedTuple):
    positions: Tensor
    edge_index: Tensor
    shift: Tensor
    molecule: Tensor  # of every atom
    features: Tensor  # [N, 9, C] float64, from the atomic numbers in the scalars

    def vectors(self, positions: Tensor) -> Tensor:
        src, dst = self.edge_index
        return positions[src] - positions[dst] + self.shift


@cache
def structure(name: str) -> Structure:
    build = pytest.importorskip("ase.build", reason="ASE is not installed")
    neighbors = pytest.importorskip("ase.neighborlist", reason="ASE is not installed")
    g2 = pytest.importorskip("ase.collections", reason="ASE is not installed").g2
    if name == "g2":
        parts = [g2[m] for m in g2.names]
    elif name == "water":  # 27 molecules on a grid, each turned by its own rotation
        box = build.molecule("H2O") * (1, 1, 1)
        box.cell, box.pbc = np.eye(3) * 3.1, True
        box = box * (3, 3, 3)
        for n in range(27):
            three = box.positions[3 * n : 3 * n + 3]
            box.positions[3 * n : 3 * n + 3] = (three - three[0]) @ random_rotation(n).numpy().T + three[0]
        parts = [box]
    else:
        parts = [build.bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)]
    lists, at = [], 0
    for n, atoms in enumerate(parts):
        i, j, S = neighbors.neighbor_list("ijS", atoms, CUTOFF)
        lists.append((atoms.positions, np.stack([j, i]) + at, S @ atoms.cell.array, np.full(len(atoms), n), atoms.numbers))
        at += len(atoms)
    positions, index, shift, molecule, numbers = (
        torch.from_numpy(np.concatenate(p, int(k == 1))) for k, p in enumerate(zip(*lists, strict=True))
    )
    features = torch.zeros(at, 9, C, dtype=torch.float64)
    features[:, 0] = torch.stack([torch.cos(numbers * k / 3.0) for k in range(1, C + 1)], 1)
    return Structure(positions, index, shift, molecule, features)


def radial(vectors: Tensor, width: int) -> Tensor:
    """Smooth weights [E, width] that vanish at the cutoff with their slope."""
    r = vectors.norm(dim=1, keepdim=True)
    return torch.cos(r * torch.linspace(0.3, 2.0, width, dtype=r.dtype)) * (1 - (r / CUTOFF) ** 2).clamp(min=0) ** 2


IRREPS = f"{C}x0e+{C}x1o+{C}x2e"
HARMONICS = "0e+1o+2e"


@cache
def product() -> TensorProduct:
    return TensorProduct(IRREPS, HARMONICS, *channelwise_instructions(IRREPS, HARMONICS, HARMONICS), shared_weights=False, layout="ir_mul")


def gather(rows: Tensor) -> Tensor:
    """One block of each degree from the rows of a product."""
    p, parts = product(), [0, 0, 0]
    for t, part in zip(p.irreps_out, p.irreps_out.slices(), strict=True):
        if t.p == (-1) ** t.l:
            parts[t.l] = parts[t.l] + rows[:, part].unflatten(1, (t.dim, t.mul))
    return torch.cat(parts, 1)


def by_tp(graph: Graph, x: Tensor, vectors: Tensor) -> Tensor:
    y = spherical_harmonics(range(3), vectors, True, "component")
    return gather(tp_conv(graph, x.flatten(1), y, radial(vectors, product().weight_numel), product()))


def by_tables(graph: Graph, x: Tensor, vectors: Tensor) -> Tensor:
    """The same with dense tables and a row for every edge."""
    p, (src, dst) = product(), graph.edge_index()
    y, w = spherical_harmonics(range(3), vectors, True, "component"), radial(vectors, product().weight_numel)
    rows = []
    for n, i in enumerate(p.instructions):
        a, b, c = p.irreps_in1[i.i_in1], p.irreps_in2[i.i_in2], p.irreps_out[i.i_out]
        table = wigner_3j(a.l, b.l, c.l, x.dtype) * i.path_weight
        message = torch.einsum("eiu,ej,ijk->eku", x[src, a.l**2 : (a.l + 1) ** 2], y[:, p.irreps_in2.slices()[i.i_in2]], table)
        rows.append(message * p.weight_view_for_instruction(n, w).reshape(len(src), 1, C))
    messages = torch.cat([r.flatten(1) for r in rows], 1)
    order = sorted(range(len(rows)), key=lambda n: p.instructions[n].i_out)
    assert order == list(range(len(rows)))
    return gather(messages.new_zeros(len(x), messages.shape[1]).index_add(0, dst, messages))


def by_block(graph: Graph, x: Tensor, vectors: Tensor) -> Tensor:
    g = torch.Generator().manual_seed(5)
    draw = lambda *s: (torch.randn(*s, generator=g, dtype=torch.float64) / s[-1] ** 0.5).to(x.dtype)
    shapes = weight_shapes(2, 2, 2 * C, 4, 8), weight_shapes(2, 2, 4, C)
    # Without the second half, which mixes orders m and -m, it commutes with reflections too.
    half = lambda w, m: torch.cat([w[: len(w) // 2], torch.zeros_like(w[len(w) // 2 :])]) if m else w
    first, second = ([half(draw(*s), m) for m, s in enumerate(each)] for each in shapes)
    widths = sum((3 - m) * 2 * C for m in range(3))
    options = dict(lmax=2, mmax=2, radial=radial(vectors, widths), envelope=radial(vectors, 1)[:, 0])
    return edge_block(x, vectors, graph, first, draw(20), second, draw(3 * C), **options)


@cache
def low_rank() -> CPTensorProduct:
    return CPTensorProduct(2, 2, 2, "full", parity=True)


def by_cp(graph: Graph, x: Tensor, vectors: Tensor) -> Tensor:
    y = spherical_harmonics(range(3), vectors, True, "component")[..., None]
    return low_rank().conv(graph, x, y, radial(vectors, C)[..., None])


MODELS: dict[str, Callable] = {"tp_conv": by_tp, "edge_block": by_block, "CPTensorProduct": by_cp}


def energies(model: Callable, s: Structure, positions: Tensor) -> Tensor:
    """Of every atom, after two convolutions."""
    graph = Graph(s.edge_index, num_nodes=len(positions))
    vectors = s.vectors(positions)
    x = s.features.to(positions.dtype)
    for _ in range(2):
        x = x + model(graph, x, vectors) / 6
    return x[:, 0].tanh().sum(1) + x.square().sum((1, 2)).sin()


def forces(model: Callable, s: Structure, positions: Tensor) -> tuple[Tensor, Tensor]:
    p = positions.clone().requires_grad_()
    energy = energies(model, s, p)
    return energy.detach(), -torch.autograd.grad(energy.sum(), p)[0]


def cast(s: Structure, dtype: torch.dtype) -> Structure:
    return s._replace(positions=s.positions.to(dtype), shift=s.shift.to(dtype))


def test_structures() -> None:
    """What makes them hard is there: atoms without neighbours, edges exactly along +-y."""
    g2, copper = structure("g2"), structure("copper")
    degrees = torch.bincount(g2.edge_index[1], minlength=len(g2.positions))
    assert len(g2.positions) == 860 and (degrees == 0).any()
    for s in (g2, copper):
        v = s.vectors(s.positions)
        assert v.norm(dim=1).max() <= CUTOFF
        assert ((v[:, 0] == 0) & (v[:, 2] == 0)).sum() >= 16


@pytest.mark.parametrize("name", STRUCTURES)
def test_tp_conv_against_dense_tables(name: str) -> None:
    s = structure(name)
    energy, force = forces(by_tp, s, s.positions)
    for a, b in zip((energy, force), forces(by_tables, s, s.positions), strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("model", MODELS)
def test_forces(model: str, name: str) -> None:
    """The slope of the energy along a random displacement; no net force, no torque on a molecule; none on an atom alone; float32
    near float64."""
    s, f = structure(name), MODELS[model]
    energy, force = forces(f, s, s.positions)
    assert energy.isfinite().all() and force.isfinite().all()
    d = torch.randn(s.positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = lambda h: energies(f, s, s.positions + h * d).sum()
        h = 1e-3
        slope = (8 * (step(h) - step(-h)) - (step(2 * h) - step(-2 * h))) / (12 * h)
    size = force.norm() * d.norm()
    assert (slope + (force * d).sum()).abs() <= 1e-7 * (size + 1)
    count = int(s.molecule.max()) + 1
    total = lambda t: torch.zeros(count, 3, dtype=t.dtype).index_add(0, s.molecule, t)
    assert total(force).abs().max() < 1e-10
    if name == "g2":
        assert force.abs().max() > 1e-2
        assert total(torch.linalg.cross(s.positions, force)).abs().max() < 1e-9
        alone = torch.bincount(s.edge_index.flatten(), minlength=len(force)) == 0
        assert alone.any() and force[alone].abs().max() == 0
    if name == "copper":  # by symmetry
        assert force.abs().max() < 1e-10
    narrow = forces(f, cast(s, torch.float32), s.positions.float())
    for a, b in zip(narrow, (energy, force), strict=True):
        assert a.dtype == torch.float32 and (a.double() - b).abs().max() < 2e-4 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("model", MODELS)
def test_energies_are_invariant_and_forces_turn(model: str) -> None:
    """Under rotations and reflections of all molecules at once."""
    s, f = structure("g2"), MODELS[model]
    energy, force = forces(f, s, s.positions)
    for sign in (1, -1):
        R = sign * random_rotation(4)
        turned = s._replace(positions=s.positions @ R.T)
        found = forces(f, turned, turned.positions)
        assert (found[0] - energy).abs().max() < 1e-10
        assert (found[1] - force @ R.T).abs().max() < 1e-9
