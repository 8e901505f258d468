"""Ranges of rows, columns or features."""

import torch

from ... import _check as check
from .storage import SparseStorage
from .tensor import SparseTensor


def narrow(src: SparseTensor, dim: int, start: int, length: int) -> SparseTensor:
    """``length`` rows (dim 0), columns (dim 1) or features from ``start`` on, which counts from the end if negative.

    Rows are views. IndexError, ValueError: dim or range outside the matrix.
    """
    dim, start, length = _range(src, dim, start, length)
    if dim > 1:
        return src.set_value(src.storage.value().narrow(dim - 1, start, length), "coo")
    if dim == 0:
        return _rows(src, start, length, 0, src.sparse_size(1))
    row, col, value = src.coo()
    kept = (col >= start) & (col < start + length)
    known = src.storage
    storage = SparseStorage(
        row=row[kept], col=col[kept] - start, value=None if value is None else value[kept],
        sparse_sizes=(src.sparse_size(0), length),
        colptr=None if known._colptr is None else known._colptr[start : start + length + 1] - known._colptr[start],
        colcount=None if known._colcount is None else known._colcount.narrow(0, start, length),
        is_sorted=True, trust_data=True,
    )  # fmt: skip
    return src.from_storage(storage)


def __narrow_diag__(src: SparseTensor, start: tuple[int, int], length: tuple[int, int]) -> SparseTensor:
    """A diagonal block, of a matrix that holds nothing beside it: the inverse of ``cat(..., dim=(0, 1))``."""
    _, first, rows = _range(src, 0, start[0], length[0])
    _, left, columns = _range(src, 1, start[1], length[1])
    out = _rows(src, first, rows, left, columns)
    known, storage = src.storage, out.storage
    E0, E = int(known.rowptr()[first]), out.nnz()
    if known._colptr is not None:
        storage._colptr = known._colptr[left : left + columns + 1] - known._colptr[left]
    if known._colcount is not None:
        storage._colcount = known._colcount.narrow(0, left, columns)
    if known._csr2csc is not None:
        storage._csr2csc = known._csr2csc.narrow(0, E0, E) - E0
    if known._csc2csr is not None:
        storage._csc2csr = known._csc2csr.narrow(0, E0, E) - E0
    return out


def _rows(src: SparseTensor, start: int, length: int, left: int, columns: int) -> SparseTensor:
    rowptr, col, value = src.csr()
    first, last = rowptr[torch.tensor([start, start + length], device=rowptr.device)].tolist()
    known = src.storage
    storage = SparseStorage(
        row=None if known._row is None else known._row[first:last] - start, rowptr=rowptr.narrow(0, start, length + 1) - first,
        col=col[first:last] - left if left else col[first:last], value=None if value is None else value[first:last],
        sparse_sizes=(length, columns),
        rowcount=None if known._rowcount is None else known._rowcount.narrow(0, start, length),
        is_sorted=True, trust_data=True,
    )  # fmt: skip
    return src.from_storage(storage)


def _range(src: SparseTensor, dim: int, start: int, length: int) -> tuple[int, int, int]:
    dim = check.axis("narrow", dim, src.dim())
    size = src.size(dim)
    first = start + size if start < 0 else start
    if first < 0 or length < 0 or first + length > size:
        check.fail(IndexError, "narrow", f"a range within the {size} of dim {dim}", f"{length} from {start}")
    return dim, first, length
