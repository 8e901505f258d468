"""``SparseTensor``: a sparse matrix whose entries may hold any dense features."""

# TorchScript does not read "X | None" in classes; a dtype is an int to it.
# ruff: noqa: UP045

from typing import Optional

import torch
from torch import Tensor

from ._tensor_methods import TensorMethods
from .storage import SparseStorage


class SparseTensor(TensorMethods):
    """A sparse matrix [M, N], or [M, N, *] with values ``[E, *]``; without values every entry counts as 1 in products.

    Entries are kept in the order of rows, then columns. Duplicates are allowed until :meth:`coalesce`. Arguments and errors as
    of :class:`SparseStorage`. TorchScript compiles what is defined here; the methods of the base are for Python only.
    """

    storage: SparseStorage

    def __init__(
        self,
        row: Optional[Tensor] = None,
        rowptr: Optional[Tensor] = None,
        col: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        sparse_sizes: Optional[tuple[Optional[int], Optional[int]]] = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ):
        self.storage = SparseStorage(
            row, rowptr, col, value, sparse_sizes, None, None, None, None, None, is_sorted, trust_data
        )

    @classmethod
    def from_storage(self, storage: SparseStorage):
        """A matrix with the tensors of ``storage``."""
        out = SparseTensor(storage._row, storage._rowptr, storage._col, storage._value, storage._sparse_sizes, True, True)
        out.storage._rowcount = storage._rowcount
        out.storage._colptr = storage._colptr
        out.storage._colcount = storage._colcount
        out.storage._csr2csc = storage._csr2csc
        out.storage._csc2csr = storage._csc2csr
        if not torch.jit.is_scripting():
            storage._share_graph(out.storage)
        return out

    @classmethod
    def from_edge_index(
        self,
        edge_index: Tensor,
        edge_attr: Optional[Tensor] = None,
        sparse_sizes: Optional[tuple[Optional[int], Optional[int]]] = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ):
        """From rows and columns ``edge_index [2, E]`` and values ``edge_attr [E, *]``."""
        if edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ValueError(f"from_edge_index: expected edge_index of shape [2, E], got {edge_index.size()}")
        return SparseTensor(edge_index[0], None, edge_index[1], edge_attr, sparse_sizes, is_sorted, trust_data)

    @classmethod
    def from_dense(self, mat: Tensor, has_value: bool = True):
        """The entries of ``mat [M, N, *]`` that are not zero (in any feature)."""
        if mat.dim() < 2:
            raise ValueError(f"from_dense: expected a matrix, got {mat.size()}")
        index = (mat if mat.dim() == 2 else mat.flatten(2).ne(0).any(2)).nonzero()
        row, col = index[:, 0], index[:, 1]
        return SparseTensor(row, None, col, mat[row, col] if has_value else None, (mat.size(0), mat.size(1)), True, True)

    @classmethod
    def from_torch_sparse_coo_tensor(self, mat: Tensor, has_value: bool = True):
        """From a sparse_coo tensor, coalesced; gradients flow to its values."""
        mat = mat.coalesce()
        index = mat.indices()
        return SparseTensor(
            index[0], None, index[1], mat.values() if has_value else None, (mat.size(0), mat.size(1)), True, True
        )

    @classmethod
    def from_torch_sparse_csr_tensor(self, mat: Tensor, has_value: bool = True):
        """From a sparse_csr tensor; gradients flow to its values."""
        return SparseTensor(
            None, mat.crow_indices(), mat.col_indices(), mat.values() if has_value else None, (mat.size(0), mat.size(1)),
            True, True,
        )  # fmt: skip

    def copy(self):
        """A matrix that shares every tensor."""
        return self.from_storage(self.storage)

    def coo(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """row ``[E]``, col ``[E]``, value."""
        return self.storage.row(), self.storage.col(), self.storage.value()

    def csr(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """rowptr ``[M + 1]``, col ``[E]``, value."""
        return self.storage.rowptr(), self.storage.col(), self.storage.value()

    def csc(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """colptr ``[N + 1]``, row ``[E]`` and value in the order of columns."""
        order = self.storage.csr2csc()
        value = self.storage.value()
        return self.storage.colptr(), self.storage.row()[order], None if value is None else value[order]

    def has_value(self) -> bool:
        return self.storage.has_value()

    def set_value_(self, value: Optional[Tensor], layout: Optional[str] = None):
        """Replace the values, which come in the order of ``layout``: coo, csr (the same) or csc."""
        self.storage.set_value_(value, layout)
        return self

    def set_value(self, value: Optional[Tensor], layout: Optional[str] = None):
        """The same structure with other values."""
        return self.from_storage(self.storage.set_value(value, layout))

    def fill_value_(self, fill_value: float, dtype: Optional[int] = None):
        """Make every value ``fill_value``."""
        return self.set_value_(self._filled(fill_value, dtype), "coo")

    def fill_value(self, fill_value: float, dtype: Optional[int] = None):
        """The same structure with every value ``fill_value``."""
        return self.set_value(self._filled(fill_value, dtype), "coo")

    def sparse_sizes(self) -> tuple[int, int]:
        return self.storage.sparse_sizes()

    def sparse_size(self, dim: int) -> int:
        return self.storage.sparse_sizes()[dim]

    def is_coalesced(self) -> bool:
        """Whether no place holds two entries."""
        return self.storage.is_coalesced()

    def coalesce(self, reduce: str = "sum"):
        """One entry for each place, by sum (add), mean, min or max."""
        return self.from_storage(self.storage.coalesce(reduce))

    def fill_cache_(self):
        """Compute every layout now."""
        self.storage.fill_cache_()
        return self

    def clear_cache_(self):
        """Forget the other layouts."""
        self.storage.clear_cache_()
        return self

    def sizes(self) -> list[int]:
        """[M, N, *]."""
        sizes = [self.storage._sparse_sizes[0], self.storage._sparse_sizes[1]]
        value = self.storage.value()
        if value is not None:
            sizes += value.size()[1:]
        return sizes

    def size(self, dim: int) -> int:
        return self.sizes()[dim]

    def dim(self) -> int:
        return len(self.sizes())

    def nnz(self) -> int:
        """Number of entries, E."""
        return self.storage.col().numel()

    def numel(self) -> int:
        """Number of values held."""
        value = self.storage.value()
        return self.nnz() if value is None else value.numel()

    def requires_grad(self) -> bool:
        value = self.storage.value()
        return False if value is None else value.requires_grad

    def device(self):
        return self.storage.col().device

    def is_cuda(self) -> bool:
        return self.storage.col().is_cuda

    def dtype(self):
        """Of the values; float32 where there are none."""
        value = self.storage.value()
        return torch.float if value is None else value.dtype

    def _values(self, dtype: Optional[int] = None) -> Tensor:
        value = self.storage.value()
        return self._filled(1.0, dtype) if value is None else value

    def _filled(self, number: float, dtype: Optional[int] = None) -> Tensor:
        return torch.full([self.nnz()], number, dtype=dtype, device=self.device())  # type: ignore[call-overload]

    def to_dense(self, dtype: Optional[int] = None) -> Tensor:
        """``[M, N, *]``; ones of ``dtype`` where there are no values. Any one of duplicates: coalesce first."""
        row, col, _ = self.coo()
        value = self._values(dtype)
        out = torch.zeros(self.sizes(), dtype=value.dtype, device=value.device)
        return out.index_put((row, col), value)

    def to_torch_sparse_coo_tensor(self, dtype: Optional[int] = None) -> Tensor:
        row, col, _ = self.coo()
        return torch.sparse_coo_tensor(torch.stack([row, col]), self._values(dtype), self.sizes())

    def to_torch_sparse_csr_tensor(self, dtype: Optional[int] = None) -> Tensor:
        rowptr, col, _ = self.csr()
        return torch.sparse_csr_tensor(rowptr, col, self._values(dtype), self.sizes())

    def to_torch_sparse_csc_tensor(self, dtype: Optional[int] = None) -> Tensor:
        value = self._values(dtype)[self.storage.csr2csc()]
        colptr, row, _ = self.csc()
        return torch.sparse_csc_tensor(colptr, row, value, self.sizes())
