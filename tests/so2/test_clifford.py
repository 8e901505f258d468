"""CliffordAlgebra: against words of generators multiplied by hand, matrix representations, dense tables; equivariance."""

from __future__ import annotations

import itertools

import pytest
import torch
from structops.so2 import CliffordAlgebra
from torch.autograd import gradcheck, gradgradcheck

SIGNATURES = [(0,), (1,), (2,), (0, 2), (3,), (1, 3), (3, 0, 1), (2, 1, 1), (0, 0, 2), (4, 1), (5,), (6,), (3, 2, 1)]
SMALL = [s for s in SIGNATURES if sum(s) <= 4]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def word_product(word: tuple[int, ...], metric: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A word of generators brought to increasing order by swaps of neighbours and squares."""
    letters, sign = list(word), 1
    i = 0
    while i + 1 < len(letters):
        a, b = letters[i], letters[i + 1]
        if a == b:
            sign *= metric[a - 1]
            del letters[i : i + 2]
            i = max(i - 1, 0)
        elif a > b:
            letters[i], letters[i + 1], sign = b, a, -sign
            i = max(i - 1, 0)
        else:
            i += 1
    return tuple(letters), sign


def cayley(A: CliffordAlgebra) -> torch.Tensor:
    """[i, j, k]: blade i times blade k in blade j."""
    place = {b: i for i, b in enumerate(A.blades)}
    table = torch.zeros(A.dim, A.dim, A.dim, dtype=torch.float64)
    for (i, a), (k, b) in itertools.product(enumerate(A.blades), repeat=2):
        blade, sign = word_product(a + b, A.metric)
        table[i, place[blade], k] = sign
    return table


def outermorphism(A: CliffordAlgebra, M: torch.Tensor) -> torch.Tensor:
    """The action of a linear map of vectors on multivectors: minors of M."""
    big = torch.zeros(A.dim, A.dim, dtype=torch.float64)
    for (i, a), (j, b) in itertools.product(enumerate(A.blades), repeat=2):
        if len(a) == len(b):
            part = M[[g - 1 for g in a]][:, [g - 1 for g in b]]
            big[i, j] = torch.linalg.det(part) if a else 1.0
    return big


def isometry(A: CliffordAlgebra, reflect: bool) -> torch.Tensor:
    """A map of vectors that keeps the form: O(p, q) on the first ones, anything invertible into the null ones."""
    p, q, r = A.signature
    K = rand(p + q, p + q, seed=3) / 2
    M = torch.linalg.matrix_exp(torch.diag(torch.tensor(A.metric[: p + q], dtype=torch.float64)) @ (K - K.T))
    if reflect and p + q:
        M[:, 0] *= -1
    top = torch.cat([M, torch.zeros(p + q, r, dtype=torch.float64)], 1)
    return torch.cat([top, rand(r, p + q + r, seed=4)], 0)


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_product_against_words(signature) -> None:
    A = CliffordAlgebra(signature)
    assert A.dim == len(A.blades) == 2**A.n and list(A.grades) == sorted(A.grades)
    x, y = rand(5, A.dim), rand(5, A.dim, seed=1)
    want = torch.einsum("bi,ijk,bk->bj", x, cayley(A), y)
    assert torch.allclose(A.geometric_product(x, y), want, atol=1e-12)


@pytest.mark.parametrize("signature", SIGNATURES[1:], ids=str)
def test_axioms(signature) -> None:
    """Squares, anticommutation, unit, associativity, involutions."""
    A = CliffordAlgebra(signature)
    gp = A.geometric_product
    e = A.embed(torch.eye(A.n, dtype=torch.float64))
    anti = gp(e[:, None], e[None]) + gp(e[None], e[:, None])
    want = A.embed(2 * torch.diag(torch.tensor(A.metric, dtype=torch.float64))[..., None], 0)
    assert torch.equal(anti, want.reshape(anti.shape))
    x, y, z = (rand(4, A.dim, seed=s) for s in range(3))
    one = A.embed(torch.ones(1, dtype=torch.float64), 0)
    assert torch.equal(gp(one, x), x) and torch.equal(gp(x, one), x)
    assert torch.allclose(gp(gp(x, y), z), gp(x, gp(y, z)), atol=1e-11)
    for f, swap in ((A.reverse, True), (A.conjugate, True), (A.grade_involution, False)):
        assert torch.equal(f(f(x)), x)
        assert torch.allclose(f(gp(x, y)), gp(f(y), f(x)) if swap else gp(f(x), f(y)), atol=1e-12)
    assert torch.allclose(A.square_norm(x), A.project(gp(A.reverse(x), x), 0), atol=1e-12)
    for types in ("grade", "quaternion"):
        assert A.square_norm(x, types).shape == (4, max(A.types(types)) + 1)
        assert torch.allclose(A.square_norm(x, types).sum(-1, keepdim=True), A.square_norm(x))
    assert torch.allclose(A.norm(x).square(), A.square_norm(x).abs(), atol=1e-6)


def test_matrix_representations() -> None:
    """Cl(3, 0) by Pauli matrices, Cl(0, 2) as the quaternions."""
    pauli = torch.tensor([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=torch.complex128)
    for A, generators in ((CliffordAlgebra((3,)), pauli), (CliffordAlgebra((0, 2)), 1j * pauli[:2])):
        basis = []
        for blade in A.blades:
            m = torch.eye(2, dtype=torch.complex128)
            for g in blade:
                m = m @ generators[g - 1]
            basis.append(m)
        represent = lambda x, basis=basis: torch.einsum("bi,irc->brc", x.to(torch.complex128), torch.stack(basis))
        x, y = rand(6, A.dim), rand(6, A.dim, seed=1)
        assert torch.allclose(represent(A.geometric_product(x, y)), represent(x) @ represent(y))


def dense_weighted(A: CliffordAlgebra, x, y, weight, types):
    """The dense product of the papers: a table [C, dim, dim, dim] of signs times weights."""
    kind = torch.tensor(A.types(types))
    T = int(kind.max()) + 1
    full = x.new_zeros(len(weight), T, T, T)
    for n, (a, b, d) in enumerate(A.paths(types)):
        full[:, a, b, d] = weight[:, n]
    table = full[:, kind][:, :, kind][:, :, :, kind] * cayley(A)
    return torch.einsum("...ci,cijk,...ck->...cj", x, table, y)


@pytest.mark.parametrize("types", ["grade", "quaternion"])
@pytest.mark.parametrize("signature", SIGNATURES[1:], ids=str)
def test_weighted_product_against_the_dense_one(signature, types: str) -> None:
    A, C = CliffordAlgebra(signature), 3
    paths = A.paths(types)
    kind = A.types(types)
    assert set(paths) == {(kind[i], kind[j], kind[k]) for i, j, k in cayley(A).nonzero().tolist()} and list(paths) == sorted(paths)
    found = []
    for f in (A.weighted_product, lambda *a: dense_weighted(A, *a)):
        leaves = [t.requires_grad_() for t in (rand(2, C, A.dim), rand(2, C, A.dim, seed=1), rand(C, len(paths), seed=2))]
        out = f(*leaves, types)
        grads = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        found.append([out, *grads, *torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("signature", SIGNATURES[1:], ids=str)
def test_equivariance(signature, reflect: bool) -> None:
    A, C = CliffordAlgebra(signature), 2
    M = isometry(A, reflect)
    eta = torch.diag(torch.tensor(A.metric, dtype=torch.float64))
    assert torch.allclose(M.T @ eta @ M, eta, atol=1e-10)
    R = outermorphism(A, M)
    x, y = rand(4, C, A.dim), rand(4, C, A.dim, seed=1)
    close = lambda a, b: (a - b).abs().max() <= 1e-9 * b.abs().max().clamp(min=1)
    assert close(A.geometric_product(x @ R.T, y @ R.T), A.geometric_product(x, y) @ R.T)
    for types in ("grade", "quaternion"):
        w = rand(C, len(A.paths(types)), seed=2)
        assert close(A.weighted_product(x @ R.T, y @ R.T, w, types), A.weighted_product(x, y, w, types) @ R.T)
        assert close(A.square_norm(x @ R.T, types), A.square_norm(x, types))
    if A.n == 3 and signature == (3,):  # weights of blades instead of grades break it: the check can fail
        w = rand(A.dim, seed=5)
        assert not close(A.geometric_product(x @ R.T * w, y @ R.T), A.geometric_product(x * w, y) @ R.T)


def test_versors_reflect() -> None:
    """x -> -v x v^-1 is the reflection of vectors along v: the double cover meets the orthogonal group."""
    A = CliffordAlgebra((3, 1))
    v, x = rand(4), rand(5, 4, seed=1)
    eta = torch.tensor(A.metric, dtype=torch.float64)
    square = (v * v * eta).sum()
    V = A.embed(v)
    turned = -A.geometric_product(A.geometric_product(V, A.embed(x)), V / square)
    assert torch.allclose(A.project(turned, 1), x - 2 * ((x * eta) @ v)[:, None] / square * v)
    assert turned.abs().sum() - A.project(turned, 1).abs().sum() < 1e-12


@pytest.mark.parametrize("signature", [*SMALL[1:4], (2, 0, 1)], ids=str)
def test_gradients(signature) -> None:
    A = CliffordAlgebra(signature)
    x, y, w = (t.requires_grad_() for t in (rand(2, 2, A.dim), rand(2, A.dim, seed=1), rand(2, len(A.paths()), seed=2)))
    assert gradcheck(A.geometric_product, (x, y)) and gradgradcheck(A.geometric_product, (x, y))
    assert gradcheck(A.weighted_product, (x, y, w)) and gradgradcheck(A.weighted_product, (x, y, w))
    if A.n <= 2:
        slope = lambda *a: torch.autograd.grad(A.weighted_product(*a).sin().sum(), a, create_graph=True)
        assert gradgradcheck(slope, (x, y, w), atol=1e-4)
    assert gradcheck(lambda t: A.norm(t, "grade"), x) and gradgradcheck(lambda t: A.norm(t, eps=1e-3), x)


def test_dtypes_broadcasting_and_empty() -> None:
    A = CliffordAlgebra((3,))
    x, y, w = rand(4, 1, 5, 8), rand(3, 5, 8, seed=1), rand(5, 20, seed=2)
    want = dense_weighted(A, *torch.broadcast_tensors(x, y), w, "grade")
    assert torch.allclose(A.weighted_product(x, y, w), want)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        got = A.weighted_product(x.to(dtype), y.to(dtype), w.to(dtype))
        assert got.dtype == dtype and (got.double() - want).abs().max() < 100 * torch.finfo(dtype).eps * want.abs().max()
    assert A.geometric_product(x[0, 0, 0], y).shape == (3, 5, 8)
    assert torch.equal(A.geometric_product(x.transpose(0, 2), x.transpose(0, 2)), A.geometric_product(x, x).transpose(0, 2))
    assert A.geometric_product(torch.zeros(0, 8), torch.zeros(8)).shape == (0, 8)
    assert A.weighted_product(torch.zeros(0, 5, 8), torch.zeros(0, 5, 8), torch.zeros(5, 20)).shape == (0, 5, 8)
    assert torch.equal(A.project(A.embed(x[..., :3], 2), 2), x[..., :3])


def test_compile() -> None:
    A = CliffordAlgebra((3,))
    x, w = rand(4, 2, 8), rand(2, 20, seed=1)
    f = lambda x, w: A.norm(A.weighted_product(x, A.reverse(x), w), "grade").sum() + A.geometric_product(x, x).sum()
    found = []
    for g in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        found.append(torch.autograd.grad(g(*leaves), leaves))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize(
    ("kind", "name", "call"),
    [
        (TypeError, "signature", lambda A, x: CliffordAlgebra(3)),
        (TypeError, "signature", lambda A, x: CliffordAlgebra((1, 1, 1, 1))),
        (ValueError, "signature", lambda A, x: CliffordAlgebra((-1, 2))),
        (ValueError, "6 generators", lambda A, x: CliffordAlgebra((4, 3))),
        (ValueError, r"x of shape \[..., 8\]", lambda A, x: A.geometric_product(x[..., :4], x)),
        (TypeError, "y of dtype", lambda A, x: A.geometric_product(x, x.float())),
        (ValueError, "broadcast", lambda A, x: A.geometric_product(x, x[:2])),
        (TypeError, "x of dtype", lambda A, x: A.reverse(x.long())),
        (ValueError, r"weight of shape \[5, 20\]", lambda A, x: A.weighted_product(x, x, x)),
        (TypeError, "weight of dtype", lambda A, x: A.weighted_product(x, x, torch.ones(5, 20))),
        (ValueError, "types", lambda A, x: A.weighted_product(x, x, rand(5, 20), "parity")),
        (ValueError, r"\[..., C, 8\]", lambda A, x: A.weighted_product(x[0, 0], x, rand(5, 20))),
        (ValueError, "grade", lambda A, x: A.project(x, 4)),
        (ValueError, "x of shape", lambda A, x: A.embed(x, 1)),
        (ValueError, "types", lambda A, x: A.square_norm(x, "mod")),
    ],
)
def test_bad_input(kind, name, call) -> None:
    with pytest.raises(kind, match=name):
        call(CliffordAlgebra((3,)), rand(3, 5, 8))
