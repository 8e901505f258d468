"""The structures and scorers of supar (git, 2023) on structops: the same names, layouts and conventions.

``structops.compat.supar.install()`` makes every later ``import supar``, ``supar.structs``, ``supar.structs.fn`` and
``supar.modules`` find this package: for code that uses the structures, not the parsers.

Kept from supar: scores ``[batch, dependent, head(, sibling)]`` with the root at index 0, ``lens`` without the root, single
root by default; constituents between fenceposts; heads 0 at the root and past the sentence; the shapes of ``kmax`` and
``topk``; lazily computed properties. ``Dependency2oCRF.marginals`` is the pair (arcs, siblings).

Different, on purpose:

- The scores that are given are never changed and keep their ``requires_grad`` (there: set).
- Partial annotation honours ``multiroot`` (there: always single root), so that no annotation gives log-probability 0.
- Scores of -inf forbid exactly, with finite gradients (there: NaN). float16 works, and 16-bit scores are summed in float32.
- ``topk`` and ``kmax`` beyond the number of trees give zeros and -inf (there: meaningless trees and -1e32).
- ``ConstituencyCRF`` takes charts of booleans (PyPI 1.1.4) as well as of labels (git); partial charts too.
- ``MatrixTree`` and ``mst`` are right at any scale of the scores and leave them alone; single roots are exact; ``MatrixTree``
  draws samples.
- The semirings add and multiply tensors, but no distribution takes one: no ``forward``, ``backward`` or ``+`` of distributions;
  no variational inference.
"""

from .._install import installers
from . import modules as modules
from . import structs as structs
from .modules import Biaffine, Triaffine
from .structs import (
    ConstituencyCRF,
    Dependency2oCRF,
    DependencyCRF,
    LinearChainCRF,
    MatrixTree,
    SemiMarkovCRF,
    StructuredDistribution,
)

install, uninstall = installers(
    "supar", __name__, ("structs", "structs.fn", "structs.dist", "structs.semiring", "structs.tree", "structs.chain", "modules")
)

__all__ = [
    "Biaffine", "ConstituencyCRF", "Dependency2oCRF", "DependencyCRF", "LinearChainCRF", "MatrixTree", "SemiMarkovCRF",
    "StructuredDistribution", "Triaffine",
]  # fmt: skip
