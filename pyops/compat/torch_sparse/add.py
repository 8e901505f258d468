"""Sums with dense rows or columns, with values, and of sparse matrices."""

# mypy: disable-error-code="no-redef"

import torch
from torch import Tensor

from ._dense import entries_in_order, entries_of
from .tensor import SparseTensor


@torch.jit._overload
def add(src, other):
    # type: (SparseTensor, Tensor) -> SparseTensor
    pass


@torch.jit._overload
def add(src, other):  # noqa: F811
    # type: (SparseTensor, SparseTensor) -> SparseTensor
    pass


def add(src, other):  # noqa: F811
    """``src`` plus a dense ``[M, 1, *]`` or ``[1, N, *]``, at its entries, in the dtype of its values.

    Plus a SparseTensor: the coalesced sum, as large as the larger. Values that only one of the two has are added to ones.
    """
    if isinstance(other, Tensor):
        value = src.storage.value()
        other = entries_of(src, other)
        return src.set_value(other + 1 if value is None else other.to(value.dtype) + value, "coo")
    if isinstance(other, SparseTensor):
        row_a, col_a, a = src.coo()
        row_b, col_b, b = other.coo()
        value: Tensor | None = None
        if a is not None or b is not None:
            a = torch.ones(row_a.size(0), dtype=other.dtype(), device=row_a.device) if a is None else a
            b = torch.ones(row_b.size(0), dtype=src.dtype(), device=row_b.device) if b is None else b
            value = torch.cat([a, b])
        sizes = (max(src.size(0), other.size(0)), max(src.size(1), other.size(1)))
        both = SparseTensor(torch.cat([row_a, row_b]), None, torch.cat([col_a, col_b]), value, sizes)
        return both.coalesce("sum")
    raise NotImplementedError("add: expected other to be a Tensor or a SparseTensor")


def add_(src: SparseTensor, other: Tensor) -> SparseTensor:
    """:func:`add` in place."""
    value = src.storage.value()
    other = entries_of(src, other)
    return src.set_value_(other + 1 if value is None else value.add_(other.to(value.dtype)), "coo")


def add_nnz(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """``src`` with ``other [E, *]``, in the order of ``layout``, added to its values."""
    value = src.storage.value()
    other = entries_in_order(src, other, layout)
    return src.set_value(other + 1 if value is None else value + other.to(value.dtype), "coo")


def add_nnz_(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """:func:`add_nnz` in place."""
    value = src.storage.value()
    other = entries_in_order(src, other, layout)
    return src.set_value_(other + 1 if value is None else value.add_(other.to(value.dtype)), "coo")
