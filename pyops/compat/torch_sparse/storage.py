"""``SparseStorage``: rows, columns and values of a sparse matrix, with the other layouts computed when first asked for."""

# TorchScript does not read "X | None" in classes; a dtype is an int to it.
# ruff: noqa: UP045

import warnings
from typing import Optional

import torch
from torch import Tensor

from . import _index
from ._reduce import reduce_rows
from ._storage_methods import StorageMethods


def get_layout(layout: Optional[str] = None) -> str:
    """``layout``: coo, csr or csc; None warns and means coo."""
    if layout is None:
        warnings.warn("torch_sparse: no layout given; taking coo, the order of rows", stacklevel=3)
        return "coo"
    if layout != "coo" and layout != "csr" and layout != "csc":
        raise ValueError(f"torch_sparse: expected layout to be coo, csr or csc, got {layout}")
    return layout


def _vector(name: str, t: Tensor, length: int, like: Tensor) -> Tensor:
    """An index vector of this length as contiguous int64."""
    if t.dtype != torch.int64 and t.dtype != torch.int32:
        raise TypeError(f"SparseStorage: expected {name} of dtype int64 or int32, got {t.dtype}")
    if t.dim() != 1 or t.numel() != length:
        raise ValueError(f"SparseStorage: expected {name} of shape [{length}], got {t.size()}")
    if t.device != like.device:
        raise ValueError(f"SparseStorage: expected {name} on {like.device}, got {t.device}")
    return t.to(torch.int64).contiguous()


class SparseStorage(StorageMethods):
    """The entries of a sparse matrix [M, N] in the order of their rows, then columns.

    Args:
        row: int64 or int32 ``[E]``. rowptr: the same as pointers ``[M + 1]``. One of them, or both where they agree.
        col: int64 or int32 ``[E]``.
        value: ``[E, *]``, any dtype.
        sparse_sizes: (M, N), either None for the largest index + 1.
        rowcount, colptr, colcount, csr2csc, csc2csr: known parts of the other layouts, taken as they are.
        is_sorted: the entries are in order; False sorts them, by a stable linear sort.
        trust_data: row and col are within ``sparse_sizes`` and in order; checked all the same before a kernel reads them.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or order. IndexError: an index out of range.
    """

    _row: Optional[Tensor]
    _rowptr: Optional[Tensor]
    _col: Tensor
    _value: Optional[Tensor]
    _sparse_sizes: tuple[int, int]
    _rowcount: Optional[Tensor]
    _colptr: Optional[Tensor]
    _colcount: Optional[Tensor]
    _csr2csc: Optional[Tensor]
    _csc2csr: Optional[Tensor]

    def __init__(
        self,
        row: Optional[Tensor] = None,
        rowptr: Optional[Tensor] = None,
        col: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        sparse_sizes: Optional[tuple[Optional[int], Optional[int]]] = None,
        rowcount: Optional[Tensor] = None,
        colptr: Optional[Tensor] = None,
        colcount: Optional[Tensor] = None,
        csr2csc: Optional[Tensor] = None,
        csc2csr: Optional[Tensor] = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ):
        if col is None:
            raise ValueError("SparseStorage: expected col, got None")
        E = col.numel()
        col = _vector("col", col, E, col)
        M: Optional[int] = None
        N: Optional[int] = None
        if sparse_sizes is not None:
            M, N = sparse_sizes[0], sparse_sizes[1]
        if row is not None:
            row = _vector("row", row, E, col)
            if M is None and rowptr is None:
                M = _index.extent(row)
        if rowptr is not None:
            M = rowptr.numel() - 1 if M is None else M
            rowptr = _vector("rowptr", rowptr, M + 1, col)
        if M is None:
            raise ValueError("SparseStorage: expected row or rowptr, got None")
        if N is None:
            N = _index.extent(col)
        if value is not None:
            if value.device != col.device or value.dim() == 0 or value.size(0) != E:
                raise ValueError(f"SparseStorage: expected value of shape [{E}, *] on {col.device}, got {value.size()}")
            value = value.contiguous()
        self._row = row
        self._rowptr = rowptr
        self._col = col
        self._value = value
        self._sparse_sizes = (M, N)
        self._rowcount = None if rowcount is None else _vector("rowcount", rowcount, M, col)
        self._colptr = None if colptr is None else _vector("colptr", colptr, N + 1, col)
        self._colcount = None if colcount is None else _vector("colcount", colcount, N, col)
        self._csr2csc = None if csr2csc is None else _vector("csr2csc", csr2csc, E, col)
        self._csc2csr = None if csc2csr is None else _vector("csc2csr", csc2csr, E, col)
        if not torch.jit.is_scripting() and not trust_data:
            self._check_bounds(is_sorted)
        if not is_sorted and not _index.is_sorted(self.row(), col):
            order = _index.sorted_by(self.row(), col, (M, N))
            self._row = self.row()[order]
            self._col = col[order]
            if value is not None:
                self._value = value[order]
            self._csr2csc = None
            self._csc2csr = None

    @classmethod
    def empty(self):
        """The matrix [0, 0]."""
        none = torch.zeros(0, dtype=torch.int64)
        return SparseStorage(none, None, none, None, (0, 0), None, None, None, None, None, True, True)

    def has_row(self) -> bool:
        return self._row is not None

    def row(self) -> Tensor:
        """Rows ``[E]``, ascending."""
        row = self._row
        if row is None:
            rowptr = self._rowptr
            assert rowptr is not None
            row = _index.ptr2ind(rowptr, self._col.numel())
            self._row = row
        return row

    def has_rowptr(self) -> bool:
        return self._rowptr is not None

    def rowptr(self) -> Tensor:
        """Pointers ``[M + 1]`` of the rows."""
        rowptr = self._rowptr
        if rowptr is None:
            rowptr = _index.ind2ptr(self.row(), self._sparse_sizes[0])
            self._rowptr = rowptr
        return rowptr

    def col(self) -> Tensor:
        """Columns ``[E]``."""
        return self._col

    def has_value(self) -> bool:
        return self._value is not None

    def value(self) -> Optional[Tensor]:
        """Values ``[E, *]``, or None where the matrix holds none: ones, in products."""
        return self._value

    def _in_order(self, value: Optional[Tensor], layout: Optional[str]) -> Optional[Tensor]:
        if value is None:
            return None
        if get_layout(layout) == "csc":
            value = value[self.csc2csr()]
        if value.device != self._col.device or value.dim() == 0 or value.size(0) != self._col.numel():
            raise ValueError(f"set_value: expected value of shape [{self._col.numel()}, *], got {value.size()}")
        return value.contiguous()

    def set_value_(self, value: Optional[Tensor], layout: Optional[str] = None):
        """Replace the values; ``layout`` is the order they come in: coo (or csr, the same), or csc."""
        self._value = self._in_order(value, layout)
        return self

    def set_value(self, value: Optional[Tensor], layout: Optional[str] = None):
        """The same structure with other values."""
        return self._like(self._in_order(value, layout))

    def copy(self):
        """A storage that shares every tensor."""
        return self._like(self._value)

    def _like(self, value: Optional[Tensor]):
        out = SparseStorage(
            self._row, self._rowptr, self._col, value, self._sparse_sizes, self._rowcount, self._colptr, self._colcount,
            self._csr2csc, self._csc2csr, True, True,
        )  # fmt: skip
        if not torch.jit.is_scripting():
            self._share_graph(out)
        return out

    def sparse_sizes(self) -> tuple[int, int]:
        return self._sparse_sizes

    def sparse_size(self, dim: int) -> int:
        return self._sparse_sizes[dim]

    def has_rowcount(self) -> bool:
        return self._rowcount is not None

    def rowcount(self) -> Tensor:
        """Entries of every row, ``[M]``."""
        rowcount = self._rowcount
        if rowcount is None:
            rowcount = self.rowptr().diff()
            self._rowcount = rowcount
        return rowcount

    def has_colptr(self) -> bool:
        return self._colptr is not None

    def colptr(self) -> Tensor:
        """Pointers ``[N + 1]`` of the columns in the order of csc."""
        colptr = self._colptr
        if colptr is None:
            colptr = self._by_column()[0]
        return colptr

    def has_colcount(self) -> bool:
        return self._colcount is not None

    def colcount(self) -> Tensor:
        """Entries of every column, ``[N]``."""
        colcount = self._colcount
        if colcount is None:
            colcount = self.colptr().diff()
            self._colcount = colcount
        return colcount

    def has_csr2csc(self) -> bool:
        return self._csr2csc is not None

    def csr2csc(self) -> Tensor:
        """Position in csr of every entry of csc, ``[E]``."""
        csr2csc = self._csr2csc
        if csr2csc is None:
            csc2csr = self._csc2csr
            csr2csc = self._by_column()[1] if csc2csr is None else _index.inverse(csc2csr)
            self._csr2csc = csr2csc
        return csr2csc

    def _by_column(self) -> tuple[Tensor, Tensor]:
        colptr, csr2csc = _index.by_column(self._col, self._sparse_sizes[1])
        self._colptr, self._csr2csc = colptr, csr2csc
        return colptr, csr2csc

    def has_csc2csr(self) -> bool:
        return self._csc2csr is not None

    def csc2csr(self) -> Tensor:
        """Position in csc of every entry of csr, ``[E]``."""
        csc2csr = self._csc2csr
        if csc2csr is None:
            csc2csr = _index.inverse(self.csr2csc())
            self._csc2csr = csc2csr
        return csc2csr

    def is_coalesced(self) -> bool:
        """Whether the entries are in order and no place holds two."""
        return _index.is_sorted(self.row(), self._col, True)

    def coalesce(self, reduce: str = "add"):
        """The entries of one place reduced to one, by sum (add), mean, min or max. Itself where there is nothing to do."""
        if self.is_coalesced():
            return self
        row, col, value = self.row(), self._col, self._value
        if not _index.is_sorted(row, col):
            order = _index.sorted_by(row, col, self._sparse_sizes)
            row, col = row[order], col[order]
            value = None if value is None else value[order]
        first = torch.ones_like(row, dtype=torch.bool)
        first[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
        if value is not None:
            start = first.nonzero().flatten()
            value = reduce_rows(value, torch.cat([start, start.new_full((1,), row.numel())]), reduce)
        return SparseStorage(
            row[first], None, col[first], value, self._sparse_sizes, None, None, None, None, None, True, True
        )

    def fill_cache_(self):
        """Compute every layout now, and what the product needs."""
        self.row()
        self.rowcount()
        self.colcount()
        self.csc2csr()
        if not torch.jit.is_scripting():
            self.graph().reversed_structure  # noqa: B018
        return self

    def clear_cache_(self):
        """Forget the other layouts."""
        self._rowcount = None
        self._colptr = None
        self._colcount = None
        self._csr2csc = None
        self._csc2csr = None
        if not torch.jit.is_scripting():
            self._graph = None
        return self
