"""The sum of two sparse matrices, from indices and values."""

from __future__ import annotations

import torch
from torch import Tensor

from .coalesce import coalesce


def spadd(indexA: Tensor, valueA: Tensor, indexB: Tensor, valueB: Tensor, m: int, n: int) -> tuple[Tensor, Tensor]:
    """Index and values of the sum of two m x n matrices, coalesced."""
    return coalesce(torch.cat([indexA, indexB], 1), torch.cat([valueA, valueB]), m, n, "add")
