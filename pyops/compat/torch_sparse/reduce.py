"""Reductions over rows, columns, features, or everything. Only entries count: an empty row gives 0."""

import torch
from torch import Tensor

from ._reduce import reduce_cols, reduce_rows
from .tensor import SparseTensor


def reduction(src: SparseTensor, dim: int | None = None, reduce: str = "sum") -> Tensor:
    """sum (add), mean, min or max over ``dim``: 0 gives ``[N, *]``, 1 gives ``[M, *]``, None a scalar.

    Without values every entry is 1. Differentiable in the values.
    """
    if reduce != "sum" and reduce != "add" and reduce != "mean" and reduce != "min" and reduce != "max":
        raise ValueError(f"reduction: expected reduce to be one of sum, add, mean, min, max, got {reduce}")
    rank = src.dim()
    if dim is not None and (dim < -rank or dim >= rank):
        raise IndexError(f"reduction: expected dim in [{-rank}, {rank}), got {dim}")
    value = src.storage.value()
    if value is None:
        return _counts(src, dim, reduce == "sum" or reduce == "add")
    if dim is None:
        return _dense(value.flatten(), 0, reduce)
    dim = dim + rank if dim < 0 else dim
    if dim == 0:
        return reduce_cols(value, src.storage.col(), src.size(1), reduce)
    if dim == 1:
        return reduce_rows(value, src.storage.rowptr(), reduce)
    return _dense(value, dim - 1, reduce)


def _counts(src: SparseTensor, dim: int | None, add: bool) -> Tensor:
    if dim is None:
        return torch.full([], src.nnz() if add else 1, dtype=src.dtype(), device=src.device())
    rows = dim == 1 or dim == -1
    count = src.storage.rowcount() if rows else src.storage.colcount()
    return (count if add else torch.ones_like(count)).to(src.dtype())


def _dense(value: Tensor, dim: int, reduce: str) -> Tensor:
    if reduce == "mean":
        return value.mean(dim)
    if reduce == "min":
        return value.min(dim)[0]
    if reduce == "max":
        return value.max(dim)[0]
    return value.sum(dim)


def sum(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Sums over ``dim``, as :func:`reduction`."""
    return reduction(src, dim, "sum")


def mean(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Means over the entries of ``dim``, as :func:`reduction`."""
    return reduction(src, dim, "mean")


def min(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Minima over the entries of ``dim``, as :func:`reduction`."""
    return reduction(src, dim, "min")


def max(src: SparseTensor, dim: int | None = None) -> Tensor:
    """Maxima over the entries of ``dim``, as :func:`reduction`."""
    return reduction(src, dim, "max")
