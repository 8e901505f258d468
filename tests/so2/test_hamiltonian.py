"""Blocks over atomic orbitals: the formula, round trips, equivariance, molecules, derivatives."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_same
from rotations import act, random_rotation, wigner
from structops import so2
from torch.autograd import gradcheck, gradgradcheck

SVP = {1: "2s1p", 6: "3s2p1d", 7: "3s2p1d", 8: "3s2p1d"}  # def2-SVP
BASES = [("2s1p", None), ("3s2p1d", None), ("2s1p", "3s2p1d"), ((1, 0, 2, 1), (0, 1)), ("1s", None), ("1s1f", "1p1g"), ((), "1s")]


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def degrees(shells) -> tuple[int, ...]:
    if not isinstance(shells, str):
        return tuple(shells)
    return tuple("spdfg".index(l) for n, l in zip(shells[::2], shells[1::2], strict=True) for _ in range(int(n)))


def path_by_path(c: torch.Tensor, rows, cols) -> torch.Tensor:
    """One dense table for every pair of shells and degree, in the order of the irreps."""
    rows, cols = degrees(rows), degrees(cols)
    paths = sorted(
        (L, (-1) ** (k + l), a, b) for a, k in enumerate(rows) for b, l in enumerate(cols) for L in range(abs(k - l), k + l + 1)
    )
    blocks = [[torch.zeros(len(c), 2 * k + 1, 2 * l + 1, dtype=c.dtype) for l in cols] for k in rows]
    at = 0
    for L, _, a, b in paths:
        table = (2 * L + 1) ** 0.5 * so2.wigner_3j(rows[a], cols[b], L, torch.float64)
        blocks[a][b] += torch.einsum("zm,ijm->zij", c[:, at : at + 2 * L + 1], table)
        at += 2 * L + 1
    assert at == c.shape[1]
    return torch.cat([torch.cat(row, 2) for row in blocks], 1)


@pytest.mark.parametrize("rows,cols", BASES[:-1])
def test_path_by_path(rows, cols) -> None:
    irreps = so2.hamiltonian_irreps(rows, cols)
    c = rand(5, irreps.dim)
    assert_close(so2.hamiltonian_blocks(c, rows, cols), path_by_path(c, rows, rows if cols is None else cols), terms=16)


@pytest.mark.parametrize("rows,cols", BASES)
def test_round_trip(rows, cols) -> None:
    irreps = so2.hamiltonian_irreps(rows, cols)
    c = rand(3, 2, irreps.dim)
    H = so2.hamiltonian_blocks(c, rows, cols)
    assert_close(so2.hamiltonian_features(H, rows, cols), c, terms=8)
    G = rand(*H.shape, seed=1)
    assert_close(so2.hamiltonian_blocks(so2.hamiltonian_features(G, rows, cols), rows, cols), G, terms=8)
    assert_close((H * G).sum(), (c * so2.hamiltonian_features(G, rows, cols)).sum(), terms=512)


@pytest.mark.parametrize("inversion", [False, True])
def test_equivariance(inversion: bool) -> None:
    """D H D^T, also under inversion: the irreps carry the parities of the orbitals."""
    rows, cols, R = "3s2p1d", "2s1p", random_rotation(4)
    D = [torch.block_diag(*(wigner(l, R) * ((-1) ** l if inversion else 1) for l in degrees(s))) for s in (rows, cols)]
    irreps = so2.hamiltonian_irreps(rows, cols)
    c = rand(4, irreps.dim)
    got = so2.hamiltonian_blocks(act(irreps, c, R, inversion), rows, cols)
    assert_close(got, D[0] @ so2.hamiltonian_blocks(c, rows, cols) @ D[1].T, terms=512)


def test_equals_e3nn() -> None:
    """The coefficients of p with p are the block contracted with e3nn's Wigner 3j symbols."""
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    H = rand(4, 5, 5)
    for L in range(3):
        want = torch.einsum("zij,ijm->zm", H[:, 2:, 2:], o3.wigner_3j(1, 1, L, dtype=torch.float64) * (2 * L + 1) ** 0.5)
        c = so2.hamiltonian_features(H, "2s1p")
        irreps = so2.hamiltonian_irreps("2s1p")
        part = next(c[:, s] for t, s in zip(irreps, irreps.slices(), strict=True) if (t.l, t.p) == (L, 1))
        assert_close(part[:, -(2 * L + 1) :], want, terms=16)  # the last pair of shells is p with p


@pytest.mark.parametrize("own", [False, True])
def test_weights_and_bias(own: bool) -> None:
    rows, cols, C, Z = "3s2p1d", "2s1p", 4, 5
    irreps = so2.hamiltonian_irreps(rows, cols)
    L = irreps.lmax
    lead = (Z,) if own else ()
    x, w, b = rand(Z, (L + 1) ** 2, C), rand(*lead, irreps.num_irreps, C, seed=1), rand(*lead, 8, seed=2)
    c, at = [], 0
    for t in irreps:
        part = x[:, t.l**2 : (t.l + 1) ** 2]
        mixed = torch.einsum("zmc,zkc->zkm", part, w[..., at : at + t.mul, :].expand(Z, -1, -1))
        c.append((mixed + (b[..., :, None] if t.l == 0 else 0)).flatten(1))
        at += t.mul
    want = path_by_path(torch.cat(c, 1), rows, cols)
    assert_close(so2.hamiltonian_blocks(x, rows, cols, weight=w, bias=b), want, terms=64)


def test_molecules() -> None:
    """Water and methanol: a symmetric matrix, blocks in and out, atoms turned with the molecule, one direction of pairs or both."""
    basis = so2.OrbitalBasis(SVP)
    for numbers in ([8, 1, 1], [6, 8, 1, 1, 1, 1]):
        z = torch.tensor(numbers)
        N, n = len(z), basis.num_orbitals(z)
        assert n == sum({1: 5}.get(a, 14) for a in numbers) == int(basis.mask(z).sum())
        both = torch.cartesian_prod(torch.arange(N), torch.arange(N)).T
        both = both[:, both[0] != both[1]]
        H = rand(n, n)
        H = H + H.T
        diagonal, off = basis.blocks(H, both, z)
        assert diagonal.shape == (N, 14, 14) and off.shape == (N * (N - 1), 14, 14)
        assert_same(basis.matrix(diagonal, off, both, z), H)
        once = both[0] < both[1]
        assert_same(basis.matrix(diagonal, off[once], both[:, once].int(), z.int()), H)
        M = basis.matrix(rand(*diagonal.shape), rand(*off.shape, seed=1), both, z)
        assert_same(M, M.T.contiguous())
        R = random_rotation(2)
        D = torch.block_diag(*(wigner(l, R) for a in numbers for l in degrees(SVP[a])))
        c = rand(N, basis.irreps.dim), rand(off.shape[0], basis.irreps.dim, seed=3)
        build = lambda c: basis.matrix(*(so2.hamiltonian_blocks(t, basis.shells) for t in c), both, z)
        assert_close(build([act(basis.irreps, t, R) for t in c]), D @ build(c) @ D.T, terms=1024)


def test_shells_in_any_order() -> None:
    basis = so2.OrbitalBasis({3: (1, 0, 1), 4: (0, 0)})
    assert basis.shells == (0, 0, 1, 1) and basis.dim == 8
    z, none = torch.tensor([3]), torch.zeros(2, 0, dtype=torch.int64)
    block = rand(1, 8, 8)
    at = [2, 3, 4, 0, 5, 6, 7]
    want = (block[0] + block[0].T)[at][:, at] / 2
    assert_close(basis.matrix(block, block.new_zeros(0, 8, 8), none, z), want)


def test_standard_orbitals() -> None:
    """Harmonics whose polar axis is z are e3nn's of permuted positions: p is then (y, z, x)."""
    r = rand(3, seed=7)
    assert_close(so2.spherical_harmonics([1], r[[1, 2, 0]], normalization="norm", normalize=False), r[[1, 2, 0]])


def test_derivatives() -> None:
    irreps = so2.hamiltonian_irreps("1s1p")
    c, x = rand(2, irreps.dim).requires_grad_(), rand(2, 9, 2).requires_grad_()
    w, b = rand(2, irreps.num_irreps, 2).requires_grad_(), rand(2, 2).requires_grad_()
    H = rand(2, 4, 4).requires_grad_()
    basis, z, pair = so2.OrbitalBasis({1: "1s", 6: "1s1p"}), torch.tensor([6, 1]), torch.tensor([[0], [1]])
    for fn, args in (
        (lambda c: so2.hamiltonian_blocks(c, "1s1p"), (c,)),
        (lambda x, w, b: so2.hamiltonian_blocks(x, "1s1p", weight=w, bias=b), (x, w, b)),
        (lambda H: so2.hamiltonian_features(H, "1s1p"), (H,)),
        (lambda H, c: basis.matrix(H, so2.hamiltonian_blocks(c[:1], "1s1p"), pair, z), (H, c)),
    ):
        assert gradcheck(fn, args) and gradgradcheck(fn, args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    c = rand(5, 196, dtype=dtype)
    H = so2.hamiltonian_blocks(c, "3s2p1d")
    assert_close(H, so2.hamiltonian_blocks(c.double(), "3s2p1d"), dtype, terms=16)
    assert_close(so2.hamiltonian_features(H, "3s2p1d"), so2.hamiltonian_features(H.double(), "3s2p1d"), dtype, terms=16)


def test_empty() -> None:
    assert so2.hamiltonian_blocks(rand(0, 25), "2s1p").shape == (0, 5, 5)
    assert so2.hamiltonian_features(rand(0, 5, 5), "2s1p").shape == (0, 25)
    assert so2.hamiltonian_blocks(rand(3, 0, 4), (), "1s", weight=rand(0, 4)).shape == (3, 0, 1)
    basis, none = so2.OrbitalBasis(SVP), torch.zeros(2, 0, dtype=torch.int64)
    assert basis.matrix(rand(0, 14, 14), rand(0, 14, 14), none, torch.zeros(0, dtype=torch.int64)).shape == (0, 0)


@pytest.mark.parametrize(
    "call,error,name",
    [
        (lambda: so2.hamiltonian_blocks(rand(2, 24), "2s1p"), ValueError, "x"),
        (lambda: so2.hamiltonian_blocks(rand(2, 25), "2s1q"), ValueError, "rows"),
        (lambda: so2.hamiltonian_blocks(rand(2, 25), (0, 0, 7)), ValueError, "rows"),
        (lambda: so2.hamiltonian_blocks(rand(2, 25), (0, -1)), ValueError, "rows"),
        (lambda: so2.hamiltonian_blocks(rand(2, 25), 3), TypeError, "rows"),
        (lambda: so2.hamiltonian_blocks(rand(2, 9, 3), "2s1p", weight=rand(3, 3)), ValueError, "weight"),
        (lambda: so2.hamiltonian_blocks(rand(2, 9, 3), "2s1p", weight=rand(3, 11, 3)), ValueError, "weight"),
        (lambda: so2.hamiltonian_blocks(rand(2, 16, 3), "2s1p", weight=rand(11, 3)), ValueError, "x"),
        (lambda: so2.hamiltonian_blocks(rand(2, 9, 3), "2s1p", weight=rand(11, 3).float()), TypeError, "weight"),
        (lambda: so2.hamiltonian_blocks(rand(2, 25), "2s1p", bias=rand(4)), ValueError, "bias"),
        (lambda: so2.hamiltonian_features(rand(2, 5, 4), "2s1p"), ValueError, "blocks"),
        (lambda: so2.OrbitalBasis({}), TypeError, "shells"),
        (lambda: so2.OrbitalBasis({1: "s"}), ValueError, "shells"),
        (lambda: so2.OrbitalBasis(SVP).mask(torch.tensor([2])), ValueError, "numbers"),
        (lambda: so2.OrbitalBasis(SVP).mask(torch.tensor([1.0])), TypeError, "numbers"),
        (
            lambda: so2.OrbitalBasis(SVP).matrix(rand(1, 14, 14), rand(1, 14, 14), torch.tensor([[0], [1]]), torch.tensor([1])),
            IndexError,
            "edge_index",
        ),
        (
            lambda: so2.OrbitalBasis(SVP).matrix(rand(2, 14, 14), rand(0, 14, 14), torch.zeros(2, 0).long(), torch.tensor([1])),
            ValueError,
            "diagonal",
        ),
        (lambda: so2.OrbitalBasis(SVP).blocks(rand(4, 5), torch.zeros(2, 0).long(), torch.tensor([1])), ValueError, "matrix"),
    ],
)
def test_bad_input(call, error, name) -> None:
    with pytest.raises(error, match=name):
        call()


def test_compiled() -> None:
    x, w = rand(3, 9, 2), rand(so2.hamiltonian_irreps("2s1p").num_irreps, 2, seed=1)
    fn = lambda x, w: so2.hamiltonian_features(so2.hamiltonian_blocks(x, "2s1p", weight=w), "2s1p")
    assert_close(torch.compile(fn, fullgraph=True, backend="aot_eager")(x, w), fn(x, w))
