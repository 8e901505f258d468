"""Sampling of neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from . import _index
from ._sampling import sample_adj as _sample_adj
from .tensor import SparseTensor


def sample(src: SparseTensor, num_neighbors: int, subset: Tensor | None = None) -> Tensor:
    """Columns ``[S, num_neighbors]`` drawn with replacement from the rows ``subset`` (all if None), none of them empty."""
    rowptr, col, _ = src.csr()
    count = src.storage.rowcount()
    if subset is not None:
        _index.in_range("sample", "subset", check.index("sample", "subset", subset), src.sparse_size(0))
    first, count = (rowptr[:-1], count) if subset is None else (rowptr[subset], count[subset])
    if bool((count == 0).any()):
        check.fail(ValueError, "sample", "rows with entries", "an empty one")
    drawn = (torch.rand(count.numel(), num_neighbors, device=col.device) * count[:, None]).long()
    return col[first[:, None] + torch.minimum(drawn, count[:, None] - 1)]


def sample_adj(src: SparseTensor, subset: Tensor, num_neighbors: int, replace: bool = False) -> tuple[SparseTensor, Tensor]:
    """Rows ``subset [S]`` with up to ``num_neighbors`` entries each (all if negative), and the nodes that their columns count.

    The nodes begin with ``subset``. Without ``replace`` no entry is drawn twice.
    """
    rowptr, col, value = src.csr()
    rowptr, col, nodes, entries = _sample_adj(rowptr, col, subset, num_neighbors, replace)
    value = None if value is None else value[entries]
    return SparseTensor(None, rowptr, col, value, (subset.numel(), nodes.numel()), False, True), nodes
