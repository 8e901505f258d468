"""One row, column or feature."""

from .narrow import narrow
from .tensor import SparseTensor


def select(src: SparseTensor, dim: int, idx: int) -> SparseTensor:
    """``narrow(src, dim, idx, 1)``: the dimension is kept."""
    return narrow(src, dim, idx, 1)
