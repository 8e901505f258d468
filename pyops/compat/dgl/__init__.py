"""DGL's operators on structops: ``dgl.ops``, and its backend layer.

:mod:`structops.compat.dgl.ops` has the functions of ``dgl.ops`` for a DGLGraph or a :class:`structops.Graph`; DGL is not
needed for the latter. ``structops.compat.dgl.install()`` puts the kernels into an imported DGL instead, so that
``update_all``, ``apply_edges``, readouts and the layers of ``dgl.nn`` run on them, until ``uninstall()``. A DGLGraph is
analysed at its first use and the result kept with it.

Kept from DGL: names and arguments; broadcasting; the first of equal extremes takes the gradient; NaN skipped by min and max;
lists and dictionaries by type for heterographs; CUDA autocast.

Different, on purpose:

- ``structops.compat.dgl.ops`` gives 0 for destinations without edges under min and max, as DGL documents (there: inf). In an
  installed DGL ``dgl.ops`` keeps its infinities: ``multi_update_all`` needs them, and ``update_all`` replaces them.
- edge_softmax has the right second derivative (there: silently wrong); every operator has derivatives to any order.
- float16 and bfloat16 work on CPUs, accumulated in float32. Results are deterministic, gradients too.
- sub and div are computed as such (there: adding the negative, multiplying with the reciprocal).
- gather_mm gathers no matrices. segment_mm, which DGL runs as a loop on CPUs, is one operator.
- Heterographs: a first edge type without edges hides nothing (there: all results are 0); max and min over products, whose
  gradient fails there, have one; edge_softmax refuses ``eids``, which there means those of the first edge type.
- Bad shapes, dtypes, numbers and names raise TypeError, ValueError or IndexError (there: DGLError, or undefined).

DGL's own kernels go on serving sampling, ``csrmm``, ``csrsum``, ``csrmask`` and ``dgl.sparse``.
"""

from . import ops
from ._swap import install, uninstall

__all__ = ["install", "ops", "uninstall"]
