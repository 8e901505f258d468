"""The structure that the graph operators share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from . import _check as check
from . import _ladder as ladder
from ._dispatch import lasting

_INT32_MAX = 2**31 - 1


class Graph:
    """A directed (multi)graph, possibly rectangular, analysed once for all operators.

    Edge k of the CSR order goes from ``col[k]`` into the row v with ``rowptr[v] <= k < rowptr[v + 1]``; edge values are always
    given and returned in the caller's own edge order. Bounds are checked here and never again.

    Args:
        edge_index: int32 or int64 ``[2, E]``, row 0 the sources, row 1 the destinations, in any order.
        num_nodes: number of nodes of a square graph (default: the largest index + 1).
        num_src, num_dst: sizes of a rectangular graph, instead of ``num_nodes``.

    Attributes:
        rowptr ``[num_dst + 1]``, col ``[E]``: CSR structure, int32 where sizes allow, else int64.
        eid ``[E]`` or None: the caller's edge number of every CSR position; None where the caller's order is CSR.
        num_src, num_dst, num_edges, device.

    Raises:
        TypeError: not integer tensors. ValueError: wrong shapes or sizes. IndexError: an index out of range or negative.

    Memory: ``(N + 2 E)`` indices, and as many again once a gradient needs the reversed edges.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_nodes=3)
    >>> g
    Graph(num_src=3, num_dst=3, num_edges=3, device=cpu)
    >>> g.in_degrees().tolist()
    [1, 2, 0]
    """

    rowptr: Tensor
    col: Tensor
    eid: Tensor | None
    num_src: int
    num_dst: int

    def __init__(self, edge_index: Tensor, num_nodes: int | None = None, *, num_src: int | None = None, num_dst: int | None = None):
        op = "Graph"
        check.index(op, "edge_index", edge_index)
        with lasting():
            self._build(op, edge_index, num_nodes, num_src, num_dst)

    def _build(self, op: str, edge_index: Tensor, num_nodes, num_src, num_dst) -> None:
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            check.fail(ValueError, op, "edge_index of shape [2, E]", list(edge_index.shape))
        src, dst = edge_index[0].contiguous(), edge_index[1].contiguous()
        num_src, num_dst = _sizes(op, num_nodes, num_src, num_dst)
        src_max, _ = _bounds(op, "edge_index[0]", src, num_src)
        dst_max, sorted_by_dst = _bounds(op, "edge_index[1]", dst, num_dst)
        if num_nodes is None and num_src is None and num_dst is None:
            num_src = num_dst = max(src_max, dst_max) + 1
        num_src = src_max + 1 if num_src is None else num_src
        num_dst = dst_max + 1 if num_dst is None else num_dst
        itype = _index_type(num_src, num_dst, src.numel())
        check.fits(op, itype, num_dst)
        # Structure is never shared with the caller: writing to the argument afterwards must not unsettle the checks.
        rowptr, col, eid = ladder.csr_from_coo(dst, src, num_dst, itype == torch.int64)
        self._set(rowptr, col, None if sorted_by_dst else eid, num_src)

    @classmethod
    def from_csr(cls, rowptr: Tensor, col: Tensor, num_src: int | None = None) -> Graph:
        """From CSR: ``rowptr [N + 1]`` non-decreasing from 0 to E, ``col [E]`` the sources. Edge values are in this order."""
        op = "Graph.from_csr"
        check.index(op, "rowptr", rowptr)
        check.index(op, "col", col, like=rowptr)
        if rowptr.dim() != 1 or rowptr.numel() < 1:
            check.fail(ValueError, op, "rowptr of shape [N + 1]", list(rowptr.shape))
        if col.dim() != 1:
            check.fail(ValueError, op, "col of shape [E]", list(col.shape))
        checked_indptr(op, "rowptr", rowptr.contiguous(), col.numel())
        if num_src is not None:
            check.size(op, "num_src", num_src)
        largest, _ = _bounds(op, "col", col.contiguous(), num_src)
        num_src = largest + 1 if num_src is None else num_src
        itype = _index_type(num_src, rowptr.numel() - 1, col.numel())
        graph = cls.__new__(cls)
        with lasting():
            graph._set(rowptr.to(itype, copy=True).contiguous(), col.to(itype, copy=True).contiguous(), None, num_src)
        return graph

    @classmethod
    def from_torch_sparse(cls, matrix: Tensor) -> Graph:
        """From a 2-D ``torch.sparse`` tensor (COO, CSR or CSC) with rows as destinations and columns as sources.

        Edge values follow the order of ``matrix.values()``; uncoalesced COO keeps its duplicates as parallel edges.
        """
        op = "Graph.from_torch_sparse"
        if not isinstance(matrix, Tensor) or matrix.dim() != 2:
            check.fail(TypeError, op, "a 2-D torch.sparse tensor", check.describe(matrix))
        rows, cols = matrix.shape
        if matrix.layout == torch.sparse_csr:
            return cls.from_csr(matrix.crow_indices(), matrix.col_indices(), cols)
        if matrix.layout == torch.sparse_csc:
            count = matrix.ccol_indices()
            src = torch.repeat_interleave(torch.arange(cols, dtype=count.dtype, device=count.device), count.diff())
            return cls(torch.stack([src, matrix.row_indices()]), num_src=cols, num_dst=rows)
        if matrix.layout == torch.sparse_coo:
            return cls(matrix._indices().flip(0), num_src=cols, num_dst=rows)
        check.fail(TypeError, op, "layout sparse_coo, sparse_csr or sparse_csc", matrix.layout)

    @classmethod
    def from_scipy(cls, matrix: Any) -> Graph:
        """From a SciPy sparse matrix or array, rows as destinations. Edge values follow ``matrix.tocsr().data``; COO input keeps
        the order of ``matrix.data`` and its duplicates."""
        op = "Graph.from_scipy"
        if not hasattr(matrix, "tocsr") or not hasattr(matrix, "format"):
            check.fail(TypeError, op, "a SciPy sparse matrix", type(matrix).__name__)
        if matrix.format == "coo":
            index = torch.stack([torch.as_tensor(matrix.col).long(), torch.as_tensor(matrix.row).long()])
            return cls(index, num_src=matrix.shape[1], num_dst=matrix.shape[0])
        csr = matrix.tocsr()
        return cls.from_csr(torch.as_tensor(csr.indptr), torch.as_tensor(csr.indices), csr.shape[1])

    def _set(self, rowptr: Tensor, col: Tensor, eid: Tensor | None, num_src: int) -> None:
        self.rowptr, self.col, self.eid = rowptr, col, eid
        self.num_src, self.num_dst = num_src, rowptr.numel() - 1

    @property
    def num_edges(self) -> int:
        return self.col.numel()

    @property
    def device(self) -> torch.device:
        return self.rowptr.device

    @cached_property
    @lasting()
    def reversed_structure(self) -> tuple[Tensor, Tensor, Tensor]:
        """(colptr, row_t, eid_t): rowptr, col and eid of the reversed edges. Built at the first gradient, then kept."""
        return ladder.with_reverse((self.rowptr, self.col, self.eid, None, None, None), self.num_src)[3:]

    @property
    def structure(self) -> tuple:
        """The six tensors that every graph kernel takes; the reversed half is None until it was needed."""
        known = self.__dict__.get("reversed_structure", (None, None, None))
        return self.rowptr, self.col, self.eid, *known

    def reverse(self) -> Graph:
        """The graph with every edge turned around. Shares memory; edge values keep their order."""
        graph = Graph.__new__(Graph)
        colptr, row_t, eid_t = self.reversed_structure
        graph._set(colptr, row_t, eid_t, self.num_dst)
        graph.__dict__["reversed_structure"] = (self.rowptr, self.col, self.eid)
        return graph

    def in_degrees(self) -> Tensor:
        """Edges into every destination, ``[num_dst]``, a tensor of its own."""
        return self.rowptr.diff()

    def out_degrees(self) -> Tensor:
        """Edges out of every source, ``[num_src]``, a tensor of its own."""
        return self.reversed_structure[0].diff()

    def edge_index(self) -> Tensor:
        """``[2, E]`` in the caller's edge order."""
        dst = torch.repeat_interleave(
            torch.arange(self.num_dst, dtype=self.col.dtype, device=self.device), self.in_degrees(), output_size=self.num_edges
        )
        ordered = torch.stack([self.col, dst])
        if self.eid is None:
            return ordered
        index = torch.empty_like(ordered)
        index[:, self.eid.long()] = ordered
        return index

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Graph:
        """The graph on another device (itself if it is there already)."""
        device = torch.device(device)
        if device == self.device or (device.type == self.device.type and device.index is None):
            return self
        move = lambda t: None if t is None else t.to(device, non_blocking=non_blocking)
        graph = Graph.__new__(Graph)
        graph._set(move(self.rowptr), move(self.col), move(self.eid), self.num_src)
        if "reversed_structure" in self.__dict__:
            graph.__dict__["reversed_structure"] = tuple(map(move, self.reversed_structure))
        return graph

    def __getstate__(self) -> dict:
        return {"rowptr": self.rowptr, "col": self.col, "eid": self.eid, "num_src": self.num_src}

    def __setstate__(self, state: dict) -> None:
        self._set(state["rowptr"], state["col"], state["eid"], state["num_src"])

    def __repr__(self) -> str:
        return f"Graph(num_src={self.num_src}, num_dst={self.num_dst}, num_edges={self.num_edges}, device={self.device})"


def checked_graph(op: str, graph: Any, square: bool = False) -> Graph:
    if not isinstance(graph, Graph):
        check.fail(TypeError, op, "graph to be a structops.Graph", type(graph).__name__)
    if square and graph.num_src != graph.num_dst:
        check.fail(ValueError, op, "a square graph", f"{graph.num_src} sources and {graph.num_dst} destinations")
    return graph


def checked_indptr(op: str, name: str, indptr: Tensor, total: int) -> None:
    """``indptr`` must be non-decreasing from 0 to ``total``."""
    low, high, ascending = ladder.index_range(indptr)
    if not ascending:
        check.fail(ValueError, op, f"{name} to be non-decreasing", "a decreasing pair")
    if low != 0 or high != total:
        check.fail(ValueError, op, f"{name} to run from 0 to {total}", f"[{low}, {high}]")


def checked_pointer(op: str, name: str, indptr: Any, like: Tensor, total: int) -> Tensor:
    """A pointer tensor on the device of ``like``, contiguous; in compiled code the operator checks its ends alone."""
    check.index(op, name, indptr, like=like)
    if indptr.dim() != 1 or indptr.numel() < 1:
        check.fail(ValueError, op, f"{name} of shape [N + 1]", list(indptr.shape))
    indptr = indptr.contiguous()
    if not torch.compiler.is_compiling():
        checked_indptr(op, name, indptr, total)
    return indptr


def _sizes(op: str, num_nodes, num_src, num_dst):
    if num_nodes is not None:
        if num_src is not None or num_dst is not None:
            check.fail(ValueError, op, "num_nodes or num_src and num_dst", "both")
        num_src = num_dst = num_nodes
    for name, value in (("num_src", num_src), ("num_dst", num_dst)):
        if value is not None:
            check.size(op, name, value)
    return num_src, num_dst


def _bounds(op: str, name: str, index: Tensor, size: int | None) -> tuple[int, bool]:
    low, high, ascending = ladder.index_range(index)
    if index.numel() and low < 0:
        check.fail(IndexError, op, f"{name} >= 0", low)
    if size is not None and high >= size:
        check.fail(IndexError, op, f"{name} < {size}", high)
    if high >= 2**62:
        check.fail(IndexError, op, f"{name} < 2**62", high)
    return high, ascending


def _index_type(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < _INT32_MAX else torch.int64
