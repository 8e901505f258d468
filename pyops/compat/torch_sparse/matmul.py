"""Products of a sparse matrix with dense and sparse ones."""

# mypy: disable-error-code="no-redef"

import torch
from torch import Tensor

from ._reduce import reduce_name
from ._spmm import product
from ._spspmm import sparse_product
from .tensor import SparseTensor


def spmm(src: SparseTensor, other: Tensor, reduce: str = "sum") -> Tensor:
    """``out[i] = reduce over entries (i, j) of value * other[j]``, ``[*, M, K]`` of ``other [*, N, K]``, ``[M]`` of ``[N]``.

    reduce: sum (add), mean (over entries), min or max; 0 for empty rows. Values are cast to the dtype of ``other``. No message
    is stored (integers with values or mean: they are). Differentiable in the values and ``other`` to any order.
    """
    if torch.jit.is_scripting():
        rowptr, col, value = src.csr()
        return torch.ops.structops_torch_sparse.spmm(rowptr, col, value, src.sparse_size(1), other, reduce)
    return product("spmm", src.storage.graph(), src.storage.value(), other, reduce)


def spmm_sum(src: SparseTensor, other: Tensor) -> Tensor:
    """:func:`spmm` by sum."""
    return spmm(src, other, "sum")


def spmm_add(src: SparseTensor, other: Tensor) -> Tensor:
    """:func:`spmm` by sum."""
    return spmm(src, other, "sum")


def spmm_mean(src: SparseTensor, other: Tensor) -> Tensor:
    """:func:`spmm` by mean."""
    return spmm(src, other, "mean")


def spmm_min(src: SparseTensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`spmm` by minimum, and the winning entries: E where a row is empty, the first of equals."""
    if torch.jit.is_scripting():
        rowptr, col, value = src.csr()
        return torch.ops.torch_sparse.spmm_min(rowptr, col, value, other)
    return product("spmm_min", src.storage.graph(), src.storage.value(), other, "min", True)


def spmm_max(src: SparseTensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`spmm` by maximum, and the winning entries: E where a row is empty, the first of equals."""
    if torch.jit.is_scripting():
        rowptr, col, value = src.csr()
        return torch.ops.torch_sparse.spmm_max(rowptr, col, value, other)
    return product("spmm_max", src.storage.graph(), src.storage.value(), other, "max", True)


def spspmm_sum(src: SparseTensor, other: SparseTensor) -> SparseTensor:
    """The sparse product [M, N] of [M, K] and [K, N]; with values where either has them. Differentiable in both."""
    if src.sparse_size(1) != other.sparse_size(0):
        raise ValueError(f"spspmm: expected other with {src.sparse_size(1)} rows, got {other.sparse_size(0)}")
    rowptr, col, value = src.csr()
    rowptr_b, col_b, value_b = other.csr()
    if torch.jit.is_scripting():
        row, col, out = torch.ops.structops_torch_sparse.spspmm(
            rowptr, col, value, rowptr_b, col_b, value_b, other.sparse_size(1)
        )
    else:
        row, col, out = sparse_product(rowptr, col, value, rowptr_b, col_b, value_b, other.sparse_size(1))
    filled = src.has_value() or other.has_value()
    return SparseTensor(row, None, col, out if filled else None, (src.sparse_size(0), other.sparse_size(1)), True, True)


def spspmm_add(src: SparseTensor, other: SparseTensor) -> SparseTensor:
    """:func:`spspmm_sum`."""
    return spspmm_sum(src, other)


def spspmm(src: SparseTensor, other: SparseTensor, reduce: str = "sum") -> SparseTensor:
    """:func:`spspmm_sum`; NotImplementedError for mean, min and max."""
    if reduce == "sum" or reduce == "add":
        return spspmm_sum(src, other)
    if not torch.jit.is_scripting():
        reduce_name("spspmm", reduce)
    raise NotImplementedError(f"spspmm: expected reduce to be sum, got {reduce}")


@torch.jit._overload
def matmul(src, other, reduce):
    # type: (SparseTensor, Tensor, str) -> Tensor
    pass


@torch.jit._overload
def matmul(src, other, reduce):  # noqa: F811
    # type: (SparseTensor, SparseTensor, str) -> SparseTensor
    pass


def matmul(src, other, reduce="sum"):  # noqa: F811
    """:func:`spmm` for a dense ``other``, :func:`spspmm` for a sparse one."""
    if isinstance(other, Tensor):
        return spmm(src, other, reduce)
    if isinstance(other, SparseTensor):
        return spspmm(src, other, reduce)
    raise ValueError("matmul: expected other to be a Tensor or a SparseTensor")
