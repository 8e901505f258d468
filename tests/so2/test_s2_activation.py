"""Activations on the sphere: quadratic ones in closed form, e3nn's grids at high resolution, equivariance up to aliasing."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from rotations import random_rotation, wigner
from structops import so2
from torch.autograd import gradcheck, gradgradcheck


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("lmax", [0, 1, 4, 12])
def test_identity(lmax: int) -> None:
    x = rand(3, 2, (lmax + 1) ** 2, 3)
    assert_close(so2.s2_activation(x, lmax, act="identity"), x, terms=1024)
    assert_close(so2.s2_activation(x, lmax, act="identity", resolution=(lmax + 1, 2 * lmax + 1)), x, terms=1024)


@pytest.mark.parametrize("lmax", [1, 3])
def test_square_is_the_gaunt_product(lmax: int) -> None:
    """int Y_a Y_b Y_c = 4 pi-normalised 3j(000) times the table: exact, not up to aliasing."""
    x, n = rand(4, (lmax + 1) ** 2, 3), lmax + 1
    rows = lambda l: slice(l * l, (l + 1) ** 2)
    want = torch.zeros_like(x)
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    y = lambda l: so2.spherical_harmonics([l], up, normalization="component", normalize=True)[0]
    for a in range(n):
        for b in range(n):
            for c in range(abs(a - b), min(a + b, lmax) + 1):
                table = so2.wigner_3j(a, b, c, torch.float64)
                # Y_a Y_b has the component c of strength g: read at the pole, where only m = 0 is left.
                g = (2 * c + 1) * torch.einsum("ijk,i,j,k->", table, y(a), y(b), y(c)) / y(c).square().sum()
                part = torch.einsum("ijk,ziu,zju->zku", table, x[:, rows(a)], x[:, rows(b)])
                want[:, rows(c)] += g * part * ((2 * c + 1) / ((2 * a + 1) * (2 * b + 1) * n)) ** 0.5
    assert_close(so2.s2_activation(x, lmax, act=torch.square), want, terms=256)


def test_equals_e3nn_at_high_resolution(float64_default: None) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    lmax, res = 3, (40, 41)
    x = rand(5, 16, 2)
    to, back = o3.ToS2Grid(lmax, res, normalization="component"), o3.FromS2Grid(res, lmax, normalization="component")
    want = back(torch.nn.functional.silu(to(x.mT))).mT
    got = so2.s2_activation(x, lmax, resolution=(30, 41))
    assert (got - want).abs().max() < 1e-8


def test_equivariance_improves_with_resolution() -> None:
    lmax, R = 2, random_rotation()
    D = torch.block_diag(*(wigner(l, R) for l in range(lmax + 1)))
    x = 2 * rand(6, 9, 4)
    errors = []
    for n in (4, 8, 16, 32):
        f = lambda t: so2.s2_activation(t, lmax, resolution=(n, 2 * n))
        errors.append(float((f(D @ x) - D @ f(x)).abs().max()))
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1e-8
    square = lambda t: so2.s2_activation(t, lmax, act=torch.square)
    assert_close(square(D @ x), D @ square(x), terms=256, magnitude=8)


def test_derivatives() -> None:
    fn = lambda x: so2.s2_activation(x, 2)
    x = rand(2, 9, 2).requires_grad_()
    assert gradcheck(fn, x) and gradgradcheck(fn, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes_and_empty(dtype: torch.dtype) -> None:
    x = rand(3, 9, 4, dtype=dtype)
    assert_close(so2.s2_activation(x, 2), so2.s2_activation(x.double(), 2), dtype, terms=128)
    assert so2.s2_activation(x[:0], 2).shape == (0, 9, 4)


def test_compiled() -> None:
    x = rand(3, 9, 4)
    fn = lambda x: so2.s2_activation(x, 2)
    assert_close(torch.compile(fn, fullgraph=True, backend="aot_eager")(x), fn(x))


@pytest.mark.parametrize(
    "change,error,name",
    [
        ({"x": torch.zeros(2, 8, 3)}, ValueError, "x"),
        ({"x": torch.zeros(9)}, ValueError, "x"),
        ({"lmax": 13}, ValueError, "lmax"),
        ({"act": "swish"}, ValueError, "act"),
        ({"resolution": (2, 9)}, ValueError, "resolution"),
        ({"resolution": (3, 4)}, ValueError, "resolution"),
        ({"resolution": 8}, TypeError, "resolution"),
    ],
)
def test_bad_input(change, error, name) -> None:
    with pytest.raises(error, match=name):
        so2.s2_activation(**{"x": torch.zeros(2, 9, 3), "lmax": 2, **change})
