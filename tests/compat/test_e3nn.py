"""structops.compat.e3nn against e3nn itself: results, gradients, weights and state dicts."""

from __future__ import annotations

import copy

import pytest
import torch
from structops import Graph
from structops.compat import e3nn as ours

o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")

pytestmark = pytest.mark.usefixtures("double")

CASES = [
    ("FullyConnectedTensorProduct", ("3x0e+2x1o+1x2e", "1x0e+2x1o", "4x0e+3x1o+2x1e"), {}),
    (
        "FullyConnectedTensorProduct",
        ("3x0e+2x1o", "1x0e+2x1o", "4x0e+3x1o"),
        {"shared_weights": False, "path_normalization": "path"},
    ),
    ("FullTensorProduct", ("3x0e+2x1o", "2x1e+1x0o"), {}),
    ("FullTensorProduct", ("3x1o+2x1o", "2x1o"), {"filter_ir_out": ["0e", "2e"], "irrep_normalization": "norm"}),
    ("ElementwiseTensorProduct", ("5x1o+5x1e", "10x1e"), {"filter_ir_out": ["0e", "0o"]}),
    ("ElementwiseTensorProduct", ("3x0e+4x1o", "2x1o+5x2e"), {}),
]


@pytest.mark.parametrize(("name", "irreps", "kwargs"), CASES)
def test_products(name, irreps, kwargs) -> None:
    theirs, mine = getattr(o3, name)(*irreps, **kwargs), getattr(ours, name)(*irreps, **kwargs)
    assert mine.irreps_out == theirs.irreps_out and mine.weight_numel == theirs.weight_numel
    assert [tuple(i) for i in mine.instructions] == [tuple(i) for i in theirs.instructions]
    mine.load_state_dict(theirs.state_dict())
    x, y = (i.randn(2, 3, -1).requires_grad_() for i in (theirs.irreps_in1, theirs.irreps_in2))
    weight = None if theirs.shared_weights else torch.randn(2, 3, theirs.weight_numel)
    a, b = theirs(x, y, weight), mine(x, y, weight)
    assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    for s, t in zip(torch.autograd.grad(a.sin().sum(), (x, y)), torch.autograd.grad(b.sin().sum(), (x, y)), strict=True):
        assert torch.allclose(s, t, rtol=1e-11, atol=1e-11)


def test_right_and_weight_views() -> None:
    irreps = ("3x0e+2x1o", "1x0e+2x1o", "4x0e+3x1o")
    theirs, mine = (
        o3.FullyConnectedTensorProduct(*irreps, compile_right=True),
        ours.FullyConnectedTensorProduct(*irreps, compile_right=True),
    )
    mine.load_state_dict(theirs.state_dict())
    y = theirs.irreps_in2.randn(5, -1)
    assert torch.allclose(theirs.right(y), mine.right(y), rtol=1e-12, atol=1e-12)
    for a, b in zip(theirs.weight_views(yield_instruction=True), mine.weight_views(yield_instruction=True), strict=True):
        assert a[0] == b[0] and torch.equal(a[2], b[2])
    with torch.no_grad():
        for view in mine.weight_views():
            view.zero_()
    assert mine.weight.abs().sum() == 0
    x = mine.irreps_in1.randn(5, -1)
    assert torch.allclose(mine(x, y, list(theirs.weight_views())), theirs(x, y), rtol=1e-12, atol=1e-12)


def test_patch() -> None:
    original = o3.TensorProduct, o3.spherical_harmonics
    ours.patch_e3nn()
    try:
        assert o3.TensorProduct is ours.TensorProduct and o3.spherical_harmonics is ours.spherical_harmonics
        product = o3.FullyConnectedTensorProduct("2x0e", "1o", "3x1o")
        assert isinstance(product, ours.TensorProduct) and isinstance(copy.deepcopy(product), ours.TensorProduct)
    finally:
        ours.unpatch_e3nn()
    assert (o3.TensorProduct, o3.spherical_harmonics) == original


@pytest.mark.parametrize("l", [2, [0, 1, 3], "1o+2e", "3o"])
def test_spherical_harmonics(l) -> None:
    x = torch.randn(2, 5, 3)
    for l_ in (l, o3.Irreps(l)) if isinstance(l, str) else (l,):
        for normalize in (True, False):
            want = o3.spherical_harmonics(l_, x, normalize, "component")
            assert torch.allclose(ours.spherical_harmonics(l_, x, normalize, "component"), want, rtol=1e-12, atol=1e-12)
    theirs, mine = o3.SphericalHarmonics(l, True), ours.SphericalHarmonics(l, True)
    assert mine.irreps_out == theirs.irreps_out and mine.irreps_in == theirs.irreps_in
    assert torch.allclose(theirs(x), mine(x), rtol=1e-12, atol=1e-12)


def test_fused_convolution() -> None:
    """The gather, product and index_add of a model become one call."""
    product = ours.TensorProduct(
        "4x0e+2x1o", "0e+1o", "4x0e+2x1o", [(0, 0, 0, "uvu", True), (1, 0, 1, "uvu", True)], shared_weights=False
    )
    src, dst = torch.randint(0, 5, (2, 20))
    x, y, w = torch.randn(5, 10), torch.randn(20, 4), torch.randn(20, 6)
    want = torch.zeros(5, 10).index_add(0, dst, product(x[src], y, w))
    assert torch.allclose(product.conv(Graph(torch.stack([src, dst]), num_nodes=5), x, y, w), want)
