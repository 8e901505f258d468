"""EnergyEquivGNN: a lattice's stiffness from convolutions and symmetric contractions, positive semidefinite by construction."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import closed_harmonics, dense_contraction, dense_product, edge_vectors, molecule, radial_basis, rotation
from structops import Graph, segment_reduce, so2

SYSTEM = "EnergyEquivGNN: fourth-order stiffness of lattice metamaterials, energy-conserving by squares of Mandel matrices"
OPERATORS = (
    "structops.so2.TensorProduct", "structops.so2.tp_conv", "structops.so2.symmetric_contraction", "structops.so2.gate",
    "structops.so2.wigner_3j", "structops.segment_reduce",
)  # fmt: skip
C, B = 3, 6
INPUT, HARMONICS = so2.Irreps([(C, 0, 1)]), so2.Irreps.spherical_harmonics(2)
NODES = so2.Irreps([(C, l, (-1) ** l) for l in range(3)])
CONV = so2.TensorProduct(INPUT, HARMONICS, NODES, [(0, l, l, "uvu", True) for l in range(3)], shared_weights=False)
PLAN = so2.SymmetricContractionPlan("0e+1o+2e", "0e+2e+4e", 3)
DEGREES = (0, 2, 4)
GATED = so2.Irreps([(C, l, 1) for l in DEGREES])
NAMES = ("H2O", "CH3OH")  # two lattices in a batch
SIZES = torch.tensor([0, 3, 9])


def batch():
    found = [molecule(name) for name in NAMES]
    index = torch.cat([i + n for (_, _, i), n in zip(found, SIZES.tolist(), strict=False)], 1)
    return torch.cat([r for _, r, _ in found]), index, Graph(index, num_nodes=9)


def mandel() -> torch.Tensor:
    """[6, 3, 3]: an orthonormal basis of symmetric matrices."""
    basis = torch.zeros(6, 3, 3, dtype=torch.float64)
    for n, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        basis[n, i, j] = basis[n, j, i] = 1.0 if i == j else 0.5**0.5
    return basis


def irreducible() -> torch.Tensor:
    """[6, 6]: symmetric matrices as 0e + 2e, in Mandel's basis."""
    parts = [(2 * l + 1) ** 0.5 * so2.wigner_3j(1, 1, l, torch.float64) for l in (0, 2)]
    return torch.einsum("ijk,nij->kn", torch.cat(parts, 2), mandel())


# Couplings of 0 + 2 with itself to symmetric 6 x 6 matrices: two of degree 0, two of degree 2, one of degree 4.
COUPLINGS = [(0, 0, 0), (2, 2, 0), (0, 2, 2), (2, 2, 2), (2, 2, 4)]


def stiffness(parts):
    """[G, 6, 6]: features {degree: [G, copies, 2 l + 1]} as a matrix on 0 + 2, in Mandel's basis, squared."""
    at, seen, K = {0: slice(0, 1), 2: slice(1, 6)}, dict.fromkeys(DEGREES, 0), 0.0
    for a, b, l in COUPLINGS:
        block = torch.einsum("ijk,gk->gij", so2.wigner_3j(a, b, l, torch.float64) * (2 * l + 1) ** 0.5, parts[l][:, seen[l]])
        full = block.new_zeros(len(block), 6, 6)
        full[:, at[a], at[b]] = block
        K, seen[l] = K + full + full.transpose(1, 2), seen[l] + 1
    Q = irreducible()
    K = Q.T @ K @ Q
    return K @ K


def finish(B0, B2, B4, w_gate, w_out, gate, pool):
    """Gate, mean over each lattice, linear maps to 2x0e + 2x2e + 1x4e; rows are [N, C, 2 l + 1]."""
    rows = gate(B0, B2, B4, B0[..., 0] @ w_gate)
    parts = {
        l: torch.einsum("guk,uv->gvk", pool(r), w_out[:, : 1 if l == 4 else 2]) for l, r in zip(DEGREES, rows, strict=True)
    }
    return stiffness(parts)


def ours(vec, radial, w, contraction, w_gate, w_out, *, graph, x):
    y = so2.spherical_harmonics(HARMONICS, vec, True, "component")
    rows = so2.tp_conv(graph, x, y, radial_basis(vec.norm(dim=1), B) @ radial, CONV) / 4
    A = torch.cat([torch.einsum("nui,uv->nvi", rows[:, s].unflatten(1, (C, -1)), w) for s in NODES.slices()], 2)
    found = so2.symmetric_contraction(A, contraction, torch.zeros(9, dtype=torch.long), PLAN)

    def gate(*parts):
        rows = so2.gate(torch.cat([p.flatten(1) for p in parts[:3]], 1), parts[3], GATED)
        return [rows[:, s].unflatten(1, (C, -1)) for s in GATED.slices()]

    return finish(*found.split([1, 5, 9], 2), w_gate, w_out, gate, lambda r: segment_reduce(r, SIZES, "mean"))


def dense(vec, radial, w, contraction, w_gate, w_out, *, index, x):
    src, dst = index
    terms = [(i.i_in1, i.i_in2, i.i_out, i.path_weight) for i in CONV.instructions]
    products = dense_product([x[src][..., None]], closed_harmonics(vec), radial_basis(vec.norm(dim=1), B) @ radial, terms)
    A = [torch.stack([p[dst == v].sum(0) for v in range(9)]).transpose(1, 2) @ w / 4 for p in products]
    found = dense_contraction([a.transpose(1, 2) for a in A], contraction.expand(9, -1, -1), [(l, 1) for l in DEGREES], 3)

    def gate(b0, b2, b4, gates):
        return torch.nn.functional.silu(b0), b2 * gates[:, :C, None].sigmoid(), b4 * gates[:, C:, None].sigmoid()

    return finish(*found, w_gate, w_out, gate, lambda r: torch.stack([r[:3].mean(0), r[3:].mean(0)]))


def parameters():
    shapes = (B, CONV.weight_numel), (C, C), (1, PLAN.num_paths, C), (C, 2 * C), (C, 2)
    return [randn(*s, seed=30 + i) for i, s in enumerate(shapes)]


def test_layer() -> None:
    positions, index, graph = batch()
    x = randn(9, C, seed=8)
    args = edge_vectors(positions, index), *parameters()
    C6 = agree(lambda *t: ours(*t, graph=graph, x=x), lambda *t: dense(*t, index=index, x=x), *args)
    spectrum = torch.linalg.eigvalsh(C6)
    assert float(spectrum.min()) > -1e-12 * float(spectrum.max())


@pytest.mark.parametrize("inversion", [False, True])
def test_rotations(inversion: bool) -> None:
    """C(R x) = M(R) C(x) M(R)^T with M the rotation of symmetric matrices, and ijkl = jikl = ijlk = klij in Cartesian indices."""
    positions, index, graph = batch()
    x, R = randn(9, C, seed=8), rotation(4) * (-1 if inversion else 1)
    f = lambda r: ours(edge_vectors(r, index), *parameters(), graph=graph, x=x)
    Q = mandel()
    turn = torch.einsum("nij,ki,lj,mkl->mn", Q, R, R, Q)
    torch.testing.assert_close(f(positions @ R.T + 2.0), turn @ f(positions) @ turn.T, rtol=1e-9, atol=1e-9)
    full = torch.einsum("gmn,mij,nkl->gijkl", f(positions), Q, Q)
    for order in ((0, 2, 1, 3, 4), (0, 1, 2, 4, 3), (0, 3, 4, 1, 2)):
        torch.testing.assert_close(full.permute(order), full)
