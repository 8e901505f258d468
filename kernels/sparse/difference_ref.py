"""Reference of the powers of differences: the specification of csrc/sparse/difference.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .block_spmm_ref import ends, wide


def term(d: Tensor, power: float, odd: bool) -> Tensor:
    """|d|^power, times the sign of d if odd; 0 at a tie, but 1 for the even power 0."""
    tie = d == 0
    size = torch.where(tie, torch.ones_like(d), d.abs()) ** power
    at_tie = torch.ones_like(d) if power == 0 and not odd else torch.zeros_like(d)
    t = torch.where(tie, at_tie, size * d.sign() if odd else size)
    return torch.where(d.isnan(), d, t)


def difference_rows(x, y, weight, h, rowptr, col, eid, colptr, row_t, eid_t, power, odd):
    """Same signature and results as torch.ops.structops.difference_rows."""
    v, u, j = ends(rowptr, col, eid, x.shape[0] if col is None else col.numel())
    t = term(wide(y)[v] - wide(x)[u], power, odd)
    t = t if weight is None else t * wide(weight)[j, None]
    t = t if h is None else t * wide(h)[u]
    return t.new_zeros(rowptr.numel() - 1, x.shape[1]).index_add_(0, v, t).to(x.dtype)


def difference_edges(x, y, hv, hu, rowptr, col, eid, colptr, row_t, eid_t, num_edges, power, odd):
    """Same signature and results as torch.ops.structops.difference_edges."""
    v, u, j = ends(rowptr, col, eid, num_edges)
    t = term(wide(y)[v] - wide(x)[u], power, odd)
    t = t if hv is None else t * wide(hv)[v]
    t = t if hu is None else t * wide(hu)[u]
    out = torch.empty(num_edges, dtype=x.dtype, device=x.device)
    out[j] = t.sum(1).to(x.dtype)
    return out
