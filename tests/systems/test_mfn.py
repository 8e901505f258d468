"""Equivariant matrix function networks: matrices over orbitals from features, a resolvent expansion, and features of its blocks.

Resolvents are dense solves of torch; the linear-scaling inversion of selected blocks is not an operator.
"""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import molecule, rotation, wigner_of
from structops import so2

SYSTEM = "MFN: equivariant matrix functions, resolvents with complex poles of matrices over orbitals"
OPERATORS = (
    "structops.so2.hamiltonian_blocks", "structops.so2.hamiltonian_features", "structops.so2.OrbitalBasis",
    "structops.so2.wigner_3j",
)  # fmt: skip
BASIS = so2.OrbitalBasis({1: "1s", 6: "1s1p", 8: "1s1p"})
POLES = torch.tensor([0.5 + 1.5j, -1.0 + 2.0j, 3.0 + 1.0j], dtype=torch.complex128)
# Coefficients of a block in their order: (row shell, column shell, degree); shells are s and p.
TERMS = [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1), (1, 1, 2)]
AT = {0: slice(0, 1), 1: slice(1, 4)}


def function(H, weight):
    """sum over poles of the real part of w (z - H)^-1."""
    eye = torch.eye(len(H), dtype=torch.complex128)
    return torch.einsum("s,sij->ij", weight.to(torch.complex128), torch.linalg.inv(POLES[:, None, None] * eye - H)).real


def layer(node, edge, weight, *, numbers, index):
    """Coefficients of the diagonal blocks ``[N, 16]`` and of the blocks of pairs ``[E, 16]``, in and out."""
    H = BASIS.matrix(so2.hamiltonian_blocks(node, BASIS.shells), so2.hamiltonian_blocks(edge, BASIS.shells), index, numbers)
    diagonal, off = BASIS.blocks(function(H, weight), index, numbers)
    return torch.cat([so2.hamiltonian_features(diagonal, BASIS.shells), so2.hamiltonian_features(off, BASIS.shells)])


def tables():
    """[16, 4, 4]: the block of every coefficient."""
    found = []
    for a, b, L in TERMS:
        full = torch.zeros(2 * L + 1, 4, 4, dtype=torch.float64)
        full[:, AT[a], AT[b]] = (2 * L + 1) ** 0.5 * so2.wigner_3j(a, b, L, torch.float64).permute(2, 0, 1)
        found.append(full)
    return torch.cat(found)


def dense(node, edge, weight, *, numbers, index):
    """Orbital by orbital, and the function of eigenvalues."""
    T, N = tables(), len(numbers)
    H = torch.zeros(N, 4, N, 4, dtype=node.dtype)
    for v in range(N):
        H[v, :, v] = torch.einsum("k,kij->ij", node[v], T)
    for e, (i, j) in enumerate(index.T.tolist()):
        H[i, :, j] = torch.einsum("k,kij->ij", edge[e], T)
    H = (H + H.permute(2, 3, 0, 1)).reshape(4 * N, 4 * N) / 2
    there = torch.tensor([4 * v + k for v, z in enumerate(numbers.tolist()) for k in range(1 if z == 1 else 4)])
    values, vectors = torch.linalg.eigh(H[there][:, there])
    f = (weight.to(torch.complex128)[:, None] / (POLES[:, None] - values)).sum(0).real
    wide = torch.zeros(4 * N, 4 * N, dtype=node.dtype).index_put((there[:, None], there), vectors * f @ vectors.T)
    wide = wide.reshape(N, 4, N, 4)
    blocks = [wide[v, :, v] for v in range(N)] + [wide[i, :, j] for i, j in index.T.tolist()]
    return torch.einsum("nij,kij->nk", torch.stack(blocks), T)


def operands(name: str = "CH3OH"):
    numbers, _, index = molecule(name)
    return randn(len(numbers), 16), randn(index.shape[1], 16, seed=1) / 3, randn(3, seed=2), numbers, index


def test_layer() -> None:
    *args, numbers, index = operands()
    agree(
        lambda *t: layer(*t, numbers=numbers, index=index), lambda *t: dense(*t, numbers=numbers, index=index), *args,
        tolerance=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_rotations(seed: int) -> None:
    """f(D H D^T) = D f(H) D^T: coefficients that turn give coefficients that turn."""
    node, edge, weight, numbers, index = operands("H2O")
    D = wigner_of(rotation(seed), [t[2] for t in TERMS])
    f = lambda n, e: layer(n, e, weight, numbers=numbers, index=index)
    torch.testing.assert_close(f(node @ D.T, edge @ D.T), f(node, edge) @ D.T)


def test_far_poles_are_polynomials() -> None:
    """(z - H)^-1 is sum_k H^k / z^(k + 1) for poles beyond the spectrum."""
    H = randn(6, 6)
    H = (H + H.T) / 8
    far = POLES * 20
    eye = torch.eye(6, dtype=torch.complex128)
    exact = torch.linalg.inv(far[:, None, None] * eye - H)
    series = sum(torch.linalg.matrix_power(H, k) / far[:, None, None] ** (k + 1) for k in range(12))
    torch.testing.assert_close(series, exact)
