"""Reference of sddmm: the specification of csrc/sparse/sddmm.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import codes as C
from .spmm_ref import like_rank, rows_3d


def edge_rows(rowptr: Tensor, num_edges: int) -> Tensor:
    """The row of every edge, in CSR order."""
    return torch.repeat_interleave(torch.arange(rowptr.numel() - 1, device=rowptr.device), rowptr.diff(), output_size=num_edges)


def sddmm(
    lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, bcast, op, lhs_target, rhs_target, num_edges, out_features, reduce_features
):  # fmt: skip
    """Same signature and results as torch.ops.structops.sddmm."""
    k = torch.arange(num_edges, device=lhs.device)
    v = edge_rows(rowptr, num_edges)
    u = col.long() if col is not None else k
    j = eid.long() if eid is not None else k
    F = out_features * reduce_features

    def read(t: Tensor, target: int, table: int) -> Tensor:
        t = rows_3d(t)[:, {C.U: u, C.V: v, C.E: j}[target]]
        t = t.float() if t.dtype in (torch.bfloat16, torch.float16) else t
        return t[..., bcast[table].long()] if bcast is not None else t.expand(*t.shape[:-1], F)

    out = read(lhs, lhs_target, 0)
    if op != C.EDGE_COPY:
        fn = {C.EDGE_ADD: torch.add, C.EDGE_SUB: torch.sub, C.EDGE_MUL: torch.mul, C.EDGE_DIV: torch.div}[op]
        out = fn(out, read(rhs, rhs_target, 1))
    out = out.reshape(*out.shape[:-1], out_features, reduce_features).sum(-1, dtype=out.dtype)
    placed = torch.empty(out.shape, dtype=lhs.dtype, device=lhs.device)
    placed[:, j] = out.to(lhs.dtype)
    rank = max(lhs.dim(), rhs.dim() if rhs is not None and op != C.EDGE_COPY else 0)
    return like_rank(placed, rank)
