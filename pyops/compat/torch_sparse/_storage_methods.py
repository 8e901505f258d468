"""What ``SparseStorage`` offers outside TorchScript, which compiles a class without its bases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ...graph import Graph, checked_indptr
from . import _index

_TENSORS = ("_row", "_rowptr", "_col", "_value", "_rowcount", "_colptr", "_colcount", "_csr2csc", "_csc2csr")
_CACHED = ("rowcount", "colptr", "colcount", "csr2csc", "csc2csr")


class StorageMethods:
    if TYPE_CHECKING:  # what SparseStorage itself defines

        def __init__(self, *args: Any, **kwargs: Any): ...

        def __getattr__(self, name: str) -> Any: ...

    _graph: Graph | None = None
    _sparse_sizes: tuple[int, int]

    def _check_bounds(self, is_sorted: bool) -> None:
        op, (M, N) = "SparseStorage", self._sparse_sizes
        if not (isinstance(M, int) and isinstance(N, int)) or M < 0 or N < 0:
            check.fail(ValueError, op, "sparse_sizes of two sizes", (M, N))
        if self._row is not None and not _index.in_range(op, "row", self._row, M) and is_sorted:
            check.fail(ValueError, op, "row to be ascending, as is_sorted says", "a decreasing pair")
        if self._rowptr is not None:
            checked_indptr(op, "rowptr", self._rowptr, self._col.numel())
            if self._row is not None and not torch.equal(ladder.csr_build(self._row, M)[0].long(), self._rowptr):
                check.fail(ValueError, op, "row and rowptr that agree", "others")
        _index.in_range(op, "col", self._col, N)

    def graph(self) -> Graph:
        """The structure as kernels take it: destinations are the rows, sources the columns. Built once."""
        if self._graph is None:
            self._graph = Graph.from_csr(self.rowptr(), self._col, self._sparse_sizes[1])
        return self._graph

    def _share_graph(self, other) -> None:
        if self._graph is not None:
            other._graph = self._graph

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_graph"}

    def _tensors(self) -> Iterator[Tensor]:
        return (t for t in map(self.__dict__.get, _TENSORS) if t is not None)

    def _map(self, function: Callable[[Tensor], Tensor]):
        out = self.__class__.__new__(self.__class__)
        out._sparse_sizes = self._sparse_sizes
        for name in _TENSORS:
            t = getattr(self, name)
            setattr(out, name, None if t is None else function(t))
        return out

    def clone(self):
        """A copy of every tensor."""
        return self._map(torch.clone)

    def sparse_resize(self, sparse_sizes: tuple[int, int]):
        """The same entries in a matrix of other sizes. IndexError where an entry would lie outside."""
        M, N = sparse_sizes
        same = self._sparse_sizes[0] == M, self._sparse_sizes[1] == N
        return self.__class__(
            self.row(), self._rowptr if same[0] else None, self._col, self._value, (M, N),
            self._rowcount if same[0] else None, self._colptr if same[1] else None, self._colcount if same[1] else None,
            self._csr2csc, self._csc2csr, True,
        )  # fmt: skip

    def sparse_reshape(self, num_rows: int, num_cols: int):
        """The entries at the same places of the flattened matrix; -1 stands for the size that fits."""
        M, N = self._sparse_sizes
        if num_rows == -1 and num_cols > 0:
            num_rows = M * N // num_cols
        elif num_cols == -1 and num_rows > 0:
            num_cols = M * N // num_rows
        if num_rows <= 0 or num_cols <= 0 or num_rows * num_cols != M * N:
            check.fail(ValueError, "sparse_reshape", f"sizes of product {M * N}, one of them -1 at most", (num_rows, num_cols))
        place = _index.keys(self.row(), self._col, self._sparse_sizes)
        row = torch.div(place, num_cols, rounding_mode="floor")
        return self.__class__(row=row, col=place % num_cols, value=self._value, sparse_sizes=(num_rows, num_cols))

    def cached_keys(self) -> list[str]:
        """Which of the other layouts' parts are known."""
        return [name for name in _CACHED if getattr(self, f"_{name}") is not None]

    def num_cached_keys(self) -> int:
        return len(self.cached_keys())

    def type(self, dtype: torch.dtype, non_blocking: bool = False):
        """Values of another dtype."""
        if self._value is None or self._value.dtype == dtype:
            return self
        return self._like(self._value.to(dtype, non_blocking=non_blocking))

    def type_as(self, tensor: Tensor, non_blocking: bool = False):
        return self.type(tensor.dtype, non_blocking)

    def to_device(self, device: torch.device | str, non_blocking: bool = False):
        """Every tensor on another device."""
        device = torch.device(device)
        if device == self._col.device:
            return self
        out = self._map(lambda t: t.to(device, non_blocking=non_blocking))
        if self._graph is not None:
            out._graph = self._graph.to(device, non_blocking)
        return out

    def device_as(self, tensor: Tensor, non_blocking: bool = False):
        return self.to_device(tensor.device, non_blocking)

    def cuda(self):
        return self.to_device(torch.device("cuda", torch.cuda.current_device()))

    def pin_memory(self):
        return self._map(Tensor.pin_memory)

    def is_pinned(self) -> bool:
        return all(t.is_pinned() for t in self._tensors())

    def share_memory_(self):
        """Move every tensor to shared memory."""
        for t in self._tensors():
            t.share_memory_()
        return self

    def is_shared(self) -> bool:
        return all(t.is_shared() for t in self._tensors())
