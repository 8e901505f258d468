"""segment_*_coo and gather_coo by torch_scatter's argument rules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from .groups import index_dim, written
from .scatter import extreme, linear
from .short import as_size, gather, is_compiling, plain, plain_rows, with_grad


def _coo_plain(src: Tensor, index: Tensor) -> bool:
    return plain(src, index, 0)


def _coo_size(op: str, index: Tensor, dim_size: int | None) -> int:
    low, high, ascending = ladder.index_range(index)
    if not ascending:
        check.fail(ValueError, op, "an ascending index", "a decreasing pair")
    if index.shape[0] and low < 0:
        check.fail(IndexError, op, "index >= 0", low)
    if dim_size is None:
        return high + 1
    dim_size = as_size(op, dim_size)
    if high >= dim_size:
        check.fail(IndexError, op, f"index < {dim_size}", high)
    return dim_size


def segment_coo_linear(
    op: str, code: int, src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None
) -> Tensor:
    if out is None and _coo_plain(src, index):
        size = _coo_size(op, index, dim_size)
        if src.requires_grad and torch.is_grad_enabled():
            return with_grad(code, src, index, size)
        return ladder.scatter(src, index, size, code, False, 0.0, False)[0]
    return linear(op, code, src, index, index_dim(op, "index", index), out, dim_size, "trunc", True)


def segment_coo_extreme(
    op: str, code: int, src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    if out is None and _coo_plain(src, index):
        return ladder.scatter(src, index, _coo_size(op, index, dim_size), code, True, 0.0, True)
    return extreme(op, code, src, index, index_dim(op, "index", index), out, dim_size, True)


def gather_coo(op: str, src: Tensor, index: Tensor, out: Tensor | None, ascending: bool = True) -> Tensor:
    check.tensor(op, "src", src)
    check.index(op, "index", index, like=src)
    if out is None and plain_rows(src, index):
        low, high, ordered = ladder.index_range(index)
        if (ordered or not ascending) and low >= 0 and high < src.shape[0]:
            return gather(src, index)
    dim = index_dim(op, "index", index)
    if dim >= src.dim():
        check.fail(ValueError, op, f"index with at most {src.dim()} dimensions", index.dim())
    lead, trail, E, N = src.shape[:dim], src.shape[dim + 1 :], index.shape[-1], src.shape[dim]
    if any(i not in (1, s) for i, s in zip(index.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"index that broadcasts to {[*lead, 'E']}", list(index.shape))
    if not is_compiling():
        low, high, ordered = ladder.index_range(index.contiguous())
        if index.numel() and low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        if high >= N:
            check.fail(IndexError, op, f"index < {N}", high)
        if ascending and not ordered and (dim == 0 or bool((index.diff() < 0).any())):
            check.fail(ValueError, op, "an ascending index", "a decreasing pair")
    flat, B = index, math.prod(lead)
    if dim:
        starts = torch.arange(B, device=src.device)[:, None] * N
        flat = (index.expand(*lead, E).reshape(B, E).long() + starts).reshape(-1)
    result = gather(src.reshape(B * N, math.prod(trail)), flat.contiguous())
    return written(op, result.reshape(*lead, E, *trail), src, dim, out)
