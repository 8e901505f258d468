"""Sorting into CSR. Nothing here has a derivative."""

from __future__ import annotations

import torch

from .._dispatch import define


def _csr_build_fake(index, num_groups):
    return index.new_empty([num_groups + 1]), torch.empty_like(index)


def _index_range_fake(index):
    ctx = torch.library.get_ctx()
    return ctx.new_dynamic_size(), ctx.new_dynamic_size(), True


csr_build = define("csr_build", _csr_build_fake, None, None, ())
index_range = define("index_range", _index_range_fake, None, None, ())


def with_reverse(s: tuple, num_src: int) -> tuple:
    """The structure with its reversed half, built if the caller left it out."""
    rowptr, col, eid, colptr, row_t, eid_t = s
    if colptr is not None:
        return s
    edges = col.numel()
    colptr, position = csr_build(col, num_src)
    rows = torch.arange(rowptr.numel() - 1, dtype=rowptr.dtype, device=rowptr.device)
    row = torch.repeat_interleave(rows, rowptr.diff(), output_size=edges)
    row_t = row[position]
    eid_t = eid[position] if eid is not None else position
    return rowptr, col, eid, colptr, row_t, eid_t
