"""structops.compat.sphericart: closed forms, and sphericart.torch itself where it is installed."""

from __future__ import annotations

import types

import pytest
import torch
from structops.compat import sphericart as ours
from torch.autograd import gradcheck


def points() -> torch.Tensor:
    return torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_closed_forms() -> None:
    xyz = points()
    x, y, z = xyz.unbind(1)
    solid = ours.SolidHarmonics(2)(xyz)
    assert torch.allclose(solid[:, 1:4], 0.4886025119029199 * torch.stack([y, z, x], 1))
    assert torch.allclose(solid[:, 4], 1.0925484305920792 * x * y)
    assert torch.allclose(solid[:, 6], 0.31539156525252005 * (2 * z * z - x * x - y * y))
    assert torch.allclose(ours.SphericalHarmonics(2)(xyz), ours.SolidHarmonics(2)(xyz / xyz.norm(dim=1, keepdim=True)))


@pytest.mark.parametrize("kind", [ours.SphericalHarmonics, ours.SolidHarmonics])
def test_derivatives(kind) -> None:
    calculator, xyz = kind(3), points().requires_grad_()
    y, dy, d2y = calculator.compute_with_hessians(xyz.detach())
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: calculator(p[None])[0]))(points())
    assert torch.allclose(dy, jacobian.transpose(1, 2), atol=1e-12) and torch.allclose(y, calculator(points()))
    hessian = torch.autograd.functional.jacobian(lambda p: calculator.compute_with_gradients(p)[1].sum(0), xyz)
    assert torch.allclose(d2y, hessian.permute(2, 0, 3, 1), atol=1e-12)
    assert gradcheck(calculator.compute_with_hessians, points()[:3].requires_grad_())
    assert calculator.l_max() == 3 and calculator.omp_num_threads() >= 1


@pytest.mark.parametrize("name", ["SphericalHarmonics", "SolidHarmonics"])
def test_against_sphericart(name: str) -> None:
    theirs = pytest.importorskip("sphericart.torch", reason="sphericart-torch is not installed")
    for lmax in (0, 1, 4, 9):
        a, b = getattr(theirs, name)(lmax), getattr(ours, name)(lmax)
        for s, t in zip(a.compute_with_hessians(points()), b.compute_with_hessians(points()), strict=True):
            assert torch.allclose(s, t, rtol=1e-10, atol=1e-10)
        assert torch.allclose(a.compute(points()), b.compute(points()), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["SphericalHarmonics", "SolidHarmonics"])
def test_torchscript(name, tmp_path) -> None:
    """Scripted inside a module, saved and loaded: the same values and gradients."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.harmonics = getattr(ours, name)(4)

        def forward(self, xyz):
            _, dy, d2y = self.harmonics.compute_with_hessians(xyz)
            return self.harmonics(xyz) + self.harmonics.compute(xyz), self.harmonics.compute_with_gradients(xyz)[1] - dy, d2y

    layer, xyz = Layer(), torch.randn(6, 3, requires_grad=True)
    want = layer(xyz)
    slope = torch.autograd.grad(want[0].sin().sum(), xyz, retain_graph=True)[0]
    compiled = torch.jit.script(layer)
    compiled.save(str(tmp_path / "layer.pt"))
    for module in (compiled, torch.jit.load(str(tmp_path / "layer.pt"))):
        got = module(xyz)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(torch.autograd.grad(got[0].sin().sum(), xyz)[0], slope)
    assert torch.jit.script(getattr(ours, name)(4)).l_max() == 4


def test_patch_e3nn() -> None:
    e3nn = types.SimpleNamespace(o3=types.SimpleNamespace(spherical_harmonics="theirs"))
    with pytest.raises(RuntimeError, match="is not patched"):
        ours.unpatch_e3nn(e3nn)
    ours.patch_e3nn(e3nn)
    assert e3nn.o3.spherical_harmonics is ours.e3nn_spherical_harmonics
    with pytest.raises(RuntimeError, match="is patched already"):
        ours.patch_e3nn(e3nn)
    ours.unpatch_e3nn(e3nn)
    assert e3nn.o3.spherical_harmonics == "theirs"
