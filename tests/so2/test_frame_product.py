"""The SO(2) tensor product: row by row in complex numbers, turns, mirrors, completeness, derivatives."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_same
from structops import so2
from torch.autograd import gradcheck, gradgradcheck
from turns import turn

SHAPES = [
    (0, 0, 3, 2),
    (1, 1, 2, 5),
    (3, 2, 3, 4),
    (4, 4, 1, 2),
    (8, 8, 1, 1),
    (3, 0, 2, 2),
    (2, 2, 3, 0),
    (2, 2, 0, 3),
]  # L, M, C, E


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    real = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.complex(real, rand(*shape, seed=seed + 50)) if dtype == torch.complex128 else real.to(dtype)


def operands(L: int, M: int, C: int, E: int, dtype: torch.dtype = torch.float64):
    n, P = len(so2.frame_order(L, M)), len(so2.so2_product_paths(M))
    return rand(E, n, C), rand(E, n, C, seed=1), rand(P, L + 1, C, seed=2, dtype=dtype), rand(E, P, L + 1, C, seed=3, dtype=dtype)


def row_by_row(x, y, weight, L: int, M: int):
    """The sum over paths of complex numbers, degree by degree."""
    index = {row: i for i, row in enumerate(so2.frame_order(L, M))}

    def order(z, l, m):
        z = torch.complex(z[:, index[l, abs(m)]], z[:, index[l, -abs(m)]] if m else torch.zeros_like(z[:, 0]))
        return z.conj() if m < 0 else z

    out = torch.zeros_like(x)
    for p, (m1, m2, m3) in enumerate(so2.so2_product_paths(M)):
        for l in range(max(abs(m1), abs(m2), m3), L + 1):
            z = weight[..., p, l, :] * order(x, l, m1) * order(y, l, m2)
            out[:, index[l, m3]] += z.real
            if m3:
                out[:, index[l, -m3]] += z.imag
    return out


@pytest.mark.parametrize("L,M,C,E", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_row_by_row(L: int, M: int, C: int, E: int, dtype: torch.dtype) -> None:
    x, y, shared, own = operands(L, M, C, E, dtype)
    for w in (shared, own):
        assert_close(so2.so2_tensor_product(x, y, w, lmax=L, mmax=M), row_by_row(x, y, w, L, M), terms=64, magnitude=4)


def test_commutes_with_turns() -> None:
    for L, M, C, E in ((4, 4, 2, 5), (3, 2, 2, 4)):
        x, y, *weights = operands(L, M, C, E, torch.complex128)
        gamma = rand(E, seed=5)
        for w in (*weights, weights[0].real):
            f = lambda a, b: so2.so2_tensor_product(a, b, w, lmax=L, mmax=M)
            want = turn(f(x, y), gamma, L, M)
            got = f(turn(x, gamma, L, M), turn(y, gamma, L, M))
            assert (got - want).abs().max() < 1e-12 * want.abs().max()


def test_mirrors() -> None:
    """A mirror plane through the edge changes the sign of the rows -m: real weights commute with it, complex ones do not."""
    L = 3
    x, y, w, _ = operands(L, L, 2, 4, torch.complex128)
    sign = torch.tensor([1.0 if m >= 0 else -1.0 for _, m in so2.frame_order(L)], dtype=torch.float64)[:, None]
    f = lambda a, b, w: so2.so2_tensor_product(a, b, w, lmax=L)
    assert_close(f(sign * x, sign * y, w.real), sign * f(x, y, w.real), terms=16)
    assert (f(sign * x, sign * y, w) - sign * f(x, y, w)).abs().max() > 0.1


def test_complex_weights_reach_every_product() -> None:
    """The bilinear maps of one degree that commute with turns: the null space of the condition has as many dimensions."""
    M = 2
    rows = so2.frame_order(M, M)
    keep = [i for i, (l, _) in enumerate(rows) if l == M]  # all orders of degree M
    n = len(keep)
    eye = torch.eye(len(rows), dtype=torch.float64)[:, :, None]
    R = turn(eye, torch.full((len(rows),), 0.7, dtype=torch.float64), M, M)[:, :, 0].T[keep][:, keep]
    condition = torch.kron(torch.kron(R, R), R) - torch.eye(n**3, dtype=torch.float64)  # (x, y, z) -> (Rx, Ry, Rz) leaves the form
    dimensions = n**3 - int(torch.linalg.matrix_rank(condition, tol=1e-9))
    paths = so2.so2_product_paths(M)
    pairs = torch.cartesian_prod(torch.tensor(keep), torch.tensor(keep))
    x, y = eye[pairs[:, 0]], eye[pairs[:, 1]]
    reached = []
    for p in range(len(paths)):
        for unit in (1.0, 1.0j):
            w = torch.zeros(len(paths), M + 1, 1, dtype=torch.complex128)
            w[p] = unit
            reached.append(so2.so2_tensor_product(x, y, w, lmax=M).flatten())
    assert int(torch.linalg.matrix_rank(torch.stack(reached))) == dimensions


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_derivatives(dtype: torch.dtype) -> None:
    x, y, *weights = (t.requires_grad_() for t in operands(2, 1, 2, 2, dtype))
    for w in weights:
        fn = lambda x, y, w: so2.so2_tensor_product(x, y, w, lmax=2, mmax=1)
        assert gradcheck(fn, (x, y, w), fast_mode=True) and gradgradcheck(fn, (x, y, w), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    x, y, w, _ = (t.to(dtype) for t in operands(3, 2, 5, 4))
    want = so2.so2_tensor_product(x.double(), y.double(), w.double(), lmax=3, mmax=2)
    assert_close(so2.so2_tensor_product(x, y, w, lmax=3, mmax=2), want, dtype, terms=64, magnitude=4)
    wide = w.float().to(torch.complex64)
    assert_same(so2.so2_tensor_product(x, y, wide, lmax=3, mmax=2), so2.so2_tensor_product(x, y, w, lmax=3, mmax=2))


def test_compiled() -> None:
    x, y, w, _ = operands(2, 2, 3, 4)
    fn = lambda x, y, w: so2.so2_tensor_product(x, y, w, lmax=2)
    assert_close(torch.compile(fn, fullgraph=True, backend="aot_eager")(x, y, w), fn(x, y, w))


@pytest.mark.parametrize(
    "change,error,name",
    [
        ({"x": torch.zeros(2, 8, 3)}, ValueError, "x"),
        ({"y": torch.zeros(3, 9, 3)}, ValueError, "y"),
        ({"y": torch.zeros(2, 9, 3).double()}, TypeError, "y"),
        ({"weight": torch.zeros(3, 3, 3)}, ValueError, "weight"),
        ({"weight": torch.zeros(11, 3, 3).double()}, TypeError, "weight"),
        ({"weight": torch.zeros(11, 3, 3, dtype=torch.complex128)}, TypeError, "weight"),
        ({"weight": None}, TypeError, "weight"),
        ({"lmax": 9}, ValueError, "lmax"),
        ({"mmax": 3}, ValueError, "mmax"),
    ],
)
def test_bad_input(change, error, name) -> None:
    given = {"x": torch.zeros(2, 9, 3), "y": torch.zeros(2, 9, 3), "weight": torch.zeros(11, 3, 3), "lmax": 2, **change}
    with pytest.raises(error, match=name):
        so2.so2_tensor_product(**given)
