"""torch_sparse 0.6.18 on structops: the same names, arguments and results.

``structops.compat.install("torch_scatter", "torch_sparse")`` before PyG is imported makes PyG use it; ``install()`` here replaces
torch_sparse alone. Importing this package registers ``torch.ops.torch_sparse.*``, unless the library is loaded: it then keeps
those names. Once registered here, importing the library raises ImportError. torch_scatter is not needed.

Kept from torch_sparse: entries in the order of rows, then columns; duplicates until ``coalesce``; caches of the other layouts;
values cast to the dtype of the dense operand; 0 for empty rows; the first of equal extremes, its entry as the winner and E where
there is none; NaN skipped by min and max; a selected row or column keeps its dimension.

Different, on purpose:

- Indices out of range raise IndexError, unsorted entries under ``is_sorted`` ValueError (there: assertions, or nothing).
  ``trust_data`` skips this, but not the checks before a kernel reads the structure. int32 indices are taken, and kept as int64.
- Products with a dense matrix take vectors too, float16 and bfloat16 accumulate in float32, and have derivatives of every order
  (there: one), deterministic. The structure is analysed once for a matrix and those made from it by ``set_value``, and kept as
  int32: ``2 (E + N)`` numbers beside the matrix's own.
- Products of two sparse matrices have gradients to both values (there: none) and take duplicates and every dtype. With gradients,
  and off MKL's path (float32 and float64 on a CPU), they hold one number for each term of the sums.
- ``spmm(index, ...)``, the functional form, stores no message (there: E x K); products of integers with values do.
- ``index_select_nnz(..., layout="csc")`` counts entries by columns, as ``masked_select_nnz`` does. ``get_diag`` sums duplicates.
- A sum of two sparse matrices counts the values that one of them lacks as ones (there: the result has none).
- ``sparse_resize`` raises where an entry would lie outside. ``sample`` raises at empty rows.
- ``mean`` of integers rounds down. ``cat`` of features wants equal structures.
- Matrices are hashed by identity.

TorchScript compiles ``SparseTensor`` and ``SparseStorage``, construction, layouts and values, ``add``, ``mul``, ``matmul``,
``masked_select``, the diagonals and the reductions; PyG's layers need no more. The other methods and functions are for Python.
Under torch.compile, ``matmul`` of a matrix after ``fill_cache_()`` is part of the graph; ``@``, and what builds a matrix, break it.

``partition`` runs on pymetis (NotImplementedError without it) and takes any matrix as undirected, without loops; nodes keep their
order within a part. Not here: ``hetero_temporal_neighbor_sample``. Samplers run
torch operations over whole vectors of nodes, on the device of the graph (``hgt_sample`` on the CPU).
"""

from . import ops
from ._tensor_methods import TensorMethods as _Methods
from .add import add, add_, add_nnz, add_nnz_
from .bandwidth import reverse_cuthill_mckee
from .cat import cat
from .coalesce import coalesce
from .convert import from_scipy, from_torch_sparse, sparse_from_scipy, sparse_to_scipy, to_scipy, to_torch_sparse
from .diag import fill_diag, get_diag, remove_diag, set_diag
from .eye import eye
from .index_select import index_select, index_select_nnz
from .install import install as install
from .install import uninstall as uninstall
from .masked_select import masked_select, masked_select_nnz
from .matmul import matmul
from .matmul import spmm as _spmm
from .matmul import spspmm as _spspmm
from .metis import partition
from .mul import mul, mul_, mul_nnz, mul_nnz_
from .narrow import __narrow_diag__, narrow
from .permute import permute
from .reduce import max, mean, min, sum
from .rw import random_walk
from .saint import saint_subgraph
from .sample import sample, sample_adj
from .select import select
from .spadd import spadd
from .spmm import spmm
from .spspmm import spspmm
from .storage import SparseStorage
from .tensor import SparseTensor
from .transpose import t, transpose

ops.register()

_METHODS = {
    **{
        f.__name__: f
        for f in (
            t, narrow, __narrow_diag__, select, index_select, index_select_nnz, masked_select, masked_select_nnz, permute,
            remove_diag, set_diag, fill_diag, get_diag, sum, mean, min, max, add, add_, add_nnz, add_nnz_, mul, mul_, mul_nnz,
            mul_nnz_, matmul, random_walk, partition, reverse_cuthill_mckee, saint_subgraph, sample, sample_adj,
        )
    },
    "spmm": _spmm, "spspmm": _spspmm, "from_scipy": staticmethod(sparse_from_scipy), "to_scipy": sparse_to_scipy,
    "__matmul__": matmul, "__add__": add, "__radd__": add, "__iadd__": add_, "__mul__": mul, "__rmul__": mul, "__imul__": mul_,
}  # fmt: skip
for _name, _method in _METHODS.items():
    setattr(_Methods, _name, _method)

__version__ = "0.6.18"
__all__ = [
    "SparseStorage", "SparseTensor", "__narrow_diag__", "__version__", "add", "add_", "add_nnz", "add_nnz_", "cat", "coalesce",
    "eye", "fill_diag", "from_scipy", "from_torch_sparse", "get_diag", "index_select", "index_select_nnz", "masked_select",
    "masked_select_nnz", "matmul", "max", "mean", "min", "mul", "mul_", "mul_nnz", "mul_nnz_", "narrow", "partition", "permute",
    "random_walk", "remove_diag", "reverse_cuthill_mckee", "saint_subgraph", "sample", "sample_adj", "select", "set_diag", "spadd",
    "spmm", "spspmm", "sum", "t", "to_scipy", "to_torch_sparse", "transpose",
]  # fmt: skip
