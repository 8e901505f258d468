"""The calculators of sphericart.py: what they compute, its dispatcher names, and the module that scripting puts in their place."""

# TorchScript does not read "tuple[...]" in classes.
# ruff: noqa: UP006, UP035

from collections.abc import Callable
from typing import Tuple

import torch
from torch import Tensor

from ..so2 import _harmonics as harmonics
from . import _dispatcher as dispatcher

# The polar axis of structops is y: its (x, y, z) are sphericart's (y, z, x), and sphericart's (x, y, z) its (z, x, y).
_TO, _BACK = [1, 2, 0], [2, 0, 1]

NAMESPACE = "structops_sphericart"
_ARGUMENTS = "(Tensor xyz, int l_max, bool normalize)"
SCHEMAS = {
    "compute": f"{_ARGUMENTS} -> Tensor",
    "compute_with_gradients": f"{_ARGUMENTS} -> (Tensor, Tensor)",
    "compute_with_hessians": f"{_ARGUMENTS} -> (Tensor, Tensor, Tensor)",
}


def _turned(op: str, xyz: Tensor) -> Tensor:
    harmonics.vectors(op, "xyz", xyz)
    return xyz[..., _TO]


def compute(op: str, xyz: Tensor, l_max: int, normalize: bool) -> Tensor:
    return harmonics.spherical_harmonics(range(l_max + 1), _turned(op, xyz), normalize)


def compute_with_gradients(op: str, xyz: Tensor, l_max: int, normalize: bool) -> Tuple[Tensor, Tensor]:
    y, dy = harmonics.spherical_harmonics_derivatives(l_max, _turned(op, xyz), normalize)
    return y, dy[:, _BACK]


def compute_with_hessians(op: str, xyz: Tensor, l_max: int, normalize: bool) -> Tuple[Tensor, Tensor, Tensor]:
    y, dy, d2y = harmonics.spherical_harmonics_derivatives(l_max, _turned(op, xyz), normalize, order=2)
    return y, dy[:, _BACK], d2y[:, _BACK][:, :, _BACK]


def _function(name: str) -> Callable:
    function = globals()[name]
    return lambda xyz, l_max, normalize: function("SphericalHarmonics" if normalize else "SolidHarmonics", xyz, l_max, normalize)


_library = dispatcher.define(NAMESPACE, SCHEMAS, _function)


class ScriptHarmonics(torch.nn.Module):
    """A calculator with the methods of SphericalHarmonics."""

    def __init__(self, l_max: int, normalize: bool) -> None:
        super().__init__()
        self.degree: int = l_max
        self.normalize: bool = normalize

    def forward(self, xyz: Tensor) -> Tensor:
        return torch.ops.structops_sphericart.compute(xyz, self.degree, self.normalize)

    @torch.jit.export
    def compute(self, xyz: Tensor) -> Tensor:
        return torch.ops.structops_sphericart.compute(xyz, self.degree, self.normalize)

    @torch.jit.export
    def compute_with_gradients(self, xyz: Tensor) -> Tuple[Tensor, Tensor]:
        return torch.ops.structops_sphericart.compute_with_gradients(xyz, self.degree, self.normalize)

    @torch.jit.export
    def compute_with_hessians(self, xyz: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        return torch.ops.structops_sphericart.compute_with_hessians(xyz, self.degree, self.normalize)

    @torch.jit.export
    def l_max(self) -> int:
        return self.degree
