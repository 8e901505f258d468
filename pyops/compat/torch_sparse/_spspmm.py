"""Products of two sparse matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ..._dispatch import is_eager
from ...graph import checked_indptr
from ...sparse import segment_reduce
from . import _index


def sparse_product(
    rowptr: Tensor, col: Tensor, value: Tensor | None, rowptr_b: Tensor, col_b: Tensor, value_b: Tensor | None, N: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of the entries of A B, sorted and coalesced. Values that are missing are ones.

    By MKL where no gradient is wanted, on a CPU, in float32 and float64. Else Gustavson's expansion, sorted and summed:
    differentiable in both values to any order; holds one product of two entries for every term of the sum.
    """
    for name, v in (("src", value), ("other", value_b)):
        if v is not None and v.dim() != 1:
            check.fail(ValueError, "spspmm", f"values of {name} of shape [E]", list(v.shape))
    M = rowptr.numel() - 1
    checked_indptr("spspmm", "rowptr of src", rowptr.contiguous(), col.numel())
    checked_indptr("spspmm", "rowptr of other", rowptr_b.contiguous(), col_b.numel())
    _index.in_range("spspmm", "col of src", col, rowptr_b.numel() - 1)
    _index.in_range("spspmm", "col of other", col_b, N)
    if _suits_mkl(value, value_b, col, col_b):
        found = _by_mkl((rowptr, col, value), (rowptr_b, col_b, value_b), (M, rowptr_b.numel() - 1, N))
        if found is not None:
            return found
    terms = rowptr_b.diff()[col]
    ptr = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
    left = _index.ptr2ind(ptr, int(ptr[-1]))
    right = torch.arange(left.numel(), device=left.device) + (rowptr_b[col] - ptr[:-1])[left]
    row, col = _index.ptr2ind(rowptr, col.numel())[left], col_b[right]
    # Terms come by rows of A: stable sorting by column, then by row, leaves those of one place together.
    order = _index.sorted_by(row, col, (M, N))
    row, col, left, right = row[order], col[order], left[order], right[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    start = first.nonzero().flatten()
    if value is None and value_b is None:
        product = torch.ones(row.numel(), device=row.device)
    elif value is None or value_b is None:
        product = value_b[right] if value is None else value[left]
    else:
        product = value[left] * value_b[right]
    summed = segment_reduce(product, torch.cat([start, start.new_full((1,), row.numel())]), "sum")
    return row[first], col[first], summed  # type: ignore[return-value]


def _suits_mkl(value: Tensor | None, value_b: Tensor | None, col: Tensor, col_b: Tensor) -> bool:
    known = [v for v in (value, value_b) if v is not None]
    return (
        torch.backends.mkl.is_available()
        and col.device.type == "cpu"
        and min(col.numel(), col_b.numel()) > 0
        and all(v.dtype in (torch.float32, torch.float64) and v.dtype == known[0].dtype for v in known)
        and not (torch.is_grad_enabled() and any(v.requires_grad for v in known))
        and is_eager()
    )


def _by_mkl(a: tuple, b: tuple, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor] | None:
    """None where duplicates in the operands have left duplicates in the product."""
    M, K, N = sizes
    dtype = next((v.dtype for *_, v in (a, b) if v is not None), torch.float32)

    def matrix(ptr: Tensor, col: Tensor, value: Tensor | None, *size: int) -> Tensor:
        value = torch.ones_like(col, dtype=dtype) if value is None else value.detach()
        return torch.sparse_csr_tensor(ptr, col, value, size, check_invariants=False)  # checked by the caller

    out = torch.sparse.mm(matrix(*a, M, K), matrix(*b, K, N))
    col, value = out.col_indices(), out.values()
    row = _index.ptr2ind(out.crow_indices(), col.numel())
    if not _index.is_sorted(row, col):
        order = _index.sorted_by(row, col, (M, N))
        col, value = col[order], value[order]
    return (row, col, value) if _index.is_sorted(row, col, strictly=True) else None
