"""Conversions from and to torch.sparse and SciPy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check as check
from .storage import SparseStorage, get_layout
from .tensor import SparseTensor


def to_torch_sparse(index: Tensor, value: Tensor, m: int, n: int) -> Tensor:
    """The sparse_coo tensor of index ``[2, E]`` and values; gradients flow to the values."""
    return torch.sparse_coo_tensor(index.detach(), value, (m, n, *value.shape[1:]))


def from_torch_sparse(A: Tensor) -> tuple[Tensor, Tensor]:
    """Index and values of a coalesced sparse_coo tensor."""
    return A.indices().detach(), A.values()


def to_scipy(index: Tensor, value: Tensor, m: int, n: int) -> Any:
    """The ``scipy.sparse.coo_matrix`` of index ``[2, E]`` and values on the CPU."""
    import scipy.sparse

    (row, col), data = index.detach().numpy(), value.detach().numpy()
    return scipy.sparse.coo_matrix((data, (row, col)), (m, n))


def from_scipy(A: Any) -> tuple[Tensor, Tensor]:
    """Index and values of a SciPy sparse matrix."""
    A = A.tocoo()
    return torch.stack([torch.as_tensor(A.row).long(), torch.as_tensor(A.col).long()]), torch.as_tensor(A.data)


def sparse_from_scipy(mat: Any, has_value: bool = True) -> SparseTensor:
    """``SparseTensor.from_scipy``: the entries of a SciPy sparse matrix or array."""
    if not hasattr(mat, "tocsr"):
        check.fail(TypeError, "from_scipy", "a SciPy sparse matrix", type(mat).__name__)
    csr = mat.tocsr()
    if not csr.has_sorted_indices:
        csr = csr.sorted_indices()
    storage = SparseStorage(
        rowptr=torch.as_tensor(csr.indptr).long(), col=torch.as_tensor(csr.indices).long(),
        value=torch.as_tensor(csr.data) if has_value else None, sparse_sizes=tuple(csr.shape),
        colptr=torch.as_tensor(mat.indptr).long() if mat.format == "csc" else None, is_sorted=True,
    )  # fmt: skip
    return SparseTensor.from_storage(storage)


def sparse_to_scipy(src: SparseTensor, layout: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """``SparseTensor.to_scipy``: a SciPy matrix in ``layout`` coo, csr or csc; ones of ``dtype`` where there are no values."""
    import scipy.sparse

    if src.dim() != 2:
        check.fail(ValueError, "to_scipy", "a matrix of numbers", src.sizes())
    layout = get_layout(layout)
    a, b, value = (t if t is None else t.detach().cpu().numpy() for t in getattr(src, layout)())
    value = torch.ones(src.nnz(), dtype=dtype, device="cpu").numpy() if value is None else value
    data = {"coo": (value, (a, b)), "csr": (value, b, a), "csc": (value, b, a)}[layout]
    return getattr(scipy.sparse, f"{layout}_matrix")(data, src.sizes())
