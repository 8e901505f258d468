"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

from ._attention import dot_attention, edge_softmax, gat_attention, gatv2_attention
from ._block_spmm import block_sddmm, block_spmm, from_bsr
from ._dag import DagSchedule, dag_propagate
from ._difference import difference_step, graph_gradient, lp_distance, p_laplacian, total_variation
from ._edge_act import add_act_reduce
from ._hash import multiset_hash, weisfeiler_lehman
from ._hypergraph import Hypergraph, hypergraph_conv
from ._multi import multi_aggregate, segment_multi_aggregate
from ._pairwise import pairwise_log_messages
from ._poly import gated_filter, polynomial_filter, three_term_filter
from ._poly_bases import chebyshev_coefficients, gibbs_damping, levy_coefficients
from ._poly_layers import directed_filter, normalized_adjacency, optimal_basis_filter, polynomial_conv
from ._pooling import attention_pool
from ._relational import RelationalGraph, relational_spmm
from ._scatter import ScatterPlan, scatter_reduce, scatter_softmax
from ._sddmm import sddmm
from ._segment import segment_gather, segment_reduce, segment_softmax
from ._segment_attention import segment_attention
from ._segment_order import segment_median, segment_quantile, segment_topk
from ._sheaf import SheafGraph, inverse_sqrt_psd, sheaf_laplacian
from ._spmm import spmm
from ._typed_attention import typed_attention
from ._typed_matmul import edge_conditioned_matmul, rgcn_aggregate, segment_matmul, typed_matmul
from ._typed_plan import RelationPlan, TypePlan

__all__ = [
    "DagSchedule",
    "Hypergraph",
    "RelationPlan",
    "RelationalGraph",
    "ScatterPlan",
    "SheafGraph",
    "TypePlan",
    "add_act_reduce",
    "attention_pool",
    "block_sddmm",
    "block_spmm",
    "chebyshev_coefficients",
    "dag_propagate",
    "difference_step",
    "directed_filter",
    "dot_attention",
    "edge_conditioned_matmul",
    "edge_softmax",
    "from_bsr",
    "gat_attention",
    "gated_filter",
    "gatv2_attention",
    "gibbs_damping",
    "graph_gradient",
    "hypergraph_conv",
    "inverse_sqrt_psd",
    "levy_coefficients",
    "lp_distance",
    "multi_aggregate",
    "multiset_hash",
    "normalized_adjacency",
    "optimal_basis_filter",
    "p_laplacian",
    "pairwise_log_messages",
    "polynomial_conv",
    "polynomial_filter",
    "relational_spmm",
    "rgcn_aggregate",
    "scatter_reduce",
    "scatter_softmax",
    "sddmm",
    "segment_attention",
    "segment_gather",
    "segment_matmul",
    "segment_median",
    "segment_multi_aggregate",
    "segment_quantile",
    "segment_reduce",
    "segment_softmax",
    "segment_topk",
    "sheaf_laplacian",
    "spmm",
    "three_term_filter",
    "total_variation",
    "typed_attention",
    "typed_matmul",
    "weisfeiler_lehman",
]
