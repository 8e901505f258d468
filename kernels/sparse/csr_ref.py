"""Reference of csr_build and index_range: the specification of csrc/sparse/csr.h in plain torch."""

from __future__ import annotations

import torch


def csr_build(index, num_groups):
    """Same signature and results as torch.ops.structops.csr_build."""
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= num_groups):
        raise RuntimeError("structops: csr_build: index out of range")
    count = torch.bincount(index.long(), minlength=num_groups)
    rowptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).to(index.dtype)
    return rowptr, torch.sort(index, stable=True).indices.to(index.dtype)


def index_range(index):
    """Same signature and results as torch.ops.structops.index_range."""
    if index.numel() == 0:
        return 0, -1, True
    return int(index.min()), int(index.max()), bool((index.diff() >= 0).all())
