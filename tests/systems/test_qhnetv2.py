"""QHNetV2: pair and node features updated in local frames by operations that only commute with turns about the edge."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import MOLECULES, edge_vectors, molecule, radial_basis, rotation, wigner_of
from structops import Graph, so2, spmm

SYSTEM = "QHNetV2: Hamiltonian matrices by SO(2) operations in local frames"
OPERATORS = (
    "structops.so2.wigner", "structops.so2.rotate", "structops.so2.rotate_back", "structops.so2.so2_linear",
    "structops.so2.so2_gate", "structops.so2.so2_norm", "structops.so2.so2_tensor_product", "structops.so2.hamiltonian_blocks",
    "structops.so2.OrbitalBasis", "structops.spmm",
)  # fmt: skip
L, C, B = 4, 2, 6
ROWS = so2.frame_order(L)
PAIRS = (len(ROWS) - L - 1) // 2  # of +m and -m
PATHS = len(so2.so2_product_paths(L))
BASIS = so2.OrbitalBasis({1: "2s1p", 6: "3s2p1d", 7: "3s2p1d", 8: "3s2p1d"})  # def2-SVP


def numel(shapes) -> int:
    return sum(a * b for a, b in shapes)


def parameters():
    K = BASIS.irreps.num_irreps
    shapes = [
        (9, C), (B, numel([(L + 1, 2 * C)])), (numel(so2.weight_shapes(L, L, 2 * C, C, PAIRS * C)),),
        (numel(so2.weight_shapes(L, L, C, C)),), (PATHS, L + 1, C), (K, C), (K, C), (PAIRS + L + 1, C), (L + 1, C),
    ]  # fmt: skip
    return [randn(*s, seed=60 + i) / 3 for i, s in enumerate(shapes)]


def pair_update(a, b, radial, p):
    """Features of an edge in its frame from those of its ends: norm, linear with gates, gate, linear."""
    w_in, w_out, w_norm, b_norm = p
    z = torch.cat([so2.so2_norm(t, w_norm, b_norm, lmax=L) for t in (a, b)], 2)
    z = torch.cat([z[:, : L + 1] * radial.unflatten(1, (L + 1, 2 * C)), z[:, L + 1 :]], 1)
    gates, z = so2.so2_linear(z, w_in, lmax=L, out_channels=C, extra=PAIRS * C)
    z = so2.so2_gate(z, gates.unflatten(1, (PAIRS, C)), lmax=L)
    return so2.so2_linear(z, w_out, lmax=L, out_channels=C)


def layer(x, vec, index, p, gamma=None):
    """(nodes, pairs in the global frame): one update of pairs, the sum at the nodes, and the product of nodes with themselves in
    the frames of their edges, averaged."""
    graph = Graph(index, num_nodes=len(x))
    src, dst = index
    _, w_radial, w_in, w_out, w_product, _, _, w_norm, b_norm = p
    D = so2.wigner(vec, L, gamma=gamma)
    here, there = (so2.rotate(x[at], D, L) for at in (dst, src))
    f = pair_update(here, there, radial_basis(vec.norm(dim=1), B) @ w_radial, (w_in, w_out, w_norm, b_norm))
    own = so2.so2_tensor_product(here, f, w_product, lmax=L) / PATHS**0.5
    pairs = so2.rotate_back(f, D, L)
    return x + spmm(graph, edge=pairs) + spmm(graph, edge=so2.rotate_back(own, D, L), reduce="mean"), pairs


def hamiltonian(positions, numbers, index, p, gamma=None):
    vec = edge_vectors(positions, index)
    x = torch.cat([p[0][numbers][:, None], torch.zeros(len(numbers), len(ROWS) - 1, C, dtype=positions.dtype)], 1)
    for _ in range(2):
        x, pairs = layer(x, vec, index, p, gamma)
    diagonal, off = (so2.hamiltonian_blocks(t, BASIS.shells, weight=w) for t, w in ((x, p[5]), (pairs, p[6])))
    return BASIS.matrix(diagonal, off, index, numbers)


def complex_orders(z):
    """{m: [E, l = m.., C] complex}."""
    at = {row: i for i, row in enumerate(ROWS)}
    take = lambda m: z[:, [at[l, m] for l in range(abs(m), L + 1)]]
    return {m: torch.complex(take(m), take(-m) if m else torch.zeros_like(take(0))) for m in range(L + 1)}


def from_orders(z):
    parts = [z[0].real]
    for m in range(1, L + 1):
        parts += [z[m].real, z[m].imag]
    return torch.cat(parts, 1)


def complex_linear(z, weight, extra):
    """One complex matrix W1 + i W2 for every order."""
    out, at, first = {}, 0, None
    for m, (rows, cols) in enumerate(so2.weight_shapes(L, L, z[0].shape[2], C, extra)):
        w = weight[at : at + rows * cols].reshape(rows, cols)
        at += rows * cols
        w = w.to(torch.complex128) if m == 0 else torch.complex(*w.chunk(2))
        y = z[m].flatten(1) @ w.T
        if m == 0:
            first, y = y[:, :extra].real, y[:, extra:]
        out[m] = y.unflatten(1, (L + 1 - m, C))
    return first, out


def dense_pair_update(a, b, radial, w_in, w_out, w_norm, b_norm):
    """The same in complex numbers, one per pair +m, -m."""
    normed = []
    for t in (a, b):
        z, at = complex_orders(t), 0
        z[0] = z[0] - z[0].mean((1, 2), keepdim=True)
        for m in range(L + 1):
            z[m] = z[m] / (z[m].abs().square().mean((1, 2), keepdim=True) + 1e-5).sqrt() * w_norm[at : at + L + 1 - m]
            at += L + 1 - m
        z[0] = z[0] + b_norm
        normed.append(z)
    z = {m: torch.cat([n[m] for n in normed], 2) for m in range(L + 1)}
    z[0] = z[0] * radial.unflatten(1, (L + 1, 2 * C))
    gates, z = complex_linear(z, w_in, PAIRS * C)
    gates, at = gates.unflatten(1, (PAIRS, C)), 0
    z[0] = torch.nn.functional.silu(z[0].real).to(torch.complex128)
    for m in range(1, L + 1):
        z[m] = z[m] * gates[:, at : at + L + 1 - m].sigmoid()
        at += L + 1 - m
    return from_orders(complex_linear(z, w_out, 0)[1])


def test_pair_update() -> None:
    _, w_radial, w_in, w_out, _, _, _, w_norm, b_norm = parameters()
    a, b, radial = randn(4, len(ROWS), C), randn(4, len(ROWS), C, seed=1), randn(4, B, seed=2) @ w_radial
    ours = lambda a, b, r, *w: pair_update(a, b, r, w)
    agree(ours, dense_pair_update, a, b, radial, w_in, w_out, w_norm, b_norm)


def test_product_in_the_global_frame() -> None:
    """Rotated back, the product of a frame is equivariant: it turns with the nodes and the edge."""
    x, y, vec, w, R = randn(5, 25, C), randn(5, 25, C, seed=1), randn(5, 3, seed=2), parameters()[4], rotation(2)

    def f(x, y, vec):
        D = so2.wigner(vec, L)
        return so2.rotate_back(so2.so2_tensor_product(so2.rotate(x, D, L), so2.rotate(y, D, L), w, lmax=L), D, L)

    D = wigner_of(R, range(L + 1))
    want = D @ f(x, y, vec)
    assert (f(D @ x, D @ y, vec @ R.T) - want).abs().max() < 1e-12 * want.abs().max()


@pytest.mark.parametrize("name", MOLECULES)
def test_hamiltonian(name: str) -> None:
    """Symmetric, D H D^T for the turned molecule, whatever the turn of the frames about their edges."""
    numbers, positions, index = molecule(name)
    p = parameters()
    H = hamiltonian(positions, numbers, index, p)
    scale = H.abs().max()
    assert torch.equal(H, H.T)
    gamma = randn(index.shape[1], seed=3)
    assert (hamiltonian(positions, numbers, index, p, gamma) - H).abs().max() < 1e-11 * scale
    R = rotation(6)
    degrees = [l for z in numbers.tolist() for l in ((0, 0, 1) if z == 1 else (0, 0, 0, 1, 1, 2))]
    D = wigner_of(R, degrees)
    turned = hamiltonian(positions @ R.T - 0.5, numbers, index, p)
    assert (turned - D @ H @ D.T).abs().max() < 1e-11 * scale


@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_gradients_near_the_poles(off: float) -> None:
    """Of positions, twice, for a molecule along y and nearly along it."""
    numbers, positions, index = molecule("HCN")
    p, n = parameters(), BASIS.num_orbitals(numbers)
    r = (positions + off * randn(3, 3, seed=4)).requires_grad_()
    energy = lambda r: (hamiltonian(r, numbers, index, p) * randn(n, n, seed=8)).sum()
    assert torch.autograd.gradcheck(energy, r, fast_mode=True) and torch.autograd.gradgradcheck(energy, r, fast_mode=True)
