"""spherical_harmonics, spherical_harmonics_bwd, spherical_harmonics_jet: values, derivatives of three orders, edges of the domain."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from rotations import random_rotation, wigner
from structops import backends
from structops.kernels.so2 import sph_ref
from structops.so2 import spherical_harmonics, spherical_harmonics_derivatives
from torch.autograd import gradcheck, gradgradcheck

NORMS = ("integral", "component", "norm")
ops = torch.ops.structops


def points(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    poles = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -0.5]], dtype=torch.float64)
    x[: min(n, 4)] = poles[: min(n, 4)]
    return x.to(dtype)


@pytest.mark.parametrize("n", [0, 1, 5, 67])
@pytest.mark.parametrize("lmax", [0, 1, 2, 5, 12])
def test_against_the_polynomials(lmax: int, n: int, isa: str, on_threads, poison) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        g = torch.randn(n, (lmax + 1) ** 2, generator=torch.Generator().manual_seed(1)).to(dtype)
        for norm, normalize in ((0, True), (1, False), (2, True)):
            x = points(n, dtype) if normalize else points(n, dtype) / 3  # of float16, powers of larger vectors leave the range
            bound = {"terms": 40.0 * (lmax + 1), "magnitude": 8.0 * 4**lmax if not normalize else 8.0 * (lmax + 1)}
            got = on_threads(lambda: ops.spherical_harmonics(x, lmax, norm, normalize))
            assert_close(got, sph_ref.spherical_harmonics(x.double(), lmax, norm, normalize), dtype, what=lmax, **bound)
            if lmax <= 5 and n:
                got = on_threads(lambda: ops.spherical_harmonics_bwd(x, g, lmax, norm, normalize))
                want = sph_ref.spherical_harmonics_bwd(x.double(), g.double(), lmax, norm, normalize)
                assert_close(got, want, dtype, terms=1000, magnitude=16.0 * 4**lmax, what=lmax)


@pytest.mark.parametrize("normalize", [True, False])
def test_jet_against_autograd(normalize: bool, isa: str, on_threads) -> None:
    for dtype in (torch.float64, torch.float32):
        x = points(19, dtype)
        got = on_threads(lambda: ops.spherical_harmonics_jet(x, 4, 1, normalize, 2))
        want = sph_ref.spherical_harmonics_jet(x.double(), 4, 1, normalize, 2)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, dtype, terms=200, magnitude=float(b.abs().max()))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("normalization", NORMS)
def test_derivatives(normalization: str, normalize: bool) -> None:
    """To the third order, at the poles too."""
    x = points(6).requires_grad_()
    f = lambda t: spherical_harmonics([0, 1, 2, 3], t, normalize, normalization)
    assert gradcheck(f, x) and gradgradcheck(f, x)
    first = lambda t: torch.autograd.grad(f(t).sin().sum(), t, create_graph=True)[0]
    assert gradgradcheck(first, points(2).requires_grad_())
    assert gradcheck(lambda t: spherical_harmonics_derivatives(2, t, normalize, normalization, 2), points(5)[:, :].requires_grad_())


def test_jet_and_autograd_agree() -> None:
    x = points(7)
    for normalize in (True, False):
        plain = spherical_harmonics_derivatives(5, x, normalize, "norm", 2)
        for a, b in zip(plain, spherical_harmonics_derivatives(5, x.clone().requires_grad_(), normalize, "norm", 2), strict=True):
            assert (a - b).abs().max() < 1e-11


def test_rotation_and_reflection() -> None:
    R, x = random_rotation(5), points(9)
    for l in range(7):
        y = spherical_harmonics(l, x, True)
        assert (spherical_harmonics(l, x @ R.T, True) - y @ wigner(l, R).T).abs().max() < 1e-12
        assert (spherical_harmonics(l, -x, True) - (-1) ** l * y).abs().max() < 1e-14


def test_norms() -> None:
    x = points(5)
    for l in (0, 1, 3, 12):
        size = lambda n: spherical_harmonics(l, x, True, n).square().sum(1)
        assert torch.allclose(size("norm"), torch.ones(5, dtype=torch.float64))
        assert torch.allclose(size("component"), torch.full((5,), 2.0 * l + 1, dtype=torch.float64))
    assert torch.allclose(spherical_harmonics(1, x, False, "norm"), x)


def test_selection_of_degrees() -> None:
    x = points(4).reshape(2, 2, 3)
    every = spherical_harmonics(range(5), x, True)
    assert torch.equal(spherical_harmonics([2, 3], x, True), every[..., 4:16])
    assert torch.equal(spherical_harmonics("1o+0e+1o", x, True), torch.cat([every[..., 1:4], every[..., :1], every[..., 1:4]], -1))
    assert spherical_harmonics([], x, True).shape == (2, 2, 0)
    assert torch.equal(spherical_harmonics("2e", x.transpose(0, 1), True), every[..., 4:9].transpose(0, 1))


def test_zero_and_special_vectors() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    y = spherical_harmonics(range(4), zero, True, "component")
    assert abs(y[0, 0] - 1) < 1e-15 and y[0, 1:].abs().sum() == 0
    (g,) = torch.autograd.grad(y.sum(), zero, create_graph=True)
    assert g.abs().sum() == 0 and torch.autograd.grad(g.sum(), zero)[0].abs().sum() == 0
    for scale in (1e-30, 1e30):
        x = (points(4) * scale).float()
        assert torch.allclose(spherical_harmonics(3, x, True), spherical_harmonics(3, points(4).float(), True), atol=1e-6)
    bad = torch.tensor([[float("nan"), 0, 1], [float("inf"), 0, 0], [1.0, 2.0, 3.0]])
    y = spherical_harmonics([0, 1, 2], bad, True)
    assert y[:2, 1:].isnan().all() and y[2].isfinite().all()


def test_against_e3nn(isa: str) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    x = points(33)
    for normalization in NORMS:
        for normalize in (True, False):
            want = o3.spherical_harmonics(list(range(13)), x, normalize, normalization)
            got = spherical_harmonics(list(range(13)), x, normalize, normalization)
            assert ((got - want).abs() <= 1e-12 * want.abs().amax(0).clamp(min=1)).all()


@pytest.mark.parametrize(
    ("kind", "name", "call"),
    [
        (ValueError, "l", lambda x: spherical_harmonics(13, x, True)),
        (ValueError, "l", lambda x: spherical_harmonics(-1, x, True)),
        (ValueError, "parity", lambda x: spherical_harmonics("1o+2o", x, True)),
        (ValueError, r"\[..., 3\]", lambda x: spherical_harmonics(1, x[:, :2], True)),
        (TypeError, "dtype", lambda x: spherical_harmonics(1, x.long(), True)),
        (TypeError, "normalize", lambda x: spherical_harmonics(1, x, 1)),
        (ValueError, "normalization", lambda x: spherical_harmonics(1, x, True, "other")),
        (ValueError, "order", lambda x: spherical_harmonics_derivatives(1, x, True, order=3)),
    ],
)
def test_bad_input(kind, name, call) -> None:
    with pytest.raises(kind, match=name):
        call(points(3))


def test_reference_backend() -> None:
    with backends.override("reference"):
        x = points(3).requires_grad_()
        assert gradgradcheck(lambda t: spherical_harmonics([0, 1, 2], t, True), x)
