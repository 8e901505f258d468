"""NequIP's interaction and MACE's layer on real molecules: energies and forces against products written path by path."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import closed_harmonics, dense_contraction, dense_product, edge_vectors, molecule, radial_basis, rotation
from structops import Graph, so2, sparse

SYSTEM = "NequIP: tensor-product interactions with gates; MACE: convolution, symmetric contraction, energies and forces"
OPERATORS = (
    "structops.so2.spherical_harmonics", "structops.so2.TensorProduct", "structops.so2.tp_conv", "structops.so2.gate",
    "structops.so2.symmetric_contraction", "structops.so2.SymmetricContractionPlan", "structops.sparse.typed_matmul",
)  # fmt: skip
L, C, B, MEAN = 2, 3, 6, 4.0  # degrees, channels, radial functions, a mean number of neighbours
NODES, HARMONICS = so2.Irreps([(C, l, (-1) ** l) for l in range(L + 1)]), so2.Irreps.spherical_harmonics(L)
IRREPS, PATHS = so2.channelwise_instructions(NODES, HARMONICS, "0e+1o+2e")
CONV = so2.TensorProduct(NODES, HARMONICS, IRREPS, PATHS, shared_weights=False)
TERMS = [(i.i_in1, i.i_in2, IRREPS[i.i_out].l, i.path_weight) for i in CONV.instructions]
PLAN = so2.SymmetricContractionPlan("0e+1o+2e", "0e+1o", 3)
COUNT = [sum(t[2] == l for t in TERMS) for l in range(L + 1)]  # paths to every degree
KINDS = torch.tensor([0, 1, 2, 2, 2, 2])  # of methanol's C, O and H


def split(rows, copies):
    """Flat rows as ``[N, copies[l] * C, 2 l + 1]`` of every degree."""
    parts = rows.split([n * C * (2 * l + 1) for l, n in enumerate(copies)], 1)
    return [p.unflatten(1, (-1, 2 * l + 1)) for l, p in enumerate(parts)]


def mix(parts, weights):
    return [torch.einsum("nui,uv->nvi", p, w) for p, w in zip(parts, weights, strict=False)]


def flat(parts):
    return torch.cat([p.flatten(1) for p in parts], 1)


def summed(x, vec, radial, structure):
    """``[N, paths C, 2 l + 1]`` of every degree: radial weights, convolution, sum over neighbours."""
    y = so2.spherical_harmonics(HARMONICS, vec, True, "component")
    rows = so2.tp_conv(structure[0], flat(x), y, radial_basis(vec.norm(dim=1), B) @ radial, CONV) / MEAN**0.5
    return split(rows, COUNT)


def dense_summed(x, vec, radial, structure):
    src, dst = structure[1]
    weight = radial_basis(vec.norm(dim=1), B) @ radial
    products = dense_product([p[src] for p in x], closed_harmonics(vec), weight, TERMS)
    found = []
    for l in range(L + 1):
        rows = torch.cat([p for p, t in zip(products, TERMS, strict=True) if t[2] == l], 1)
        found.append(torch.stack([rows[dst == v].sum(0) for v in range(len(x[0]))]) / MEAN**0.5)
    return found


def parameters():
    weights = [randn(B, CONV.weight_numel, seed=1), randn(3, C, C + 2 * C, seed=2), randn(3, C, C, seed=3)]
    return weights + [randn(n * C, (3 if l == 0 else 1) * C, seed=4 + l) / n for l, n in enumerate(COUNT)]


def nequip(x0, x1, x2, vec, radial, self_scalars, self_tensors, *mixing, structure):
    """Mixed sum over neighbours, plus each species' own map of the node, gated."""
    x = [x0, x1, x2]
    z = mix(summed(x, vec, radial, structure), mixing)
    own = sparse.typed_matmul(x[0][..., 0], self_scalars, KINDS)
    tensors = [
        sparse.typed_matmul(x[l].transpose(1, 2).flatten(0, 1), self_tensors, KINDS.repeat_interleave(2 * l + 1))
        .unflatten(0, (-1, 2 * l + 1)).transpose(1, 2) for l in (1, 2)
    ]  # fmt: skip
    scalars, gates = (z[0][..., 0] + own).split([C, 2 * C], 1)
    return so2.gate(flat([scalars, z[1] + tensors[0], z[2] + tensors[1]]), gates, NODES)


def dense_nequip(x0, x1, x2, vec, radial, self_scalars, self_tensors, *mixing, structure):
    x = [x0, x1, x2]
    z = mix(dense_summed(x, vec, radial, structure), mixing)
    scalars = z[0][..., 0] + torch.stack([x[0][n, :, 0] @ self_scalars[k] for n, k in enumerate(KINDS)])
    gates = scalars[:, C:].sigmoid().split(C, 1)
    own = lambda l: torch.stack([self_tensors[k].T @ x[l][n] for n, k in enumerate(KINDS)])
    gated = [(z[l] + own(l)) * gates[l - 1][..., None] for l in (1, 2)]
    return flat([torch.nn.functional.silu(scalars[:, :C])[..., None], *gated])


def features():
    return [randn(6, C, 2 * l + 1, seed=20 + l) for l in range(L + 1)]


def setting():
    _, positions, index = molecule("CH3OH")
    return positions, index, (Graph(index, num_nodes=6), index)


def test_nequip() -> None:
    positions, index, structure = setting()
    args = *features(), edge_vectors(positions, index), *parameters()
    agree(lambda *t: nequip(*t, structure=structure), lambda *t: dense_nequip(*t, structure=structure), *args)


def mace(vec, radial, contraction, readout, embed, *mixing, structure, neighbours=summed, dense=False):
    """Energy of every atom from one layer: A by the convolution, B by three copies of A, a linear readout."""
    zero = lambda l: vec.new_zeros(6, C, 2 * l + 1)
    A = mix(neighbours([embed[KINDS][..., None], zero(1), zero(2)], vec, radial, structure), mixing)
    if dense:
        scalars, vectors = dense_contraction(A, contraction[KINDS], [(0, 1), (1, -1)], 3)
        rows = torch.cat([scalars, vectors], 2)
    else:
        rows = so2.symmetric_contraction(torch.cat(A, 2), contraction, KINDS, PLAN)
    return torch.cat([rows[..., 0] @ readout, rows[..., 1:].sum(1)], 1)


def mace_parameters():
    found = [
        randn(B, CONV.weight_numel, seed=1),
        randn(3, PLAN.num_paths, C, seed=2) / 4,
        randn(C, 1, seed=3),
        randn(3, C, seed=7),
    ]
    return found + [randn(n * C, C, seed=4 + l) / n for l, n in enumerate(COUNT)]


def test_mace() -> None:
    positions, index, structure = setting()
    args = edge_vectors(positions, index), *mace_parameters()
    agree(
        lambda *t: mace(*t, structure=structure),
        lambda *t: mace(*t, structure=structure, neighbours=dense_summed, dense=True),
        *args,
    )


@pytest.mark.parametrize("inversion", [False, True])
def test_energies_and_forces(inversion: bool) -> None:
    """Energies stay and forces turn with the molecule; the forces' own derivative is that of finite differences."""
    positions, index, structure = setting()
    p, R = mace_parameters(), rotation(3) * (-1 if inversion else 1)

    def energy(r):
        return mace(edge_vectors(r, index), *p, structure=structure)[:, 0].sum()

    def forces(r):
        r = r.clone().requires_grad_()
        return -torch.autograd.grad(energy(r), r)[0]

    turned = positions @ R.T + 1.0
    torch.testing.assert_close(energy(turned), energy(positions), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(forces(turned), forces(positions) @ R.T, rtol=1e-9, atol=1e-9)
    assert inversion or torch.autograd.gradgradcheck(energy, positions.clone().requires_grad_(), fast_mode=True)
