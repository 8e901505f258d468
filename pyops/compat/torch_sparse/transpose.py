"""Transposition."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _index
from .storage import SparseStorage
from .tensor import SparseTensor


def t(src: SparseTensor) -> SparseTensor:
    """The transpose, [N, M]; what is known of either layout stays known."""
    row, col, value = src.coo()
    known, order = src.storage, src.storage.csr2csc()
    storage = SparseStorage(
        row=col[order], rowptr=known._colptr, col=row[order], value=None if value is None else value[order],
        sparse_sizes=known._sparse_sizes[::-1], rowcount=known._colcount, colptr=known._rowptr, colcount=known._rowcount,
        csr2csc=known._csc2csr, csc2csr=order, is_sorted=True, trust_data=True,
    )  # fmt: skip
    return src.from_storage(storage)


def transpose(index: Tensor, value: Tensor | None, m: int, n: int, coalesced: bool = True) -> tuple[Tensor, Tensor | None]:
    """Index ``[2, E]`` and values of the transpose of an m x n matrix; sorted and summed unless ``coalesced`` is False."""
    flipped = index.flip(0)
    if not coalesced:
        for name, ind, size in (("index[0]", index[0], m), ("index[1]", index[1], n)):
            _index.in_range("transpose", name, ind, size)
        return flipped, value
    storage = SparseStorage(row=flipped[0], col=flipped[1], value=value, sparse_sizes=(n, m)).coalesce()
    return torch.stack([storage.row(), storage.col()]), storage.value()
