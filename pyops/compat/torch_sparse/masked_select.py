"""Rows, columns, features or entries by mask."""

import torch
from torch import Tensor

from .storage import SparseStorage, get_layout
from .tensor import SparseTensor


def masked_select(src: SparseTensor, dim: int, mask: Tensor) -> SparseTensor:
    """The rows (dim 0), columns (dim 1) or features where ``mask``, a bool vector of that size, holds."""
    dim = dim + src.dim() if dim < 0 else dim
    if dim < 0 or dim >= src.dim():
        raise IndexError(f"masked_select: expected dim in [{-src.dim()}, {src.dim()}), got {dim}")
    _check_mask(mask, src.size(dim))
    row, col, value = src.coo()
    if dim > 1:
        assert value is not None
        return src.set_value(value.index_select(dim - 1, mask.nonzero().flatten()), "coo")
    place = mask.cumsum(0) - 1
    size = int(mask.sum())
    sizes = src.sparse_sizes()
    if dim == 0:
        kept = mask[row]
        row, col, sizes = place[row[kept]], col[kept], (size, sizes[1])
    else:
        kept = mask[col]
        row, col, sizes = row[kept], place[col[kept]], (sizes[0], size)
    value = None if value is None else value[kept]
    rowcount = src.storage._rowcount
    colcount = src.storage._colcount
    rowcount = rowcount[mask] if rowcount is not None and dim == 0 else None
    colcount = colcount[mask] if colcount is not None and dim == 1 else None
    return src.from_storage(
        SparseStorage(row, None, col, value, sizes, rowcount, None, colcount, None, None, True, True)
    )


def masked_select_nnz(src: SparseTensor, mask: Tensor, layout: str | None = None) -> SparseTensor:
    """The entries where ``mask``, a bool vector in the order of ``layout`` (coo, csr or csc), holds."""
    _check_mask(mask, src.nnz())
    if get_layout(layout) == "csc":
        mask = mask[src.storage.csc2csr()]
    row, col, value = src.coo()
    return SparseTensor(
        row[mask], None, col[mask], None if value is None else value[mask], src.sparse_sizes(), True, True
    )


def _check_mask(mask: Tensor, size: int):
    if mask.dtype != torch.bool or mask.dim() != 1 or mask.size(0) != size:
        raise ValueError(f"masked_select: expected a bool mask of shape [{size}], got {mask.dtype} {mask.size()}")
