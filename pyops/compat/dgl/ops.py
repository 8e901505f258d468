"""``dgl.ops`` for a DGLGraph or a :class:`structops.Graph`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from ... import _check as check
from ... import sparse
from . import _backend as backend
from ._backend import ALL, relations

__all__ = [
    "copy_e", "copy_u", "copy_v", "edge_softmax", "gather_mm", "gsddmm", "gspmm", "segment_mm", "segment_reduce", "segment_softmax",
]  # fmt: skip


def gspmm(g: Any, op: str, reduce_op: str, lhs_data: Tensor | None, rhs_data: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """For every destination, reduce the messages ``op(lhs_data[u], rhs_data[k])`` of its incoming edges.

    Args:
        g: DGLGraph or structops.Graph; with several edge types the operands are lists, by node type and by edge type.
        op: add, sub, mul, div, copy_lhs or copy_rhs. Feature dimensions broadcast as in NumPy.
        reduce_op: sum, max, min or mean; 0 for destinations without edges. No mean over several edge types.
        lhs_data: ``[num_src, *]``, rhs_data: ``[E, *]``; None where ``op`` does not read it.

    Returns:
        ``[num_dst, *]``; with several edge types a tuple by node type. Differentiable to any order.

    Raises:
        TypeError, ValueError: a wrong name, dtype, shape or device, before any kernel runs.
    """
    check.choice("gspmm", "reduce_op", reduce_op, (*backend.REDUCES, "mean"))
    found = relations(g)
    if len(found) == 1:
        x, e = backend.cast(lhs_data, rhs_data)
        return backend.reduce_messages(found[0].graph, op, reduce_op, x, e, None)
    if reduce_op == "mean":
        check.fail(ValueError, "gspmm", "sum, max or min over several edge types", "mean")
    gidx = getattr(g, "_graph", g)
    lhs = [None] * gidx.number_of_ntypes() if lhs_data is None else list(lhs_data)
    rhs = [None] * len(found) if rhs_data is None else list(rhs_data)
    out = backend.gspmm_hetero(gidx, op, reduce_op, len(lhs), *lhs, *rhs)
    return out if reduce_op == "sum" else tuple(_zero_isolated(t, n, found) for n, t in enumerate(out))


def _zero_isolated(t: Tensor, ntype: int, found: list[backend.Relation]) -> Tensor:
    degrees = [graph.in_degrees() for graph, _, dst in found if dst == ntype]
    if not degrees or not t.numel():
        return t
    return t.masked_fill((torch.stack(degrees).sum(0) == 0).reshape(-1, *(1,) * (t.dim() - 1)), 0)


def gsddmm(
    g: Any, op: str, lhs_data: Tensor | None, rhs_data: Tensor | None, lhs_target: str = "u", rhs_target: str = "v"
) -> Tensor | tuple[Tensor, ...]:
    """For every edge, ``op(lhs_data[its lhs_target], rhs_data[its rhs_target])``.

    Args:
        g: as in :func:`gspmm`; with several edge types the operands are lists, by node type (targets u and v) or edge type (e).
        op: add, sub, mul, div, dot (sum over the last dimension, kept as size 1), copy_lhs or copy_rhs.
        lhs_data, rhs_data: ``[rows, *]``; None where ``op`` does not read it.
        lhs_target, rhs_target: u, v or e.

    Returns:
        ``[E, *]`` in the order of edge numbers; with several edge types a tuple. Differentiable to any order.

    Raises:
        TypeError, ValueError: a wrong name, dtype, shape or device, before any kernel runs.
    """
    found = relations(g)
    if len(found) == 1:
        return backend.gsddmm(found[0].graph, op, lhs_data, rhs_data, lhs_target, rhs_target)
    gidx = getattr(g, "_graph", g)
    missing = [None] * max(len(found), gidx.number_of_ntypes())
    lhs = missing if lhs_data is None else list(lhs_data)
    rhs = missing if rhs_data is None else list(rhs_data)
    return backend.gsddmm_hetero(gidx, op, len(lhs), lhs_target, rhs_target, *lhs, *rhs)


def copy_u(g: Any, x: Tensor) -> Tensor:
    """Source values on the edges, ``[E, *]``."""
    return cast(Tensor, gsddmm(g, "copy_lhs", x, None))


def copy_v(g: Any, x: Tensor) -> Tensor:
    """Destination values on the edges, ``[E, *]``."""
    return cast(Tensor, gsddmm(g, "copy_rhs", None, x))


def copy_e(g: Any, x: Tensor) -> Tensor:
    """``x``."""
    return x


def _binary_reduce(op: str, reduce: str) -> Callable:
    def function(g, x, y):
        return gspmm(g, op, reduce, x, y)

    function.__doc__ = f":func:`gspmm` with {op} and {reduce}: ``x [num_src, *]``, ``y [E, *]``."
    return function


def _copy_reduce(op: str, reduce: str) -> Callable:
    def function(g, x):
        return gspmm(g, "copy_lhs", reduce, x, None) if op == "copy_u" else gspmm(g, "copy_rhs", reduce, None, x)

    rows = "num_src" if op == "copy_u" else "E"
    function.__doc__ = f":func:`gspmm` with {op} and {reduce}: ``x [{rows}, *]``."
    return function


def _edge_function(lhs: str, op: str, rhs: str) -> Callable:
    def function(g, x, y):
        return gsddmm(g, op, x, y, lhs, rhs)

    function.__doc__ = f":func:`gsddmm` with {op} of x at {lhs} and y at {rhs}."
    return function


def _named() -> dict[str, Callable]:
    reduces, binary = ("sum", "max", "min", "mean"), ("add", "sub", "mul", "div")
    found = {f"u_{op}_e_{reduce}": _binary_reduce(op, reduce) for op in binary for reduce in reduces}
    found |= {f"{op}_{reduce}": _copy_reduce(op, reduce) for op in ("copy_u", "copy_e") for reduce in reduces}
    ends = itertools.permutations("uve", 2)
    return found | {f"{a}_{op}_{b}": _edge_function(a, op, b) for a, b in ends for op in (*binary, "dot")}


for _name, _function in _named().items():
    _function.__name__ = _function.__qualname__ = _name
    globals()[_name] = _function
    __all__.append(_name)


def edge_softmax(graph: Any, logits: Any, eids: Tensor | str = ALL, norm_by: str = "dst") -> Any:
    """Softmax of edge values over the edges that share a destination, or a source.

    Args:
        graph: DGLGraph or structops.Graph.
        logits: ``[E, *]``; with ``eids`` ``[len(eids), *]``; with several edge types a dictionary by edge type.
        eids: numbers of the edges that take part (default: all); graphs with one edge type only.
        norm_by: dst or src.

    Returns:
        As ``logits``; over several edge types the edges of all of them at a node share one softmax. NaN where all logits are
        -inf. Differentiable to any order.
    """
    found = relations(graph)
    if len(found) == 1:
        return backend.edge_softmax(found[0].graph, logits, eids, norm_by)
    given = {graph.to_canonical_etype(name): value for name, value in logits.items()}
    missing = [etype for etype in graph.canonical_etypes if etype not in given]
    if missing:
        check.fail(ValueError, "edge_softmax", "logits of every edge type", f"none of {missing}")
    scores = backend.edge_softmax_hetero(graph._graph, eids, norm_by, *(given[etype] for etype in graph.canonical_etypes))
    return dict(zip(graph.canonical_etypes, scores, strict=True))


def _offsets(op: str, seglen: Tensor, like: Tensor) -> Tensor:
    check.index(op, "seglen", seglen)
    if seglen.dim() != 1:
        check.fail(ValueError, op, "seglen of shape [N]", list(seglen.shape))
    return backend.offsets_of(seglen).to(like.device)


def segment_reduce(seglen: Tensor, value: Tensor, reducer: str = "sum") -> Tensor:
    """``[N, *]``: sum, mean, max or min over consecutive segments of ``value``, of lengths ``seglen [N]``; 0 for empty ones."""
    op = "segment_reduce"
    check.choice(op, "reducer", reducer, ("sum", "mean", "max", "min"))
    check.dense(op, "value", value, integers=True)
    out = sparse.segment_reduce(value, _offsets(op, seglen, value), reducer, skip_nan=reducer in ("max", "min"))
    return cast(Tensor, out)


def segment_softmax(seglen: Tensor, value: Tensor) -> Tensor:
    """Softmax of ``value`` over consecutive segments of lengths ``seglen [N]``."""
    check.dense("segment_softmax", "value", value)
    return sparse.segment_softmax(value, _offsets("segment_softmax", seglen, value))


def segment_mm(a: Tensor, b: Tensor, seglen_a: Tensor) -> Tensor:
    """``a [N, D1]`` times the matrix of its segment, of ``b [R, D1, D2]``; segments of lengths ``seglen_a [R]``."""
    return backend.segment_mm(a, b, seglen_a)


def gather_mm(a: Tensor, b: Tensor, *, idx_b: Tensor) -> Tensor:
    """``a[i] @ b[idx_b[i]]``: ``[N, D2]`` from ``a [N, D1]`` and ``b [R, D1, D2]``, no matrix gathered."""
    return backend.gather_mm(a, b, None, idx_b)
