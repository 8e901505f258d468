"""Induced subgraphs."""

from __future__ import annotations

from torch import Tensor

from ._sampling import saint_subgraph as _saint_subgraph
from .tensor import SparseTensor


def saint_subgraph(src: SparseTensor, node_idx: Tensor) -> tuple[SparseTensor, Tensor]:
    """The subgraph of ``node_idx [S]``, distinct, renumbered in this order, and the entries of ``src`` it holds."""
    row, col, value = src.coo()
    row, col, edge = _saint_subgraph(node_idx, src.storage.rowptr(), row, col)
    S = node_idx.numel()
    return SparseTensor(row, None, col, None if value is None else value[edge], (S, S), False, True), edge
