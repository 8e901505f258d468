"""Reference of the block-sparse products: the specification of csrc/sparse/block_spmm.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .sddmm_ref import edge_rows


def ends(rowptr: Tensor, col: Tensor | None, eid: Tensor | None, num_edges: int) -> tuple[Tensor, Tensor, Tensor]:
    """Destination, source and number of every edge, in CSR order."""
    k = torch.arange(num_edges, device=rowptr.device)
    return edge_rows(rowptr, num_edges), k if col is None else col.long(), k if eid is None else eid.long()


def wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


def block_spmm(x, blocks, diag, rowptr, col, eid, colptr, row_t, eid_t, alpha, transpose, batch_first):
    """Same signature and results as torch.ops.structops.block_spmm."""
    if batch_first:
        s = (rowptr, col, eid, colptr, row_t, eid_t)
        return block_spmm(x.movedim(0, 2), blocks, diag, *s, alpha, transpose, False).movedim(2, 0).contiguous()
    v, u, j = ends(rowptr, col, eid, blocks.shape[0])
    m = wide(blocks).mT if transpose else wide(blocks)
    out = wide(x).new_zeros(rowptr.numel() - 1, m.shape[1], x.shape[2])
    out.index_add_(0, v, torch.einsum("epq,eqf->epf", m[j], wide(x)[u]), alpha=alpha)
    if diag is not None:
        d = wide(diag).mT if transpose else wide(diag)
        out += torch.einsum("npq,nqf->npf", d, wide(x))
    return out.to(x.dtype)


def block_sddmm(lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, num_edges, alpha, transpose, batch_first):
    """Same signature and results as torch.ops.structops.block_sddmm."""
    if batch_first:
        lhs, rhs = lhs.movedim(0, 2), rhs.movedim(0, 2)
    v, u, j = ends(rowptr, col, eid, num_edges)
    m = alpha * torch.einsum("epf,eqf->epq", wide(lhs)[v], wide(rhs)[u])
    m = m.mT if transpose else m
    out = torch.empty(m.shape, dtype=lhs.dtype, device=lhs.device)
    out[j] = m.to(lhs.dtype)
    return out


def block_matmul(a, b, pair, pair_a, pair_b, transpose_a, transpose_b):
    """Same signature and results as torch.ops.structops.block_matmul."""
    a, b, dtype = wide(a), wide(b), a.dtype
    a, b = (a[pair.long()] if pair_a else a), (b[pair.long()] if pair_b else b)
    a, b = (a.mT if transpose_a else a), (b.mT if transpose_b else b)
    return torch.einsum("epr,erq->epq", a, b).to(dtype).contiguous()
