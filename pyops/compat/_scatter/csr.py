"""segment_*_csr and gather_csr by torch_scatter's argument rules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ...kernels import codes as C
from ...sparse._groups import reduce_groups, widen
from .groups import checked_out, index_dim, written
from .short import SegmentGather, SegmentLinear, is_compiling, plain_rows, segment_gather, segment_sum, wanting_grad


def segment_csr(op: str, code: int, src: Tensor, indptr: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values, and for min and max positions (else any tensor)."""
    if out is None and plain_rows(src, indptr):
        low, high, ordered = ladder.index_range(indptr)
        if ordered and low == 0 and high == src.shape[0]:
            if code in (C.SUM, C.MEAN):
                return wanting_grad(SegmentLinear, segment_sum, src, indptr, code), indptr
            value, arg = ladder.spmm(
                None, src, indptr, None, None, None, None, None, None, C.COPY_E, code, C.ARG_EDGE, 0.0, True, True
            )
            return value, arg if arg.dtype == torch.int64 else arg.to(torch.int64)
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = index_dim(op, "indptr", indptr)
    if dim >= src.dim():
        check.fail(ValueError, op, f"indptr with at most {src.dim()} dimensions", indptr.dim())
    if indptr.shape[-1] == 0:
        indptr = indptr.new_zeros(*indptr.shape[:-1], 1)
    lead, trail, E, N = src.shape[:dim], src.shape[dim + 1 :], src.shape[dim], indptr.shape[-1] - 1
    if any(i not in (1, s) for i, s in zip(indptr.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"indptr that broadcasts to {[*lead, 'N + 1']}", list(indptr.shape))
    if out is not None and checked_out(op, out, src, dim) != N:
        check.fail(ValueError, op, f"out of size {N} along dim {dim}", out.shape[dim])
    B, F = math.prod(lead), math.prod(trail)
    pointers, gaps = indptr.contiguous(), False
    if not _whole(pointers, E):
        pointers, gaps = _with_gaps(op, indptr, lead, E), True
    rows = src.reshape(B * E, F).contiguous() if src.dim() > 1 else src.contiguous()
    if code == C.MEAN and not src.is_floating_point():
        total = reduce_groups(op, rows, 0, (pointers, None), C.SUM, None, False, True, True)
        count = pointers.diff().clamp_(min=1).reshape(-1, *(1 for _ in total.shape[1:]))
        value, arg = total.div(count, rounding_mode="trunc").to(src.dtype), indptr.new_empty(0)
    else:
        extreme = code in (C.MIN, C.MAX)
        value = reduce_groups(op, rows, 0, (pointers, None), code, None, extreme, True, True)
        value, arg = value if extreme else (value, indptr.new_empty(0))
    if gaps:
        inner = lambda t: t.reshape(B, N + 2, F)[:, 1:-1]
        value = inner(value)
        if arg.numel():
            arg = inner(arg)
            arg = torch.where(arg < B * E, arg % max(E, 1), E)
    shape = (*lead, N, *trail)
    value = value.reshape(shape) if out is None else out.copy_(value.reshape(shape))
    return value, arg.reshape(shape) if code in (C.MIN, C.MAX) else arg


def _whole(indptr: Tensor, E: int) -> bool:
    """Whether a vector ``indptr`` runs from 0 to E in order. Taken for granted under torch.compile."""
    if indptr.dim() != 1 or is_compiling():
        return indptr.dim() == 1
    return ladder.index_range(indptr) == (0, E, True)


def _with_gaps(op: str, indptr: Tensor, lead, E: int) -> Tensor:
    """Pointers over B rows of E elements: each row's ranges, with one before and one after for what they leave out."""
    B, N = math.prod(lead), indptr.shape[-1] - 1
    starts = torch.arange(B, device=indptr.device)[:, None] * E
    ranges = indptr.expand(*lead, N + 1).reshape(B, N + 1).long()
    bounded = torch.cat([starts, ranges + starts], 1).reshape(-1)
    pointers = torch.cat([bounded, bounded.new_full((1,), B * E)])
    if not is_compiling() and ladder.index_range(pointers) != (0, B * E, True):
        low, high, _ = ladder.index_range(indptr.contiguous())
        if low < 0 or high > E:
            check.fail(IndexError, op, f"indptr from 0 to {E}", f"[{low}, {high}]")
        check.fail(ValueError, op, "indptr to be non-decreasing", "a decreasing pair")
    return pointers


def gather_csr(op: str, src: Tensor, indptr: Tensor, out: Tensor | None) -> Tensor:
    if out is None and plain_rows(src, indptr) and indptr.shape[0] == src.shape[0] + 1:
        low, high, ordered = ladder.index_range(indptr)
        if ordered and low == 0:
            return wanting_grad(SegmentGather, segment_gather, src, indptr, high)
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = index_dim(op, "indptr", indptr)
    if dim >= src.dim():
        check.fail(ValueError, op, f"indptr with at most {src.dim()} dimensions", indptr.dim())
    if indptr.shape[-1] == 0:
        indptr = indptr.new_zeros(*indptr.shape[:-1], 1)
    lead, trail, N = src.shape[:dim], src.shape[dim + 1 :], src.shape[dim]
    if indptr.shape[-1] != N + 1 or any(i not in (1, s) for i, s in zip(indptr.shape[:-1], lead, strict=True)):
        check.fail(ValueError, op, f"indptr that broadcasts to {[*lead, N + 1]}", list(indptr.shape))
    B, F = math.prod(lead), math.prod(trail)
    E = int(indptr.reshape(-1)[-1]) if indptr.numel() else 0
    pointers = indptr.contiguous()
    if dim:
        starts = torch.arange(B, device=src.device)[:, None] * E
        ranges = indptr.expand(*lead, N + 1).reshape(B, N + 1).long()
        if not bool(((ranges[:, 0] == 0) & (ranges[:, -1] == E)).all()):
            check.fail(ValueError, op, f"every indptr to run from 0 to {E}", "one that does not")
        pointers = torch.cat([(ranges[:, :-1] + starts).reshape(-1), ranges.new_full((1,), B * E)])
    if ladder.index_range(pointers) != (0, B * E, True):
        check.fail(ValueError, op, f"indptr to be non-decreasing from 0 to {E}", "another order or range")
    rows = widen(src).reshape(B * N, F).contiguous() if src.dim() > 1 else widen(src).contiguous()
    result = wanting_grad(SegmentGather, segment_gather, rows, pointers, B * E)
    return written(op, result.to(src.dtype).reshape(*lead, E, *trail), src, dim, out)
