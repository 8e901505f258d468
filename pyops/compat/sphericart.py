"""sphericart.torch's calculators on structops: ``from structops.compat.sphericart import SphericalHarmonics``.

Polar axis z, m = -l..l, orthonormal, as in sphericart. Values, gradients and Hessians are all differentiable, to any order, in
reverse mode. ``torch.jit.script`` takes the calculators (without ``omp_num_threads``); a saved TorchScript module needs this
package imported before it is loaded. Degrees above 12 raise ValueError.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..so2 import _harmonics as harmonics
from . import _sphericart_script as script

__all__ = ["SolidHarmonics", "SphericalHarmonics", "e3nn_spherical_harmonics", "patch_e3nn", "unpatch_e3nn"]


class SphericalHarmonics(torch.nn.Module):
    """Spherical harmonics of degrees 0..l_max, at most 12, of the directions of ``xyz [n, 3]``; float32, float64 or 16-bit.

    Args:
        l_max: largest degree. backward_second_derivatives: no effect, second derivatives are always there.

    >>> import torch
    >>> from structops.compat.sphericart import SphericalHarmonics
    >>> SphericalHarmonics(1).compute(torch.tensor([[0., 0., 1.]]))
    tensor([[0.2821, 0.0000, 0.4886, 0.0000]])
    """

    _normalize = True

    def __init__(self, l_max: int, backward_second_derivatives: bool = False) -> None:
        super().__init__()
        self._l_max = harmonics.degree(type(self).__name__, "l_max", l_max)

    def forward(self, xyz: Tensor) -> Tensor:
        return self.compute(xyz)

    def compute(self, xyz: Tensor) -> Tensor:
        """``[n, (l_max + 1)^2]``."""
        return script.compute(type(self).__name__, xyz, self._l_max, self._normalize)

    def compute_with_gradients(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Values, and gradients ``[n, 3, (l_max + 1)^2]``."""
        return script.compute_with_gradients(type(self).__name__, xyz, self._l_max, self._normalize)

    def compute_with_hessians(self, xyz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, gradients, and Hessians ``[n, 3, 3, (l_max + 1)^2]``."""
        return script.compute_with_hessians(type(self).__name__, xyz, self._l_max, self._normalize)

    def l_max(self) -> int:
        return self._l_max

    def omp_num_threads(self) -> int:
        """torch's threads: structops has no others."""
        return torch.get_num_threads()

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return script.ScriptHarmonics(self._l_max, self._normalize)


class SolidHarmonics(SphericalHarmonics):
    """Solid harmonics: the same times |xyz|^l, polynomials of degree l."""

    _normalize = False


def e3nn_spherical_harmonics(l_list, x: Tensor, normalize: bool = False, normalization: str = "integral") -> Tensor:
    """``sphericart.torch.e3nn_spherical_harmonics``: :func:`structops.so2.spherical_harmonics`."""
    return harmonics.spherical_harmonics(l_list, x, normalize, normalization)


_replaced: list[Any] = []


def patch_e3nn(e3nn_module: ModuleType) -> None:
    """Put :func:`e3nn_spherical_harmonics` in the place of ``e3nn_module.o3.spherical_harmonics``; RuntimeError if it is there."""
    if _replaced:
        raise RuntimeError("patch_e3nn: e3nn is patched already")
    _replaced.append(e3nn_module.o3.spherical_harmonics)
    e3nn_module.o3.spherical_harmonics = e3nn_spherical_harmonics


def unpatch_e3nn(e3nn_module: ModuleType) -> None:
    """Undo :func:`patch_e3nn`; RuntimeError where there is nothing to undo."""
    if not _replaced:
        raise RuntimeError("unpatch_e3nn: e3nn is not patched")
    e3nn_module.o3.spherical_harmonics = _replaced.pop()
