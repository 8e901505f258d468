"""Entry-wise products with dense rows or columns, with values, and of sparse matrices."""

# mypy: disable-error-code="no-redef"

import torch
from torch import Tensor

from . import _index
from ._dense import entries_in_order, entries_of
from .tensor import SparseTensor


@torch.jit._overload
def mul(src, other):
    # type: (SparseTensor, Tensor) -> SparseTensor
    pass


@torch.jit._overload
def mul(src, other):  # noqa: F811
    # type: (SparseTensor, SparseTensor) -> SparseTensor
    pass


def mul(src, other):  # noqa: F811
    """``src`` times a dense ``[M, 1, *]`` or ``[1, N, *]``, at its entries, in the dtype of its values.

    Times a SparseTensor: the entries that both have. ValueError where one has no values or duplicates.
    """
    if isinstance(other, Tensor):
        value = src.storage.value()
        other = entries_of(src, other)
        return src.set_value(other if value is None else other.to(value.dtype) * value, "coo")
    if isinstance(other, SparseTensor):
        if not src.is_coalesced() or not other.is_coalesced():
            raise ValueError("mul: expected coalesced sparse tensors, got duplicates")
        row, col, a = src.coo()
        row_b, col_b, b = other.coo()
        if a is None or b is None:
            raise ValueError("mul: expected sparse tensors with values, got one without")
        sizes = (max(src.size(0), other.size(0)), max(src.size(1), other.size(1)))
        place, places = _index.keys(row, col, sizes), _index.keys(row_b, col_b, sizes)
        if places.numel() == 0:
            return SparseTensor(row[:0], None, col[:0], a[:0], sizes, True, True)
        at = torch.searchsorted(places, place).clamp(max=places.numel() - 1)
        both = places[at] == place
        return SparseTensor(row[both], None, col[both], a[both] * b[at[both]], sizes, True, True)
    raise NotImplementedError("mul: expected other to be a Tensor or a SparseTensor")


def mul_(src: SparseTensor, other: Tensor) -> SparseTensor:
    """:func:`mul` in place."""
    value = src.storage.value()
    other = entries_of(src, other)
    return src.set_value_(other if value is None else value.mul_(other.to(value.dtype)), "coo")


def mul_nnz(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """``src`` with its values multiplied by ``other [E, *]``, in the order of ``layout``."""
    value = src.storage.value()
    other = entries_in_order(src, other, layout)
    return src.set_value(other if value is None else value * other.to(value.dtype), "coo")


def mul_nnz_(src: SparseTensor, other: Tensor, layout: str | None = None) -> SparseTensor:
    """:func:`mul_nnz` in place."""
    value = src.storage.value()
    other = entries_in_order(src, other, layout)
    return src.set_value_(other if value is None else value.mul_(other.to(value.dtype)), "coo")
