"""pyg_lib 0.8 on structops: the same names, arguments and results of ``pyg_lib.ops``.

``structops.compat.pyg_lib.install()`` makes every later ``import pyg_lib``, PyG's too, find this package. Importing it
registers ``torch.ops.pyg.*`` with the library's own schemas, unless the library is loaded: it then keeps those names.
Once registered here, importing the library raises ImportError.

Kept from pyg_lib, where it differs from torch_scatter: the order of scatter_log_softmax's arguments; scatter_std divides
by the count alone; scatter_logsumexp writes over ``out`` where its result is finite, and gives 0 instead of inf;
segment_sum_csr adds to ``out``, the other segment_csr write over it; gather_coo takes indices in any order;
scatter_add is scatter_sum; ValueError with a sentence for an unknown ``reduce``.

Different, on purpose:

- Everything that :mod:`structops.compat.torch_scatter` lists about bounds, order, int32 indices, extremes, derivatives
  (of scatter_mul at zeros too), ``out`` of segment_coo, accumulation and determinism.
- scatter_logsumexp propagates NaN (there: 0, or what ``out`` held).
- Every operator here runs on CPU and GPU, in every floating dtype, with derivatives to any order: softmax_csr (there: CPU,
  default dtype), segment_matmul (there: float32 on GPUs), fused_scatter_reduce (there: GPU, no gradient, and wrong values
  for some lists of reductions). sampled_* check their indices. segment_matmul adds the bias before it rounds.
- index_sort sorts stably on every device and does not use ``max_value``.
- grouped_matmul and sampled_* are compositions of torch's products and of gathers, not kernels of their own.
- TorchScript takes ``torch.ops.pyg.*`` and, of the Python functions, those that PyG scripts: index_sort, softmax_csr,
  segment_matmul.

``sampler`` samples homogeneous and heterogeneous graphs, in whole vectors of nodes with torch's generator: uniformly, by node or
edge time ("uniform" and "last"), by weight, in one subgraph or disjoint ones. PyG's NeighborLoader, LinkNeighborLoader and Node2Vec
run on it. Different there, on purpose: time and weight may be given together; all neighbours of a node that is reached must be in
order of time (there: the first and the last); weights must be finite and >= 0, and edges of weight 0 are taken only where all are
asked for; errors are ValueError, TypeError or IndexError. Not here: induced subgraphs and walks with p or q other than 1, which
raise NotImplementedError, and ``torch.ops.pyg`` of distributed sampling. ``partition`` is here where pymetis is installed. The
hash maps and, of ``ops``, the clustering, neighbour search and spline functions are missing to ``hasattr``, so that PyG falls back
or says what it needs.
"""

from .._dispatcher import cuda_version
from .._install import installers
from .._metis import available
from . import _names, ops, sampler

_names.register()
_submodules = ["ops", "ops.scatter_reduce", "sampler", "testing"]
if available():
    from . import partition  # noqa: F401

    _submodules.append("partition")
install, uninstall = installers("pyg_lib", __name__, tuple(_submodules))

__version__ = "0.8.0"
__all__ = ["__version__", "cuda_version", "ops", "sampler"]
