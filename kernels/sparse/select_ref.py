"""Reference of select and its transpose: the specification of csrc/sparse/select.h in plain torch."""

from __future__ import annotations

import torch

from .spmm_ref import like_rank, rows_3d


def select(src, idx):
    """Same signature and results as torch.ops.structops.select."""
    s, i = rows_3d(src), rows_3d(idx).long()
    padded = torch.cat([s, s.new_zeros(s.shape[0], 1, s.shape[2])], 1)
    inside = (i >= 0) & (i < s.shape[1])
    return like_rank(padded.gather(1, torch.where(inside, i, s.shape[1])), src.dim())


def select_bwd(grad, idx, rows):
    """Same signature and results as torch.ops.structops.select_bwd."""
    g, i = rows_3d(grad), rows_3d(idx).long()
    wide = g.to(torch.promote_types(g.dtype, torch.float32)) if g.is_floating_point() else g
    out = wide.new_zeros(g.shape[0], rows + 1, g.shape[2])
    inside = (i >= 0) & (i < rows)
    out.scatter_add_(1, torch.where(inside, i, rows), wide)
    return like_rank(out[:, :rows].to(grad.dtype).contiguous(), grad.dim())
