"""Distributions over trees: log-partitions, posteriors, best trees and samples, exact, batched and differentiable.

>>> import torch, structops
>>> crf = structops.tree.DependencyCRF(torch.zeros(2, 4, 4), lengths=[3, 2])
>>> crf.log_count.exp().round()
tensor([7., 2.])
"""

from .dependency import (
    DependencyCRF,
    adjacent_siblings,
    dependency_best,
    dependency_log_partition,
    dependency_marginals,
    dependency_sample,
)
from .span import SpanCRF, span_best, span_log_partition, span_marginals, span_sample
from .spanning import MatrixTreeCRF, is_projective, is_tree, maximum_spanning_tree

__all__ = [
    "DependencyCRF", "MatrixTreeCRF", "SpanCRF", "adjacent_siblings", "dependency_best", "dependency_log_partition",
    "dependency_marginals", "dependency_sample", "is_projective", "is_tree", "maximum_spanning_tree", "span_best",
    "span_log_partition", "span_marginals", "span_sample",
]  # fmt: skip
