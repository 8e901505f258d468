"""GLGENN: linear maps, norms and products whose weights depend on grades modulo 4; orthogonal maps of the input commute with it."""

from __future__ import annotations

import torch
from agreement import agree, randn
from structops.so2 import CliffordAlgebra

SYSTEM = "GLGENN: layer of quaternion-type linear map, norm and weighted geometric product"
OPERATORS = ("structops.so2.CliffordAlgebra",)
B, C, O = 4, 3, 2


class Layer:
    """y = linear(x) + product(x, norm(linear(x)))."""

    def __init__(self, signature) -> None:
        self.algebra = A = CliffordAlgebra(signature)
        self.kind = torch.tensor(A.types("quaternion"))
        T = int(self.kind.max()) + 1
        self.shapes = ((C, C, T), (C, T), (C, len(A.paths("quaternion"))), (O, C, T))

    def weights(self):
        return [randn(*s, seed=5 + k) / C**0.5 for k, s in enumerate(self.shapes)]

    def linear(self, x, w):
        return torch.einsum("oci,bci->boi", w[:, :, self.kind], x)

    def normalised(self, x, a):
        size = torch.sigmoid(a) * (self.algebra.norm(x, "quaternion") - 1) + 1 + 1e-6
        return x / size[..., self.kind]

    def __call__(self, x, right, a, path, left):
        z = self.normalised(self.linear(x, right), a)
        return self.linear(x, left) + self.linear(self.algebra.weighted_product(x, z, path, "quaternion"), left)

    def dense(self, x, right, a, path, left):
        """Tables [C, dim, dim, dim] of signs times weights, and sums over every entry."""
        A, kind = self.algebra, self.kind
        table = x.new_zeros(A.dim, A.dim, A.dim)
        for i, p in enumerate(A.blades):
            for k, q in enumerate(A.blades):
                word, sign = list(p + q), 1
                for _ in word:  # bubble sort, then squares of equal neighbours
                    for n in range(len(word) - 1):
                        if word[n] > word[n + 1]:
                            word[n], word[n + 1], sign = word[n + 1], word[n], -sign
                for g in set(word):
                    if word.count(g) == 2:
                        word, sign = [h for h in word if h != g], sign * A.metric[g - 1]
                table[i, A.blades.index(tuple(word)), k] = sign
        mix = lambda t, w: sum(w[None, :, c, kind] * t[:, None, c] for c in range(C))
        z = mix(x, right)
        form = torch.stack([table[i, 0, i] for i in range(A.dim)]) * A.reverse(torch.ones(A.dim, dtype=x.dtype))
        q = torch.stack([(form * z * z)[..., kind == t].sum(-1) for t in range(int(kind.max()) + 1)], -1)
        z = z / (torch.sigmoid(a) * ((q * q + 1e-16) ** 0.25 - 1) + 1 + 1e-6)[..., kind]
        w = x.new_zeros(C, A.dim, A.dim, A.dim)
        number = {p: n for n, p in enumerate(A.paths("quaternion"))}
        for i, j, k in table.nonzero().tolist():
            w[:, i, j, k] = path[:, number[int(kind[i]), int(kind[j]), int(kind[k])]] * table[i, j, k]
        return mix(x, left) + mix(torch.einsum("bci,cijk,bck->bcj", x, w, z), left)


def test_layer() -> None:
    for signature in ((1,), (2,), (3,), (1, 1, 1), (4,), (5,)):
        layer = Layer(signature)
        agree(layer, layer.dense, randn(B, C, layer.algebra.dim), *layer.weights(), tolerance=1e-9)


def test_equivariance() -> None:
    """Under O(p, q): a rotation of the positive part or a boost, and a reflection; embedded vectors and any multivectors."""
    for signature in ((3,), (1, 3), (5,)):
        layer = Layer(signature)
        A = layer.algebra
        K = randn(A.n, A.n, seed=1) / 2
        M = torch.linalg.matrix_exp(torch.diag(torch.tensor(A.metric, dtype=torch.float64)) @ (K - K.T))
        M[:, -1] *= -1
        R = torch.zeros(A.dim, A.dim, dtype=torch.float64)
        for i, p in enumerate(A.blades):
            for k, q in enumerate(A.blades):
                if len(p) == len(q):
                    R[i, k] = torch.linalg.det(M[[g - 1 for g in p]][:, [g - 1 for g in q]]) if p else 1.0
        x, w = randn(B, C, A.dim), layer.weights()
        torch.testing.assert_close(layer(x @ R.T, *w), layer(x, *w) @ R.T, atol=1e-8, rtol=1e-8)
        v = randn(B, C, A.n, seed=2)
        torch.testing.assert_close(layer(A.embed(v @ M.T), *w), layer(A.embed(v), *w) @ R.T, atol=1e-8, rtol=1e-8)


def test_parameters() -> None:
    """Types modulo 4 need fewer weights than grades from n = 4 on: 32 paths at n = 5 instead of 56."""
    count = lambda n, t: len(CliffordAlgebra((n,)).paths(t))
    assert [count(n, "grade") for n in range(7)] == [1, 4, 10, 20, 35, 56, 84]
    assert [count(n, "quaternion") for n in range(7)] == [1, 4, 10, 20, 29, 32, 32]
