"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

from ._pairwise import pairwise_log_messages
from ._relational import RelationalGraph, relational_spmm
from ._scatter import ScatterPlan, scatter_reduce, scatter_softmax
from ._sddmm import sddmm
from ._segment import segment_gather, segment_reduce, segment_softmax
from ._spmm import spmm

__all__ = [
    "RelationalGraph",
    "ScatterPlan",
    "pairwise_log_messages", "relational_spmm",
    "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce", "segment_softmax", "spmm",
]  # fmt: skip
