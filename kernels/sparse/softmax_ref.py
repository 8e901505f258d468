"""Reference of segment_softmax and its backward: the specification of csrc/sparse/softmax.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .spmm_ref import like_rank, rows_3d


def _per_row(tensors: list[Tensor], rowptr: Tensor, eid: Tensor | None, fn) -> Tensor:
    wide = [rows_3d(t).to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    out = torch.empty_like(wide[0])
    ptr = rowptr.tolist()
    for begin, end in zip(ptr, ptr[1:], strict=False):
        k = torch.arange(begin, end, device=rowptr.device)
        j = eid[k].long() if eid is not None else k
        if j.numel():
            out[:, j] = fn(*(t[:, j] for t in wide))
    return like_rank(out.to(tensors[0].dtype), tensors[0].dim())


def segment_softmax(src, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax."""
    return _per_row([src], rowptr, eid, lambda s: s.log_softmax(1) if log else s.softmax(1))


def segment_softmax_bwd(out, grad, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax_bwd."""
    if log:
        return _per_row([out, grad], rowptr, eid, lambda y, g: g - y.exp() * g.sum(1, keepdim=True))
    return _per_row([out, grad], rowptr, eid, lambda y, g: y * (g - (y * g).sum(1, keepdim=True)))
