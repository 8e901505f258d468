"""The modules of e3nn.py in TorchScript: dispatcher names of their operators, and modules that scripting puts in their place."""

# TorchScript does not read "X | None" in classes.
# ruff: noqa: UP006, UP035, UP045

import functools
import json
from collections.abc import Callable
from typing import Any, List, Optional

import torch
from torch import Tensor

from ..so2 import spherical_harmonics as _harmonics
from ..so2 import tensor_product
from . import _dispatcher as dispatcher

NAMESPACE = "structops_e3nn"
SCHEMAS = {
    "tensor_product": "(Tensor x, Tensor y, Tensor? weight, str product) -> Tensor",
    "tensor_product_right": "(Tensor y, Tensor? weight, str product) -> Tensor",
    "spherical_harmonics": "(Tensor x, int[] l, bool normalize, str normalization) -> Tensor",
}


def described(*arguments: object) -> str:
    """The arguments of a product as the string by which a saved module finds it again."""
    return json.dumps(arguments)


@functools.cache
def product(description: str) -> tensor_product.TensorProduct:
    """The product described, holding no weights."""
    return tensor_product.TensorProduct(*json.loads(description))


def right(module: tensor_product.TensorProduct, y: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """The linear map that the product with ``y`` is."""
    x = torch.eye(module.spec.in1.dim, dtype=y.dtype, device=y.device)
    weight = module._weights(type(module).__name__, weight, y)
    if weight is not None and not module.shared_weights:
        weight = weight.unsqueeze(-2)
    return module(x, y.unsqueeze(-2), weight)


_FUNCTIONS = {
    "tensor_product": lambda x, y, weight, description: product(description)(x, y, weight),
    "tensor_product_right": lambda y, weight, description: right(product(description), y, weight),
    "spherical_harmonics": lambda x, l, normalize, normalization: _harmonics(l, x, normalize, normalization),
}


def _function(name: str) -> Callable:
    def call(*args):
        try:
            return _FUNCTIONS[name](*args)
        except (TypeError, ValueError) as error:  # what TorchScript raises for arguments that do not fit
            raise RuntimeError(str(error)) from error

    return call


_library = dispatcher.define(NAMESPACE, SCHEMAS, _function)


class ScriptTensorProduct(torch.nn.Module):
    """A tensor product with the same parameters as ``module``, which it shares, and the same methods."""

    def __init__(self, module: Any, description: str) -> None:
        super().__init__()
        self.irreps_in1, self.irreps_in2, self.irreps_out = module.irreps_in1, module.irreps_in2, module.irreps_out
        self.product = description
        self.weight_numel: int = module.weight_numel
        self.internal_weights: bool = module.internal_weights
        self.shared_weights: bool = module.shared_weights
        if isinstance(module.weight, torch.nn.Parameter):
            self.weight = module.weight
        else:
            self.register_buffer("weight", module.weight)
        self.register_buffer("output_mask", module.output_mask)

    def forward(self, x: Tensor, y: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        if weight is None and self.internal_weights:
            weight = self.weight
        return torch.ops.structops_e3nn.tensor_product(x, y, weight, self.product)

    @torch.jit.export
    def right(self, y: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        if weight is None and self.internal_weights:
            weight = self.weight
        return torch.ops.structops_e3nn.tensor_product_right(y, weight, self.product)


class ScriptSphericalHarmonics(torch.nn.Module):
    """The same harmonics as ``module``."""

    def __init__(self, module: Any, degrees: List[int]) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = module.irreps_in, module.irreps_out
        self.degrees: List[int] = degrees
        self.normalize: bool = bool(module.normalize)
        self.normalization: str = module.normalization

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.structops_e3nn.spherical_harmonics(x, self.degrees, self.normalize, self.normalization)
