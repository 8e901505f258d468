"""Products of two sparse matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ...sparse import segment_reduce
from . import _index


def sparse_product(
    rowptr: Tensor, col: Tensor, value: Tensor | None, rowptr_b: Tensor, col_b: Tensor, value_b: Tensor | None, N: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of the entries of A B, sorted and coalesced: Gustavson's expansion, sorted and summed.

    Values that are missing are ones. Differentiable in both values to any order; holds one product of two entries for every
    term of the sum.
    """
    for name, v in (("src", value), ("other", value_b)):
        if v is not None and v.dim() != 1:
            check.fail(ValueError, "spspmm", f"values of {name} of shape [E]", list(v.shape))
    M = rowptr.numel() - 1
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
