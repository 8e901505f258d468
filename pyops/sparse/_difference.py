"""Difference operators on graphs: gradient, total variation, p-Laplacian, distances of edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._ladder import _difference as ladder
from ..graph import Graph, checked_graph
from ._operands import analyse, operand
from ._sddmm import sddmm


@autocast.promotes
def graph_gradient(graph: Graph, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """The differences along edges, ``out[k] = weight[k] * (x[u] - x[v])`` for edge k: u -> v, stored.

    Args:
        graph: a square graph.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16.
        weight: ``[E]`` in the graph's edge order, of the same dtype, or None.

    Returns:
        ``[E, *features]``: as large as it looks. ``total_variation``, ``p_laplacian`` and ``lp_distance`` do without it.

    Differentiable in both to any order. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, or a rectangular graph, before any kernel runs.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    >>> structops.sparse.graph_gradient(g, torch.tensor([1., 3., 8.]))
    tensor([-2., -5.])
    """
    op = "graph_gradient"
    x, weight = _operands(op, graph, x, weight)
    d = sddmm(graph, x, x, "sub", "u", "v")
    return d if weight is None else d * weight.reshape(-1, *(1,) * (x.dim() - 1))


@autocast.promotes
def total_variation(graph: Graph, x: Tensor, weight: Tensor | None = None, p: float = 1.0, *, per_feature: bool = False) -> Tensor:
    """The graph total variation ``sum over edges k: u -> v of weight[k] * sum over features of |x[v] - x[u]|^p``.

    Args:
        graph: a square graph; of an undirected graph with both directions of every edge, each edge counts twice.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16.
        weight: ``[E]`` in the graph's edge order, of the same dtype, or None for 1.
        p: at least 1. For p = 2, the Dirichlet energy.
        per_feature: sums of every feature by itself, ``[*features]``.

    Returns:
        A scalar, or ``[*features]``.

    Differentiable in ``x`` and ``weight`` to any order; at ties the subgradient is 0. Saves its inputs: the differences of E x F
    are formed again backward, never stored. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, p < 1, or a rectangular graph, before any kernel runs.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    >>> structops.sparse.total_variation(g, torch.tensor([[1.], [3.], [8.]]))
    tensor(7.)
    """
    op = "total_variation"
    p = _exponent(op, p)
    check.flags(op, per_feature=per_feature)
    x, weight = _operands(op, graph, x, weight)
    analyse(graph, x, weight)
    flat = _flat(x)
    if per_feature:
        return ladder.difference_rows(flat, flat, weight, None, *graph.structure, p, False).sum(0).reshape(x.shape[1:])
    per_edge = ladder.difference_edges(flat, flat, None, None, *graph.structure, graph.num_edges, p, False)
    return per_edge.sum() if weight is None else (weight * per_edge).sum()


@autocast.promotes
def lp_distance(graph: Graph, x: Tensor, y: Tensor | None = None, p: float = 2.0, *, root: bool = True) -> Tensor:
    """The distance of every edge's two ends, ``out[k] = ||y[v] - x[u]||_p`` for edge k: u -> v (an L1 or Lp SDDMM).

    Args:
        graph: the structure.
        x: ``[num_src, *features]``; float32, float64, bfloat16 or float16.
        y: ``[num_dst, *features]`` of the same dtype (default: x, on a square graph).
        p: at least 1.
        root: take the p-th root; without it the sum of ``|d|^p``.

    Returns:
        ``[E]`` in the graph's edge order.

    Differentiable in ``x`` and ``y`` to any order; at ties the subgradient is 0. Saves its inputs. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, or p < 1, before any kernel runs.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0], [1]]), num_nodes=2)
    >>> structops.sparse.lp_distance(g, torch.tensor([[0., 0.], [3., 4.]]))
    tensor([5.])
    """
    op = "lp_distance"
    p = _exponent(op, p)
    check.flags(op, root=root)
    checked_graph(op, graph, square=y is None)
    y = x if y is None else y
    operand(op, "x", x, graph, graph.num_src, 0)
    operand(op, "y", y, graph, graph.num_dst, 0)
    if x.dtype != y.dtype:
        check.fail(TypeError, op, f"y of dtype {x.dtype}, as x", y.dtype)
    if x.shape[1:] != y.shape[1:]:
        check.fail(ValueError, op, f"y with the features of x, {list(x.shape[1:])}", list(y.shape[1:]))
    analyse(graph, x, y)
    total = ladder.difference_edges(_flat(x), _flat(y), None, None, *graph.structure, graph.num_edges, p, False)
    return _power(total, 1 / p) if root and p != 1 else total


@autocast.promotes
def p_laplacian(graph: Graph, x: Tensor, weight: Tensor | None = None, p: float = 2.0, *, norm: str = "feature") -> Tensor:
    """The graph p-Laplacian ``out[v] = sum over edges k: u -> v of weight[k] * |d|^(p-2) d``, ``d = x[v] - x[u]``.

    Args:
        graph: a square graph.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16.
        weight: ``[E]`` in the graph's edge order, of the same dtype, or None for 1.
        p: at least 1; 2 is the graph Laplacian, 1 the sign of differences (0 at ties).
        norm: feature: ``|d|`` of every feature by itself; vector: the Euclidean length of all features.

    Returns:
        The shape of x. On an undirected graph (both directions, equal weights), the gradient of ``total_variation / (2 p)`` with
        norm = feature.

    Differentiable in ``x`` and ``weight`` to any order; ties contribute 0, and have derivative 0 for p < 2. Saves its inputs, and
    numbers per edge for norm = vector; no differences of E x F. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, p < 1, or a rectangular graph, before any kernel runs.

    Source: Buehler and Hein, Spectral clustering based on the graph p-Laplacian (ICML 2009).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.p_laplacian(g, torch.tensor([[1.], [4.]]), p=3.0)
    tensor([[-9.],
            [ 9.]])
    """
    op = "p_laplacian"
    p = _exponent(op, p)
    check.choice(op, "norm", norm, ("feature", "vector"))
    x, weight = _operands(op, graph, x, weight)
    analyse(graph, x, weight)
    flat = _flat(x)
    if norm == "vector" and p != 2:
        squared = ladder.difference_edges(flat, flat, None, None, *graph.structure, graph.num_edges, 2.0, False)
        scale = _power(squared, p / 2 - 1)
        return _weighted(graph, flat, scale if weight is None else weight * scale).reshape(x.shape)
    return ladder.difference_rows(flat, flat, weight, None, *graph.structure, p - 1, True).reshape(x.shape)


@autocast.promotes
def difference_step(
    graph: Graph, x: Tensor, weight: Tensor | None = None, *, step: float = 1.0, p: float = 1.0, eps: float = 1e-3
) -> Tensor:
    """One step of total-variation diffusion, ``out[v] = x[v] - step * sum over k: u -> v of c[k] (x[v] - x[u])``.

    ``c[k] = weight[k] / max(||x[v] - x[u]||_p, eps)``, differentiated as well.

    Args:
        graph: a square graph.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16.
        weight: ``[E]`` in the graph's edge order, of the same dtype, or None for 1.
        step: the length of the step. p: at least 1. eps: positive; edges shorter than it count as that long.

    Returns:
        The shape of x. Constant x is a fixed point.

    Differentiable in ``x`` and ``weight`` to any order. Saves its inputs and a few numbers per edge. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, p < 1, eps <= 0, or a rectangular graph, before any kernel runs.

    Source: Hansen and Bianchi, Total Variation Graph Neural Networks (ICML 2023).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.difference_step(g, torch.tensor([[1.], [4.]]), step=0.5)
    tensor([[1.5000],
            [3.5000]])
    """
    op = "difference_step"
    p = _exponent(op, p)
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not eps > 0:
        check.fail(ValueError, op, "eps > 0", eps)
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        check.fail(TypeError, op, "step to be a number", type(step).__name__)
    x, weight = _operands(op, graph, x, weight)
    length = lp_distance(graph, x, p=p).clamp(min=eps)
    scale = length.reciprocal() if weight is None else weight / length
    return x - step * _weighted(graph, _flat(x), scale).reshape(x.shape)


def _weighted(graph: Graph, flat: Tensor, scale: Tensor) -> Tensor:
    return ladder.difference_rows(flat, flat, scale, None, *graph.structure, 1.0, True)


def _power(t: Tensor, exponent: float) -> Tensor:
    """t^exponent of t >= 0, 0 with derivative 0 where t is 0."""
    tie = t == 0
    return torch.where(tie, torch.zeros_like(t), torch.where(tie, torch.ones_like(t), t) ** exponent)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).contiguous()


def _exponent(op: str, p: float) -> float:
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        check.fail(TypeError, op, "p to be a number", type(p).__name__)
    if not 1 <= p < math.inf:
        check.fail(ValueError, op, "1 <= p < infinity", p)
    return float(p)


def _operands(op: str, graph: Graph, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    checked_graph(op, graph, square=True)
    operand(op, "x", x, graph, graph.num_dst, 0)
    if weight is None:
        return x, None
    return x, check.shaped(op, "weight", weight, (graph.num_edges,), x).contiguous()
