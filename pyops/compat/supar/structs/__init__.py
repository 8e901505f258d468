"""supar.structs."""

from . import fn as fn
from . import semiring as semiring
from .chain import LinearChainCRF, SemiMarkovCRF
from .dist import StructuredDistribution
from .lexicalized import BiLexicalizedConstituencyCRF
from .tree import ConstituencyCRF, Dependency2oCRF, DependencyCRF, MatrixTree
from .vi import (
    ConstituencyMFVI,
    DependencyLBP,
    DependencyMFVI,
    SemanticDependencyLBP,
    SemanticDependencyMFVI,
)

__all__ = [
    "BiLexicalizedConstituencyCRF", "ConstituencyCRF", "ConstituencyMFVI", "Dependency2oCRF", "DependencyCRF", "DependencyLBP",
    "DependencyMFVI", "LinearChainCRF", "MatrixTree", "SemanticDependencyLBP", "SemanticDependencyMFVI", "SemiMarkovCRF",
    "StructuredDistribution",
]  # fmt: skip
