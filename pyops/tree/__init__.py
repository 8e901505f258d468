"""Distributions over trees and chains: log-partitions, posteriors, best structures and samples, exact, batched, differentiable.

>>> import torch, structops
>>> crf = structops.tree.DependencyCRF(torch.zeros(2, 4, 4), lengths=[3, 2])
>>> crf.log_count.exp().round()
tensor([7., 2.])
"""

from .chain import LinearChainCRF, SemiMarkovCRF
from .dependency import (
    DependencyCRF,
    adjacent_siblings,
    dependency_best,
    dependency_log_partition,
    dependency_marginals,
    dependency_sample,
)
from .pcfg import PCFG, PCFGCounts
from .scorers import biaffine, triaffine
from .span import SpanCRF, span_best, span_log_partition, span_marginals, span_sample
from .spanning import MatrixTreeCRF, is_projective, is_tree, maximum_spanning_tree

__all__ = [
    "PCFG", "DependencyCRF", "LinearChainCRF", "MatrixTreeCRF", "PCFGCounts", "SemiMarkovCRF", "SpanCRF", "adjacent_siblings",
    "biaffine", "dependency_best", "dependency_log_partition", "dependency_marginals", "dependency_sample", "is_projective",
    "is_tree", "maximum_spanning_tree", "span_best", "span_log_partition", "span_marginals", "span_sample", "triaffine",
]  # fmt: skip
