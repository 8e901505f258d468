"""Rows and edges sorted by type once: the lists of csrc/sparse/typed_matmul.h."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from .._dispatch import lasting
from ..graph import Graph, checked_graph

ROWS_OF_A_SEGMENT = 64  # wanted of the segments of a block, so that tiles are full
LEAST_BLOCK, LARGEST_BLOCK = 4096, 32768  # edges and rows of a block


class Lists(NamedTuple):
    """Where the rows of a product come from and go to, in segments of one type."""

    ptr: Tensor
    types: Tensor | None = None
    blocks: Tensor | None = None
    block_rows: Tensor | None = None
    gptr: Tensor | None = None
    gather: Tensor | None = None
    scatter: Tensor | None = None

    def to(self, device: torch.device) -> Lists:
        return Lists(*(None if t is None else t.to(device) for t in self))

    @property
    def rows(self) -> int:
        """Products."""
        by = self.gptr if self.gptr is not None else self.scatter
        assert by is not None
        return by.numel() - (self.gptr is not None)


NOTHING = (None,) * len(Lists._fields)


def kinds(op: str, name: str, t: Any, count: int, num: int | None, device: torch.device) -> int:
    """The number of types, after the checks of ``t [count]``."""
    check.index(op, name, t)
    if t.dim() != 1 or t.numel() != count:
        check.fail(ValueError, op, f"{name} of shape [{count}]", list(t.shape))
    if t.device != device:
        check.fail(ValueError, op, f"{name} on {device}", t.device)
    low, high, _ = ladder.index_range(t.contiguous())
    if count and low < 0:
        check.fail(IndexError, op, f"{name} >= 0", low)
    num = high + 1 if num is None else check.size(op, "the number of types", num)
    if high >= num:
        check.fail(IndexError, op, f"{name} < {num}", high)
    return num


def _starts(key: Tensor) -> Tensor:
    """Positions where the sorted ``key`` changes."""
    change = torch.ones_like(key, dtype=torch.bool)
    change[1:] = key[1:] != key[:-1]
    return change.nonzero()[:, 0]


def blocked(take: Tensor, give: Tensor, kind: Tensor, num_out: int, num_types: int, itype: torch.dtype) -> tuple[Lists, Tensor]:
    """Lists that add row ``take[e]``, times the matrix of ``kind[e]``, to row ``give[e]``; and the order of e that they use.

    Edges are sorted by (block of rows, type, row); edges of one row and type are summed before the product.
    """
    take, give, kind = take.long(), give.long(), kind.long()
    degree = torch.bincount(give, minlength=num_out)
    position = degree.cumsum(0) - degree + torch.arange(num_out, device=give.device)
    fewest = max((take.numel() + num_out) // 8, 1024)
    size = min(max(ROWS_OF_A_SEGMENT * num_types, LEAST_BLOCK), LARGEST_BLOCK, fewest)
    block, count = torch.unique_consecutive(position // size, return_inverse=True, return_counts=True)[1:]
    zero = give.new_zeros(1)
    key = (block[give] * num_types + kind) * max(num_out, 1) + give
    key, order = torch.sort(key, stable=True)
    first = _starts(key)
    pair = key[first]
    of_segment = pair // max(num_out, 1)
    begin = _starts(of_segment)
    segment = of_segment[begin]
    whole = lambda t, n: torch.cat([t, t.new_tensor([n])])
    found = (
        whole(begin, pair.numel()),
        segment % max(num_types, 1),
        torch.searchsorted(segment // max(num_types, 1), torch.arange(count.numel() + 1, device=give.device)),
        torch.cat([zero, count.cumsum(0)]),
        whole(first, key.numel()) if first.numel() < key.numel() else None,
        take[order],
        pair % max(num_out, 1),
    )
    return Lists(*(None if t is None else t.to(itype).contiguous() for t in found)), order


class TypePlan:
    """Rows sorted by their type once, for :func:`structops.sparse.typed_matmul`.

    Args:
        types: int32 or int64 ``[M]``, the type of every row.
        num_types: number of types (default: the largest + 1).
        gather: int32 or int64 ``[M]``, the row of x that row i reads (default: i).
        num_rows: rows of x (default: M, or the largest of ``gather`` + 1).

    Memory: with ``gather`` about ``4 M`` indices, else ``M``.
    """

    def __init__(self, types: Tensor, num_types: int | None = None, gather: Tensor | None = None, num_rows: int | None = None):
        op = "TypePlan"
        check.index(op, "types", types)
        with lasting():
            M = types.numel()
            self.num_types = kinds(op, "types", types, M, num_types, types.device)
            self.rows = M
            kind, order = torch.sort(types.long(), stable=True)
            itype = torch.int32 if max(M, self.num_types, num_rows or 0) < 2**31 - 1 else torch.int64
            bounds = torch.searchsorted(kind, torch.arange(self.num_types + 1, device=types.device))
            ptr, scatter = bounds.to(itype), order.to(itype)
            if gather is None:
                if num_rows not in (None, M):
                    check.fail(ValueError, op, f"num_rows to be {M} without gather", num_rows)
                self.num_rows = M
                self.lists, self.lists_t = Lists(ptr, gather=scatter, scatter=scatter), Lists(*NOTHING)  # type: ignore[arg-type]
                return
            self.num_rows = kinds(op, "gather", gather, M, num_rows, types.device)
            self.lists = Lists(ptr, gather=gather[order].to(itype).contiguous(), scatter=scatter)
            back = torch.arange(M, device=types.device)
            self.lists_t = blocked(back, gather, types, self.num_rows, self.num_types, itype)[0]

    def __repr__(self) -> str:
        return f"TypePlan(rows={self.rows}, num_types={self.num_types}, num_rows={self.num_rows})"


class RelationPlan:
    """The edges of a graph sorted by relation once, for :func:`structops.sparse.rgcn_aggregate` and
    :func:`structops.sparse.typed_attention`.

    Args:
        graph: the structure.
        edge_type: int32 or int64 ``[E]``, the relation of every edge, in the graph's edge order.
        num_relations: number of relations (default: the largest + 1).

    Attributes:
        num_relations; unique_src, unique_dst: pairs (source, relation) and (destination, relation) that occur.
        lists, lists_t: of the aggregation and of its gradient by x.
        row_src, row_type: source and relation of every compact row, ``[unique_src]``: one for each of those pairs.
        row_graph: the graph with compact rows in place of sources, and the same edges in the same order: every operator of graphs
            takes it, with values by (source, relation).

    Memory: about ``4 E`` indices, and as many again once compact rows are used.

    >>> import torch, structops
    >>> from structops.sparse import RelationPlan
    >>> graph = structops.Graph(torch.tensor([[0, 0, 1], [1, 2, 2]]), num_nodes=3)
    >>> RelationPlan(graph, torch.tensor([0, 0, 1]))
    RelationPlan(num_edges=3, num_relations=2, unique_src=2, unique_dst=3)
    """

    def __init__(self, graph: Graph, edge_type: Tensor, num_relations: int | None = None):
        op = "RelationPlan"
        checked_graph(op, graph)
        self.num_relations = kinds(op, "edge_type", edge_type, graph.num_edges, num_relations, graph.device)
        self.graph = graph
        with lasting():
            src, dst = graph.edge_index().long()
            self.src, self.dst, self.kind = src, dst, edge_type.long().clone()
            itype = graph.col.dtype
            self.lists, self.order = blocked(src, dst, self.kind, graph.num_dst, self.num_relations, itype)
            self.lists_t, self.order_t = blocked(dst, src, self.kind, graph.num_src, self.num_relations, itype)
        self.unique_dst, self.unique_src = self.lists.rows, self.lists_t.rows
        self._mean: Tensor | None = None
        self._scales: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._compact: tuple[Tensor, Tensor, Graph] | None = None
        self._row_plans: dict[int, TypePlan] = {}

    def mean(self) -> Tensor:
        """``[E]`` float64: one over the number of edges of the destination with the same relation."""
        if self._mean is None:
            with lasting():
                gptr, order = self.lists.gptr, self.order
                count = torch.ones_like(order) if gptr is None else gptr.diff().long()
                each = count if gptr is None else count.repeat_interleave(count)
                self._mean = torch.empty(order.numel(), dtype=torch.float64, device=order.device)
                self._mean[order] = 1 / each.double()
        return self._mean

    def mean_scales(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The mean's coefficients in the order of both lists."""
        if dtype not in self._scales:
            self._scales[dtype] = self.scales(self.mean().to(dtype))
        return self._scales[dtype]

    def scales(self, coefficient: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of edges in the order of both lists."""
        return coefficient[self.order], coefficient[self.order_t]

    def _rows(self) -> tuple[Tensor, Tensor, Graph]:
        if self._compact is None:
            with lasting():
                graph, itype = self.graph, self.graph.col.dtype
                N = max(graph.num_src, 1)
                pair, of_edge = torch.unique(self.kind * N + self.src, return_inverse=True)
                pairs = Graph.__new__(Graph)
                col = of_edge.to(itype) if graph.eid is None else of_edge[graph.eid.long()].to(itype)
                pairs._set(graph.rowptr, col.contiguous(), graph.eid, pair.numel())
                pairs.reversed_structure  # noqa: B018  kept
                self._compact = pair % N, pair // N, pairs
        return self._compact

    @property
    def row_src(self) -> Tensor:
        return self._rows()[0]

    @property
    def row_type(self) -> Tensor:
        return self._rows()[1]

    @property
    def row_graph(self) -> Graph:
        return self._rows()[2]

    def rows(self, heads: int = 1) -> TypePlan:
        """The plan with which :func:`structops.sparse.typed_matmul` makes the compact rows: ``x [num_src, K]`` and
        ``weight [R, K, N]`` give ``[unique_src, N]``. With H heads ``x.view(num_src * H, K)`` and
        ``weight.view(R * H, K, N)``, the matrices of relation and head, give ``[unique_src * H, N]``. Kept.
        """
        if heads not in self._row_plans:
            with lasting():
                head = torch.arange(heads, device=self.kind.device)
                of = lambda t: (t[:, None] * heads + head).flatten()
                plan = TypePlan(of(self.row_type), self.num_relations * heads, of(self.row_src), self.graph.num_src * heads)
                if heads == 1:  # rows are sorted by relation
                    plan.lists = plan.lists._replace(scatter=None)
                self._row_plans[heads] = plan
        return self._row_plans[heads]

    def compact(self) -> tuple[Lists, Lists, Graph]:
        """The lists of :meth:`rows` and of their reverse, and ``row_graph``."""
        return self.rows().lists, self.rows().lists_t, self.row_graph

    def __repr__(self) -> str:
        return (
            f"RelationPlan(num_edges={self.graph.num_edges}, num_relations={self.num_relations}, "
            f"unique_src={self.unique_src}, unique_dst={self.unique_dst})"
        )
