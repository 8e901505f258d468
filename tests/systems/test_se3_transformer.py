"""SE(3)-Transformer and its guide (TFN layers): keys and values of edges by tensor-field convolution, attention over them."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import edge_vectors, molecule, radial_basis, rotation, wigner_of
from structops import Graph, so2

SYSTEM = "SE(3)-Transformer; spherical equivariant graph transformers: attention over tensor-field convolutions"
OPERATORS = (
    "structops.so2.TensorProduct", "structops.so2.tp_conv", "structops.so2.irreps_attention", "structops.so2.gate",
    "structops.so2.inner_product", "structops.so2.so2_linear", "structops.so2.wigner_3j",
)  # fmt: skip
L, C, H, B = 2, 4, 2, 6
S = (L + 1) ** 2
NODES, HARMONICS = so2.Irreps([(C, l, (-1) ** l) for l in range(L + 1)]), so2.Irreps.spherical_harmonics(L)
PATHS = [
    (i, j, k) for i in range(L + 1) for j in range(L + 1) for k in range(L + 1) if abs(i - j) <= k <= i + j and (i + j + k) % 2 == 0
]
# Rows [(L + 1)^2, C] are flat rows of layout ir_mul; radial weights [C, 1, C] of every edge and path mix the channels.
FIELD = so2.TensorProduct(NODES, HARMONICS, NODES, [(*p, "uvw", True) for p in PATHS], shared_weights=False, layout="ir_mul")


def harmonics(vec):
    return so2.spherical_harmonics(HARMONICS, vec, True, "component")


def kernel(vec, w):
    """W^{lk}(r) = sum_J phi_J^{lk}(|r|) sum_m Y_Jm(r) Q_Jm^{lk}: ``[E, (L + 1)^2, C, (L + 1)^2, C]``, the explicit basis."""
    y, weights = harmonics(vec), radial_basis(vec.norm(dim=1), B) @ w
    W = [[0.0] * (L + 1) for _ in range(L + 1)]
    for n, i in enumerate(FIELD.instructions):
        Q = i.path_weight * so2.wigner_3j(i.i_in1, i.i_in2, i.i_out, torch.float64)
        basis = torch.einsum("ijk,ej->eki", Q, y[:, i.i_in2**2 : (i.i_in2 + 1) ** 2])
        phi = weights[:, n * C * C : (n + 1) * C * C].reshape(-1, C, C)
        W[i.i_out][i.i_in1] = W[i.i_out][i.i_in1] + torch.einsum("eki,euw->ekwiu", basis, phi)
    return torch.cat([torch.cat(row, 3) for row in W], 1)


def norm_nonlinearity(x, w, b):
    """x / |x| relu(|x| w + b), copy by copy."""
    n = (so2.inner_product(x, x, L) + 1e-12).sqrt()
    factor = torch.relu(n * w + b) / n
    return so2.gate(x, factor[:, C:], L, act=lambda s: s * factor[:, None, :C], gate_act="identity")


def layer(x, vec, wq, wk, wv, w, b, *, graph: Graph, index):
    y, basis = harmonics(vec), radial_basis(vec.norm(dim=1), B)
    sources = x[index[0]].flatten(1)
    key, value = (FIELD(sources, y, basis @ t).unflatten(1, (S, C)) for t in (wk, wv))
    query = torch.cat([x[:, l * l : (l + 1) ** 2] @ wq[l] for l in range(L + 1)], 1)
    return norm_nonlinearity(x + so2.irreps_attention(graph, query, key, value, L, heads=H, per_edge=True), w, b)


def dense_layer(x, vec, wq, wk, wv, w, b, *, index):
    src, dst = index
    key, value = (torch.einsum("ekwiu,eiu->ekw", kernel(vec, t), x[src]) for t in (wk, wv))
    query = torch.cat([x[:, l * l : (l + 1) ** 2] @ wq[l] for l in range(L + 1)], 1)
    products = (query[dst] * key).unflatten(2, (H, C // H)).sum((1, 3)) / (S * C / H) ** 0.5
    out = []
    for v in range(len(x)):
        into = torch.nonzero(dst == v)[:, 0]
        weights = torch.softmax(products[into], 0).repeat_interleave(C // H, 1)
        out.append((weights[:, None] * value[into]).sum(0))
    out = x + torch.stack(out)
    parts = []
    for l in range(L + 1):
        part = out[:, l * l : (l + 1) ** 2]
        n = (part.square().sum(1, keepdim=True) + 1e-12).sqrt()
        parts.append(part / n * torch.relu(n * w[l * C : (l + 1) * C] + b[l * C : (l + 1) * C]))
    return torch.cat(parts, 1)


def parameters():
    shapes = [(L + 1, C, C), (B, FIELD.weight_numel), (B, FIELD.weight_numel), ((L + 1) * C,), ((L + 1) * C,)]
    return [randn(*s, seed=70 + i) / 2 for i, s in enumerate(shapes)]


def test_layer() -> None:
    _, positions, index = molecule("CH3OH")
    graph = Graph(index, num_nodes=6)
    ours = lambda *t: layer(*t, graph=graph, index=index)
    agree(ours, lambda *t: dense_layer(*t, index=index), randn(6, S, C), edge_vectors(positions, index), *parameters())


def test_convolution_three_ways() -> None:
    """The explicit kernel, the tensor product with the sum fused, and SO(2) maps in the edge frame, edges along y included."""
    _, positions, index = molecule("HCN")
    vec = torch.cat([edge_vectors(positions, index), randn(5, 3)])
    index = torch.cat([index, torch.tensor([[0, 0, 1, 2, 2], [1, 2, 2, 0, 1]])], 1)
    graph, x, w = Graph(index, num_nodes=3), randn(3, S, C, seed=1), randn(B, FIELD.weight_numel, seed=2)
    basis = torch.einsum("ekwiu,eiu->ekw", kernel(vec, w), x[index[0]])
    product = so2.tp_conv(graph, x.flatten(1), harmonics(vec), radial_basis(vec.norm(dim=1), B) @ w, FIELD).unflatten(1, (S, C))
    D = so2.wigner(vec, L)
    z = so2.rotate(x[index[0]], D, L)
    rows = so2.frame_order(L)
    place = torch.tensor([l * l + l + m for l, m in rows])
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    frame = []
    for e in range(len(vec)):  # every edge has a radial kernel, and so an SO(2) map, of its own
        W = kernel(up * vec[e].norm(), w)[0][place][:, :, place]
        weights, at = [], 0
        for m in range(L + 1):
            n = L + 1 - m
            signs = (
                [W[at : at + n, :, at : at + n]]
                if m == 0
                else [W[at : at + n, :, at : at + n], W[at + n : at + 2 * n, :, at : at + n]]
            )
            weights.append(torch.cat([s.reshape(n * C, n * C) for s in signs]))
            at += n * (1 + (m > 0))
        frame.append(so2.so2_linear(z[e : e + 1], weights, lmax=L, out_channels=C))
    reduced = so2.rotate_back(torch.cat(frame), D, L)
    sums = lambda t: torch.stack([t[index[1] == v].sum(0) for v in range(3)])
    for got in (product, sums(reduced)):
        assert (got - sums(basis)).abs().max() < 1e-11 * product.abs().max()


def test_coupling_by_its_equation() -> None:
    """Q as the null space of (D_k (x) D_l (x) D_J) Q = Q is the table of Wigner 3j symbols, up to sign."""
    turns = [rotation(s) for s in range(3)]
    for k, l, J in ((1, 1, 0), (1, 1, 1), (2, 1, 1), (2, 2, 2), (1, 2, 3)):
        condition = torch.cat([
            torch.kron(torch.kron(wigner_of(R, [k]), wigner_of(R, [l])), wigner_of(R, [J])) - torch.eye((2 * k + 1) * (2 * l + 1) * (2 * J + 1))
            for R in turns
        ])  # fmt: skip
        _, s, V = torch.linalg.svd(condition)
        assert s[-1] < 1e-10 < 1e-3 < s[-2]
        table = so2.wigner_3j(k, l, J, torch.float64).flatten()
        assert min((V[-1] - table).abs().max(), (V[-1] + table).abs().max()) < 1e-10


@pytest.mark.parametrize("inversion", [False, True])
def test_equivariance(inversion: bool) -> None:
    """Outputs turn; attention weights do not: values of degree 0 are the same numbers."""
    _, positions, index = molecule("C2H4")
    graph, x, R = Graph(index, num_nodes=6), randn(6, S, C), rotation(1)
    D = wigner_of(R, range(L + 1))
    if inversion:
        R, D = -R, D @ torch.diag(torch.tensor([(-1.0) ** l for l in range(L + 1) for _ in range(2 * l + 1)], dtype=torch.float64))
    f = lambda x, r: layer(x, edge_vectors(r, index), *parameters(), graph=graph, index=index)
    want = D @ f(x, positions)
    assert (f(D @ x, positions @ R.T - 1.0) - want).abs().max() < 1e-11 * want.abs().max()
    assert (f(D @ x, positions @ R.T)[:, 0] - f(x, positions)[:, 0]).abs().max() < 1e-11 * want.abs().max()


def test_second_derivatives() -> None:
    _, positions, index = molecule("H2O")
    graph, x, p = Graph(index, num_nodes=3), randn(3, S, C), parameters()
    p[-1] = p[-1].abs() + 1  # away from the kink of ReLU
    energy = lambda r: layer(x, edge_vectors(r, index), *p, graph=graph, index=index)[:, 0].sin().sum()
    assert torch.autograd.gradgradcheck(energy, positions.clone().requires_grad_(), fast_mode=True)
