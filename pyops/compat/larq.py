"""The quantizers of larq 0.13 in torch: same names, aliases, parameters and numbers. Channels come last, as in Keras.

>>> import torch
>>> from structops.compat import larq
>>> larq.quantizers.get("ste_sign")(torch.tensor([-0.5, 0.0, 2.0]))
tensor([-1.,  1.,  1.])
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from .. import binary as B

__all__ = [
    "ApproxSign",
    "DoReFa",
    "MagnitudeAwareSign",
    "NoOp",
    "Quantizer",
    "SteHeaviside",
    "SteSign",
    "SteTern",
    "SwishSign",
    "quantizers",
]


class Quantizer(nn.Module):
    """A quantizer: ``precision`` bits."""

    precision: int | None = 1

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_") and k != "training")


def _signed(x: Tensor, clip_value: float | None) -> Tensor:
    return B.sign(x, "identity") if clip_value is None else B.sign(x, clip=float(clip_value))


class SteSign(Quantizer):
    """Sign, 0 -> 1; the gradient passes where abs(x) <= clip_value (None: everywhere)."""

    def __init__(self, clip_value: float | None = 1.0) -> None:
        super().__init__()
        self.clip_value = clip_value

    def forward(self, x: Tensor) -> Tensor:
        return _signed(x, self.clip_value)


class ApproxSign(Quantizer):
    """Sign with the gradient max(0, 2 - 2 abs(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return B.approx_sign(x)


class SteHeaviside(Quantizer):
    """1 where x > 0, else 0."""

    def __init__(self, clip_value: float | None = 1.0) -> None:
        super().__init__()
        self.clip_value = clip_value

    def forward(self, x: Tensor) -> Tensor:
        return B.heaviside(x, 1e30 if self.clip_value is None else float(self.clip_value))


class SwishSign(Quantizer):
    """Sign with the gradient of SignSwish."""

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return B.swish_sign(x, float(self.beta))


class MagnitudeAwareSign(Quantizer):
    """mean|x| over all but the last dimension times the sign; the gradient is scaled too."""

    def __init__(self, clip_value: float | None = 1.0) -> None:
        super().__init__()
        self.clip_value = clip_value

    def forward(self, x: Tensor) -> Tensor:
        return B.magnitude_aware_sign(x, -1, 1e30 if self.clip_value is None else float(self.clip_value))


class SteTern(Quantizer):
    """-1, 0 or 1 by a threshold, or by 0.7 mean|x| with ``ternary_weight_networks``."""

    precision = 2

    def __init__(
        self, threshold_value: float = 0.05, ternary_weight_networks: bool = False, clip_value: float | None = 1.0
    ) -> None:
        super().__init__()
        self.threshold_value, self.ternary_weight_networks, self.clip_value = threshold_value, ternary_weight_networks, clip_value

    def forward(self, x: Tensor) -> Tensor:
        clip = 1e30 if self.clip_value is None else float(self.clip_value)
        return B.ternary(x, "twn" if self.ternary_weight_networks else float(self.threshold_value), clip)


class DoReFa(Quantizer):
    """k bits; ``mode`` activations or weights."""

    def __init__(self, k_bit: int = 2, mode: str = "activations") -> None:
        super().__init__()
        if mode not in ("activations", "weights"):
            raise ValueError(f"Invalid DoReFa quantizer mode {mode}. Valid values are 'activations' and 'weights'.")
        self.k_bit, self.mode, self.precision = k_bit, mode, k_bit

    def forward(self, x: Tensor) -> Tensor:
        return B.dorefa(x, self.k_bit, self.mode)


class NoOp(Quantizer):
    """The input as it is."""

    def __init__(self, precision: int) -> None:
        super().__init__()
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        return x


_ALIASES = {
    "approx_sign": ApproxSign, "dorefa_quantizer": DoReFa, "magnitude_aware_sign": MagnitudeAwareSign,
    "ste_heaviside": SteHeaviside, "ste_sign": SteSign, "ste_tern": SteTern, "swish_sign": SwishSign,
}  # fmt: skip
_CLASSES = {c.__name__: c for c in (*_ALIASES.values(), NoOp)}


def get(identifier: Any) -> Callable | None:
    """A quantizer by name, alias, ``{"class_name", "config"}``, or as it is when callable; None for None."""
    if identifier is None or callable(identifier):
        return identifier
    if isinstance(identifier, dict):
        return (_CLASSES | _ALIASES)[identifier["class_name"]](**identifier.get("config", {}))
    if isinstance(identifier, str) and identifier in _CLASSES | _ALIASES:
        return (_CLASSES | _ALIASES)[identifier]()
    raise ValueError(f"Could not interpret quantization function identifier: {identifier}")


quantizers = SimpleNamespace(get=get, **_CLASSES)
