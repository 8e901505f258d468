"""The product of two sparse matrices, from indices and values."""

from __future__ import annotations

import torch
from torch import Tensor

from .matmul import spspmm_sum
from .tensor import SparseTensor


def spspmm(
    indexA: Tensor, valueA: Tensor, indexB: Tensor, valueB: Tensor, m: int, k: int, n: int, coalesced: bool = False
) -> tuple[Tensor, Tensor]:
    """Index ``[2, E]``, sorted, and values of the product of an m x k and a k x n matrix.

    Unsorted entries and duplicates are taken as they come, so ``coalesced`` changes nothing. Differentiable in both values.
    """
    product = spspmm_sum(
        SparseTensor.from_edge_index(indexA, valueA, (m, k)), SparseTensor.from_edge_index(indexB, valueB, (k, n))
    )
    row, col, value = product.coo()
    return torch.stack([row, col]), value
