"""Reference of csr_build, csr_from_coo, csr_transpose and index_range: the specification of csrc/sparse/csr.h in plain torch."""

from __future__ import annotations

import torch


def _sorted_by(op, key, num_groups):
    """(ptr, order): a stable sort."""
    if key.numel() and (int(key.min()) < 0 or int(key.max()) >= num_groups):
        raise RuntimeError(f"structops: {op}: index out of range")
    count = torch.bincount(key.long(), minlength=num_groups)
    return torch.cat([count.new_zeros(1), count.cumsum(0)]), torch.sort(key, stable=True).indices


def csr_build(index, num_groups):
    """Same signature and results as torch.ops.structops.csr_build."""
    return tuple(t.to(index.dtype) for t in _sorted_by("csr_build", index, num_groups))


def csr_from_coo(row, col, num_rows, wide):
    """Same signature and results as torch.ops.structops.csr_from_coo."""
    rowptr, order = _sorted_by("csr_from_coo", row, num_rows)
    return tuple(t.to(torch.int64 if wide else torch.int32) for t in (rowptr, col[order], order))


def csr_transpose(rowptr, col, eid, num_cols):
    """Same signature and results as torch.ops.structops.csr_transpose."""
    colptr, order = _sorted_by("csr_transpose", col, num_cols)
    row = torch.repeat_interleave(torch.arange(rowptr.numel() - 1, device=col.device), rowptr.diff())
    return tuple(t.to(col.dtype) for t in (colptr, row[order], order if eid is None else eid[order]))


def index_range(index):
    """Same signature and results as torch.ops.structops.index_range."""
    if index.numel() == 0:
        return 0, -1, True
    return int(index.min()), int(index.max()), bool((index.diff() >= 0).all())
