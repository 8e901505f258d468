"""Level-scheduled propagation through directed acyclic graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import lasting
from ..graph import Graph
from ._spmm import spmm

_AGGREGATES = ("sum", "mean", "max", "min")


class DagSchedule:
    """The levels of a directed acyclic graph: a node's level is the length of the longest path into it.

    Nodes of a level do not depend on each other, so a recurrence over the graph takes one step a level, whatever the number of
    nodes or of graphs in the batch. Everything is built here, once.

    Args:
        edge_index: int32 or int64 ``[2, E]``, from row 0 to row 1.
        num_nodes: number of nodes (default: the largest index + 1).

    Attributes:
        level ``[N]``: of every node. order ``[N]``: nodes by level, by number within one. levels: their number.
        num_nodes, num_edges.

    Raises:
        ValueError: the graph has a cycle, or a wrong shape. TypeError, IndexError: as :class:`structops.Graph`.

    Memory: three indices an edge, two a node. Building takes one pass over the edges a level.

    >>> import torch
    >>> from structops.sparse import DagSchedule
    >>> DagSchedule(torch.tensor([[0, 1, 0], [1, 2, 2]])).level.tolist()
    [0, 1, 2]
    """

    def __init__(self, edge_index: Tensor, num_nodes: int | None = None):
        graph = Graph(edge_index, num_nodes)
        N, E = graph.num_dst, graph.num_edges
        src, dst = graph.edge_index().long()
        level = torch.zeros(N, dtype=torch.int64, device=graph.device)
        colptr, row_t, _ = (t if t is None else t.long() for t in graph.reversed_structure)
        waiting = graph.in_degrees().long()
        front = (waiting == 0).nonzero()[:, 0]
        done, depth = 0, 0
        while front.numel():
            level[front] = depth
            done += front.numel()
            begin, count = colptr[front], colptr[front + 1] - colptr[front]
            offset = torch.repeat_interleave(begin - (count.cumsum(0) - count), count)
            targets = row_t[offset + torch.arange(offset.numel(), device=level.device)]
            nodes, hits = torch.unique(targets, return_counts=True)
            waiting[nodes] -= hits
            front = nodes[waiting[nodes] == 0]
            depth += 1
        if done != N:
            check.fail(ValueError, "DagSchedule", "a graph without cycles", f"{N - done} nodes on or behind a cycle")
        self.level, self.levels = level, depth
        self.num_nodes, self.num_edges = N, E
        self.order = torch.sort(level, stable=True).indices
        self._src, self._dst = src, dst

    def _position(self, reverse: bool) -> Tensor:
        """Of every node among the steps' nodes, one step after the other."""
        return self._positions[1 if reverse else 0]

    @cached_property
    @lasting()
    def _positions(self) -> tuple[Tensor, Tensor]:
        step = (self.level, self.levels - 1 - self.level)
        return tuple(torch.argsort(torch.sort(s, stable=True).indices) for s in step)  # type: ignore[return-value]

    def _plan(self, reverse: bool) -> list[tuple[Tensor, list[tuple[int, Graph, Tensor]]]]:
        """For every step its nodes, and for every level it reads (step, the graph between the two, the edges)."""
        step = self.levels - 1 - self.level if reverse else self.level
        src, dst = (self._dst, self._src) if reverse else (self._src, self._dst)
        nodes = [(step == s).nonzero()[:, 0] for s in range(self.levels)]
        within = torch.empty_like(step)
        for n in nodes:
            within[n] = torch.arange(n.numel(), device=step.device)
        key = step[dst] * self.levels + step[src]
        by_pair = torch.sort(key, stable=True)
        pairs, counts = torch.unique_consecutive(by_pair.values, return_counts=True)
        plan: list = [(n, []) for n in nodes]
        for pair, edges in zip(pairs.tolist(), by_pair.indices.split(counts.tolist()), strict=True):
            to, origin = divmod(pair, self.levels)
            index = torch.stack([within[src[edges]], within[dst[edges]]])
            graph = Graph(index, num_src=nodes[origin].numel(), num_dst=nodes[to].numel())
            plan[to][1].append((origin, graph, edges))
        return plan

    @cached_property
    @lasting()
    def _forward(self):
        return self._plan(False)

    @cached_property
    @lasting()
    def _reverse(self):
        return self._plan(True)

    @cached_property
    @lasting()
    def _counts(self) -> tuple[Tensor, Tensor]:
        return tuple(torch.bincount(i, minlength=self.num_nodes) for i in (self._dst, self._src))  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"DagSchedule(num_nodes={self.num_nodes}, num_edges={self.num_edges}, levels={self.levels})"


def dag_propagate(
    schedule: DagSchedule,
    x: Tensor,
    cell: Callable[[Tensor, Tensor], Tensor],
    *,
    aggregate: str = "sum",
    message: Callable[[Tensor], Tensor] | None = None,
    message_features: int | None = None,
    edge_weight: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """A recurrence along a DAG, one step a level: ``h[v] = cell(aggregate of w_uv message(h[u]) over edges u -> v, x[v])``.

    Args:
        schedule: the levels.
        x: inputs ``[N, F]``.
        cell: ``cell(m [n, M], x [n, F]) -> h [n, C]``, called once a level with the nodes of that level, by number.
        aggregate: sum, mean, max or min over the incoming edges; 0 for nodes without any.
        message: ``message(h [n, C]) -> [n, M]``, called once a level on its result, so once a node (default: the state itself).
        message_features: M, what the first level's zeros have (default: F).
        edge_weight: ``[E]`` or ``[E, M]`` in the caller's edge order; with sum and mean.
        reverse: from sinks to sources, along reversed edges.

    Returns:
        ``[N, C]``. Differentiable in x, edge_weight and whatever ``cell`` and ``message`` use, to any order that they allow.
        Deterministic. No level is written in place: memory for backward is that of the calls of ``cell`` and ``message`` and one
        state ``[N, C]``, not one for every level; a level that reads several earlier ones sums a term of each.

    Source: batched topological recurrences (GHN-2, arXiv:2110.13100; DAG-ERC).

    >>> import torch
    >>> from structops.sparse import DagSchedule, dag_propagate
    >>> s = DagSchedule(torch.tensor([[0, 1, 0], [1, 2, 2]]))
    >>> dag_propagate(s, torch.ones(3, 1), lambda m, x: m + x)[:, 0].tolist()
    [1.0, 2.0, 4.0]
    """
    op = "dag_propagate"
    if not isinstance(schedule, DagSchedule):
        check.fail(TypeError, op, "schedule to be a DagSchedule", type(schedule).__name__)
    check.dense(op, "x", x)
    check.choice(op, "aggregate", aggregate, _AGGREGATES)
    check.flags(op, reverse=reverse)
    if x.dim() != 2 or x.shape[0] != schedule.num_nodes:
        check.fail(ValueError, op, f"x of shape [{schedule.num_nodes}, F]", list(x.shape))
    if edge_weight is not None:
        check.dense(op, "edge_weight", edge_weight)
        if edge_weight.dim() not in (1, 2) or edge_weight.shape[0] != schedule.num_edges:
            check.fail(ValueError, op, f"edge_weight of shape [{schedule.num_edges}] or [.., M]", list(edge_weight.shape))
        if aggregate not in ("sum", "mean"):
            check.fail(ValueError, op, "sum or mean with edge_weight", aggregate)
    M = x.shape[1] if message_features is None else check.size(op, "message_features", message_features)
    plan = schedule._reverse if reverse else schedule._forward
    count = schedule._counts[1 if reverse else 0]
    states: list[Tensor] = []
    sent: list[Tensor] = []
    for nodes, sources in plan:
        h = cell(_incoming(sources, sent, edge_weight, aggregate, count[nodes], x.new_zeros(nodes.numel(), M)), x[nodes])
        states.append(h)
        sent.append(h if message is None else message(h))
        if sent[-1].dim() != 2 or sent[-1].shape[1] != M:
            check.fail(ValueError, op, f"messages of shape [n, {M}] (message_features)", list(sent[-1].shape))
    if not states:
        return x.new_zeros(0, M)
    position = schedule._position(reverse)
    return torch.cat(states).index_select(0, position)


def _incoming(sources, sent, edge_weight, aggregate: str, count: Tensor, zeros: Tensor) -> Tensor:
    """Messages of one level, joined over the levels that it reads."""
    total: Tensor | None = None
    for origin, graph, edges in sources:
        weight = None if edge_weight is None else edge_weight[edges].reshape(edges.numel(), -1)
        if aggregate in ("sum", "mean"):
            part = cast(Tensor, spmm(graph, sent[origin], weight))
            total = part if total is None else total + part
        else:
            empty = float("-inf") if aggregate == "max" else float("inf")
            part = cast(Tensor, spmm(graph, sent[origin], reduce=aggregate, fill_value=empty))
            total = part if total is None else (torch.maximum if aggregate == "max" else torch.minimum)(total, part)
    if total is None:
        return zeros
    if aggregate == "mean":
        return total / count.clamp(min=1).to(total.dtype)[:, None]
    return total if aggregate == "sum" else torch.where(count[:, None] > 0, total, zeros)
