"""Attention over edges whose keys and values are irreps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from .._dispatch import is_eager, lasting
from ..graph import Graph, checked_graph
from ..sparse._attention import blocked_attention
from ._terms import Rows

__all__ = ["irreps_attention"]


@autocast.lowers
def irreps_attention(
    graph: Graph,
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    irreps: Any,
    *,
    key_irreps: Any = None,
    heads: int = 1,
    per_edge: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
    layout: str = "mul_ir",
) -> Tensor:
    """Equivariant attention: the softmax over incoming edges of ``scale * sum_l <query_l[v], key_l> + bias``, one for each head,
    and the sum of the values so weighted, in one pass.

    Args:
        graph: the edges u -> v, possibly bipartite.
        query: ``[num_dst, ...]``, key: ``[num_src, ...]``: rows of ``key_irreps``. Both None: the scores are bias.
        value: ``[num_src, ...]``, rows of ``irreps``; float32, float64, bfloat16 or float16 (accumulated in float32).
        irreps: an int lmax for rows ``[(lmax + 1)^2, C]``, or irreps for flat rows ``[dim]`` in ``layout``.
        key_irreps: default irreps.
        heads: divides the copies of every term into consecutive groups.
        per_edge: key and value are rows of edges, ``[E, ...]`` in the graph's edge order.
        bias: ``[E, heads]`` in the graph's edge order, invariant; -inf masks an edge.
        scale: default 1 / sqrt(components of a key per head).

    Returns:
        rows of ``irreps`` for every destination; 0 for those without edges.

    Differentiable in all tensors to any order. No scores, weights or messages of edges are stored: kept for the backward beyond the
    operands are the result and ``[num_dst, heads]`` numbers. Contiguous operands are read in place; where a head has a number of
    copies that is not a multiple of 8 and the sources have more than 4 edges each, they are copied head by head, which is faster.
    The second derivative holds one row per edge while it runs. Deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: SE(3)-Transformer (arXiv:2006.10503), whose keys and values belong to edges; Equiformer (arXiv:2206.11990), whose scores
    come from an invariant network: give them as bias.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> q, v = torch.zeros(2, 4), torch.tensor([[1., 1., 0., 0.], [3., 0., 1., 0.]])
    >>> structops.so2.irreps_attention(g, q, q, v, "0e+1o")[1]
    tensor([2.0000, 0.5000, 0.5000, 0.0000])
    """
    op = "irreps_attention"
    checked_graph(op, graph)
    heads = check.size(op, "heads", heads)
    check.flags(op, per_edge=per_edge)
    structure = _edges_as_sources(graph) if per_edge else graph
    rows = Rows(op, "value", irreps, layout, value)
    shaped(op, "value", value, (structure.num_src, *value.shape[-1 - rows.stacked :]))
    if (query is None) != (key is None):
        check.fail(TypeError, op, "query together with key", "only one of them")
    if query is None and bias is None:
        check.fail(TypeError, op, "bias where there is no query", None)
    if bias is not None:
        shaped(op, "bias", bias, (graph.num_edges, heads), value)
    keys = None
    if key is not None:
        keys = Rows(op, "key", irreps if key_irreps is None else key_irreps, layout, key)
        shaped(op, "key", key, (value.shape[0], *key.shape[1:]), value)
        shaped(op, "query", query, (graph.num_dst, *key.shape[1:]), value)
    if value.device != graph.device:
        check.fail(ValueError, op, f"value on {graph.device}, as the graph", value.device)
    for r in (rows, keys):
        if r is not None and (heads == 0 or any(t.mul % heads for t in r.irreps)):
            check.fail(ValueError, op, f"heads to divide the copies of {r.irreps}", heads)
    key_blocks, value_blocks = (() if r is None or heads == 1 else _blocks(r, heads) for r in (keys, rows))
    by_head = lambda t: None if t is None else t.reshape(t.shape[0], heads, math.prod(t.shape[1:]) // heads)
    operands = by_head(query), by_head(key), by_head(value)
    out = blocked_attention(op, structure, *operands, bias, key_blocks, value_blocks, scale)  # type: ignore[arg-type]
    return out.reshape(graph.num_dst, *value.shape[1:])


def _blocks(rows: Rows, heads: int) -> tuple[int, ...]:
    """The width and number of the blocks of consecutive features that a head has of every term, equal ones together."""
    found: list[list[int]] = []
    for t in rows.irreps:
        whole = rows.layout == "mul_ir" and not rows.stacked
        width, repeat = (t.dim * t.mul // heads, 1) if whole else (t.mul // heads, t.dim)
        if found and found[-1][0] == width:
            found[-1][1] += repeat
        else:
            found.append([width, repeat])
    return tuple(n for pair in found for n in pair)


def _edges_as_sources(graph: Graph) -> Graph:
    """The same destinations with every edge a source of its own, so that rows of edges are read in place. Kept with the graph."""
    known = graph.__dict__.get("_edges_as_sources")
    if known is None:
        with lasting():
            col = torch.arange(graph.num_edges, dtype=graph.col.dtype, device=graph.device) if graph.eid is None else graph.eid
            known = Graph.__new__(Graph)
            known._set(graph.rowptr, col, graph.eid, graph.num_edges)
        if is_eager():
            graph.__dict__["_edges_as_sources"] = known
    return known
