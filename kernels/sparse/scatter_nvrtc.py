"""GPU scatter where the library was built without nvcc: a stable sort of the index, then spmm with copy_e over it.

The contract is csrc/sparse/scatter.h. Edges of a group keep the order of e, as in csrc/sparse/scatter_cuda.cu.
"""

from __future__ import annotations

import torch

from .. import codes as C
from .spmm_nvrtc import spmm


def scatter(src, index, dim_size, reduce, return_arg, fill, skip_nan):
    """Same signature and results as torch.ops.structops.scatter."""
    order, eid = torch.sort(index, stable=True)
    if index.numel() and (order[0] < 0 or order[-1] >= dim_size):
        raise RuntimeError("structops: scatter: index out of range")
    rowptr = torch.searchsorted(order, torch.arange(dim_size + 1, dtype=index.dtype, device=index.device))  # int64, as eid
    arg = C.ARG_EDGE if return_arg else C.ARG_NONE
    return spmm(None, src, rowptr, None, eid, None, None, None, None, C.COPY_E, reduce, arg, fill, skip_nan, True)
