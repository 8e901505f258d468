"""sphericart.torch's calculators on structops: ``from structops.compat.sphericart import SphericalHarmonics``.

Polar axis z, m = -l..l, orthonormal, as in sphericart. Values, gradients and Hessians are all differentiable, to any order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..so2 import _harmonics as harmonics

__all__ = ["SolidHarmonics", "SphericalHarmonics", "e3nn_spherical_harmonics"]

# The polar axis of structops is y: its (x, y, z) are sphericart's (y, z, x), and sphericart's (x, y, z) its (z, x, y).
_TO, _BACK = [1, 2, 0], [2, 0, 1]


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
        return harmonics.spherical_harmonics(range(self._l_max + 1), self._turned(xyz), self._normalize)

    def compute_with_gradients(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Values, and gradients ``[n, 3, (l_max + 1)^2]``."""
        y, dy = harmonics.spherical_harmonics_derivatives(self._l_max, self._turned(xyz), self._normalize)
        return y, dy[:, _BACK]

    def compute_with_hessians(self, xyz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, gradients, and Hessians ``[n, 3, 3, (l_max + 1)^2]``."""
        y, dy, d2y = harmonics.spherical_harmonics_derivatives(self._l_max, self._turned(xyz), self._normalize, order=2)
        return y, dy[:, _BACK], d2y[:, _BACK][:, :, _BACK]

    def l_max(self) -> int:
        return self._l_max

    def omp_num_threads(self) -> int:
        """torch's threads: structops has no others."""
        return torch.get_num_threads()

    def _turned(self, xyz: Tensor) -> Tensor:
        harmonics.vectors(type(self).__name__, "xyz", xyz)
        return xyz[..., _TO]


class SolidHarmonics(SphericalHarmonics):
    """Solid harmonics: the same times |xyz|^l, polynomials of degree l."""

    _normalize = False


def e3nn_spherical_harmonics(l_list, x: Tensor, normalize: bool = False, normalization: str = "integral") -> Tensor:
    """``sphericart.torch.e3nn_spherical_harmonics``: :func:`structops.so2.spherical_harmonics`."""
    return harmonics.spherical_harmonics(l_list, x, normalize, normalization)
