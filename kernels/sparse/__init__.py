"""Backends of the sparse family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS = {
    "spmm": "spmm",
    "copy_reduce": "spmm",
    "sddmm": "sddmm",
    "segment_softmax": "softmax",
    "segment_softmax_bwd": "softmax",
    "scatter": "scatter",
    "attention": "attention",
    "attention_bwd": "attention",
    "edge_act": "edge_act",
    "edge_act_bwd": "edge_act",
    "multi_reduce": "multi_reduce",
    "multi_reduce_bwd": "multi_reduce",
    "select": "select",
    "select_bwd": "select",
    "segment_attention": "segment_attention",
    "segment_attention_bwd": "segment_attention",
    "segment_order": "segment_order",
    "csr_build": "csr",
    "csr_from_coo": "csr",
    "csr_transpose": "csr",
    "block_spmm": "block_spmm",
    "block_sddmm": "block_spmm",
    "block_matmul": "block_spmm",
    "difference_rows": "difference",
    "difference_edges": "difference",
    "index_range": "csr",
    "poly_filter": "poly",
    "poly_filter_bwd": "poly",
    "relational_spmm": "rspmm",
    "relational_spmm_bwd": "rspmm",
    "typed_matmul": "typed_matmul",
    "typed_matmul_wgrad": "typed_matmul",
    "edge_matmul": "edge_matmul",
    "edge_matmul_hgrad": "edge_matmul",
    "edge_matmul_wgrad": "edge_matmul",
}

# Operators whose GPU kernels are Triton's, whatever else was built.
TRITON_FIRST = ("typed_matmul", "typed_matmul_wgrad", "edge_matmul", "edge_matmul_hgrad", "edge_matmul_wgrad")
