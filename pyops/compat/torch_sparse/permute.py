"""Rows and columns in another order."""

from torch import Tensor

from ... import _check as check
from .index_select import index_select
from .tensor import SparseTensor


def permute(src: SparseTensor, perm: Tensor) -> SparseTensor:
    """``src[perm, perm]`` of a square matrix."""
    if not src.is_quadratic():
        check.fail(ValueError, "permute", "a square matrix", src.sparse_sizes())
    return index_select(index_select(src, 0, perm), 1, perm)
