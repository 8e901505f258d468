"""Reference of the edge-conditioned products: the specification of csrc/sparse/edge_matmul.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _ends(rowptr: Tensor, col: Tensor, eid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, destinations and edge rows in CSR order."""
    rows = torch.arange(rowptr.numel() - 1, device=col.device).repeat_interleave(rowptr.diff().long())
    return col.long(), rows, torch.arange(col.numel(), device=col.device) if eid is None else eid.long()


def edge_matmul(x, h, weight, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul."""
    u, v, e = _ends(rowptr, col, eid)
    matrices = torch.einsum("ek,kio->eio", _wide(h)[e], _wide(weight))
    out = matrices.new_zeros(rowptr.numel() - 1, weight.shape[2])
    return out.index_add_(0, v, torch.einsum("ei,eio->eo", _wide(x)[u], matrices)).to(x.dtype)


def edge_matmul_hgrad(x, y, weight, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul_hgrad."""
    u, v, e = _ends(rowptr, col, eid)
    found = torch.einsum("ei,kio,eo->ek", _wide(x)[u], _wide(weight), _wide(y)[v])
    return torch.empty_like(found).index_copy_(0, e, found).to(x.dtype)


def edge_matmul_wgrad(x, h, y, rowptr, col, eid, colptr, row_t, eid_t):
    """Same signature and results as torch.ops.structops.edge_matmul_wgrad."""
    u, v, e = _ends(rowptr, col, eid)
    return torch.einsum("ek,ei,eo->kio", _wide(h)[e], _wide(x)[u], _wide(y)[v]).to(x.dtype)
