"""Reference of scatter: the specification of csrc/sparse/scatter.h in plain torch."""

from __future__ import annotations

import torch

from .. import codes as C
from .csr_ref import csr_build
from .spmm_ref import spmm


def scatter(src, index, dim_size, reduce, return_arg, fill, skip_nan):
    """Same signature and results as torch.ops.structops.scatter."""
    rowptr, perm = csr_build(index, dim_size)
    arg = C.ARG_EDGE if return_arg else C.ARG_NONE
    out, winners = spmm(None, src, rowptr, None, perm, None, None, None, None, C.COPY_E, reduce, arg, fill, skip_nan, True)
    return out, winners.to(torch.int64)
