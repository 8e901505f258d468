"""OpenEquivariance's problems and modules on structops, on the CPU too.

``from structops.compat.openequivariance import TensorProductConv, TPProblem``.

Weights are in e3nn's order for every mode, so that the two reorderings change nothing. Every product is deterministic. All modes of
e3nn are taken, with weights or without.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import state
from ..graph import Graph
from ..so2 import tensor_product

__all__ = ["TPProblem", "TensorProduct", "TensorProductConv"]


@dataclass(eq=False)
class TPProblem:
    """A tensor product: irreps, paths, normalisation, dtypes and layout; the arguments are those of OpenEquivariance."""

    irreps_in1: Any
    irreps_in2: Any
    irreps_out: Any
    instructions: Sequence[tuple]
    in1_var: Sequence[float] | None = None
    in2_var: Sequence[float] | None = None
    out_var: Sequence[float] | None = None
    irrep_normalization: str = "component"
    path_normalization: str = "element"
    internal_weights: bool | None = False
    shared_weights: bool | None = None
    label: str | None = None
    irrep_dtype: Any = np.float32
    weight_dtype: Any = np.float32
    layout: str = "mul_ir"

    def __post_init__(self) -> None:
        if np.dtype(self.irrep_dtype) != np.dtype(self.weight_dtype):
            check.fail(
                TypeError, "TPProblem", f"weight_dtype {np.dtype(self.irrep_dtype)}, as irrep_dtype", np.dtype(self.weight_dtype)
            )
        self.shared_weights = bool(self.shared_weights)
        self._module = tensor_product.TensorProduct(
            self.irreps_in1, self.irreps_in2, self.irreps_out, self.instructions, self.in1_var, self.in2_var, self.out_var,
            self.irrep_normalization, self.path_normalization, bool(self.internal_weights), self.shared_weights, self.layout,
        )  # fmt: skip

    @property
    def weight_numel(self) -> int:
        """Weights of a row."""
        return self._module.weight_numel

    def clone(self) -> TPProblem:
        """A deep copy."""
        return copy.deepcopy(self)


class TensorProduct(torch.nn.Module):
    """``openequivariance.TensorProduct``: ``forward(x, y, W)`` row by row; torch_op and use_opaque have no effect.

    >>> import torch
    >>> from structops.compat.openequivariance import TensorProduct, TPProblem
    >>> product = TensorProduct(TPProblem("8x1o", "1x1o", "8x0e", [(0, 0, 0, "uvu", True)]))
    >>> product(torch.ones(5, 24), torch.ones(5, 3), torch.ones(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, problem: TPProblem, torch_op: bool = True, use_opaque: bool = False) -> None:
        super().__init__()
        if not isinstance(problem, TPProblem):
            check.fail(TypeError, type(self).__name__, "problem to be a TPProblem", type(problem).__name__)
        self.config, self.weight_numel = problem, problem.weight_numel
        self.product = problem._module

    def forward(self, x: Tensor, y: Tensor, W: Tensor | None = None) -> Tensor:
        return self.product(x, y, W if self.weight_numel else None)

    def reorder_weights_from_e3nn(self, weights: Tensor, has_batch_dim: bool = True) -> Tensor:
        """The weights themselves: the order is e3nn's."""
        return weights

    reorder_weights_to_e3nn = reorder_weights_from_e3nn


class TensorProductConv(TensorProduct):
    """``openequivariance.TensorProductConv``: ``forward(X, Y, W, rows, cols)``, rows the receivers, cols the senders.

    ``deterministic`` and ``kahan`` have no effect, nor has ``sender_perm``: sums are deterministic, and the graph made from rows
    and cols, in any order, is kept while the same two tensors come, unchanged.
    """

    def __init__(self, problem: TPProblem, *, deterministic: bool = False, kahan: bool = False, torch_op: bool = True,
                 use_opaque: bool = False) -> None:  # fmt: skip
        super().__init__(problem, torch_op, use_opaque)
        self._last: tuple | None = None

    def forward(  # type: ignore[override]
        self, X: Tensor, Y: Tensor, W: Tensor | None, rows: Tensor, cols: Tensor, sender_perm: Tensor | None = None
    ) -> Tensor:
        return tensor_product.tp_conv(self._graph(rows, cols, X.shape[0]), X, Y, W if self.weight_numel else None, self.product)

    def _graph(self, rows: Tensor, cols: Tensor, nodes: int) -> Graph:
        last = self._last
        if last is not None and last[0] is rows and last[1] is cols and last[2] == (state(rows), state(cols), nodes):
            return last[3]
        check.index("TensorProductConv", "rows", rows)
        check.index("TensorProductConv", "cols", cols, like=rows)
        if rows.dim() != 1 or rows.shape != cols.shape:
            check.fail(ValueError, "TensorProductConv", "rows and cols of shape [E]", [list(rows.shape), list(cols.shape)])
        graph = Graph(torch.stack([cols, rows]), num_nodes=nodes)
        self._last = None if rows.is_inference() or cols.is_inference() else (rows, cols, (state(rows), state(cols), nodes), graph)
        return graph
