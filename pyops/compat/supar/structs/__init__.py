"""supar.structs."""

from . import fn as fn
from . import semiring as semiring
from .chain import LinearChainCRF, SemiMarkovCRF
from .dist import StructuredDistribution
from .tree import ConstituencyCRF, Dependency2oCRF, DependencyCRF, MatrixTree

__all__ = [
    "ConstituencyCRF", "Dependency2oCRF", "DependencyCRF", "LinearChainCRF", "MatrixTree", "SemiMarkovCRF",
    "StructuredDistribution",
]  # fmt: skip
