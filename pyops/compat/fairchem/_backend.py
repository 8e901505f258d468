"""An ``ExecutionBackend`` of fairchem 2.x."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from ...kernels.so2.wigner_ref import kept, order, packed_size
from ...so2 import rotate, rotate_back
from ...sparse import scatter_reduce

MAX_L = 8


@cache
def _degrees_of_packed(rows: int, size: int, nodes: bool) -> tuple[int, int]:
    """(lmax, mmax) from the size of a packed matrix and the coefficients of a node (or, else, the rows of the edge frame)."""
    for L in range(MAX_L + 1):
        for M in range(L + 1):
            if packed_size(L, M) == size and rows == ((L + 1) ** 2 if nodes else len(order(L, M))):
                return L, M
    raise ValueError(f"structops backend: expected packed Wigner matrices for lmax <= {MAX_L}, got {size} numbers for {rows} rows")


@cache
def _positions(L: int, M: int) -> list[int]:
    """Where a packed matrix finds its numbers in a flattened dense one [S, S]."""
    S, found = (L + 1) ** 2, []
    for l in range(L + 1):
        k = min(l, M)
        for m in range(-k, k + 1):
            found += [(l * l + l + m) * S + l * l + c for c in range(2 * l + 1)]
    return found


@cache
def _zonal(L: int, M: int) -> list[int]:
    """The rows m = 0 of a packed matrix."""
    found: list[int] = []
    at = 0
    for l in range(L + 1):
        at_row = at + min(l, M) * (2 * l + 1)
        found += range(at_row, at_row + 2 * l + 1)
        at += kept(l, M) * (2 * l + 1)
    return found


def execution_backend() -> type:
    """The backend class: gathers, rotations and sums of a UMA model by structops, for any lmax <= 8 and mmax, in training too.

    Use ``model.backend = execution_backend()()`` and the same on every ``block.edge_wise.backend``, and
    :func:`structops.compat.fairchem.convert` for the convolutions. Wigner matrices are kept packed, ``[E, R]``.

    Raises:
        ImportError: fairchem 2.x is not importable.
    """
    from fairchem.core.models.uma.nn.execution_backends import ExecutionBackend

    class StructopsBackend(ExecutionBackend):  # type: ignore[misc, valid-type]
        @staticmethod
        def validate(lmax: int, mmax: int, settings: Any) -> None:
            if not 0 <= mmax <= lmax <= MAX_L:
                raise ValueError(f"structops backend: expected mmax <= lmax <= {MAX_L}, got lmax={lmax}, mmax={mmax}")

        @staticmethod
        def prepare_wigner(wigner: Tensor, wigner_inv: Tensor, mappingReduced: Any, coefficient_index: Tensor | None):
            L, M = mappingReduced.lmax, mappingReduced.mmax
            index = torch.tensor(_positions(L, M), device=wigner.device)
            return wigner.flatten(1)[:, index], wigner_inv.mT.flatten(1)[:, index]

        @staticmethod
        def node_to_edge_wigner_permute(x_full: Tensor, edge_index: Tensor, wigner: Tensor) -> Tensor:
            ends = torch.cat((x_full[edge_index[0]], x_full[edge_index[1]]), 2)
            return rotate(ends, wigner, *_degrees_of_packed(x_full.shape[1], wigner.shape[1], True))

        @staticmethod
        def permute_wigner_inv_edge_to_node(
            x_message: Tensor, wigner_inv: Tensor, scatter_target: Tensor, num_nodes: int
        ) -> Tensor:
            message = rotate_back(x_message, wigner_inv, *_degrees_of_packed(x_message.shape[1], wigner_inv.shape[1], False))
            return _sum(message, scatter_target, num_nodes)

        @staticmethod
        def edge_degree_scatter(
            x, radial_output, wigner_inv, scatter_target, m_0_num_coefficients, sphere_channels, rescale_factor
        ):
            L, M = _degrees_of_packed(x.shape[1], wigner_inv.shape[1], True)
            zonal = wigner_inv[:, torch.tensor(_zonal(L, M), device=wigner_inv.device)]
            radial = radial_output.reshape(-1, m_0_num_coefficients, sphere_channels)
            message = rotate_back(radial.to(zonal.dtype), zonal, L, 0)
            return x + _sum(message.to(x.dtype), scatter_target, x.shape[0]) / rescale_factor

    return StructopsBackend


def _sum(message: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    """Rows added to their targets in the order of the edges."""
    return cast(Tensor, scatter_reduce(message.flatten(1), target, num_nodes)).reshape(num_nodes, *message.shape[1:])
