"""Tensor Decomposition Networks: a message-passing layer whose tensor products have coefficients of low rank and one weight for all
paths; edge attention over the scalars of a message; energies and forces."""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import random_coo
from structops import Graph
from structops.so2 import CPTensorProduct, irreps_attention, spherical_harmonics, wigner_3j
from torch.nn.functional import leaky_relu

SYSTEM = "TDN: attention over messages of CP-decomposed tensor products; energies and forces"
OPERATORS = (
    "structops.so2.CPTensorProduct",
    "structops.so2.irreps_attention",
    "structops.so2.spherical_harmonics",
)
N, E, L, U, H, B = 7, 30, 2, 4, 2, 3
D = (L + 1) ** 2


class Layer:
    """x + sum over edges of attention times a second product of the messages; the first product is summed as it is."""

    def __init__(self, rank: int | str) -> None:
        self.product = CPTensorProduct(L, L, L, rank, sweeps=20)
        index = random_coo(N, N, E, seed=4)
        self.index = index[:, index[0] != index[1]]
        self.graph = Graph(self.index, num_nodes=N)
        self.shapes = ((U, U), (U, U), (B, U), (B, U), (H, U // H))

    def weights(self):
        return [randn(*s, seed=7 + n) / 2 for n, s in enumerate(self.shapes)]

    def edges(self, positions):
        """Harmonics [E, D, 1] and a radial basis [E, B] of every edge."""
        d = positions[self.index[1]] - positions[self.index[0]]
        y = spherical_harmonics(range(L + 1), d, True, "component")
        return y.unsqueeze(-1), torch.exp(-(d.norm(dim=1, keepdim=True) - torch.linspace(0, 3, B, dtype=d.dtype)) ** 2)

    def __call__(self, positions, x, src, dst, radial, second, score):
        y, basis = self.edges(positions)
        total = self.product.conv(self.graph, x @ src, y, (basis @ radial)[..., None])
        u, v = self.index
        message = (x @ src)[u] + (x @ dst)[v]
        value = self.product(message, y, (basis @ second)[..., None])
        logits = (leaky_relu(value[:, 0].unflatten(1, (H, -1)), 0.2) * score).sum(-1)
        attended = irreps_attention(self.graph, None, None, value, L, heads=H, per_edge=True, bias=logits)
        return x + total / E**0.5 + attended

    def dense(self, positions, x, src, dst, radial, second, score):
        """Edge by edge, with the multiplied-out coefficients."""
        table = torch.einsum("ir,jr,kr->ijk", *self.product.factors)
        y, basis = self.edges(positions)
        rows = [x[v] for v in range(N)]
        for v in range(N):
            values, logits = [], []
            for e in (self.index[1] == v).nonzero().flatten().tolist():
                u = int(self.index[0, e])
                first = torch.einsum("ijk,ic,j->kc", table, x[u] @ src, y[e, :, 0]) * (basis[e] @ radial)
                rows[v] = rows[v] + first / E**0.5
                value = torch.einsum("ijk,ic,j->kc", table, x[u] @ src + x[v] @ dst, y[e, :, 0]) * (basis[e] @ second)
                values.append(value)
                logits.append((leaky_relu(value[0].reshape(H, -1), 0.2) * score).sum(-1))
            if values:
                alpha = torch.stack(logits).softmax(0).repeat_interleave(U // H, 1)
                rows[v] = rows[v] + (torch.stack(values) * alpha[:, None]).sum(0)
        return torch.stack(rows)


def exact_table() -> torch.Tensor:
    """All paths by the 3j symbols, component normalised, divided by the paths into each degree."""
    table = torch.zeros(D, D, D, dtype=torch.float64)
    part = lambda l: slice(l * l, (l + 1) ** 2)
    for c in range(L + 1):
        into = [(a, b) for a in range(L + 1) for b in range(L + 1) if abs(a - b) <= c <= a + b]
        for a, b in into:
            table[part(a), part(b), part(c)] = wigner_3j(a, b, c, torch.float64) * ((2 * c + 1) / len(into)) ** 0.5
    return table


def test_layer() -> None:
    """Values and gradients in features, positions and weights, at low and at full rank."""
    for rank in (28, "full"):
        layer = Layer(rank)
        agree(layer, layer.dense, randn(N, 3), randn(N, D, U, seed=1), *layer.weights(), tolerance=1e-9)


def test_factors_of_all_coefficients_are_the_exact_product() -> None:
    """One column for each coefficient that is not 0: the Clebsch-Gordan product to rounding, in the sum over edges too."""
    table, layer = exact_table(), Layer(1)
    i, j, k = table.nonzero().T
    eye = torch.eye(D, dtype=torch.float64)
    product = CPTensorProduct(L, L, L, factors=(eye[:, i], eye[:, j], eye[:, k] * table[i, j, k]))
    assert product.rank == len(i) and product.error < 1e-15
    y, basis = layer.edges(randn(N, 3))
    x, w = randn(N, D, U, seed=1), basis @ randn(B, U)

    def dense(x, y, w):
        messages = torch.einsum("ijk,eic,ejv,ecv->ekc", table, x[layer.index[0]], y, w)
        return torch.zeros(N, D, U, dtype=torch.float64).index_add(0, layer.index[1], messages)

    agree(lambda x, y, w: product.conv(layer.graph, x, y, w), dense, x, y, w[..., None], tolerance=1e-12)


def test_force_training() -> None:
    """The gradient of a force loss: double backward through the layer, against the same of the dense form."""
    layer = Layer(28)

    def loss(f):
        def call(positions, *rest):
            energy = f(positions, *rest)[:, 0].sum(1).tanh().sum()
            (force,) = torch.autograd.grad(energy, positions, create_graph=True)
            return energy + force.square().sum()

        return call

    agree(loss(layer), loss(layer.dense), randn(N, 3), randn(N, D, U, seed=1), *layer.weights(), tolerance=1e-8)
