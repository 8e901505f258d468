"""bitorch 0.4.1 on bits: ``structops.compat.bitorch.install()`` and bitorch itself runs on our kernels.

Quantizations keep their classes, names and gradients and compute with structops; QLinear, QConv1d and QConv2d gain
implementations for ``RuntimeMode.CPU`` and ``GPU`` through bitorch's own registry, so ``bitorch.layers.convert(model,
RuntimeMode.CPU)`` makes a model whose weights are packed. ProgressiveSign in training stays bitorch's.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from .. import binary as B

__all__ = ["install", "uninstall"]

_QUANTIZE = {
    "Sign": lambda self, x: B.sign(x, "identity"),
    "ApproxSign": lambda self, x: B.approx_sign(x),
    "SwishSign": lambda self, x: B.swish_sign(x, float(self.beta)),
    "SteHeaviside": lambda self, x: B.sign(x, sign_zero=-1),  # bitorch's is the sign with 0 -> -1
    "InputDoReFa": lambda self, x: B.dorefa(x, self.bit_width, peer="bitorch"),
    "WeightDoReFa": lambda self, x: B.dorefa(x, self.bit_width, "weights", peer="bitorch"),
}
SIGNS = ("sign", "approxsign", "swishsign")  # forwards that packing repeats: 0 -> 1
_saved: dict[str, Any] = {}
_registered: list[tuple[Any, Any]] = []


def _layers() -> list[tuple[str, Any, Any, Any]]:
    """(name, base class, registry decorator, our product) of every layer that bits can run."""
    layers, register = importlib.import_module("bitorch.layers"), importlib.import_module("bitorch.layers.register")
    conv = lambda product: lambda layer, x: product(
        x, layer.packed, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups,
        pad_value=int(layer._pad_value),
    )  # fmt: skip
    found = [
        (
            "QLinear",
            layers.qlinear.QLinearBase,
            register.QLinearImplementation,
            lambda layer, x: B.binary_linear(x, layer.packed, layer.bias),
        )
    ]
    found.append(("QConv1d", layers.qconv1d.QConv1dBase, register.QConv1dImplementation, conv(B.binary_conv1d)))
    found.append(("QConv2d", layers.qconv2d.QConv2dBase, register.QConv2dImplementation, conv(B.binary_conv2d)))
    return found


def _implementation(name: str, base: type, product: Any) -> type:
    extensions = importlib.import_module("bitorch.layers.extensions")

    class Packed(extensions.CustomImplementationMixin, base):  # type: ignore[misc, name-defined]
        """The layer with its weight packed; forward only."""

        @classmethod
        def can_clone(cls, recipe: Any) -> tuple[bool, str]:
            layer = recipe.layer
            weight = layer.weight_quantization if name == "QLinear" else layer._weight_quantize
            for role, quantization in (("input", layer.activation.activation_function), ("weight", weight)):
                if quantization.name not in SIGNS:
                    return False, f"{role} quantization '{quantization.name}' is not a sign"
            if name != "QLinear" and layer._pad_value not in (-1, 1):
                return False, f"padding value {layer._pad_value} is not a sign"
            if name != "QLinear" and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
                return False, "padding must be numbers, mode 'zeros'"
            return True, ""

        @classmethod
        def create_clone_from(cls, recipe: Any, device: torch.device | None = None) -> Any:
            new = cls(*recipe.args, **recipe.kwargs)
            new.load_state_dict(recipe.layer.state_dict())
            if device is not None:
                new.to(device)
            return new

        @property
        def packed(self) -> B.PackedWeight:
            """The weight's bits, also of one that took its place or came with a copy."""
            self._bits = B.PackedWeight.of(self.__dict__.get("_bits"), self.weight, getattr(self, "groups", 1))
            return self._bits

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return product(self, x)

    Packed.__name__ = Packed.__qualname__ = f"Structops{name}"
    return Packed


def install() -> None:
    """Let bitorch's quantizations and the CPU and GPU modes of its layers run on structops. Repeated calls do nothing."""
    bitorch = importlib.import_module("bitorch")
    if _saved:
        return
    quantizations = importlib.import_module("bitorch.quantizations")
    for name, fn in _QUANTIZE.items():
        cls = getattr(quantizations, name)
        _saved[name] = cls.quantize
        cls.quantize = fn
    modes = bitorch.RuntimeMode.CPU + bitorch.RuntimeMode.GPU
    for name, base, decorator, product in _layers():
        holder = decorator(modes)
        holder(_implementation(name, base, product))
        _registered.append((holder.registry, holder))


def uninstall() -> None:
    """Undo :func:`install`."""
    quantizations = importlib.import_module("bitorch.quantizations")
    for name, fn in _saved.items():
        getattr(quantizations, name).quantize = fn
    _saved.clear()
    for registry, holder in _registered:
        registry.layer_implementations.discard(holder)
    _registered.clear()
