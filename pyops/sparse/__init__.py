"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

from ._attention import dot_attention, edge_softmax, gat_attention, gatv2_attention
from ._edge_act import add_act_reduce
from ._multi import multi_aggregate
from ._block_spmm import block_sddmm, block_spmm, from_bsr
from ._difference import difference_step, graph_gradient, lp_distance, p_laplacian, total_variation
from ._poly import gated_filter, polynomial_filter, three_term_filter
from ._poly_bases import chebyshev_coefficients, gibbs_damping, levy_coefficients
from ._poly_layers import directed_filter, normalized_adjacency, optimal_basis_filter, polynomial_conv
from ._pairwise import pairwise_log_messages
from ._relational import RelationalGraph, relational_spmm
from ._scatter import ScatterPlan, scatter_reduce, scatter_softmax
from ._sddmm import sddmm
from ._segment import segment_gather, segment_reduce, segment_softmax
from ._sheaf import SheafGraph, inverse_sqrt_psd, sheaf_laplacian
from ._spmm import spmm

__all__ = [
    "ScatterPlan",
    "add_act_reduce",
    "dot_attention",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "multi_aggregate",
from ._dag import DagSchedule, dag_propagate
from ._hash import multiset_hash, weisfeiler_lehman
from ._hypergraph import Hypergraph, hypergraph_conv
from ._pooling import attention_pool
from ._scatter import ScatterPlan, scatter_reduce, scatter_softmax
from ._sddmm import sddmm
from ._segment import segment_gather, segment_reduce, segment_softmax
from ._segment_order import segment_median, segment_quantile, segment_topk
from ._spmm import spmm

__all__ = [
    "DagSchedule",
    "Hypergraph",
    "ScatterPlan",
    "attention_pool",
    "dag_propagate",
    "hypergraph_conv",
    "multiset_hash",
    "scatter_reduce",
    "scatter_softmax",
    "sddmm",
    "segment_gather",
    "segment_reduce",
    "segment_softmax",
    "spmm",
    "chebyshev_coefficients", "directed_filter", "gated_filter", "gibbs_damping", "levy_coefficients", "normalized_adjacency",
    "optimal_basis_filter", "polynomial_conv", "polynomial_filter",
    "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce", "segment_softmax", "spmm",
    "three_term_filter",
    "RelationalGraph",
    "ScatterPlan",
    "pairwise_log_messages", "relational_spmm",
    "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce", "segment_softmax", "spmm",
    "segment_median",
    "segment_quantile",
    "segment_reduce",
    "segment_softmax",
    "segment_topk",
    "spmm",
    "weisfeiler_lehman",
]  # fmt: skip
__all__ += ["block_sddmm", "block_spmm", "from_bsr"]
__all__ += ["difference_step", "graph_gradient", "lp_distance", "p_laplacian", "total_variation"]
__all__ += ["SheafGraph", "inverse_sqrt_psd", "sheaf_laplacian"]
