"""The operators of DGL's backend layer ``dgl.backend.pytorch.sparse``, under its signatures.

``gidx`` is a ``HeteroGraphIndex``, what DGL's own operators pass, a DGLGraph, or a :class:`structops.Graph`.
"""

from __future__ import annotations

import itertools
import math
import typing
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ... import sparse
from ...graph import Graph

ALL = "__ALL__"
MESSAGES = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "copy_lhs": "copy_u", "copy_rhs": "copy_e"}
REDUCES = ("sum", "max", "min")
EDGE_OPS = ("add", "sub", "mul", "div", "dot", "copy_lhs", "copy_rhs")
_NEUTRAL = {"max": -math.inf, "min": math.inf}


class Relation(NamedTuple):
    """The edges of one type, with the numbers of the node types at their ends."""

    graph: Graph
    src: int
    dst: int


def relations(g: Any) -> list[Relation]:
    """The relations of a graph in the order of its edge types, analysed once: they stay with DGL's index of the relation."""
    if isinstance(g, Graph):
        return [Relation(g, 0, 0)]
    gidx = getattr(g, "_graph", g)
    if not hasattr(gidx, "metagraph"):
        check.fail(TypeError, "dgl", "a DGLGraph or a structops.Graph", type(g).__name__)
    return [Relation(_analysed(relation_graph(gidx, t)), *gidx.metagraph.find_edge(t)) for t in range(gidx.number_of_etypes())]


def relation_graph(gidx: Any, etype: int) -> Any:
    """``gidx.get_relation_graph(etype)``, the same object every time. (DGL's own makes a new one, in every ``update_all``.)"""
    kept, key = gidx._cache, ("structops.relation", int(etype))
    if "structops.unit" in kept:
        return gidx
    if key not in kept:
        cls = type(gidx)
        kept[key] = getattr(cls, "_structops_get_relation_graph", cls.get_relation_graph)(gidx, etype)
        kept[key]._cache["structops.unit"] = True
    return kept[key]


def _analysed(unit: Any) -> Graph:
    if "structops.graph" not in unit._cache:
        src, dst = unit.metagraph.find_edge(0)
        sizes = {"num_src": unit.number_of_nodes(src), "num_dst": unit.number_of_nodes(dst)}
        unit._cache["structops.graph"] = Graph(torch.stack(_ends(unit)), **sizes)
    return unit._cache["structops.graph"]


def _ends(unit: Any) -> tuple[Tensor, Tensor]:
    """Sources and destinations in the order of edge numbers, from a format that the graph is allowed to have."""
    known = unit.formats()
    allowed = known["created"] + known["not created"]
    if "coo" in allowed:
        return unit.edges(0, "eid")[:2]
    by_dst = "csc" in allowed
    _, _, indptr, near, eid = unit.adjacency_matrix_tensors(0, by_dst, "csr")
    far = torch.repeat_interleave(torch.arange(indptr.numel() - 1, dtype=near.dtype, device=near.device), indptr.diff())
    if eid.numel() == near.numel():
        order = torch.argsort(eid)
        near, far = near[order], far[order]
    return (near, far) if by_dst else (far, near)


def single(op: str, g: Any) -> Graph:
    found = relations(g)
    if len(found) != 1:
        check.fail(ValueError, op, "a graph with one edge type", f"{len(found)} edge types")
    return found[0].graph


def cast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Under CUDA autocast, floats on a GPU in its dtype, as DGL does."""
    if not torch.is_autocast_enabled("cuda"):
        return list(tensors)
    dtype = torch.get_autocast_dtype("cuda")
    wanted = lambda t: isinstance(t, Tensor) and t.is_cuda and t.is_floating_point() and t.dtype != torch.float64
    return [t.to(dtype) if wanted(t) else t for t in tensors]


# ---- g-SpMM ----------------------------------------------------------------------------------------------------------


def reduce_messages(graph: Graph, op: str, reduce: str, lhs: Tensor | None, rhs: Tensor | None, fill: float | None) -> Tensor:
    message = MESSAGES[check.choice("gspmm", "op", op, MESSAGES)]
    lhs, rhs = (None if op == "copy_rhs" else lhs), (None if op == "copy_lhs" else rhs)
    out = sparse.spmm(graph, lhs, rhs, message, reduce, fill_value=fill, skip_nan=reduce in _NEUTRAL)
    return typing.cast(Tensor, out)


def _neutral(reduce: str, lhs: Tensor | None, rhs: Tensor | None) -> float | None:
    like = rhs if lhs is None else lhs
    return _NEUTRAL.get(reduce) if like is not None and like.is_floating_point() else None


def gspmm(gidx: Any, op: str, reduce_op: str, lhs_data: Tensor | None, rhs_data: Tensor | None) -> Tensor:
    """``[num_dst, *]``; destinations without edges give 0, -inf for max, inf for min."""
    check.choice("gspmm", "reduce_op", reduce_op, REDUCES)
    lhs, rhs = cast(lhs_data, rhs_data)
    return reduce_messages(single("gspmm", gidx), op, reduce_op, lhs, rhs, _neutral(reduce_op, lhs, rhs))


def gspmm_hetero(g: Any, op: str, reduce_op: str, lhs_len: int, *lhs_and_rhs_tuple: Tensor | None) -> tuple[Tensor, ...]:
    """One result per node type over all edge types that end there; an empty tensor where none does."""
    check.choice("gspmm_hetero", "reduce_op", reduce_op, REDUCES)
    data = cast(*lhs_and_rhs_tuple)
    lhs, rhs = data[:lhs_len], data[lhs_len:]
    out: dict[int, Tensor] = {}
    for etype, (graph, src, dst) in enumerate(relations(g)):
        x, e = (None if op == "copy_rhs" else lhs[src]), (None if op == "copy_lhs" else rhs[etype])
        if (x is None and op != "copy_rhs") or (e is None and op != "copy_lhs"):
            continue
        part = reduce_messages(graph, op, reduce_op, x, e, _neutral(reduce_op, x, e))
        if dst not in out:
            out[dst] = part
        elif reduce_op == "sum":
            out[dst] = out[dst] + part
        else:
            better = part > out[dst] if reduce_op == "max" else part < out[dst]
            out[dst] = torch.where(better, part, out[dst])
    return tuple(out.get(n, torch.tensor([])) for n in range(g.number_of_ntypes()))


# ---- g-SDDMM ---------------------------------------------------------------------------------------------------------


def _edge_values(graph: Graph, op: str, lhs: Tensor | None, rhs: Tensor | None, lhs_target: str, rhs_target: str) -> Tensor:
    check.choice("gsddmm", "op", op, EDGE_OPS)
    if op == "copy_lhs":
        return sparse.sddmm(graph, lhs, None, "copy", lhs_target)
    if op == "copy_rhs":
        return sparse.sddmm(graph, rhs, None, "copy", rhs_target)
    return sparse.sddmm(graph, lhs, rhs, op, lhs_target, rhs_target)


def gsddmm(
    gidx: Any, op: str, lhs_data: Tensor | None, rhs_data: Tensor | None, lhs_target: str = "u", rhs_target: str = "v"
) -> Tensor:
    """``[E, *]`` in the order of edge numbers."""
    lhs, rhs = cast(lhs_data, rhs_data)
    return _edge_values(single("gsddmm", gidx), op, lhs, rhs, lhs_target, rhs_target)


def gsddmm_hetero(
    g: Any, op: str, lhs_len: int, lhs_target: str = "u", rhs_target: str = "v", *lhs_and_rhs_tuple: Tensor | None
) -> tuple[Tensor, ...]:
    """One result per edge type; an empty tensor where an operand is missing."""
    data = cast(*lhs_and_rhs_tuple)
    lhs, rhs = data[:lhs_len], data[lhs_len:]
    out = []
    for etype, (graph, src, dst) in enumerate(relations(g)):
        number = {"u": src, "v": dst, "e": etype}
        x = None if op == "copy_rhs" else lhs[number[lhs_target]]
        y = None if op == "copy_lhs" else rhs[number[rhs_target]]
        missing = (x is None and op != "copy_rhs") or (y is None and op != "copy_lhs")
        out.append(torch.tensor([]) if missing else _edge_values(graph, op, x, y, lhs_target, rhs_target))
    return tuple(out)


# ---- softmax over edges ----------------------------------------------------------------------------------------------


def _is_all(eids: Any) -> bool:
    return isinstance(eids, str) and eids == ALL


def edge_softmax(gidx: Any, logits: Tensor, eids: Any = ALL, norm_by: str = "dst") -> Tensor:
    """Softmax ``[E, *]`` over the edges of a destination or source; with ``eids`` ``[len(eids), *]``, over those edges only."""
    op = "edge_softmax"
    graph = single(op, gidx)
    (logits,) = cast(logits)
    if _is_all(eids):
        return sparse.edge_softmax(graph, logits, norm_by)
    check.index(op, "eids", eids)
    low, high, _ = ladder.index_range(eids.contiguous())
    if eids.numel() and (low < 0 or high >= graph.num_edges):
        check.fail(IndexError, op, f"eids in [0, {graph.num_edges})", low if low < 0 else high)
    by_src = check.choice(op, "norm_by", norm_by, ("dst", "src")) == "src"
    ends = graph.edge_index()[0 if by_src else 1]
    return sparse.scatter_softmax(logits, ends[eids.long()], graph.num_src if by_src else graph.num_dst)


def edge_softmax_hetero(gidx: Any, eids: Tensor | str = ALL, norm_by: str = "dst", *logits: Tensor) -> tuple[Tensor, ...]:
    """One result per edge type, over the edges of every type that share a destination (source)."""
    op = "edge_softmax"
    if not _is_all(eids):
        check.fail(ValueError, op, "eids of a graph with one edge type only", "eids of a heterograph")
    by_src = check.choice(op, "norm_by", norm_by, ("dst", "src")) == "src"
    found = relations(gidx)
    ends, sizes = [], {}
    for graph, src, dst in found:
        sizes[src if by_src else dst] = graph.num_src if by_src else graph.num_dst
    first = dict(zip(sizes, itertools.accumulate([0, *sizes.values()]), strict=False))
    for graph, src, dst in found:
        ends.append(graph.edge_index()[0 if by_src else 1].long() + first[src if by_src else dst])
    together = sparse.scatter_softmax(torch.cat(cast(*logits)), torch.cat(ends), sum(sizes.values()))
    return together.split([graph.num_edges for graph, _, _ in found])


# ---- segments and products -------------------------------------------------------------------------------------------


def segment_reduce(op: str, x: Tensor, offsets: Tensor) -> Tensor:
    """``[N, *]`` over the ranges of ``offsets [N + 1]``; 0 for empty ones."""
    check.choice("segment_reduce", "op", op, REDUCES)
    (x,) = cast(x)
    return typing.cast(Tensor, sparse.segment_reduce(x, offsets.to(x.device), op, skip_nan=op in _NEUTRAL))


def scatter_add(x: Tensor, idx: Tensor, m: int) -> Tensor:
    """``[m, *]``: sums of the rows of ``x`` that share an index."""
    (x,) = cast(x)
    return typing.cast(Tensor, sparse.scatter_reduce(x, idx, m, "sum"))


def segment_mm(A: Tensor, B: Tensor, seglen_A: Tensor) -> Tensor:
    """``A [N, D1]`` times the matrix of its segment, of ``B [R, D1, D2]``; ``seglen_A [R]`` on any device."""
    A, B = cast(A, B)
    check.index("segment_mm", "seglen_A", seglen_A)
    return sparse.segment_matmul(A, offsets_of(seglen_A).to(A.device), B)


def gather_mm(A: Tensor, B: Tensor, idx_A: Tensor | None = None, idx_B: Tensor | None = None) -> Tensor:
    """``A[idx_A[i]] @ B[idx_B[i]]``; without an index row i itself."""
    A, B = cast(A, B)
    if idx_B is None:
        check.dense("gather_mm", "B", B)
        A = A if idx_A is None else A[idx_A]
        return torch.bmm(A.unsqueeze(1), B).squeeze(1)
    return sparse.typed_matmul(A, B, idx_B, idx_A)


def offsets_of(seglen: Tensor) -> Tensor:
    return torch.cat([seglen.new_zeros(1), seglen.cumsum(0, dtype=seglen.dtype)])
