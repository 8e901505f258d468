"""Dense operands of entry-wise operations."""

from torch import Tensor

from ._reduce import to_rows
from .storage import get_layout
from .tensor import SparseTensor


def entries_of(src: SparseTensor, other: Tensor) -> Tensor:
    """``other``, a column ``[M, 1, *]`` or a row ``[1, N, *]``, at every entry: ``[E, *]``."""
    if other.dim() >= 2:
        if other.size(0) == src.size(0) and other.size(1) == 1:
            return to_rows(other.squeeze(1), src.storage.rowptr())
        if other.size(0) == 1 and other.size(1) == src.size(1):
            return other.squeeze(0)[src.storage.col()]
    raise ValueError(f"torch_sparse: expected a tensor of shape [{src.size(0)}, 1, *] or [1, {src.size(1)}, *], got {other.size()}")


def entries_in_order(src: SparseTensor, other: Tensor, layout: str | None) -> Tensor:
    """``other``, a value for every entry in the order of ``layout`` (coo, csr or csc), in the order of the rows."""
    return other[src.storage.csc2csr()] if get_layout(layout) == "csc" else other
