"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _check as check
from .storage import SparseStorage
from .tensor import SparseTensor


def cat(tensors: Sequence[SparseTensor], dim: int | tuple[int, int] | list[int]) -> SparseTensor:
    """Stacked by rows (dim 0), by columns (dim 1), by features, or along the diagonal (dim (0, 1)).

    What all of them know of other layouts stays known. Values are dropped unless all have them.
    """
    op = "cat"
    if not tensors or not all(isinstance(t, SparseTensor) for t in tensors):
        check.fail(ValueError, op, "a sequence of SparseTensors", [type(t).__name__ for t in tensors])
    if not isinstance(dim, int):
        if sorted(dim) != [0, 1]:
            check.fail(ValueError, op, "dim to be an int or (0, 1)", dim)
        return cat_diag(list(tensors))
    dim = check.axis(op, dim, tensors[0].dim())
    if dim < 2:
        return (cat_first, cat_second)[dim](list(tensors))
    first = tensors[0]
    if not all(torch.equal(a, b) for t in tensors[1:] for a, b in zip(t.coo()[:2], first.coo()[:2], strict=True)):
        check.fail(ValueError, op, "tensors of one structure to join features", "others")
    return first.set_value(torch.cat([t.storage.value() for t in tensors], dim - 1), "coo")


def cat_first(tensors: list[SparseTensor]) -> SparseTensor:
    """Stacked by rows: [sum of M, largest N]."""
    return _stacked(tensors, True, False)


def cat_second(tensors: list[SparseTensor]) -> SparseTensor:
    """Side by side: [largest M, sum of N]."""
    return _stacked(tensors, False, True)


def cat_diag(tensors: list[SparseTensor]) -> SparseTensor:
    """Along the diagonal: [sum of M, sum of N]."""
    return _stacked(tensors, True, True)


def _stacked(tensors: list[SparseTensor], down: bool, right: bool) -> SparseTensor:
    parts = [t.storage for t in tensors]
    M, N, E = ([0] for _ in range(3))
    for s in parts:
        M.append(M[-1] + s._sparse_sizes[0])
        N.append(N[-1] + s._sparse_sizes[1])
        E.append(E[-1] + s._col.numel())

    def joined(name: str, offsets: list[int] | None = None) -> Tensor | None:
        known = [getattr(s, name) for s in parts]
        if any(t is None for t in known):
            return None
        return torch.cat(known if offsets is None else [t + o if o else t for t, o in zip(known, offsets, strict=False)])

    def pointers(name: str) -> Tensor | None:
        known = [getattr(s, name) for s in parts]
        if any(t is None for t in known):
            return None
        return torch.cat([known[0][:1], *(t[1:] + o for t, o in zip(known, E, strict=False))])

    if not down:
        for s in parts:
            s.row()
    sizes = (M[-1] if down else max(s._sparse_sizes[0] for s in parts), N[-1] if right else max(s._sparse_sizes[1] for s in parts))
    storage = SparseStorage(
        row=joined("_row", M if down else None), rowptr=pointers("_rowptr") if down else None,
        col=joined("_col", N if right else None), value=joined("_value"), sparse_sizes=sizes,
        rowcount=joined("_rowcount") if down else None, colptr=pointers("_colptr") if right else None,
        colcount=joined("_colcount") if right else None,
        csr2csc=joined("_csr2csc", E) if down and right else None, csc2csr=joined("_csc2csr", E) if down and right else None,
        is_sorted=down, trust_data=True,
    )  # fmt: skip
    return tensors[0].from_storage(storage)
