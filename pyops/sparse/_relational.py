"""Message passing over typed edges: the relational semiring SpMM of NBFNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from .._dispatch import lasting
from .._ladder import _rspmm
from ..graph import Graph
from ..kernels import codes as C
from ._operands import analyse

PNA = ("mean", "max", "min", "std")
_FROM_PNA = ("sum", "mean", "var", "std", "max", "min")


class RelationalGraph:
    """A directed multigraph with a type on every edge, analysed once: CSR order, the reversed edges, and the types in both.

    Args:
        edge_index: int32 or int64 ``[2, E]``, row 0 the sources, row 1 the destinations, in any order.
        edge_type: int32 or int64 ``[E]``, the relation of every edge.
        num_nodes, num_relations: sizes (default: the largest number + 1).

    Attributes:
        graph: the :class:`structops.Graph` of the edges. kind ``[E]``: relations in CSR order.
        num_nodes, num_edges, num_relations, device.

    Raises:
        TypeError: not integer tensors. ValueError: wrong shapes. IndexError: a number out of range.

    Memory: that of Graph and ``E`` indices more, twice once a gradient needs the reversed edges.

    >>> import torch
    >>> from structops.sparse import RelationalGraph
    >>> RelationalGraph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]), 3)
    RelationalGraph(num_nodes=3, num_edges=2, num_relations=2, device=cpu)
    """

    graph: Graph
    kind: Tensor
    num_relations: int

    def __init__(self, edge_index: Tensor, edge_type: Tensor, num_nodes: int | None = None, num_relations: int | None = None):
        op = "RelationalGraph"
        graph = Graph(edge_index, num_nodes)
        check.index(op, "edge_type", edge_type)
        if edge_type.dim() != 1 or edge_type.numel() != graph.num_edges:
            check.fail(ValueError, op, f"edge_type of shape [{graph.num_edges}]", list(edge_type.shape))
        if edge_type.device != graph.device:
            check.fail(ValueError, op, f"edge_type on {graph.device}, as edge_index", edge_type.device)
        low, high, _ = ladder.index_range(edge_type.contiguous())
        if edge_type.numel() and low < 0:
            check.fail(IndexError, op, "edge_type >= 0", low)
        num_relations = high + 1 if num_relations is None else check.size(op, "num_relations", num_relations)
        if high >= num_relations:
            check.fail(IndexError, op, f"edge_type < {num_relations}", high)
        if num_relations >= 2**31:
            check.fail(ValueError, op, "fewer than 2**31 relations", num_relations)
        with lasting():
            kind = edge_type.to(graph.col.dtype, copy=True).contiguous()
            self._set(graph, kind if graph.eid is None else kind[graph.eid], num_relations)

    def _set(self, graph: Graph, kind: Tensor, num_relations: int) -> None:
        self.graph, self.kind, self.num_relations = graph, kind, num_relations

    @property
    def num_nodes(self) -> int:
        return self.graph.num_dst

    @property
    def num_edges(self) -> int:
        return self.graph.num_edges

    @property
    def device(self) -> torch.device:
        return self.graph.device

    @cached_property
    def reversed_structure(self) -> tuple[Tensor, ...]:
        """(colptr, row_t, eid_t, type_t) of the reversed edges. Built at the first gradient, then kept."""
        g = self.graph
        with lasting():
            return _rspmm.with_reverse(g.rowptr, g.col, g.eid, self.kind, g.num_src)

    @property
    def structure(self) -> tuple:
        """The eight tensors that the kernel takes; the reversed half is None until it was needed."""
        known = self.__dict__.get("reversed_structure", (None,) * 4)
        return self.graph.rowptr, self.graph.col, self.graph.eid, self.kind, *known

    def edge_type(self) -> Tensor:
        """``[E]`` in the caller's edge order, a tensor of its own."""
        if self.graph.eid is None:
            return self.kind.clone()
        out = torch.empty_like(self.kind)
        out[self.graph.eid.long()] = self.kind
        return out

    def to(self, device: torch.device | str) -> RelationalGraph:
        """The graph on another device (itself if it is there already)."""
        graph = self.graph.to(device)
        if graph is self.graph:
            return self
        moved = RelationalGraph.__new__(RelationalGraph)
        moved._set(graph, self.kind.to(device), self.num_relations)
        return moved

    def __getstate__(self) -> dict:
        return {"graph": self.graph, "kind": self.kind, "num_relations": self.num_relations}

    def __setstate__(self, state: dict) -> None:
        self._set(state["graph"], state["kind"], state["num_relations"])

    def __repr__(self) -> str:
        return (
            f"RelationalGraph(num_nodes={self.num_nodes}, num_edges={self.num_edges}, "
            f"num_relations={self.num_relations}, device={self.device})"
        )


@autocast.promotes
def relational_spmm(
    graph: RelationalGraph,
    relation: Tensor | None,
    x: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    mul: str = "mul",
    reduce: str | Sequence[str] = "sum",
    *,
    fill_value: float | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Relational SpMM over a semiring: for every node, reduce the messages of its typed incoming edges, without storing them.

    ``out[v] = reduce over edges e = (u, r, v) with mask[e] of weight[e] * mul(relation[r], x[u])``

    Args:
        graph: the typed structure.
        relation: ``[R, D]`` or ``[B, R, D]``, of the dtype of ``x``; unused (None) for copy.
        x: ``[N, D]`` or ``[B, N, D]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        weight: ``[E]``, in the caller's edge order; 1 if left out.
        mask: bool ``[E]``: edges to keep. An edge of weight 0 still takes part in min, max and mean; a dropped one does not.
        mul: mul, add, min, copy (of x), or rotate: complex products of numbers with their real parts in the first half of D.
        reduce: sum, mean, min, max, logsumexp; pna, the four of mean, max, min and std from one pass over the edges; or a
            sequence of sum, mean, var, std, max, min, likewise from one pass. var and std divide by n; a large common offset costs
            neither them nor their gradients digits.
        fill_value: value of nodes without edges for a single reduction (default 0, -inf for logsumexp); otherwise they are 0.

    Returns:
        ``[N, D]`` or ``[B, N, D]``; a tuple of these for pna and sequences.

    Differentiable in ``relation``, ``x`` and ``weight`` to any order. min and max: through the first winner in CSR order, which
    is the first of the tied edges in the caller's order; where relation and x tie under ``mul="min"``, half to either. std has
    the derivative 0 where it is 0. Second and higher orders hold messages ``[B, E, D]`` while they run; nothing else does.
    Saved: the operands; for min and max winners ``[B, N, D]`` of 4 or 8 bytes, two of them for pna; the result for logsumexp
    and pna, and for pna what rounding took from the mean. Deterministic: no atomics, fixed partial sums. NaN propagates.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    The generalised relational convolution of NBFNet (arXiv:2106.06935).

    >>> import torch
    >>> from structops.sparse import RelationalGraph, relational_spmm
    >>> g = RelationalGraph(torch.tensor([[0, 1], [2, 2]]), torch.tensor([0, 1]), 3)
    >>> relational_spmm(g, torch.tensor([[2.], [3.]]), torch.tensor([[1.], [10.], [0.]]))
    tensor([[ 0.],
            [ 0.],
            [32.]])
    """
    op = "relational_spmm"
    if not isinstance(graph, RelationalGraph):
        check.fail(TypeError, op, "graph to be a structops.sparse.RelationalGraph", type(graph).__name__)
    kind = C.REL_MULS[check.choice(op, "mul", mul, C.REL_MULS)]
    parts = _parts(op, reduce)
    code = C.REL_PNA if parts else C.REL_REDUCES[reduce]  # type: ignore[index]
    x, relation = _operands(op, graph, relation, x, kind)
    if weight is not None:
        check.dense(op, "weight", weight)
        _per_edge(op, "weight", weight, graph)
        weight = weight.to(x.dtype).contiguous()
    if mask is not None:
        check.tensor(op, "mask", mask)
        if mask.dtype != torch.bool:
            check.fail(TypeError, op, "mask of dtype bool", mask.dtype)
        _per_edge(op, "mask", mask, graph)
        mask = mask.contiguous()
    if fill_value is not None and parts:
        check.fail(ValueError, op, "fill_value unset with several reductions", fill_value)
    fill = check.fill(op, fill_value, x.dtype, float("-inf") if code == C.REL_LSE else 0.0)
    analyse(graph, x, relation, weight)
    out, _, _ = ladder.relational_spmm(x, relation, weight, mask, *graph.structure, kind, code, fill)
    return _several(graph, mask, out, parts) if parts else out


def _parts(op: str, reduce: Any) -> tuple[str, ...]:
    """The reductions of a one-pass call; empty for a single one."""
    if isinstance(reduce, str):
        check.choice(op, "reduce", reduce, C.REL_REDUCES)
        return PNA if reduce == "pna" else ()
    if not isinstance(reduce, (tuple, list)) or not reduce:
        check.fail(TypeError, op, "reduce to be a name or a sequence of names", repr(reduce))
    return tuple(check.choice(op, "reduce", name, _FROM_PNA) for name in reduce)


def _operands(op: str, graph: RelationalGraph, relation: Any, x: Any, kind: int) -> tuple[Tensor, Tensor | None]:
    """x and relation of equal rank, batch and dtype."""
    check.dense(op, "x", x)
    if x.dim() not in (2, 3) or x.shape[-2] != graph.graph.num_src:
        check.fail(ValueError, op, f"x of shape [{graph.graph.num_src}, D] or [B, {graph.graph.num_src}, D]", list(x.shape))
    if x.device != graph.device:
        check.fail(ValueError, op, f"x on {graph.device}, as the graph", x.device)
    if kind == C.REL_COPY:
        if relation is not None:
            check.fail(ValueError, op, "relation to be None for copy", check.describe(relation))
        return x.contiguous(), None
    if relation is None:
        check.fail(ValueError, op, "relation, which only copy does without", "None")
    check.dense(op, "relation", relation)
    if relation.device != graph.device:
        check.fail(ValueError, op, f"relation on {graph.device}, as the graph", relation.device)
    D, R = x.shape[-1], graph.num_relations
    if relation.dim() not in (2, 3) or relation.shape[-2] != R or relation.shape[-1] != D:
        check.fail(ValueError, op, f"relation of shape [{R}, {D}] or [B, {R}, {D}]", list(relation.shape))
    if x.dim() == 3 and relation.dim() == 3 and x.shape[0] != relation.shape[0]:
        check.fail(ValueError, op, f"relation with the batch of x, {x.shape[0]}", relation.shape[0])
    if kind == C.REL_ROTATE and D % 2:
        check.fail(ValueError, op, "an even number of features for rotate", D)
    if x.dtype != relation.dtype:
        dtype = torch.promote_types(x.dtype, relation.dtype)
        x, relation = x.to(dtype), relation.to(dtype)
    if x.dim() < relation.dim():
        x = x.expand(relation.shape[0], *x.shape)
    elif relation.dim() < x.dim():
        relation = relation.expand(x.shape[0], *relation.shape)
    return x.contiguous(), relation.contiguous()


def _per_edge(op: str, name: str, t: Tensor, graph: RelationalGraph) -> None:
    if t.dim() != 1 or t.shape[0] != graph.num_edges:
        check.fail(ValueError, op, f"{name} of shape [{graph.num_edges}]", list(t.shape))
    if t.device != graph.device:
        check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", t.device)


def _several(graph: RelationalGraph, mask: Tensor | None, out: Tensor, parts: tuple[str, ...]) -> tuple[Tensor, ...]:
    mean, var, largest, least = out.unbind(0)

    def one(name: str) -> Tensor:
        if name == "sum":
            return mean * _degrees(graph, mask)[:, None].to(mean.dtype)
        if name == "std":
            flat = var == 0
            return torch.where(flat, var.detach(), torch.where(flat, torch.ones_like(var), var).sqrt())
        return {"mean": mean, "var": var, "max": largest, "min": least}[name]

    return tuple(map(one, parts))


def _degrees(graph: RelationalGraph, mask: Tensor | None) -> Tensor:
    """Incoming edges that the mask keeps."""
    if mask is None:
        return graph.graph.in_degrees()
    kept = mask if graph.graph.eid is None else mask[graph.graph.eid.long()]
    total = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    return total[graph.graph.rowptr.long()].diff()
