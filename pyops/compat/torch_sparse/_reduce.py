"""Reductions and copies between the entries of a matrix and its rows or columns.

They work under TorchScript, through the dispatcher.
"""

import torch
from torch import Tensor

from ... import _check as check
from ...sparse import scatter_reduce, segment_gather, segment_reduce

REDUCES = ("sum", "add", "mean", "min", "max")


def reduce_name(op: str, reduce: str) -> str:
    return "sum" if check.choice(op, "reduce", reduce, REDUCES) == "add" else reduce


def reduce_rows(value: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    """``[M, *]`` of values ``[E, *]``: sum (add), mean, min or max, 0 where a row is empty, NaN skipped by min and max."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_sparse.reduce_rows(value, rowptr, reduce)
    reduce = reduce_name("reduction", reduce)
    return segment_reduce(value, rowptr, reduce, skip_nan=reduce in ("min", "max"))  # type: ignore[return-value]


def reduce_cols(value: Tensor, col: Tensor, N: int, reduce: str) -> Tensor:
    """The same by columns, ``[N, *]``."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_sparse.reduce_cols(value, col, N, reduce)
    reduce = reduce_name("reduction", reduce)
    return scatter_reduce(value, col, N, reduce, skip_nan=reduce in ("min", "max"))  # type: ignore[return-value]


def to_rows(src: Tensor, rowptr: Tensor) -> Tensor:
    """Row values ``[M, *]`` copied to the entries, ``[E, *]``."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_sparse.to_rows(src, rowptr)
    return segment_gather(src, rowptr)
