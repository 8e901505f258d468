"""TDN: the Clebsch-Gordan product in a rank-R form, projected at the nodes, summed over edges before it is expanded again.

The factors of edges, rank and channels are held: no operator fuses their product with the sum.
"""

from __future__ import annotations

import torch
from agreement import agree, randn
from molecules import closed_harmonics, edge_vectors, molecule, radial_basis, rotation, wigner_of
from structops import Graph, sddmm, so2, sparse, spmm

SYSTEM = "TDN: tensor decomposition networks, low-rank tensor products inside graph attention"
OPERATORS = (
    "structops.spmm", "structops.sddmm", "structops.sparse.edge_softmax", "structops.so2.wigner_3j",
    "structops.so2.spherical_harmonics",
)  # fmt: skip
L, C, B = 2, 3, 6
S = (L + 1) ** 2


def exact() -> torch.Tensor:
    """[S, S, S]: all paths with one shared weight."""
    M = torch.zeros(S, S, S, dtype=torch.float64)
    for i in range(L + 1):
        for j in range(L + 1):
            for k in range(abs(i - j), min(i + j, L) + 1):
                a, b, c = (slice(l * l, (l + 1) ** 2) for l in (i, j, k))
                M[a, b, c] = so2.wigner_3j(i, j, k, torch.float64)
    return M


def listed(M):
    """Factors [S, R] of rank R, the number of entries: one of each is exact."""
    at = M.nonzero(as_tuple=True)
    one = [torch.eye(S, dtype=torch.float64)[i].T.contiguous() for i in at]
    return one[0], one[1], one[2] * M[at]


def fitted(M, rank: int, rounds: int = 30):
    """Alternating least squares."""
    f = [randn(S, rank, seed=1 + i) for i in range(3)]
    for _ in range(rounds):
        for n in range(3):
            u, v = (f[m] for m in range(3) if m != n)
            pairs = torch.einsum("ar,br->abr", u, v).reshape(-1, rank)
            f[n] = torch.linalg.lstsq(pairs, M.movedim(n, 2).reshape(-1, S)).solution.T.contiguous()
    return tuple(f)


def layer(x, vec, w_radial, q, k, *, graph, factors):
    """Attention whose messages are products of both ends' features with the edge's harmonics, all scaled by a radial network."""
    a, b, c = factors
    y = so2.spherical_harmonics(list(range(L + 1)), vec, normalize=True, normalization="component")
    logits = sddmm(graph, x[:, 0] @ k, x[:, 0] @ q, "dot")[:, 0]
    alpha = sparse.edge_softmax(graph, logits)
    edge = (alpha[:, None, None] * (y @ b)[:, :, None]) * (radial_basis(vec.norm(dim=1), B) @ w_radial)[:, None]  # [E, R, C]
    projected = torch.einsum("nsc,sr->nrc", x, a)  # at nodes, not at edges
    summed = spmm(graph, projected, edge) + projected * spmm(graph, None, edge)
    return torch.einsum("nrc,sr->nsc", summed, c)


def dense(x, vec, w_radial, q, k, *, index, M):
    src, dst = index
    y, w = closed_harmonics(vec), radial_basis(vec.norm(dim=1), B) @ w_radial
    messages = torch.einsum("ijk,eic,ej,ec->ekc", M, x[src] + x[dst], y, w)
    logits = ((x[src, 0] @ k) * (x[dst, 0] @ q)).sum(1)
    rows = []
    for v in range(len(x)):
        into = (dst == v).nonzero()[:, 0]
        rows.append(torch.einsum("e,ekc->kc", torch.softmax(logits[into], 0), messages[into]))
    return torch.stack(rows)


def operands(positions, index):
    return randn(6, S, C), edge_vectors(positions, index), randn(B, C, seed=1), randn(C, C, seed=2) / 2, randn(C, C, seed=3) / 2


def test_layer() -> None:
    """Exact at the rank of the list of entries; at a lower rank equal to the tensor that its factors make."""
    _, positions, index = molecule("CH3OH")
    graph, M = Graph(index, num_nodes=6), exact()
    for factors, table in ((listed(M), M), ((low := fitted(M, 12)), torch.einsum("ir,jr,kr->ijk", *low))):
        agree(
            lambda *t, f=factors: layer(*t, graph=graph, factors=f), lambda *t, m=table: dense(*t, index=index, M=m),
            *operands(positions, index),
        )  # fmt: skip


def test_equivariance_and_its_error() -> None:
    """Exact factors give an equivariant layer; of low rank, ||D M^(x, y) - M^(D x, D y)|| <= 2 ||M^ - M|| ||x|| ||y||."""
    _, positions, index = molecule("C2H4")
    graph, M, R = Graph(index, num_nodes=6), exact(), rotation(2)
    D, x, *rest = wigner_of(R, range(L + 1)), *operands(positions, index)
    f = lambda x, r: layer(x, edge_vectors(r, index), *rest[1:], graph=graph, factors=listed(M))
    torch.testing.assert_close(f(D @ x, positions @ R.T + 1.0), D @ f(x, positions))
    errors = []
    for rank in (12, 36):
        table = torch.einsum("ir,jr,kr->ijk", *fitted(M, rank))
        errors.append(float((table - M).norm()))
        for seed in range(20):
            a, b = randn(S, seed=seed), randn(S, seed=seed + 50)
            D = wigner_of(rotation(seed), range(L + 1))
            apply = lambda t, u, v: torch.einsum("ijk,i,j->k", t, u, v)
            off = (D @ apply(table, a, b) - apply(table, D @ a, D @ b)).norm()
            assert off <= 2 * errors[-1] * a.norm() * b.norm()
    assert errors[1] < 0.5 * errors[0]


def test_forces() -> None:
    _, positions, index = molecule("H2O")
    graph, x = Graph(index, num_nodes=3), randn(3, S, C)
    w = [randn(B, C, seed=1), randn(C, C, seed=2), randn(C, C, seed=3)]
    energy = lambda r: layer(x, edge_vectors(r, index), *w, graph=graph, factors=listed(exact()))[:, 0].sin().sum()
    assert torch.autograd.gradgradcheck(energy, positions.clone().requires_grad_(), fast_mode=True)
