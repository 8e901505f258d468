"""The modules: shapes, gradients, state, and that evaluation on packed weights is the training forward."""

from __future__ import annotations

import copy
import pickle

import pytest
import structops
import torch
from torch import nn

N = structops.nn


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: N.BinaryLinear(70, 5), (3, 70)),
        (lambda: N.BinaryLinear(70, 5, bias=False, scale=True), (2, 3, 70)),
        (lambda: N.BinaryConv1d(4, 6, 3, padding=1, groups=2), (2, 4, 9)),
        (lambda: N.BinaryConv2d(4, 6, 3, stride=2, padding=1, pad_value=-1, scale=True), (2, 4, 9, 9)),
        (lambda: nn.Sequential(N.RSign(4), N.RPReLU(4)), (2, 4, 3)),
        (lambda: N.SparseLinear(torch.rand(5, 7) > 0.5), (2, 7)),
        (lambda: N.FFF(6, 3, 4, 2, "gelu", train_hardened=True, master_leaf=8), (9, 6)),
    ],
)
def test_modules(make, shape) -> None:
    m = make()
    x = torch.randn(shape, requires_grad=True)
    y = m(x)
    y.square().sum().backward()
    assert x.grad is not None and all(p.grad is not None for n, p in m.named_parameters() if "node" not in n)
    m.eval()
    with torch.no_grad():
        assert torch.equal(m(x), y)
        for p in m.parameters():
            p.add_(torch.randn_like(p))  # packed weights notice
        again = copy.deepcopy(m)
        again.load_state_dict(m.state_dict())
        assert torch.equal(m(x), again(x)) and not torch.equal(m(x), y)


def _replaced(m: nn.Module) -> nn.Module:
    m.weight = nn.Parameter(-m.weight)
    return m


def _copied(m: nn.Module) -> nn.Module:
    m = copy.deepcopy(m)
    m.weight.neg_()
    return m


def _moved(m: nn.Module) -> nn.Module:
    m.weight.data = -m.weight.data
    return m


def _called(m: nn.Module) -> nn.Module:
    return lambda x: torch.func.functional_call(m, {"weight": -m.weight}, (x,))


def _mapped(m: nn.Module) -> nn.Module:
    call = lambda w, x: torch.func.functional_call(m, {"weight": w}, (x,))
    torch.func.vmap(call, (0, None))(torch.stack([m.weight, -m.weight]), torch.randn(3, 4, 9, 9))
    return _moved(m)


@pytest.mark.parametrize("change", [_replaced, _copied, _moved, _called, _mapped])
def test_another_weight_is_packed(change) -> None:
    """However it came into the module that has packed one before."""
    m, x = N.BinaryConv2d(4, 6, 3).eval(), torch.randn(3, 4, 9, 9)
    with torch.no_grad():
        y = m(x)
        assert torch.equal(change(m)(x), -y)


@pytest.mark.parametrize(("layer", "shape"), [(N.BinaryLinear(70, 5, bias=False), (2, 70)), (N.BinaryConv1d(4, 6, 3), (2, 4, 9))])
def test_eval_packs_what_changed_through_data(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        y = nn.Sequential(layer).eval()(x)
        layer.weight.data.neg_()
        assert torch.equal(nn.Sequential(layer).eval()(x), -y)


def test_inference_tensors() -> None:
    x = torch.randn(2, 70)
    with torch.inference_mode():
        m = N.BinaryLinear(70, 5, bias=False).eval()
        y = m(x)
        assert torch.equal(structops.binary.binary_linear(x, structops.binary.PackedWeight(m.weight)), y)
        m.weight.neg_()
        assert torch.equal(m(x), -y)


def test_fff_trains_soft_and_decides_hard() -> None:
    m = N.FFF(6, 3, 4, 2, region_leak=0.1)
    y = m(torch.randn(5, 6))
    (y.sum() + m.load_balance + m.entropy).backward()
    assert m.node_weights.grad is not None
    soft = N.FFF(6, 3, 4, 0)
    assert torch.allclose(soft(torch.ones(1, 6)), soft.eval()(torch.ones(1, 6)), atol=1e-6) and soft.entropy is None


@pytest.mark.parametrize("other", [torch.ones(5, 7), torch.eye(7, 5), torch.eye(5, 9)])
def test_sparse_linear_refuses_another_shape(other: torch.Tensor) -> None:
    layer, x = N.SparseLinear(torch.eye(5, 7)), torch.randn(2, 7)
    graph = layer.graph
    with pytest.raises(ValueError, match="SparseLinear: expected a mask of"):
        layer.load_state_dict(N.SparseLinear(other).state_dict(), strict=False)
    assert layer.graph is graph and layer(x).shape == (2, 5)


def test_sparse_linear_moves_its_mask() -> None:
    m = N.SparseLinear(torch.rand(20, 30) > 0.8)
    before = m.values.detach().clone()
    origin = m.prune_regrow(0.25)
    assert m.values.numel() == before.numel() and torch.equal(m.values[origin >= 0], before[origin[origin >= 0]])
    other = N.SparseLinear(torch.zeros(20, 30).index_fill(0, torch.tensor([0]), 1)[:, : m.graph.num_src])
    other.values = nn.Parameter(torch.empty_like(m.values))
    other.load_state_dict(m.state_dict())
    x = torch.randn(4, 30)
    assert torch.equal(m(x), other(x))


def test_embeddings() -> None:
    e = N.BinaryEmbedding(9, 4)
    e(torch.tensor([[1, 2]])).sum().backward()
    assert e.weight.grad[1:3].ne(0).any() and e.weight.grad[3:].eq(0).all()
    bag = N.BinaryEmbeddingBag(9, 4, mode="sum")
    assert bag(torch.tensor([1, 1, 2]), torch.tensor([0, 2])).shape == (2, 4)


def test_fff_copies_after_a_pass_in_training() -> None:
    layer, x = N.FFF(8, 4, 3, 2), torch.randn(5, 8)
    layer(x)
    load, entropy = layer.load_balance, layer.entropy
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.load_balance is None and copied.entropy is None
        assert torch.equal(copied.eval()(x), layer.eval()(x))
    layer.train()
    assert layer.load_balance is load and layer.entropy is entropy
    (load + entropy).backward()
    assert layer.node_weights.grad.abs().sum() > 0
