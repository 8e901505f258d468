"""torch.compile and torch.export of the binary layers."""

from __future__ import annotations

import pytest
import torch
from structops import backends, binary
from torch import Tensor

needs_cpp = pytest.mark.skipif(backends.native is None, reason="an operator in a graph needs the compiled library")
W, V = torch.randn(9, 70), torch.randn(6, 4, 3, 3)
PACKED, FILTERS = binary.PackedWeight(W), binary.PackedWeight(V)
THRESHOLD = torch.stack([torch.arange(9) - 4, -(torch.arange(9) % 2)]).int()
_ = PACKED.panels, FILTERS.panels, FILTERS.taps


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield
    torch._dynamo.reset()


@needs_cpp
@pytest.mark.parametrize("name", ["linear", "epilogue", "conv", "sequence", "attention"])
def test_training(name: str) -> None:
    """One graph, the same values, the same gradients."""
    x, scale = torch.randn(5, 70), torch.rand(9)
    image = torch.randn(2, 4, 6, 5)
    fn, inputs = {
        "linear": (lambda x, w: binary.binary_linear(x, w), (x, W)),
        "epilogue": (lambda x, w, s: binary.binary_linear(x, w, s, scale=s, prelu=(s, s, s), residual=x[:, :9]), (x, W, scale)),
        "conv": (lambda x, w: binary.binary_conv2d(x, w, padding=1, pad_value=-1), (image, V)),
        "attention": (lambda q, k, s: binary.binary_attention(q, k, 0.5 - k, probability="bool", scale=s[:1]), (x, W, scale)),
        "sequence": (lambda x, w: binary.binary_conv1d(x, w, padding="same"), (torch.randn(2, 4, 9), V[:, :, 0].contiguous())),
    }[name]
    results = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [t.detach().clone().requires_grad_() for t in inputs]
        out = f(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@needs_cpp
def test_inference() -> None:
    def layers(x: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        bits = binary.binary_linear(x, PACKED, threshold=THRESHOLD)
        return bits.words, binary.unpack(bits), binary.packed_linear(x, PACKED), binary.binary_conv2d(image, FILTERS, padding=1)

    x, image = torch.randn(5, 70), torch.randn(2, 4, 6, 5)
    with torch.no_grad():
        compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
        for a, b in zip(compiled(x, image), layers(x, image), strict=True):
            assert torch.allclose(a, b, atol=1e-4)  # integers but for packed_linear, which a backend may sum in another order


@needs_cpp
@pytest.mark.parametrize("probability", ["softmax", "bool"])
def test_attention_of_one_tensor(probability: str) -> None:
    """A tensor may be query, key and value at once."""
    compiled = torch.compile(lambda x: binary.binary_attention(x, x, x, probability=probability), fullgraph=True, backend="aot_eager")
    grads = []
    for f in (compiled, lambda x: binary.binary_attention(x, x, x, probability=probability)):
        x = W.clone().requires_grad_()
        f(x).square().sum().backward()
        grads.append(x.grad)
    assert torch.allclose(*grads, atol=1e-4)


@needs_cpp
def test_bags_of_bits() -> None:
    def layers(index: Tensor, offsets: Tensor) -> Tensor:
        return binary.binary_embedding_bag(index, offsets, binary.BitTensor(words, 70, validate=False), "mean")

    words, index, offsets = binary.pack(W).words, torch.randint(0, 9, (30,)), torch.tensor([0, 4, 4, 11])
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (30, 17):
        assert torch.equal(compiled(index[:n], offsets), layers(index[:n], offsets))


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(W.clone())

    def forward(self, x: Tensor) -> Tensor:
        return binary.binary_linear(x, self.weight).relu()


@needs_cpp
@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    x, module = torch.randn(5, 70), Small().requires_grad_(False)
    program = torch.export.export(module, (x,), strict=strict)
    assert {"structops.bits_pack.default", "structops.bits_gemm.default"} <= {str(n.target) for n in program.graph.nodes}
    assert torch.equal(program.module()(x), module(x))
