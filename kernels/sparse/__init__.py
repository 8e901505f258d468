"""Backends of the sparse family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS = {
    "spmm": "spmm",
    "sddmm": "sddmm",
    "segment_softmax": "softmax",
    "segment_softmax_bwd": "softmax",
    "scatter": "scatter",
    "select": "select",
    "select_bwd": "select",
    "segment_order": "segment_order",
    "csr_build": "csr",
    "index_range": "csr",
}
