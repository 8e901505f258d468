"""Activations of the sum of an edge's two ends, reduced over incoming edges."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ._operands import analyse, operand
from ._sddmm import sddmm
from ._spmm import spmm

# Non-decreasing for a slope >= 0: the extreme of the activations is the activation of the extreme.
MONOTONE = ("identity", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")


@autocast.promotes
def add_act_reduce(
    graph: Graph,
    x_src: Tensor,
    x_dst: Tensor | None = None,
    edge: Tensor | None = None,
    *,
    activation: str = "relu",
    reduce: str = "sum",
    value: Tensor | None = None,
    scalar: Tensor | None = None,
    direction: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """For every destination, reduce ``activation(x_src[u] + x_dst[v] + edge[k] + scalar[k] * direction) * value[u]`` over its
    incoming edges, without storing the messages.

    Args:
        graph: the structure.
        x_src: ``[num_src, *features]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        x_dst: ``[num_dst, *features]``; edge: ``[E, *features]`` in the graph's edge order; value: ``[num_src, *features]``, the
            other factor of a gate. Absent ones count as 0, 0 and 1.
        activation: identity, relu, leaky_relu, elu, sigmoid, tanh, silu, softplus, gelu or gelu_tanh.
        reduce: sum, mean, min or max.
        scalar, direction: ``[E]`` and ``[*features]``, given together: an edge term of rank one, such as the column of the
            distance in a linear layer on both ends and their distance. sum and mean form nothing of size E x features for it.
        slope: of leaky_relu (default 0.01), alpha of elu (default 1).

    Returns:
        ``[num_dst, *features]``; 0 for destinations without edges.

    Differentiable in all tensors to any order. sum and mean keep the operands and, for x_dst without edge and scalar, the sums of
    slopes ``[num_dst, *features]`` in float32 (float64 for float64); messages are formed again in the backward. min and max of
    activations that do not decrease go through the extreme of the sums and keep its winners; with silu, gelu, gelu_tanh, ``value``
    or ``scalar``, and in second and higher orders, messages ``[E, F]`` are held. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: the messages of SIR-GCN; with ``value``, of gated graph convolutions (arXiv:1711.07553); with ``scalar``, of EGNN
    (arXiv:2102.09844).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> x, y = torch.tensor([[1.], [-4.]]), torch.tensor([[0.], [2.]])
    >>> structops.sparse.add_act_reduce(g, x, y).tolist()
    [[0.0], [3.0]]
    """
    op = "add_act_reduce"
    checked_graph(op, graph)
    act = C.EDGE_ACTS[check.choice(op, "activation", activation, C.EDGE_ACTS)]
    check.choice(op, "reduce", reduce, ("sum", "mean", "min", "max"))
    operand(op, "x_src", x_src, graph, graph.num_src, 0)
    features = tuple(x_src.shape[1:])
    for name, t, rows in (("x_dst", x_dst, graph.num_dst), ("edge", edge, graph.num_edges), ("value", value, graph.num_src)):
        if t is not None:
            check.shaped(op, name, t, (rows, *features), x_src)
    if (scalar is None) != (direction is None):
        check.fail(ValueError, op, "scalar and direction together", f"only {'direction' if scalar is None else 'scalar'}")
    if scalar is not None:
        check.shaped(op, "scalar", scalar, (graph.num_edges,), x_src)
        check.shaped(op, "direction", direction, features, x_src)
    slope = float((1.0 if activation == "elu" else 0.01) if slope is None else slope)
    if reduce in ("min", "max"):
        if scalar is not None:
            term = scalar.reshape(-1, *(1,) * len(features)) * direction
            edge = term if edge is None else edge + term
        return _extreme(graph, x_src, x_dst, edge, value, activation, act, reduce, slope)
    F = math.prod(features)
    check.fits(op, x_src.dtype, graph.num_dst, F)
    analyse(graph, x_src, x_dst, edge, value, scalar, direction)
    flat = [None if t is None else t.reshape(t.shape[0], F).contiguous() for t in (x_src, x_dst, edge, value)]
    vectors = (None, None) if scalar is None else (scalar.contiguous(), direction.reshape(F).contiguous())
    keep = x_dst is not None and edge is None and scalar is None and ladder.wants_derivative(x_dst)
    out, _ = ladder.edge_act(*flat, *vectors, *graph.structure, act, slope, keep)
    if reduce == "mean":
        out = out / graph.in_degrees().clamp(min=1)[:, None].to(out.dtype)
    return out.reshape(graph.num_dst, *features)


def _extreme(graph: Graph, x_src, x_dst, edge, value, activation: str, act: int, reduce: str, slope: float) -> Tensor:
    activate = ladder.activate
    if activation in MONOTONE and value is None and slope >= 0:
        top = cast(Tensor, spmm(graph, x_src, edge, None if edge is None else "add", reduce))
        out = activate(top if x_dst is None else top + x_dst, act, slope)
        empty = (graph.in_degrees() == 0).reshape(-1, *(1,) * (out.dim() - 1))
        return out.masked_fill(empty, 0)
    z = sddmm(graph, x_src, None, "copy") if x_dst is None else sddmm(graph, x_src, x_dst, "add")
    m = activate(z if edge is None else z + edge, act, slope)
    m = m if value is None else m * sddmm(graph, value, None, "copy")
    return cast(Tensor, spmm(graph, edge=m, message="copy_e", reduce=reduce))
