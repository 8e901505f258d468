"""gaunt_product: three forms, the Clebsch-Gordan product, functions on the sphere, derivatives, errors."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from rotations import act, random_rotation
from structops.so2 import Irreps, gaunt_product, spherical_harmonics, wigner_3j
from structops.so2.gaunt import METHODS
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck


def draw(*shape: int, dtype=torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("l1, l2", [(0, 0), (1, 1), (2, 3), (4, 1), (5, 5)])
def test_values_on_the_sphere(l1: int, l2: int, method: str, isa: str) -> None:
    """At random points the expansion of the result is the product of the expansions."""
    x, y = draw(3, (l1 + 1) ** 2, 2), draw(3, (l2 + 1) ** 2, 2)
    points = draw(20, 3)
    at = lambda t, l: spherical_harmonics(range(l + 1), points, True, "integral") @ t
    out = gaunt_product(x, y, method=method)
    assert out.shape == (3, (l1 + l2 + 1) ** 2, 2)
    assert torch.allclose(at(out, l1 + l2), at(x, l1) * at(y, l2), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("l1, l2, l3", [(2, 2, 2), (3, 2, 4), (1, 4, 0), (4, 4, 8)])
def test_forms_agree_with_clebsch_gordan(l1: int, l2: int, l3: int) -> None:
    """Each path has the weight sqrt((2 l1 + 1)(2 l2 + 1)(2 l3 + 1) / 4 pi) (l1 l2 l3; 0 0 0), with the sign of the real symbols."""
    x, y = draw(4, (l1 + 1) ** 2, 3), draw(4, (l2 + 1) ** 2, 3)
    want = torch.zeros(4, (l3 + 1) ** 2, 3, dtype=torch.float64)
    part = lambda l: slice(l * l, (l + 1) ** 2)
    for a in range(l1 + 1):
        for b in range(l2 + 1):
            for c in range(abs(a - b), min(a + b, l3) + 1):
                table = wigner_3j(a, b, c, torch.float64)
                weight = ((2 * a + 1) * (2 * b + 1) * (2 * c + 1) / (4 * torch.pi)) ** 0.5 * table[a, b, c]
                want[:, part(c)] += weight * torch.einsum("nic,njc,ijk->nkc", x[:, part(a)], y[:, part(b)], table)
    for method in METHODS:
        assert (gaunt_product(x, y, l3, method) - want).abs().max() <= 1e-12 * want.abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_equivariance(method: str) -> None:
    x, y, irreps = draw(2, 9, 2), draw(2, 16, 2), [Irreps.spherical_harmonics(l) for l in (2, 3, 5)]
    for inversion in (False, True):
        R = random_rotation(2)
        turn = lambda n, t: act(irreps[n], t.transpose(1, 2).flatten(0, 1), R, inversion).reshape(2, 2, -1).transpose(1, 2)
        out = gaunt_product(turn(0, x), turn(1, y), method=method)
        assert torch.allclose(out, turn(2, gaunt_product(x, y, method=method)), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method: str) -> None:
    args = draw(2, 4, 2).requires_grad_(), draw(1, 4, 2).requires_grad_()
    f = lambda x, y: gaunt_product(x, y, 2, method)
    assert gradcheck(f, args) and gradgradcheck(f, args)


def test_dtypes_and_leading_dimensions(isa: str) -> None:
    x, y = draw(2, 1, 9, 5), draw(3, 16, 5)
    want = gaunt_product(x, y, 4)
    assert want.shape == (2, 3, 25, 5)
    for dtype, method in (
        (torch.float32, "sparse"),
        (torch.bfloat16, "sparse"),
        (torch.float32, "grid"),
        (torch.float32, "fourier"),
    ):
        a, b = x.to(dtype), y.to(dtype)
        assert_close(gaunt_product(a, b, 4, method), gaunt_product(a.double(), b.double(), 4), dtype, terms=400, magnitude=8.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 4, 2), (3, 4, 0)])
def test_empty(method: str, shape: tuple[int, ...]) -> None:
    x, y = draw(*shape).requires_grad_(), draw(*shape).requires_grad_()
    out = gaunt_product(x, y, method=method)
    assert out.shape == (shape[0], 9, shape[2])
    assert all(g.shape == shape for g in torch.autograd.grad(out.sum(), (x, y)))


def test_errors() -> None:
    x, y = draw(2, 9, 3), draw(2, 4, 3)
    bad = [
        (ValueError, "x of shape", (x[:, :8], y)), (ValueError, "y of shape", (x, y[0, 0])), (ValueError, "lmax up to", (x, y, 4)),
        (TypeError, "lmax", (x, y, 1.5)), (ValueError, "method", (x, y, 1, "fast")), (ValueError, "degrees up to", (draw(196, 1), draw(1, 1))),
    ]  # fmt: skip
    for kind, message, args in bad:
        with pytest.raises(kind, match=message):
            gaunt_product(*args)
    for method in METHODS:
        for kind, message, a, b in (
            (TypeError, "dtype", x, y.float()), (ValueError, "channels", x, draw(2, 4, 2)), (ValueError, "broadcast", x, draw(3, 4, 3)),
        ):  # fmt: skip
            with pytest.raises(kind, match=message):
                gaunt_product(a, b, 2, method)
    with pytest.raises(TypeError, match="float32 or float64"):
        gaunt_product(x.half(), y.half(), 2, "fourier")
