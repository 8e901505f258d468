"""Random walks."""

from __future__ import annotations

from torch import Tensor

from ._sampling import random_walk as _random_walk
from .tensor import SparseTensor


def random_walk(src: SparseTensor, start: Tensor, walk_length: int) -> Tensor:
    """Nodes ``[S, walk_length + 1]`` of uniform walks from ``start [S]`` along the rows; a walk stays where a row is empty."""
    rowptr, col, _ = src.csr()
    return _random_walk(rowptr, col, start, walk_length)
