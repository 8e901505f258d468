"""Reference of typed_matmul and its weight gradient: the specification of csrc/sparse/typed_matmul.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _left(x: Tensor, scale: Tensor | None, gptr: Tensor | None, gather: Tensor | None) -> Tensor:
    """The (sums of) gathered rows, [P, K]."""
    rows = _wide(x) if gather is None else _wide(x)[gather.long()]
    if scale is not None:
        rows = rows * scale[:, None].to(rows.dtype)
    if gptr is None:
        return rows
    ptr = gptr.tolist()
    sums = [rows[a:b].sum(0) for a, b in zip(ptr, ptr[1:], strict=False)]
    return torch.stack(sums) if sums else rows.new_zeros(0, x.shape[1])


def _segments(ptr: Tensor, types: Tensor | None) -> list[tuple[int, int, int]]:
    """(type, begin, end) of every segment."""
    ends = ptr.tolist()
    kinds = range(len(ends) - 1) if types is None else types.tolist()
    return list(zip(kinds, ends, ends[1:], strict=False))


def typed_matmul(x, weight, bias, scale, scale_t, ptr, types, blocks, block_rows, gptr, gather, scatter, ptr_t, types_t, blocks_t,
                 block_rows_t, gptr_t, gather_t, scatter_t, rows):  # fmt: skip
    """Same signature and results as torch.ops.structops.typed_matmul."""
    left = _left(x, scale, gptr, gather)
    out = left.new_zeros(rows, weight.shape[2])
    for kind, a, b in _segments(ptr, types):
        product = left[a:b] @ _wide(weight[kind])
        if bias is not None:
            product = product + _wide(bias[kind])
        at = torch.arange(a, b, device=x.device) if scatter is None else scatter[a:b].long()
        out.index_add_(0, at, product)
    return out.to(x.dtype)


def typed_matmul_wgrad(x, grad, scale, scale_t, ptr, types, blocks, block_rows, gptr, gather, scatter, ptr_t, types_t, blocks_t,
                       block_rows_t, gptr_t, gather_t, scatter_t, num_types):  # fmt: skip
    """Same signature and results as torch.ops.structops.typed_matmul_wgrad."""
    left = _left(x, scale, gptr, gather)
    right = _wide(grad) if scatter is None else _wide(grad)[scatter.long()]
    out = left.new_zeros(num_types, x.shape[1], grad.shape[1])
    for kind, a, b in _segments(ptr, types):
        out[kind] += left[a:b].T @ right[a:b]
    return out.to(x.dtype)
