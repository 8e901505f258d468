"""Rows, columns, features or entries by index."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from . import _index
from .storage import SparseStorage, get_layout
from .tensor import SparseTensor
from .transpose import t


def index_select(src: SparseTensor, dim: int, idx: Tensor) -> SparseTensor:
    """The rows (dim 0), columns (dim 1) or features ``idx``, in this order; repetitions are allowed.

    IndexError: an index out of range or negative.
    """
    dim = check.axis("index_select", dim, src.dim())
    idx = _checked(idx, src.size(dim))
    if dim > 1:
        return src.set_value(src.storage.value().index_select(dim - 1, idx), "coo")
    if dim == 1:
        return t(_rows(t(src), idx))
    return _rows(src, idx)


def index_select_nnz(src: SparseTensor, idx: Tensor, layout: str | None = None) -> SparseTensor:
    """The entries ``idx``, counted in the order of ``layout`` (coo, csr or csc)."""
    idx = _checked(idx, src.nnz())
    if get_layout(layout) == "csc":
        idx = src.storage.csr2csc()[idx]
    row, col, value = src.coo()
    return SparseTensor(
        row=row[idx], col=col[idx], value=None if value is None else value[idx], sparse_sizes=src.sparse_sizes()
    )


def _checked(idx: Tensor, size: int) -> Tensor:
    check.index("index_select", "idx", idx)
    if idx.dim() != 1:
        check.fail(ValueError, "index_select", "idx of shape [K]", list(idx.shape))
    _index.in_range("index_select", "idx", idx, size)
    return idx.long()


def _rows(src: SparseTensor, idx: Tensor) -> SparseTensor:
    rowptr, col, value = src.csr()
    count = src.storage.rowcount()[idx]
    out_ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    row = _index.ptr2ind(out_ptr, int(out_ptr[-1]))
    entries = torch.arange(row.numel(), device=row.device) + (rowptr[idx] - out_ptr[:-1])[row]
    storage = SparseStorage(
        row=row, rowptr=out_ptr, col=col[entries], value=None if value is None else value[entries],
        sparse_sizes=(idx.numel(), src.sparse_size(1)), rowcount=count, is_sorted=True, trust_data=True,
    )  # fmt: skip
    return src.from_storage(storage)
