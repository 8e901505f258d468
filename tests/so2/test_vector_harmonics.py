"""VectorSphericalProduct: against fields multiplied point by point, rotations and inversion, the cross product of vectors."""

from __future__ import annotations

import pytest
import torch
from rotations import act, random_rotation
from structops.so2 import VectorSphericalProduct, spherical_harmonics, wigner_3j
from torch.autograd import gradcheck, gradgradcheck

KINDS = ("cross", "dot", "scale")


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def field(coefficients: torch.Tensor, lmax: int, vector: bool, points: torch.Tensor) -> torch.Tensor:
    """Values [rows, points, 3 or 1] of fields at unit vectors."""
    parts = []
    for l in range(lmax + 1):
        Y = spherical_harmonics(l, points, True)
        if not vector:
            parts.append(Y[:, None])
            continue
        for j in range(abs(l - 1), l + 2):
            parts.append(torch.einsum("pa,amj->pmj", Y, wigner_3j(l, 1, j, torch.float64)) * (2 * j + 1) ** 0.5)
    return torch.einsum("pmk,rk->rpm", torch.cat(parts, 2), coefficients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("l1", "l2"), [(0, 0), (1, 1), (2, 1), (1, 3), (3, 3)])
def test_product_of_fields(l1: int, l2: int, kind: str) -> None:
    """Exact at every point where nothing is cut off."""
    p = VectorSphericalProduct(l1, l2, l1 + l2, kind)
    x, y, points = rand(4, p.irreps_in1.dim), rand(4, p.irreps_in2.dim, seed=1), torch.nn.functional.normalize(rand(9, 3, seed=2), dim=1)
    a, b = field(x, l1, kind != "scale", points), field(y, l2, True, points)
    want = torch.linalg.cross(a, b) if kind == "cross" else (a * b).sum(-1, keepdim=True) if kind == "dot" else a * b
    assert torch.allclose(field(p(x, y), l1 + l2, kind != "dot", points), want, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_equivariance(kind: str) -> None:
    p = VectorSphericalProduct(2, 1, 2, kind)
    x, y, R = rand(4, p.irreps_in1.dim), rand(4, p.irreps_in2.dim, seed=1), random_rotation(2)
    for inversion in (False, True):
        turned = p(act(p.irreps_in1, x, R, inversion), act(p.irreps_in2, y, R, inversion))
        assert torch.allclose(turned, act(p.irreps_out, p(x, y), R, inversion), atol=1e-12)
    swapped = act(p.irreps_in1, x, R, True)
    assert not torch.allclose(p(swapped, y), act(p.irreps_out, p(x, y), R), atol=1e-3)


def test_antisymmetric_products_are_reachable() -> None:
    """l = 1 with l = 1 to l = 1, which products of scalar fields cannot make."""
    p = VectorSphericalProduct(2, 2, 2)
    x, y = rand(5, p.irreps_in1.dim), rand(5, p.irreps_in2.dim, seed=1)
    assert torch.allclose(p(x, y), -p(y, x), atol=1e-13)
    only = torch.zeros_like(x)
    only[:, :3] = rand(5, 3, seed=2)
    other = torch.zeros_like(x)
    other[:, :3] = rand(5, 3, seed=3)
    want = torch.linalg.cross(only[:, :3], other[:, :3]) / (4 * torch.pi) ** 0.5
    assert torch.allclose(p(only, other)[:, :3], want) and p(only, other)[:, 3:].abs().max() < 1e-14


def test_truncation_layouts_dtypes_and_derivatives() -> None:
    p, full = VectorSphericalProduct(1, 1, 1), VectorSphericalProduct(1, 1, 2)
    x, y = rand(2, 3, p.irreps_in1.dim), rand(3, p.irreps_in2.dim, seed=1)
    assert torch.allclose(p(x, y), full(x, y)[..., : p.irreps_out.dim])
    assert torch.allclose(p(x.mT, y.mT, "ir_mul"), p(x, y).mT)
    for dtype in (torch.float32, torch.bfloat16):
        assert (p(x.to(dtype), y.to(dtype)).double() - p(x, y)).abs().max() < 50 * torch.finfo(dtype).eps
    x, y = rand(2, 2, p.irreps_in1.dim).requires_grad_(), rand(2, p.irreps_in2.dim).requires_grad_()
    assert gradcheck(p, (x, y)) and gradgradcheck(p, (x, y))
    assert p(torch.zeros(0, 2, 12), torch.zeros(0, 2, 12)).shape == (0, 2, 12)


@pytest.mark.parametrize(
    ("kind", "name", "call"),
    [
        (ValueError, "lmax1", lambda x: VectorSphericalProduct(13, 0, 0)),
        (ValueError, "lmax2", lambda x: VectorSphericalProduct(0, -1, 0)),
        (TypeError, "lmax_out", lambda x: VectorSphericalProduct(0, 0, 1.5)),
        (ValueError, "kind", lambda x: VectorSphericalProduct(0, 0, 0, "curl")),
        (ValueError, "VectorSphericalProduct: expected x of shape", lambda x: VectorSphericalProduct(1, 0, 0)(x, x)),
        (ValueError, "layout", lambda x: VectorSphericalProduct(0, 0, 0)(x, x, "mul")),
        (TypeError, "y of dtype", lambda x: VectorSphericalProduct(0, 0, 0)(x, x.float())),
    ],
)
def test_bad_input(kind, name, call) -> None:
    with pytest.raises(kind, match=name):
        call(rand(2, 2, 3))
