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
    ("FullTensorProduct", ("2x2o+2x1e+3x2e", "2x2o+1x1o"), {}),
    ("FullTensorProduct", ("2x0e+1x0o", "2x0e+2x2o+1x0o"), {}),
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


def test_parities_of_spherical_harmonics() -> None:
    """The parity of the vector decides those of the harmonics; given none, it is read from them."""
    with pytest.raises(ValueError, match="irreps_out of the parities that"):
        ours.SphericalHarmonics("0e+1e+2e", True, irreps_in="1o")
    with pytest.raises(ValueError, match="irreps_out of the parities that"):
        ours.SphericalHarmonics("0e+1o", True, irreps_in="1e")
    for irreps, source in (("0e+1e+2e", None), ("0e+1o", None), ("2e", None), ("0e+2x1e", "1e"), ([0, 1, 3], "1e")):
        theirs, mine = (c.SphericalHarmonics(irreps, True, irreps_in=source) for c in (o3, ours))
        assert theirs.irreps_in == mine.irreps_in and theirs.irreps_out == mine.irreps_out


def test_errors_are_those_of_e3nn() -> None:
    """AssertionError for paths, RuntimeError for weights; ValueError and TypeError as elsewhere here."""
    for kind in (AssertionError, ValueError):
        with pytest.raises(kind, match="forbidden combination"):
            ours.TensorProduct("2x0e", "2x1o", "2x1e", [(0, 0, 0, "uuu", False)])
    product = ours.FullyConnectedTensorProduct("2x0e", "1o", "3x1o", internal_weights=False)
    for kind in (RuntimeError, TypeError):
        with pytest.raises(kind, match="holds none of its own"):
            product(torch.randn(4, 2), torch.randn(4, 3))


@pytest.mark.parametrize("kwargs", [{}, {"shared_weights": False}, {"internal_weights": False}])
def test_torchscript(kwargs, tmp_path) -> None:
    """Scripted, scripted inside another module, saved and loaded: the same values, gradients, weights and errors."""
    product = ours.FullyConnectedTensorProduct("3x0e+2x1o", "1x0e+2x1o", "4x0e+3x1o", path_normalization="path", **kwargs)
    x, y = product.irreps_in1.randn(5, -1).requires_grad_(), product.irreps_in2.randn(5, -1)
    rows = () if product.shared_weights else (5,)
    weight = torch.randn(*rows, product.weight_numel) if kwargs else None
    compiled = torch.jit.script(product)
    compiled.save(str(tmp_path / "product.pt"))
    want = product(x, y, weight)
    for module in (compiled, torch.jit.load(str(tmp_path / "product.pt"))):
        assert torch.equal(module(x, y, weight), want)
        assert torch.equal(module.right(y, weight), product.right(y, weight))
        slopes = [torch.autograd.grad(f(x, y, weight).sin().sum(), x)[0] for f in (module, product)]
        assert torch.equal(*slopes)
        assert module.state_dict().keys() == product.state_dict().keys()
        with pytest.raises(RuntimeError, match="expected x of shape"):
            module(x[:, 1:], y, weight)
    if kwargs:
        with pytest.raises(RuntimeError, match="holds none of its own"):
            compiled(x, y)
    else:
        assert compiled.weight.data_ptr() == product.weight.data_ptr()


def test_compilation_by_e3nn() -> None:
    """e3nn's own compilation of a layer that holds a product."""
    from e3nn.util import jit

    @jit.compile_mode("script")
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.product = ours.ElementwiseTensorProduct("2x0e+1o", "3x0e")
            self.harmonics = ours.SphericalHarmonics("0e+1o+3o", True, "component")

        def forward(self, x, y):
            return self.product(x, y), self.harmonics(x[:, 2:])

    layer = Layer()
    x, y = torch.randn(5, 5), torch.randn(5, 3)
    want = layer(x, y)
    for a, b in zip(jit.compile(layer)(x, y), want, strict=True):
        assert torch.equal(a, b)


def test_empty_irreps() -> None:
    """An operand without terms gives zeros, in the leading dimensions of both."""
    irreps = ("0e+1e", "", "2x0e+1e")
    theirs, mine = (c.FullyConnectedTensorProduct(*irreps, compile_right=True) for c in (o3, ours))
    x, y = torch.randn(1, 2, 4), torch.randn(2, 1, 0)
    assert torch.equal(mine(x, y), theirs(x, y)) and torch.equal(mine(x, y), torch.zeros(2, 2, 5))
    assert torch.equal(mine.right(y), torch.zeros(2, 1, 4, 5))
