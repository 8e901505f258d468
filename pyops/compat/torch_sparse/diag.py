"""Diagonals. ``k`` counts them from the main one, upwards if positive."""

import torch
from torch import Tensor

from . import _index
from .storage import SparseStorage
from .tensor import SparseTensor


def remove_diag(src: SparseTensor, k: int = 0) -> SparseTensor:
    """Without the entries of the k-th diagonal."""
    row, col, value = src.coo()
    kept = row != col - k
    rowcount, colcount = src.storage._rowcount, src.storage._colcount
    if rowcount is not None:
        gone = row[~kept]
        rowcount = rowcount.index_add(0, gone, torch.full_like(gone, -1))
    if colcount is not None:
        gone = col[~kept]
        colcount = colcount.index_add(0, gone, torch.full_like(gone, -1))
    value = None if value is None else value[kept]
    storage = SparseStorage(
        row[kept], None, col[kept], value, src.sparse_sizes(), rowcount, None, colcount, None, None, True, True
    )
    return src.from_storage(storage)


def set_diag(src: SparseTensor, values: Tensor | None = None, k: int = 0) -> SparseTensor:
    """With ``values [D, *]`` (ones if None) as the k-th diagonal, every entry of it. A matrix without values stays so."""
    src = remove_diag(src, k)
    row, col, value = src.coo()
    M, N = src.sparse_sizes()
    first, D = _index.diagonal(M, N, k)
    old = _index.non_diag_mask(row, col, M, N, k)
    diagonal = torch.arange(first, first + D, device=row.device)
    source = torch.empty_like(old, dtype=torch.int64)
    source[old] = torch.arange(row.numel(), device=row.device)
    source[~old] = torch.arange(row.numel(), row.numel() + D, device=row.device)
    if value is not None:
        features = list(value.size())[1:]
        if values is None:
            values = torch.ones([D] + features, dtype=value.dtype, device=value.device)  # noqa: RUF005  (TorchScript)
        elif values.dim() > 0 and values.size(0) != D and values.numel() != 1:
            raise ValueError(f"set_diag: expected values of shape [{D}, *], got {values.size()}")
        while values.dim() < value.dim():
            values = values.unsqueeze(-1)
        value = torch.cat([value, values.to(value.dtype).expand([D] + features)])[source]  # noqa: RUF005
    rowcount, colcount = src.storage._rowcount, src.storage._colcount
    if rowcount is not None:
        rowcount = rowcount.index_add(0, diagonal, torch.ones_like(diagonal))
    if colcount is not None:
        colcount = colcount.index_add(0, diagonal + k, torch.ones_like(diagonal))
    row, col = torch.cat([row, diagonal])[source], torch.cat([col, diagonal + k])[source]
    storage = SparseStorage(row, None, col, value, src.sparse_sizes(), rowcount, None, colcount, None, None, True, True)
    return src.from_storage(storage)


def fill_diag(src: SparseTensor, fill_value: float, k: int = 0) -> SparseTensor:
    """With every entry of the k-th diagonal ``fill_value``."""
    value = src.storage.value()
    if value is None:
        return set_diag(src, None, k)
    return set_diag(src, torch.full([1], fill_value, dtype=value.dtype, device=value.device), k)


def get_diag(src: SparseTensor) -> Tensor:
    """The main diagonal ``[min(M, N), *]``, 0 where there is no entry; duplicates are summed."""
    row, col, value = src.coo()
    if value is None:
        value = torch.ones(row.numel(), device=row.device)
    on = row == col
    sizes = src.sparse_sizes()
    length = sizes[0] if sizes[0] < sizes[1] else sizes[1]
    return value.new_zeros([length] + list(value.size())[1:]).index_add(0, row[on], value[on])  # noqa: RUF005
