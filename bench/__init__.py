"""Benchmarks: every operator against its peers in the same run, after its result was checked.

``python -m bench`` prints a report; ``pytest bench`` runs the same cases under pytest-benchmark and
``pytest bench --benchmark-disable`` only checks every case at reduced size.
"""

from __future__ import annotations

# Compiled operator -> module of this package that times it.
OPS = {
    "spmm": "bench_sparse_spmm",
    "sddmm": "bench_sparse_sddmm",
    "segment_softmax": "bench_sparse_softmax",
    "segment_softmax_bwd": "bench_sparse_softmax",
    "scatter": "bench_sparse_scatter",
    "select": "bench_sparse_select",
    "select_bwd": "bench_sparse_select",
    "csr_build": "bench_sparse_csr",
    "index_range": "bench_sparse_csr",
    "chart_logz": "bench_tree_chart",
    "chart_marginals": "bench_tree_chart",
    "chart_hvp": "bench_tree_chart",
    "chart_best": "bench_tree_chart",
    "chart_sample": "bench_tree_chart",
    "chart_max_marginals": "bench_tree_grand",
    "grand_logz": "bench_tree_grand",
    "grand_marginals": "bench_tree_grand",
    "grand_hvp": "bench_tree_grand",
    "grand_best": "bench_tree_grand",
    "grand_sample": "bench_tree_grand",
    "grand_max_marginals": "bench_tree_grand",
    "factored_logz": "bench_tree_factored",
    "factored_marginals": "bench_tree_factored",
    "factored_hvp": "bench_tree_factored",
    "chain_logz": "bench_tree_chain",
    "chain_marginals": "bench_tree_chain",
    "chain_hvp": "bench_tree_chain",
    "chain_best": "bench_tree_chain",
    "chain_sample": "bench_tree_chain",
    "matrix_tree_logz": "bench_tree_spanning",
    "matrix_tree_marginals": "bench_tree_spanning",
    "matrix_tree_hvp": "bench_tree_spanning",
    "matrix_tree_sample": "bench_tree_spanning",
    "arborescence": "bench_tree_spanning",
    "arborescence_kbest": "bench_tree_spanning",
    "tree_check": "bench_tree_spanning",
    # rotations
    # bits
    "bits_pack": "bench_binary_bits",
    "bits_unpack": "bench_binary_bits",
    "bits_count": "bench_binary_bits",
    "bits_panels": "bench_binary_bits",
    "bits_gemm": "bench_binary_linear",
    "bits_w1a8": "bench_binary_linear",
    "bits_w1a16": "bench_binary_linear",
    "bits_conv": "bench_binary_conv",
}

# Family -> modules, in the order of the report.
FAMILIES = {
    "sparse": (
        "bench_sparse_spmm",
        "bench_sparse_scatter",
        "bench_sparse_segment",
        "bench_sparse_sddmm",
        "bench_sparse_softmax",
        "bench_sparse_select",
        "bench_sparse_csr",
    ),
    "tree": ("bench_tree_chart", "bench_tree_factored", "bench_tree_grand", "bench_tree_spanning", "bench_tree_chain"),
    "so2": (),
    "binary": ("bench_binary_bits", "bench_binary_linear", "bench_binary_conv"),
    "overhead": ("bench_overhead",),
}
