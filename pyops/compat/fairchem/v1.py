"""The layers of fairchem 1.x and EquiformerV2 (``so3.py``, ``so2_ops.py``) for one resolution, on structops.so2.

Differences on purpose: ``SO3_Rotation.set_wigner`` keeps the gradient if ``differentiable=True`` (there it always detaches).
``rotate_inv`` rescales the degrees beyond mmax, as there.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...kernels.so2.wigner_ref import pack, wigner_full
from ...so2 import frame_order, rotate, rotate_back
from ...sparse import scatter_reduce
from . import _layers


def _one(op: str, name: str, values: list[int]) -> int:
    if len(values) != 1:
        raise NotImplementedError(f"{op}: expected one resolution, got {name} = {values}")
    return values[0]


class CoefficientMappingModule(_layers.CoefficientMapping):
    """``CoefficientMappingModule(lmax_list, mmax_list)``; its buffers are in the state dict, as there."""

    def __init__(self, lmax_list: list[int], mmax_list: list[int]):
        super().__init__(
            _one("CoefficientMappingModule", "lmax_list", lmax_list), _one("CoefficientMappingModule", "mmax_list", mmax_list)
        )
        self.lmax_list, self.mmax_list, self.num_resolutions = lmax_list, mmax_list, 1
        size, m_size = self.res_size, self.m_size
        del self.res_size, self.m_size
        self.register_buffer("res_size", torch.tensor([size]))
        self.register_buffer("m_size", torch.tensor(m_size))

    def _degrees(self, rows, to_m, persistent: bool = True) -> None:
        super()._degrees(rows, to_m, persistent=True)


class SO3_Embedding:
    """Node or edge features ``embedding [length, (lmax + 1)^2, num_channels]`` with the methods that the layers use."""

    def __init__(self, length: int, lmax_list: list[int], num_channels: int, device, dtype):
        lmax = _one("SO3_Embedding", "lmax_list", lmax_list)
        self.num_channels, self.device, self.dtype, self.num_resolutions = num_channels, device, dtype, 1
        self.num_coefficients = (lmax + 1) ** 2
        self.set_embedding(torch.zeros(length, self.num_coefficients, num_channels, device=device, dtype=dtype))
        self.set_lmax_mmax(lmax_list, lmax_list.copy())

    def _like(self, embedding: Tensor) -> SO3_Embedding:
        other = SO3_Embedding(0, self.lmax_list.copy(), self.num_channels, self.device, self.dtype)
        other.set_embedding(embedding)
        return other

    def clone(self) -> SO3_Embedding:
        return self._like(self.embedding.clone())

    def set_embedding(self, embedding: Tensor) -> None:
        self.length, self.embedding = len(embedding), embedding

    def set_lmax_mmax(self, lmax_list: list[int], mmax_list: list[int]) -> None:
        self.lmax_list, self.mmax_list = lmax_list, mmax_list

    def _expand_edge(self, edge_index: Tensor) -> None:
        self.set_embedding(self.embedding[edge_index])

    def expand_edge(self, edge_index: Tensor) -> SO3_Embedding:
        return self._like(self.embedding[edge_index])

    def _reduce_edge(self, edge_index: Tensor, num_nodes: int) -> None:
        total = cast(Tensor, scatter_reduce(self.embedding.flatten(1), edge_index, num_nodes))
        self.set_embedding(total.reshape(num_nodes, *self.embedding.shape[1:]))

    def _m_primary(self, mapping) -> None:
        self.embedding = self.embedding[:, mapping.to_m.argmax(1)]

    def _l_primary(self, mapping) -> None:
        self.embedding = self.embedding[:, mapping.to_m.argmax(0)]

    def _rotate(self, SO3_rotation, lmax_list: list[int], mmax_list: list[int]) -> None:
        self.embedding = SO3_rotation[0].rotate(self.embedding, lmax_list[0], mmax_list[0])
        self.set_lmax_mmax(lmax_list.copy(), mmax_list.copy())

    def _rotate_inv(self, SO3_rotation, mappingReduced) -> None:
        self.embedding = SO3_rotation[0].rotate_inv(self.embedding, self.lmax_list[0], self.mmax_list[0])
        self.set_lmax_mmax(self.lmax_list, self.lmax_list.copy())

    def _grid_act(self, SO3_grid, act, mappingReduced) -> None:
        grid = SO3_grid[self.lmax_list[0]][self.mmax_list[0]]
        values = torch.einsum("bai,zic->zbac", grid.get_to_grid_mat(self.device), self.embedding)
        self.embedding = torch.einsum("bai,zbac->zic", grid.get_from_grid_mat(self.device), act(values))


class SO3_Rotation(nn.Module):
    """``set_wigner(rot_mat [E, 3, 3])``, then ``rotate`` (l-primary rows |m| <= out_mmax) and ``rotate_inv``."""

    def __init__(self, lmax: int):
        super().__init__()
        self.lmax = lmax
        self.mapping = CoefficientMappingModule([lmax], [lmax])
        self._blocks: list[Tensor] = []

    def set_wigner(self, rot_mat3x3: Tensor, differentiable: bool = False) -> None:
        """Wigner matrices of the rotations; detached unless ``differentiable``."""
        R = rot_mat3x3 if differentiable else rot_mat3x3.detach()
        self.device, self.dtype = R.device, R.dtype
        # In e3nn's basis the matrix of degree 1 is the rotation itself.
        self._blocks = wigner_full(R, self.lmax)

    @property
    def wigner(self) -> Tensor:
        """``[E, S, S]``, l-primary."""
        E, S = self._blocks[0].shape[0], (self.lmax + 1) ** 2
        out = self._blocks[0].new_zeros(E, S, S)
        for l, d in enumerate(self._blocks):
            out[:, l * l : (l + 1) ** 2, l * l : (l + 1) ** 2] = d
        return out

    @property
    def wigner_inv(self) -> Tensor:
        return self.wigner.mT.contiguous()

    @staticmethod
    def _l_primary(lmax: int, mmax: int) -> list[int]:
        place = {row: i for i, row in enumerate(frame_order(lmax, mmax))}
        return [place[l, m] for l in range(lmax + 1) for m in range(-min(l, mmax), min(l, mmax) + 1)]

    def rotate(self, embedding: Tensor, out_lmax: int, out_mmax: int) -> Tensor:
        if out_lmax != self.lmax:
            raise ValueError(f"SO3_Rotation.rotate: expected out_lmax = lmax = {self.lmax}, got {out_lmax}")
        z = rotate(embedding, pack(self._blocks, out_mmax).to(embedding.dtype), self.lmax, out_mmax)
        return z[:, self._l_primary(self.lmax, out_mmax)]

    def rotate_inv(self, embedding: Tensor, in_lmax: int, in_mmax: int) -> Tensor:
        if in_lmax != self.lmax:
            raise ValueError(f"SO3_Rotation.rotate_inv: expected in_lmax = lmax = {self.lmax}, got {in_lmax}")
        order = self._l_primary(self.lmax, in_mmax)
        z = embedding[:, sorted(range(len(order)), key=order.__getitem__)]
        x = rotate_back(z, pack(self._blocks, in_mmax).to(embedding.dtype), self.lmax, in_mmax)
        scale = [
            1.0 if l <= in_mmax else ((2 * l + 1) / (2 * in_mmax + 1)) ** 0.5
            for l in range(self.lmax + 1)
            for _ in range(2 * l + 1)
        ]
        return x * torch.tensor(scale, dtype=x.dtype, device=x.device)[:, None]


class RadialFunction(_layers.RadialMLP):
    """``RadialFunction(channels_list)``."""


class SO2_m_Convolution(_layers.SO2_m_Conv):
    """``SO2_m_Convolution(m, sphere_channels, m_output_channels, lmax_list, mmax_list)``: ``[E, 2, K]`` to ``[E, 2, N]``."""

    def __init__(self, m: int, sphere_channels: int, m_output_channels: int, lmax_list: list[int], mmax_list: list[int]):
        op = "SO2_m_Convolution"
        super().__init__(m, sphere_channels, m_output_channels, _one(op, "lmax_list", lmax_list), _one(op, "mmax_list", mmax_list))

    def forward(self, x_m: Tensor) -> Tensor:  # type: ignore[override]
        return torch.stack([y.flatten(1) for y in super().forward(x_m)], 1)


class SO2_Convolution(_layers.SO2_Convolution):
    """``forward(SO3_Embedding, x_edge) -> SO3_Embedding`` (and the extra features); l-primary in and out, as there."""

    def __init__(
        self, sphere_channels: int, m_output_channels: int, lmax_list: list[int], mmax_list: list[int], mappingReduced,
        internal_weights: bool = True, edge_channels_list: list[int] | None = None, extra_m0_output_channels: int | None = None,
    ):  # fmt: skip
        op = "SO2_Convolution"
        lmax, mmax = _one(op, "lmax_list", lmax_list), _one(op, "mmax_list", mmax_list)
        super().__init__(
            sphere_channels,
            m_output_channels,
            lmax,
            mmax,
            mappingReduced,
            internal_weights,
            edge_channels_list,
            extra_m0_output_channels,
        )
        self.lmax_list, self.mmax_list, self.num_resolutions = lmax_list, mmax_list, 1

    @staticmethod
    def _order(m: int, sphere_channels: int, m_output_channels: int, lmax: int, mmax: int) -> nn.Module:
        return SO2_m_Convolution(m, sphere_channels, m_output_channels, [lmax], [mmax])

    def forward(self, x: SO3_Embedding, x_edge: Tensor):  # type: ignore[override]
        x._m_primary(self.mappingReduced)
        out: Any = super().forward(x.embedding, x_edge if self.rad_func is not None else None)
        extra = None
        if self.extra_m0_output_channels is not None:
            out, extra = out
        result = SO3_Embedding(0, self.lmax_list.copy(), self.m_output_channels, x.device, x.dtype)
        result.set_embedding(out)
        result.set_lmax_mmax(self.lmax_list.copy(), self.mmax_list.copy())
        result._l_primary(self.mappingReduced)
        return result if extra is None else (result, extra)
