"""Sorting into CSR. Nothing here has a derivative."""

from __future__ import annotations

import torch

from .._dispatch import define


def _csr_build_fake(index, num_groups):
    return index.new_empty([num_groups + 1]), torch.empty_like(index)


def _csr_from_coo_fake(row, col, num_rows, wide):
    dtype = torch.int64 if wide else torch.int32
    return tuple(row.new_empty([n], dtype=dtype) for n in (num_rows + 1, row.shape[0], row.shape[0]))


def _csr_transpose_fake(rowptr, col, eid, num_cols):
    return col.new_empty([num_cols + 1]), torch.empty_like(col), torch.empty_like(col)


def _index_range_fake(index):
    ctx = torch.library.get_ctx()
    return ctx.new_dynamic_size(), ctx.new_dynamic_size(), True


csr_build = define("csr_build", _csr_build_fake, None, None, ())
csr_from_coo = define("csr_from_coo", _csr_from_coo_fake, None, None, ())
csr_transpose = define("csr_transpose", _csr_transpose_fake, None, None, ())
index_range = define("index_range", _index_range_fake, None, None, ())


def with_reverse(s: tuple, num_src: int) -> tuple:
    """The structure with its reversed half, built if the caller left it out."""
    rowptr, col, eid, colptr, _, _ = s
    return s if colptr is not None else (rowptr, col, eid, *csr_transpose(rowptr, col, eid, num_src))
