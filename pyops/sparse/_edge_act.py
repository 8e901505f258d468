"""Activations of the sum of an edge's two ends, reduced over incoming edges."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph
from ..kernels import codes as C
from ._sddmm import sddmm
from ._spmm import spmm

# Non-decreasing for a slope >= 0: the extreme of the activations is the activation of the extreme.
MONOTONE = ("identity", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")


def _operand(op: str, name: str, t: Any, rows: int, features: tuple[int, ...] | None, like: Tensor | None) -> Tensor:
    check.dense(op, name, t)
    if t.dim() < 1 or t.shape[0] != rows or (features is not None and tuple(t.shape[1:]) != features):
        wanted = "*features" if features is None else ", ".join(map(str, features))
        check.fail(ValueError, op, f"{name} of shape [{rows}, {wanted}]", list(t.shape))
    if like is not None and t.dtype != like.dtype:
        check.fail(TypeError, op, f"{name} of dtype {like.dtype}, as x_src", t.dtype)
    return t


def add_act_reduce(
    graph: Graph,
    x_src: Tensor,
    x_dst: Tensor | None = None,
    edge: Tensor | None = None,
    *,
    activation: str = "relu",
    reduce: str = "sum",
    value: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """For every destination, reduce ``activation(x_src[u] + x_dst[v] + edge[k]) * value[u]`` over its incoming edges, without
    storing the messages.

    Args:
        graph: the structure.
        x_src: ``[num_src, *features]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        x_dst: ``[num_dst, *features]``; edge: ``[E, *features]`` in the graph's edge order; value: ``[num_src, *features]``, the
            other factor of a gate. Absent ones count as 0, 0 and 1.
        activation: identity, relu, leaky_relu, elu, sigmoid, tanh, silu, softplus, gelu or gelu_tanh.
        reduce: sum, mean, min or max.
        slope: of leaky_relu (default 0.01), alpha of elu (default 1).

    Returns:
        ``[num_dst, *features]``; 0 for destinations without edges.

    Differentiable in all tensors to any order. sum and mean keep nothing beyond the operands: the sums are formed again in the
    backward. min and max of activations that do not decrease go through the extreme of the sums and keep its winners; with silu,
    gelu, gelu_tanh or ``value``, and in second and higher orders, messages ``[E, F]`` are held. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: the messages of SIR-GCN and, with ``value``, of gated graph convolutions (arXiv:1711.07553).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> x, y = torch.tensor([[1.], [-4.]]), torch.tensor([[0.], [2.]])
    >>> structops.sparse.add_act_reduce(g, x, y).tolist()
    [[0.0], [3.0]]
    """
    op = "add_act_reduce"
    if not isinstance(graph, Graph):
        check.fail(TypeError, op, "graph to be a structops.Graph", type(graph).__name__)
    act = C.EDGE_ACTS[check.choice(op, "activation", activation, C.EDGE_ACTS)]
    check.choice(op, "reduce", reduce, ("sum", "mean", "min", "max"))
    x_src = _operand(op, "x_src", x_src, graph.num_src, None, None)
    features = tuple(x_src.shape[1:])
    x_dst = None if x_dst is None else _operand(op, "x_dst", x_dst, graph.num_dst, features, x_src)
    edge = None if edge is None else _operand(op, "edge", edge, graph.num_edges, features, x_src)
    value = None if value is None else _operand(op, "value", value, graph.num_src, features, x_src)
    operands = (x_src, x_dst, edge, value)
    for name, t in zip(("x_src", "x_dst", "edge", "value"), operands, strict=True):
        if t is not None and t.device != graph.device:
            check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", t.device)
    slope = float((1.0 if activation == "elu" else 0.01) if slope is None else slope)
    if reduce in ("min", "max"):
        return _extreme(graph, *operands, activation, act, reduce, slope)
    F = math.prod(features)
    check.fits(op, x_src.dtype, graph.num_dst, F)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands):
        graph.reversed_structure  # noqa: B018  built once here rather than in every backward
    flat = [None if t is None else t.reshape(t.shape[0], F).contiguous() for t in operands]
    out = ladder.edge_act(*flat, *graph.structure, act, slope)
    if reduce == "mean":
        out = out / graph.in_degrees().clamp(min=1)[:, None].to(out.dtype)
    return out.reshape(graph.num_dst, *features)


def _extreme(graph: Graph, x_src, x_dst, edge, value, activation: str, act: int, reduce: str, slope: float) -> Tensor:
    activate = ladder.activate
    if activation in MONOTONE and value is None and slope >= 0:
        top = spmm(graph, x_src, edge, None if edge is None else "add", reduce)
        out = activate(top if x_dst is None else top + x_dst, act, slope)
        empty = (graph.in_degrees() == 0).reshape(-1, *(1,) * (out.dim() - 1))
        return out.masked_fill(empty, 0)
    z = sddmm(graph, x_src, None, "copy") if x_dst is None else sddmm(graph, x_src, x_dst, "add")
    m = activate(z if edge is None else z + edge, act, slope)
    m = m if value is None else m * sddmm(graph, value, None, "copy")
    return spmm(graph, edge=m, message="copy_e", reduce=reduce)
