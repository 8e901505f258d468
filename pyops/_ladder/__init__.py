"""Derivatives of the operators: one module per operator, each with its fake kernel, what it saves and its backward.

Every backward is written with the entry functions of this package and differentiable torch functions, so derivatives of any
order come from the same few kernels:

    spmm(sum)  <->  spmm on the reversed edges, sddmm        segment_softmax -> segment_softmax_bwd -> spmm, sddmm
    spmm(min, max)  ->  select_bwd  <->  select              scatter -> index_select, select_bwd

No message tensor [E, F] is saved. A structure is the six tensors (rowptr, col, eid, colptr, row_t, eid_t); its reverse swaps
the halves. Rules that need each other import modules, not names.
"""

from __future__ import annotations

from .._dispatch import is_eager, wants_derivative
from ._attention import attention
from ._common import lookup
from ._csr import csr_build, csr_from_coo, index_range, with_reverse
from ._eager import copy_reduce, covers, scatter_rows, segment_rows
from ._edge_act import activate, edge_act
from ._multi_reduce import multi_reduce
from ._poly import poly_filter
from ._rspmm import relational_spmm, relational_spmm_bwd
from ._scatter import scatter
from ._sddmm import sddmm
from ._segment_attention import segment_attention
from ._segment_order import segment_order
from ._select import select, select_bwd
from ._softmax import segment_softmax, segment_softmax_bwd
from ._spmm import spmm
from ._spmm_grad import copy_product_grad

__all__ = [
    "activate",
    "attention",
    "copy_product_grad",
    "copy_reduce",
    "covers",
    "csr_build",
    "csr_from_coo",
    "edge_act",
    "index_range",
    "is_eager",
    "lookup",
    "multi_reduce",
    "poly_filter",
    "relational_spmm",
    "relational_spmm_bwd",
    "scatter",
    "scatter_rows",
    "sddmm",
    "segment_attention",
    "segment_order",
    "segment_rows",
    "segment_softmax",
    "segment_softmax_bwd",
    "select",
    "select_bwd",
    "spmm",
    "wants_derivative",
    "with_reverse",
]
