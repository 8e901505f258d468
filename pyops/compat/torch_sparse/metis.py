"""Graph partitioning, which needs METIS and is not provided."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ... import _check as check
from .tensor import SparseTensor


def partition(
    src: SparseTensor,
    num_parts: int,
    recursive: bool = False,
    weighted: bool = False,
    node_weight: Tensor | None = None,
    balance_edge: bool = False,
) -> tuple[SparseTensor, Tensor, Tensor]:
    """(src, pointers, order) for one part; NotImplementedError for more."""
    if check.size("partition", "num_parts", num_parts) != 1:
        refuse()
    M = src.sparse_size(0)
    return src, torch.tensor([0, M], device=src.device()), torch.arange(M, device=src.device())


def refuse(*args) -> NoReturn:
    raise NotImplementedError(
        "torch_sparse.partition: structops does not provide METIS; partition the graph with pyg_lib or pymetis instead"
    )
