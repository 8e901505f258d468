"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

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
    "segment_median",
    "segment_quantile",
    "segment_reduce",
    "segment_softmax",
    "segment_topk",
    "spmm",
    "weisfeiler_lehman",
]  # fmt: skip
