"""torch_sparse 0.6.18 on structops: the same names, arguments and results."""

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

for _function in (
    t, narrow, __narrow_diag__, select, index_select, index_select_nnz, masked_select, masked_select_nnz, permute, remove_diag,
    set_diag, fill_diag, get_diag, sum, mean, min, max, add, add_, add_nnz, add_nnz_, mul, mul_, mul_nnz, mul_nnz_, matmul,
    random_walk, partition, reverse_cuthill_mckee, saint_subgraph, sample, sample_adj,
):  # fmt: skip
    setattr(_Methods, _function.__name__, _function)
_Methods.spmm, _Methods.spspmm = _spmm, _spspmm
_Methods.from_scipy, _Methods.to_scipy = staticmethod(sparse_from_scipy), sparse_to_scipy
_Methods.__matmul__ = matmul
_Methods.__add__ = _Methods.__radd__ = add
_Methods.__iadd__ = add_
_Methods.__mul__ = _Methods.__rmul__ = mul
_Methods.__imul__ = mul_

__version__ = "0.6.18"
__all__ = [
    "SparseStorage", "SparseTensor", "__narrow_diag__", "__version__", "add", "add_", "add_nnz", "add_nnz_", "cat", "coalesce",
    "eye", "fill_diag", "from_scipy", "from_torch_sparse", "get_diag", "index_select", "index_select_nnz", "masked_select",
    "masked_select_nnz", "matmul", "max", "mean", "min", "mul", "mul_", "mul_nnz", "mul_nnz_", "narrow", "partition", "permute",
    "random_walk", "remove_diag", "reverse_cuthill_mckee", "saint_subgraph", "sample", "sample_adj", "select", "set_diag", "spadd",
    "spmm", "spspmm", "sum", "t", "to_scipy", "to_torch_sparse", "transpose",
]  # fmt: skip
