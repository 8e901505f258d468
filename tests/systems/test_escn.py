"""eSCN and UMA: SO(2) convolutions in the edge frame equal tensor products with harmonics; the whole edge-wise layer."""

from __future__ import annotations

import torch
from agreement import agree, randn
from molecules import edge_vectors, molecule, rotation, wigner_of
from structops import Graph, so2
from structops.kernels.so2.wigner_ref import wigner_full

SYSTEM = "eSCN: SO(3) convolutions reduced to SO(2); UMA: the edge-wise layer with radial scales, gates and envelope"
OPERATORS = (
    "structops.so2.wigner", "structops.so2.rotate", "structops.so2.so2_linear", "structops.so2.rotate_back",
    "structops.so2.wigner_dense", "structops.so2.edge_block", "structops.so2.s2_activation",
)  # fmt: skip
L, M, C, H, B = 3, 2, 3, 4, 5  # degrees, orders kept, channels, hidden channels, radial functions
S = (L + 1) ** 2
silu = torch.nn.functional.silu


def place(l: int, m: int) -> int:
    return l * l + l + m


def test_reduction_theorem() -> None:
    """Weights h[mi, mo] = sum_lf w sqrt(2 lf + 1) 3j(li mi; lf 0; lo mo) give the whole Clebsch-Gordan convolution, to degree 4."""
    degree = 4
    vec = torch.cat([randn(5, 3), torch.tensor([[0.0, 2.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64)])
    x = randn(len(vec), (degree + 1) ** 2, 1, seed=1)
    y = so2.spherical_harmonics(list(range(2 * degree + 1)), vec, normalize=True, normalization="component")
    full, h = torch.zeros_like(x), torch.zeros((degree + 1) ** 2, (degree + 1) ** 2, dtype=torch.float64)
    seed = 10
    for li in range(degree + 1):
        for lo in range(degree + 1):
            for lf in range(abs(li - lo), li + lo + 1):
                w, seed = randn(1, seed=seed), seed + 1
                table = so2.wigner_3j(li, lf, lo, torch.float64)
                a, f, o = (slice(l * l, (l + 1) ** 2) for l in (li, lf, lo))
                full[:, o] += w * torch.einsum("ijk,eic,ej->ekc", table, x[:, a], y[:, f])
                h[o, a] += w * (2 * lf + 1) ** 0.5 * table[:, lf].T
    weights = []
    for m in range(degree + 1):
        up, down = ([place(l, s * m) for l in range(m, degree + 1)] for s in (1, -1))
        weights.append(h[up][:, up] if m == 0 else torch.cat([h[up][:, up], h[down][:, up]]))
        if m:  # the complex form that rotations about the axis force
            torch.testing.assert_close(h[down][:, down], h[up][:, up])
            torch.testing.assert_close(h[up][:, down], -h[down][:, up])
    orders = torch.tensor([m for l in range(degree + 1) for m in range(-l, l + 1)])
    assert bool((h[orders.abs()[:, None] != orders.abs()].abs() < 1e-14).all())  # fmt: skip
    for gamma in (None, randn(len(vec), seed=3)):  # and whatever the turn about the edge
        D = so2.wigner(vec, degree, gamma=gamma)
        reduced = so2.rotate_back(so2.so2_linear(so2.rotate(x, D, degree), weights, lmax=degree, out_channels=1), D, degree)
        assert (reduced - full).abs().max() < 1e-12 * full.abs().max()


def test_rotations_compose() -> None:
    """D D^T = 1, and features rotated with the edges have the same frame rows up to a turn about the edge."""
    vec, R = randn(6, 3), rotation(2)
    D = so2.wigner_dense(so2.wigner(vec, L), L)
    torch.testing.assert_close(D @ D.transpose(1, 2), torch.eye(S).double().expand(6, S, S))
    turned = so2.wigner_dense(so2.wigner(vec @ R.T, L), L) @ wigner_of(R, range(L + 1)) @ D.transpose(1, 2)
    torch.testing.assert_close(turned[:, : L + 1, : L + 1], torch.eye(L + 1).double().expand(6, L + 1, L + 1))


# ---- the layer of UMA ------------------------------------------------------------------------------------------------

WIDTHS = sum((L + 1 - m) * 2 * C for m in range(M + 1))


def parameters():
    shapes = [
        *so2.weight_shapes(L, M, 2 * C, H, extra=L * H),
        ((2 * L + 1) * H,),
        *so2.weight_shapes(L, M, H, C),
        ((L + 1) * C,),
    ]
    return [randn(WIDTHS, B, seed=50), randn(WIDTHS, seed=51), *(randn(*s, seed=60 + i) / 3 for i, s in enumerate(shapes))]


def ours(x, vec, radial, w_radial, b_radial, *p, graph):
    n = M + 1
    return so2.edge_block(
        x, vec, graph, p[:n], p[n], p[n + 1 : 2 * n + 1], p[-1], lmax=L, mmax=M, radial=radial, radial_weight=w_radial,
        radial_bias=b_radial, envelope=1 / (1 + vec.square().sum(1)),
    )  # fmt: skip


def frames(vec):
    """Another gauge: rotations of the edges onto y by Gram-Schmidt with a fixed vector."""
    e = vec / vec.norm(dim=1, keepdim=True)
    a = (
        torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
        - e * (e @ torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64))[:, None]
    )
    a = a / a.norm(dim=1, keepdim=True)
    return torch.stack([a, e, torch.linalg.cross(a, e)], 1)


def convolution(z, weights, bias, channels, extra=0):
    """z {(l, m): [E, Cin]}: for m = 0 a matrix, for m > 0 a complex one, in order (l, channel)."""
    flat = lambda m: torch.cat([z[l, m] for l in range(abs(m), L + 1)], 1)
    zero = flat(0) @ weights[0].T + bias
    found = {(l, 0): zero[:, extra + l * channels : extra + (l + 1) * channels] for l in range(L + 1)}
    for m in range(1, M + 1):
        real, imag = weights[m].chunk(2)
        plus, minus = flat(m) @ real.T - flat(-m) @ imag.T, flat(-m) @ real.T + flat(m) @ imag.T
        for k, l in enumerate(range(m, L + 1)):
            found[l, m], found[l, -m] = (t[:, k * channels : (k + 1) * channels] for t in (plus, minus))
    return zero[:, :extra], found


def dense(x, vec, radial, w_radial, b_radial, *p, index):
    src, dst = index
    n = M + 1
    D = [torch.block_diag(*(d[e] for d in wigner_full(frames(vec), L))) for e in range(len(vec))]
    both = torch.einsum("eij,ejc->eic", torch.stack(D), torch.cat([x[src], x[dst]], 2))
    scale, z, at = radial @ w_radial.T + b_radial, {}, 0
    for m in range(M + 1):
        for l in range(m, L + 1):
            for s in {m, -m}:
                z[l, s] = both[:, place(l, s)] * scale[:, at : at + 2 * C]
            at += 2 * C
    gates, hidden = convolution(z, p[:n], p[n], H, extra=L * H)
    gates = gates.sigmoid().split(H, 1)
    hidden = {(l, m): silu(v) if l == 0 else v * gates[l - 1] for (l, m), v in hidden.items()}
    _, z = convolution(hidden, p[n + 1 : 2 * n + 1], p[-1], C)
    zero = torch.zeros(len(vec), C, dtype=torch.float64)
    rows = torch.stack([z.get((l, m), zero) for l in range(L + 1) for m in range(-l, l + 1)], 1)
    messages = torch.einsum("eij,eic->ejc", torch.stack(D), rows) / (1 + vec.square().sum(1))[:, None, None]
    return torch.stack([messages[dst == v].sum(0) for v in range(len(x))])


def test_layer() -> None:
    """Values and gradients, forces through the frames included, against another gauge of the frames."""
    _, positions, index = molecule("HCN")
    graph, vec = Graph(index, num_nodes=3), edge_vectors(positions, index)
    agree(
        lambda *t: ours(*t, graph=graph), lambda *t: dense(*t, index=index), randn(3, S, C), vec, randn(len(vec), B, seed=4),
        *parameters(), tolerance=1e-9,
    )  # fmt: skip


def test_equivariance() -> None:
    _, positions, index = molecule("CH3OH")
    graph, x, radial, R = Graph(index, num_nodes=6), randn(6, S, C), randn(30, B, seed=4), rotation(1)
    D = wigner_of(R, range(L + 1))
    f = lambda x, r: ours(x, edge_vectors(r, index), radial, *parameters(), graph=graph)
    want = D @ f(x, positions)
    assert (f(D @ x, positions @ R.T - 1.0) - want).abs().max() < 1e-11 * want.abs().max()


def test_pointwise_function_on_the_sphere() -> None:
    """The node's nonlinearity is exact for a polynomial: x + x^2 on the grid is the product of functions on the sphere."""
    x, R = randn(4, S, 1), rotation(5)
    D = wigner_of(R, range(L + 1))
    ours = lambda x: so2.s2_activation(x, L, act=lambda f: f + f * f)
    points = randn(400, 3, seed=6)
    scale = torch.tensor([((2 * l + 1) * (L + 1)) ** -0.5 for l in range(L + 1) for _ in range(2 * l + 1)]).double()
    basis = so2.spherical_harmonics(list(range(2 * L + 1)), points, normalize=True, normalization="component")
    f = basis[:, :S] * scale @ x[..., 0].T
    wide = torch.linalg.lstsq(basis, f + f * f).solution[:S] / scale[:, None]  # f^2 has degree 2 L
    torch.testing.assert_close(ours(x)[..., 0], wide.T)
    torch.testing.assert_close(ours(D @ x), D @ ours(x))
