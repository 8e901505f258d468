"""Sorting and merging of entries."""

from __future__ import annotations

import torch
from torch import Tensor

from .storage import SparseStorage


def coalesce(index: Tensor, value: Tensor | None, m: int, n: int, op: str = "add") -> tuple[Tensor, Tensor | None]:
    """Index ``[2, E]`` in order and without duplicates, whose values are reduced by ``op``: add, mean, min or max."""
    storage = SparseStorage(row=index[0], col=index[1], value=value, sparse_sizes=(m, n)).coalesce(op)
    return torch.stack([storage.row(), storage.col()]), storage.value()
