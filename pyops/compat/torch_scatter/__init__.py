"""torch_scatter 2.1.2 on structops: the same names, arguments and results.

``structops.compat.torch_scatter.install()`` makes every later ``import torch_scatter``, and of its submodules, find
this package. Importing it registers ``torch.ops.torch_scatter.*`` with the library's own schemas, unless the library is
loaded: it then keeps those names, and TorchScript uses them. Once registered here, importing the library raises
ImportError.

Kept from torch_scatter: broadcasting of ``index``; sizes; the first of equal extremes; 0 and the position
``src.size(dim)`` for empty groups of min and max; NaN skipped by min and max; ``scatter_mean`` of integers rounding
down, ``segment_mean_*`` truncating; ``out`` as the starting value of scatter and segment_coo, overwritten by
segment_csr; the epsilons of the composites; ValueError for an unknown ``reduce``, and for integers where only floats
make sense.

Different, on purpose:

- An index out of range raises IndexError (there: writes outside the result). Unsorted indices of segment_coo and
  gather_coo, decreasing ``indptr`` and a gather_csr that would leave elements unset raise ValueError. Under
  torch.compile the order is taken for granted and the range is left to the kernels.
- int32 indices work everywhere, int8, uint8 and int16 sources too.
- A group of only -inf (max), inf (min) or the extreme of an integer type gives that value and its first position in
  every function (there: 0 and no position from scatter and segment_coo, the extreme finite number from segment_csr).
  A group of only NaN is empty in every function (there: the extreme finite number from segment_csr).
- Second derivatives of segment sum and mean are right (there: 0); so is the gradient of scatter_mul at zeros; that of
  scatter_std is 0 at constant groups (there: NaN); elements that ``indptr`` leaves out get the gradient 0 (there:
  uninitialised); gradients flow into ``out`` of scatter and segment_coo.
- ``out`` of segment_coo starts every group (there: the first group starts from row 0, and positions are arbitrary where
  ``out`` wins) and may be non-contiguous (there: an error).
- float16 and bfloat16 accumulate in float32. Results are deterministic.
- An empty ``src`` has ``index.max() + 1`` groups all the same, and products 1 (there: no groups, products 0).
- scatter_log_softmax gives NaN in a group of only -inf, as scatter_softmax and ``torch.log_softmax`` do (there: -inf).
- scatter_logsumexp propagates NaN (there: ignored), leaves ``out`` alone where a group is empty (there: 0; mended after
  2.1.2), and takes an empty ``src`` without ``dim_size``.
"""

from . import ops
from .composite import scatter_log_softmax, scatter_logsumexp, scatter_softmax, scatter_std
from .install import install as install
from .install import uninstall as uninstall
from .scatter import scatter, scatter_add, scatter_max, scatter_mean, scatter_min, scatter_mul, scatter_sum
from .segment_coo import (
    gather_coo,
    segment_add_coo,
    segment_coo,
    segment_max_coo,
    segment_mean_coo,
    segment_min_coo,
    segment_sum_coo,
)
from .segment_csr import (
    gather_csr,
    segment_add_csr,
    segment_csr,
    segment_max_csr,
    segment_mean_csr,
    segment_min_csr,
    segment_sum_csr,
)

ops.register()

__version__ = "2.1.2"
__all__ = [
    "__version__", "gather_coo", "gather_csr", "scatter", "scatter_add", "scatter_log_softmax",
    "scatter_logsumexp", "scatter_max", "scatter_mean", "scatter_min", "scatter_mul", "scatter_softmax", "scatter_std",
    "scatter_sum", "segment_add_coo", "segment_add_csr", "segment_coo", "segment_csr", "segment_max_coo",
    "segment_max_csr", "segment_mean_coo", "segment_mean_csr", "segment_min_coo", "segment_min_csr", "segment_sum_coo",
    "segment_sum_csr",
]  # fmt: skip
