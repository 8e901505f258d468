"""Reference of segment_order: the specification of csrc/sparse/segment_order.h in plain torch."""

from __future__ import annotations

import torch

from .spmm_ref import like_rank, rows_3d


def segment_order(src, rowptr, rank, k, largest):
    """Same signature and results as torch.ops.structops.segment_order."""
    s = rows_3d(src)
    B, _, F = s.shape
    N = rowptr.numel() - 1
    out = torch.full((B, N, k, F), -1, dtype=rowptr.dtype, device=src.device)
    ptr = rowptr.tolist()
    for v, (begin, end) in enumerate(zip(ptr, ptr[1:], strict=False)):
        row = s[:, begin:end]
        order = torch.sort(row, dim=1, descending=largest, stable=True).indices
        nan = row.isnan()
        for j, r in enumerate(range(k) if rank is None else rank[v].tolist()):
            if 0 <= r < end - begin:
                at = order[:, r]
                if rank is not None:
                    at = torch.where(nan.any(1), nan.to(torch.int8).argmax(1), at)
                out[:, v, j] = (at + begin).to(out.dtype)
    return like_rank(out.reshape(B, N * k, F), src.dim())
