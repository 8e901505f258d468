"""Equiformer and EquiformerV2: attention whose scores come from the scalars of an equivariant message."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from molecules import edge_vectors, molecule, radial_basis, rotation, wigner_of
from structops import Graph, so2
from structops.kernels.so2.wigner_ref import wigner_full

SYSTEM = "Equiformer, EquiformerV2: equivariant graph attention by tensor products and by SO(2) convolutions"
OPERATORS = (
    "structops.so2.norm", "structops.so2.TensorProduct", "structops.so2.gate", "structops.so2.irreps_attention",
    "structops.so2.so2_linear", "structops.so2.so2_gate", "structops.so2.wigner", "structops.so2.rotate", "structops.so2.rotate_back",
)  # fmt: skip
L, C, H, A, B = 2, 4, 2, 3, 6  # degrees, channels, heads, scalars of the scores of a head, radial functions
S = (L + 1) ** 2
NODES, HARMONICS = so2.Irreps([(C, l, (-1) ** l) for l in range(L + 1)]), so2.Irreps.spherical_harmonics(L)
PATHS = [
    (i, j, k, "uvu", True) for i in range(L + 1) for j in range(L + 1) for k in range(L + 1) if abs(i - j) <= k <= i + j and (i + j + k) % 2 == 0
]  # fmt: skip
# Rows [(L + 1)^2, C] are flat rows of layout ir_mul.
DEPTHWISE = so2.TensorProduct(NODES, HARMONICS, NODES, PATHS, shared_weights=False, layout="ir_mul")
silu = torch.nn.functional.silu


def leaky(x):
    """A smooth leaky ReLU."""
    return 0.6 * x + 0.4 * x * (2 * torch.sigmoid(x) - 1)


def linear(x, w):
    """A matrix for every degree."""
    return torch.cat([x[:, l * l : (l + 1) ** 2] @ w[l] for l in range(L + 1)], 1)


def graph_of(name: str):
    _, positions, index = molecule(name)
    return Graph(index, num_nodes=len(positions)), positions, index


def softmax_sum(logits, values, index, nodes: int):
    """Dense attention: ``logits [E, H]``, ``values [E, S, C]`` with C in H groups."""
    out = []
    for v in range(nodes):
        into = torch.nonzero(index[1] == v)[:, 0]
        weights = torch.softmax(logits[into], 0).repeat_interleave(C // H, 1)
        out.append((weights[:, None] * values[into]).sum(0))
    return torch.stack(out)


# ---- Equiformer ------------------------------------------------------------------------------------------------------


def equiformer_parameters():
    shapes = [
        (L + 1, C),
        (C,),
        (L + 1, C, C),
        (L + 1, C, C),
        (B, DEPTHWISE.weight_numel),
        (C, H * A + C + L * C),
        (H, A),
        (L + 1, C, C),
    ]
    return [randn(*s, seed=80 + i) / 2 for i, s in enumerate(shapes)]


def message(x, vec, index, w_src, w_dst, w_radial, w_scalars):
    """(logit scalars, gates, depth-wise product) of every edge: linear maps of both ends, product with harmonics."""
    src, dst = index
    y = so2.spherical_harmonics(HARMONICS, vec, True, "component")
    w = radial_basis(vec.norm(dim=1), B) @ w_radial
    z = linear(x, w_src)[src] + linear(x, w_dst)[dst]
    return y, w, z, lambda product: (product[:, 0] @ w_scalars).split([H * A, C, L * C], 1)


def equiformer(x, vec, *p, graph: Graph, index):
    scale, shift, w_src, w_dst, w_radial, w_scalars, a, w_out = p
    normed = so2.norm(x, L, scale, shift, kind="layer_norm")
    y, w, z, heads = message(normed, vec, index, w_src, w_dst, w_radial, w_scalars)
    z = DEPTHWISE(z.flatten(1), y, w).unflatten(1, (S, C))
    scores, scalars, gates = heads(z)
    logits = (leaky(scores).unflatten(1, (H, A)) * a).sum(2)
    value = linear(so2.gate(torch.cat([scalars[:, None], z[:, 1:]], 1), gates, L), w_out)
    return x + so2.irreps_attention(graph, None, None, value, L, bias=logits, heads=H, per_edge=True)


def dense_equiformer(x, vec, *p, index):
    scale, shift, w_src, w_dst, w_radial, w_scalars, a, w_out = p
    parts = []
    for l in range(L + 1):
        part = x[:, l * l : (l + 1) ** 2]
        part = part - part.mean(2, keepdim=True) if l == 0 else part
        part = part / (part.square().mean((1, 2), keepdim=True) + 1e-5).sqrt() * scale[l]
        parts.append(part + shift if l == 0 else part)
    y, w, z, heads = message(torch.cat(parts, 1), vec, index, w_src, w_dst, w_radial, w_scalars)
    rows = [0.0] * (L + 1)
    for n, i in enumerate(DEPTHWISE.instructions):
        table = i.path_weight * so2.wigner_3j(i.i_in1, i.i_in2, i.i_out, torch.float64)
        a_, b_ = (slice(l * l, (l + 1) ** 2) for l in (i.i_in1, i.i_in2))
        rows[i.i_out] = rows[i.i_out] + torch.einsum("ijk,ziu,zj,zu->zku", table, z[:, a_], y[:, b_], w[:, n * C : (n + 1) * C])
    z = torch.cat(rows, 1)
    scores, scalars, gates = heads(z)
    logits = torch.einsum("eha,ha->eh", leaky(scores).reshape(-1, H, A), a)
    gated = [silu(scalars)[:, None]]
    gated += [z[:, l * l : (l + 1) ** 2] * gates[:, None, (l - 1) * C : l * C].sigmoid() for l in range(1, L + 1)]
    return x + softmax_sum(logits, linear(torch.cat(gated, 1), w_out), index, len(x))


def test_equiformer() -> None:
    graph, positions, index = graph_of("CH3OH")
    ours = lambda *t: equiformer(*t, graph=graph, index=index)
    agree(
        ours, lambda *t: dense_equiformer(*t, index=index), randn(6, S, C), edge_vectors(positions, index), *equiformer_parameters()
    )


@pytest.mark.parametrize("inversion", [False, True])
def test_equiformer_is_equivariant(inversion: bool) -> None:
    graph, positions, index = graph_of("C2H4")
    x, R = randn(6, S, C), rotation(1)
    D = wigner_of(R, range(L + 1))
    if inversion:
        R, D = -R, D @ torch.diag(torch.tensor([(-1.0) ** l for l in range(L + 1) for _ in range(2 * l + 1)], dtype=torch.float64))
    f = lambda x, r: equiformer(x, edge_vectors(r, index), *equiformer_parameters(), graph=graph, index=index)
    want = D @ f(x, positions)
    assert (f(D @ x, positions @ R.T + 2.0) - want).abs().max() < 1e-11 * want.abs().max()


# ---- EquiformerV2 ----------------------------------------------------------------------------------------------------

M = 1  # orders kept in the edge frame
EXTRA = H * A + L * C


def v2_parameters():
    numel = lambda shapes: sum(a * b for a, b in shapes)
    first, second = so2.weight_shapes(L, M, 2 * C, C, EXTRA), so2.weight_shapes(L, M, C, C)
    shapes = [(L + 1, C), (C,), (B, 2 * C), (numel(first),), (numel(second),), (H, A), (L + 1, C, C)]
    return [randn(*s, seed=90 + i) / 2 for i, s in enumerate(shapes)]


def equiformer_v2(x, vec, *p, graph: Graph, index, gamma=None):
    """Both ends in the edge frame, SO(2) convolution, scores from its extra scalars, gate, second convolution, attention."""
    scale, shift, w_radial, w1, w2, a, w_out = p
    src, dst = index
    D = so2.wigner(vec, L, M, gamma=gamma)
    normed = so2.norm(x, L, scale, shift)
    z = torch.cat([so2.rotate(normed[at], D, L, M) for at in (src, dst)], 2)
    extra, z = so2.so2_linear(
        z * (radial_basis(vec.norm(dim=1), B) @ w_radial)[:, None], w1, lmax=L, mmax=M, out_channels=C, extra=EXTRA
    )
    scores, gates = extra.split([H * A, L * C], 1)
    logits = (leaky(scores).unflatten(1, (H, A)) * a).sum(2)
    z = so2.so2_linear(
        so2.so2_gate(z, gates.unflatten(1, (L, C)), lmax=L, mmax=M, per_degree=True), w2, lmax=L, mmax=M, out_channels=C
    )
    value = so2.rotate_back(z, D, L, M)
    return x + linear(so2.irreps_attention(graph, None, None, value, L, bias=logits, heads=H, per_edge=True), w_out)


def in_frame(z, gates):
    """The gate of every degree on the rows of the edge frame, row by row."""
    degree = torch.tensor([l for l, _ in so2.frame_order(L, M)])
    factor = torch.cat([torch.ones_like(gates[:, :C]), gates.sigmoid()], 1).unflatten(1, (L + 1, C))[:, degree]
    return torch.cat([silu(z[:, :1]), (z * factor)[:, 1:]], 1)


def dense_v2(x, vec, *p, index):
    """Dense Wigner matrices of another frame (the third axis turned onto y by a reflection), block matrices for every order."""
    scale, shift, w_radial, w1, w2, a, w_out = p
    squares = torch.cat([x[:, :1] - x[:, :1].mean(2, keepdim=True), x[:, 1:]], 1)
    degree = torch.tensor([l for l in range(L + 1) for _ in range(2 * l + 1)])
    q = (squares.square() / (2 * degree[:, None] + 1)).sum(1, keepdim=True).mean(2, keepdim=True) / (L + 1)
    normed = squares / (q + 1e-5).sqrt() * scale[degree]
    normed = torch.cat([normed[:, :1] + shift, normed[:, 1:]], 1)
    e = vec / vec.norm(dim=1, keepdim=True)
    helper = torch.tensor([0.3, -0.5, 0.8], dtype=x.dtype).expand_as(e)
    u = torch.linalg.cross(e, helper)
    u = u / u.norm(dim=1, keepdim=True)
    R = torch.stack([u, e, torch.linalg.cross(u, e)], 1)
    blocks = wigner_full(R, L)
    rows = [(l, m) for l, m in so2.frame_order(L, M)]
    D = torch.zeros(len(e), len(rows), S, dtype=x.dtype)
    for i, (l, m) in enumerate(rows):
        D[:, i, l * l : (l + 1) ** 2] = blocks[l][:, l + m]
    z = D @ torch.cat([normed[at] for at in index], 2) * (radial_basis(vec.norm(dim=1), B) @ w_radial)[:, None]

    def convolution(z, weight, out, extra):
        found, at, row, first = [], 0, 0, None
        for m, (r, c) in enumerate(so2.weight_shapes(L, M, z.shape[2], out, extra)):
            w = weight[at : at + r * c].reshape(r, c)
            at, n = at + r * c, L + 1 - m
            if m == 0:
                y = z[:, :n].flatten(1) @ w.T
                first, y = y[:, :extra], y[:, extra:]
                row += n
            else:
                w1, w2 = w.chunk(2)
                y = z[:, row : row + 2 * n].flatten(1) @ torch.cat([torch.cat([w1, -w2], 1), torch.cat([w2, w1], 1)]).T
                row += 2 * n
            found.append(y.unflatten(1, (-1, out)))
        return first, torch.cat(found, 1)

    extra, z = convolution(z, w1, C, EXTRA)
    logits = torch.einsum("eha,ha->eh", leaky(extra[:, : H * A]).reshape(-1, H, A), a)
    _, z = convolution(in_frame(z, extra[:, H * A :]), w2, C, 0)
    return x + linear(softmax_sum(logits, D.transpose(1, 2) @ z, index, len(x)), w_out)


@pytest.mark.parametrize("name", ["CH3OH", "HCN"])
def test_equiformer_v2(name: str) -> None:
    """In any frame the same, edges along y included."""
    graph, positions, index = graph_of(name)
    ours = lambda *t: equiformer_v2(*t, graph=graph, index=index)
    inputs = randn(len(positions), S, C), edge_vectors(positions, index), *v2_parameters()
    agree(ours, lambda *t: dense_v2(*t, index=index), *inputs)


def test_equiformer_v2_is_equivariant() -> None:
    graph, positions, index = graph_of("C2H4")
    x, R, gamma = randn(6, S, C), rotation(1), randn(index.shape[1], seed=2)
    D = wigner_of(R, range(L + 1))
    f = lambda x, r, g=None: equiformer_v2(x, edge_vectors(r, index), *v2_parameters(), graph=graph, index=index, gamma=g)
    want = D @ f(x, positions)
    for turned in (None, gamma):
        assert (f(D @ x, positions @ R.T + 2.0, turned) - want).abs().max() < 1e-11 * want.abs().max()


def test_second_derivatives() -> None:
    """Gradients of forces, along y too."""
    graph, positions, index = graph_of("HCN")
    x, p = randn(3, S, C), v2_parameters()
    energy = lambda r: equiformer_v2(x, edge_vectors(r, index), *p, graph=graph, index=index)[:, 0].sin().sum()
    assert torch.autograd.gradgradcheck(energy, positions.clone().requires_grad_(), fast_mode=True)
