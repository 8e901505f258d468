"""QHNet: tensor-product convolutions with norm gates, products of pairs, and Hamiltonian blocks by Clebsch-Gordan expansion."""

from __future__ import annotations

import pytest
import structops
import torch
from agreement import agree, randn
from molecules import MOLECULES, edge_vectors, molecule, radial_basis, rotation, wigner_of
from structops import so2

SYSTEM = "QHNet: Hamiltonian matrices from tensor products of irreps"
OPERATORS = (
    "structops.so2.tp_conv", "structops.so2.TensorProduct", "structops.so2.gate", "structops.so2.inner_product",
    "structops.so2.hamiltonian_blocks", "structops.so2.OrbitalBasis", "structops.so2.spherical_harmonics",
)  # fmt: skip
L, C, B = 4, 2, 6
S = (L + 1) ** 2
BASIS = so2.OrbitalBasis({1: "2s1p", 6: "3s2p1d", 7: "3s2p1d", 8: "3s2p1d"})  # def2-SVP
HARMONICS = so2.Irreps.spherical_harmonics(L)
NODES = so2.Irreps([(C, l, (-1) ** l) for l in range(L + 1)])
PAIRS = so2.Irreps([(C, l, 1) for l in range(L + 1)])  # all even: every degree meets every other, rotations only


def paths(a: so2.Irreps, b: so2.Irreps, out: so2.Irreps, mode: str) -> list[tuple]:
    return [
        (i, j, k, mode, True)
        for i, x in enumerate(a) for j, y in enumerate(b) for k, z in enumerate(out)
        if x.p * y.p == z.p and abs(x.l - y.l) <= z.l <= x.l + y.l
    ]  # fmt: skip


def product(a, b, out, mode: str) -> so2.TensorProduct:
    # Rows [(L + 1)^2, C] are flat rows of layout ir_mul.
    return so2.TensorProduct(a, b, out, paths(a, b, out, mode), shared_weights=False, layout="ir_mul")


CONV, PAIR = product(NODES, HARMONICS, NODES, "uvu"), product(PAIRS, PAIRS, PAIRS, "uuu")


def dense_product(p: so2.TensorProduct, x, y, w):
    """Path by path with dense tables; x ``[Z, S, C]``, y ``[Z, S]`` or ``[Z, S, C]``, w ``[Z, paths C]``."""
    out = torch.zeros_like(x)
    rows = lambda l: slice(l * l, (l + 1) ** 2)
    for n, i in enumerate(p.instructions):
        table = i.path_weight * so2.wigner_3j(i.i_in1, i.i_in2, i.i_out, torch.float64)
        form = "ijk,ziu,zj,zu->zku" if y.dim() == 2 else "ijk,ziu,zju,zu->zku"
        z = torch.einsum(form, table, x[:, rows(i.i_in1)], y[:, rows(i.i_in2)], w[:, n * C : (n + 1) * C])
        out = out + torch.cat([z if l == i.i_out else torch.zeros_like(out[:, rows(l)]) for l in range(L + 1)], 1)
    return out


def mlp(x, *w):
    for m in w[:-1]:
        x = torch.nn.functional.silu(x @ m)
    return x @ w[-1]


def linear(x, w):
    """A matrix for every degree."""
    return torch.cat([x[:, l * l : (l + 1) ** 2] @ w[l] for l in range(L + 1)], 1)


def invariants(x, index):
    """[x_i^0, x_j^0, <x_i^l, x_j^l> / (2 l + 1)] of every edge."""
    src, dst = index
    scale = torch.repeat_interleave(1 / torch.arange(1, 2 * L + 2, 2, dtype=x.dtype), C)
    return torch.cat([x[dst, 0], x[src, 0], (so2.inner_product(x[dst], x[src], L) * scale)[:, C:]], 1)


def norm_gate(x, *w):
    """Scalars and gates from the scalars and the norms of the rest."""
    norms = (so2.inner_product(x, x, L)[:, C:] + 1e-12).sqrt()
    scalars, gates = mlp(torch.cat([x[:, 0], norms], 1), *w).split([C, L * C], 1)
    return so2.gate(torch.cat([scalars[:, None], x[:, 1:]], 1), gates, L, act="identity", gate_act="identity")


def parameters():
    K = BASIS.irreps.num_irreps
    shapes = [
        (9, C), (L + 1, C, C), (B, CONV.weight_numel), ((L + 2) * C, 5), (5, CONV.weight_numel), ((L + 1) * C, 5), (5, (L + 1) * C),
        (L + 1, C, C), (B, PAIR.weight_numel), (2 * C, 5), (5, K * C), (C, 5), (5, K * C),
    ]  # fmt: skip
    return [randn(*s, seed=40 + i) / 3 for i, s in enumerate(shapes)]


def convolution(graph, index, x, vec, w_node, w_radial, *w_inv):
    """sum_j TP(x_j, Y(r_ij); w_ij), w_ij = radial network times network of the invariants."""
    y = so2.spherical_harmonics(HARMONICS, vec, True, "component")
    w = (radial_basis(vec.norm(dim=1), B) @ w_radial) * mlp(invariants(x, index), *w_inv)
    return so2.tp_conv(graph, linear(x, w_node).flatten(1), y, w, CONV).unflatten(1, (S, C))


def hamiltonian(positions, numbers, index, p):
    graph = structops.Graph(index, num_nodes=len(numbers))
    vec = edge_vectors(positions, index)
    embedding, w_node, w_radial, i1, i2, g1, g2, w_self, w_pair, o1, o2, d1, d2 = p
    x = torch.cat([embedding[numbers][:, None], torch.zeros(len(numbers), S - 1, C, dtype=positions.dtype)], 1)
    for _ in range(2):
        x = x + norm_gate(convolution(graph, index, x, vec, w_node, w_radial, i1, i2), g1, g2)
    src, dst = index
    u = linear(x, w_self)
    w = radial_basis(vec.norm(dim=1), B) @ w_pair
    pair = PAIR(u[src].flatten(1), u[dst].flatten(1), w).unflatten(1, (S, C))
    expand = lambda f, w: so2.hamiltonian_blocks(f, BASIS.shells, weight=w.unflatten(1, (-1, C)))
    off = expand(pair, mlp(torch.cat([x[src, 0], x[dst, 0]], 1), o1, o2))
    return BASIS.matrix(expand(x, mlp(x[:, 0], d1, d2)), off, index, numbers)


def test_paths() -> None:
    """42 paths of a convolution up to degree 4, 65 of a pair."""
    assert len(CONV.instructions) == 42 and len(PAIR.instructions) == 65


def test_convolution() -> None:
    numbers, positions, index = molecule("CH3OH")
    graph, N = structops.Graph(index, num_nodes=6), len(numbers)
    _, w_node, w_radial, i1, i2, *_ = parameters()

    def dense(x, vec, w_node, w_radial, i1, i2):
        y = so2.spherical_harmonics(HARMONICS, vec, True, "component")
        w = (radial_basis(vec.norm(dim=1), B) @ w_radial) * mlp(invariants(x, index), i1, i2)
        message = dense_product(CONV, linear(x, w_node)[index[0]], y, w)
        return torch.stack([message[index[1] == v].sum(0) for v in range(N)])

    ours = lambda *a: convolution(graph, index, *a)
    agree(ours, dense, randn(N, S, C), edge_vectors(positions, index), w_node, w_radial, i1, i2)


def test_convolution_equals_e3nn(float64_default: None) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    numbers, positions, index = molecule("C2H4")
    graph, E = structops.Graph(index, num_nodes=len(numbers)), index.shape[1]
    triples = paths(NODES, HARMONICS, NODES, "uvu")
    peer = o3.TensorProduct(str(NODES), str(HARMONICS), str(NODES), triples, shared_weights=False, internal_weights=False)
    ours = so2.TensorProduct(NODES, HARMONICS, NODES, triples, shared_weights=False)

    def layer(tp, sum_up):
        def f(x, vec, w):
            return sum_up(tp, x, o3.spherical_harmonics(range(L + 1), vec, True, "component"), w)

        return f

    gathered = lambda tp, x, y, w: x.new_zeros(x.shape).index_add(0, index[1], tp(x[index[0]], y, w))
    fused = lambda tp, x, y, w: so2.tp_conv(graph, x, y, w, tp)
    agree(
        layer(ours, fused),
        layer(peer, gathered),
        randn(len(numbers), NODES.dim),
        edge_vectors(positions, index),
        randn(E, ours.weight_numel),
    )


def test_pairs() -> None:
    x, y, w = randn(5, S, C), randn(5, S, C, seed=1), randn(5, PAIR.weight_numel, seed=2)
    ours = lambda x, y, w: PAIR(x.flatten(1), y.flatten(1), w).unflatten(1, (S, C))
    agree(ours, lambda *a: dense_product(PAIR, *a), x, y, w)


@pytest.mark.parametrize("name", MOLECULES)
def test_hamiltonian(name: str) -> None:
    """Symmetric; D H D^T for the turned molecule; unmoved by translations; the order of atoms is that of its blocks."""
    numbers, positions, index = molecule(name)
    p = parameters()
    H = hamiltonian(positions, numbers, index, p)
    scale = H.abs().max()
    assert H.shape == (BASIS.num_orbitals(numbers),) * 2 and torch.equal(H, H.T)
    R = rotation(5)
    degrees = [l for z in numbers.tolist() for l in ((0, 0, 1) if z == 1 else (0, 0, 0, 1, 1, 2))]
    D = wigner_of(R, degrees)
    turned = hamiltonian(positions @ R.T + 1.5, numbers, index, p)
    assert (turned - D @ H @ D.T).abs().max() < 1e-10 * scale
    order = torch.argsort(randn(len(numbers), seed=3))
    at = torch.argsort(order)
    ends = torch.tensor([5 if z == 1 else 14 for z in numbers.tolist()]).cumsum(0).tolist()
    rows = torch.cat([torch.arange(ends[a] - (5 if numbers[a] == 1 else 14), ends[a]) for a in order.tolist()])
    assert (hamiltonian(positions[order], numbers[order], at[index], p) - H[rows][:, rows]).abs().max() < 1e-10 * scale


def test_gradients() -> None:
    """Of positions, twice: finite differences of the matrix of water along a direction, and of its gradient."""
    numbers, positions, index = molecule("H2O")
    p = parameters()
    n = BASIS.num_orbitals(numbers)
    energy = lambda r: (hamiltonian(r, numbers, index, p) * randn(n, n, seed=8)).sum()
    r = positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, r, fast_mode=True) and torch.autograd.gradgradcheck(energy, r, fast_mode=True)
