"""Sparse aggregation: segments, scatter, g-SpMM and g-SDDMM. Check, bring to the kernels' layout, dispatch."""

from __future__ import annotations

from ._poly import gated_filter, polynomial_filter, three_term_filter
from ._poly_bases import chebyshev_coefficients, gibbs_damping, levy_coefficients
from ._poly_layers import directed_filter, normalized_adjacency, optimal_basis_filter, polynomial_conv
from ._scatter import ScatterPlan, scatter_reduce, scatter_softmax
from ._sddmm import sddmm
from ._segment import segment_gather, segment_reduce, segment_softmax
from ._spmm import spmm

__all__ = [
    "ScatterPlan",
    "chebyshev_coefficients", "directed_filter", "gated_filter", "gibbs_damping", "levy_coefficients", "normalized_adjacency",
    "optimal_basis_filter", "polynomial_conv", "polynomial_filter",
    "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce", "segment_softmax", "spmm",
    "three_term_filter",
]  # fmt: skip
