"""The edge step of E(n)-equivariant graph networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from .._dispatch import is_eager
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ..sparse import add_act_reduce, lp_distance, sddmm, spmm


def egnn_step(
    graph: Graph,
    x: Tensor,
    h_src: Tensor,
    h_dst: Tensor,
    distance: Tensor,
    edge: Tensor | None = None,
    *,
    message: Callable[[Tensor], Tensor] | None = None,
    coordinate: Callable[[Tensor], Tensor] | None = None,
    activation: str = "silu",
    reduce: str = "sum",
    coordinate_reduce: str = "mean",
    norm_constant: float | None = None,
    recompute: bool = True,
) -> tuple[Tensor, Tensor]:
    """Messages and moves of an E(n)-equivariant layer (EGNN), its first edge layer split over the two ends.

    For every edge k: u -> v, with ``d = x[v] - x[u]``::

        m[k]   = message(activation(h_src[u] + h_dst[v] + |d|^2 * distance + edge[k]))
        out[v] = reduce of m[k] over incoming edges
        x'[v]  = x[v] + coordinate_reduce of d * coordinate(m[k])

    A linear layer on ``[h_v, h_u, |d|^2, a_k]`` is this with ``h_src = h @ W_u``, ``h_dst = h @ W_v + b``, ``distance = W_d`` and
    ``edge = a @ W_a``: products of N rows rather than of E, and no concatenation ``[E, 2 F + 1]``.

    Args:
        graph: a square graph of N nodes.
        x: ``[N, D]`` coordinates, any D; float32, float64, bfloat16 or float16.
        h_src, h_dst: ``[N, H]``, of the dtype of ``x``. distance: ``[H]``. edge: ``[E, H]`` in the graph's edge order, or None.
        message: the rest of the edge network and its gate, ``[E, H]`` to ``[E, M]``, row by row; None keeps the activations.
        coordinate: ``[E, M]`` to ``[E, 1]``, or None to leave ``x`` as it is.
        activation: one of those of :func:`structops.sparse.add_act_reduce`.
        reduce, coordinate_reduce: sum or mean.
        norm_constant: if given, moves are along ``d / (|d| + norm_constant)``; must be positive.
        recompute: keep nothing of the edges for the backward but ``edge``, and run the edge network again there. False keeps what
            its layers keep.

    Returns:
        ``(x' [N, D], out [N, M])``; nodes without edges keep their coordinates and get 0.

    E(n)-equivariant whatever the two functions. Differentiable in every tensor, and in what the functions use, to any order; finite
    at coincident nodes. While it runs, and in the backward, a few tensors ``[E, H]`` exist, unless both functions are None: then it
    is :func:`structops.sparse.add_act_reduce`, which forms none. Deterministic if the functions are.

    Raises:
        TypeError, ValueError: a wrong type, dtype, shape, device or option, before any kernel runs; a function's result of a wrong
        shape.

    Source: Satorras et al. 2021 (arXiv:2102.09844).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> x, h = torch.tensor([[0., 0.], [2., 0.]]), torch.zeros(2, 1)
    >>> structops.so2.egnn_step(g, x, h, h, torch.ones(1), coordinate=lambda m: m / 8, activation="relu")
    (tensor([[-1.,  0.],
            [ 3.,  0.]]), tensor([[4.],
            [4.]]))
    """
    op = "egnn_step"
    N = checked_graph(op, graph, square=True).num_dst
    x, h_src, h_dst, distance, edge = autocast.promoted(x, h_src, h_dst, distance, edge)
    check.shaped(op, "x", x, (N, None))
    if x.device != graph.device:
        check.fail(ValueError, op, f"x on {graph.device}, as the graph", x.device)
    H = check.shaped(op, "h_src", h_src, (N, None), x).shape[1]
    check.shaped(op, "h_dst", h_dst, (N, H), x)
    check.shaped(op, "distance", distance, (H,), x)
    if edge is not None:
        check.shaped(op, "edge", edge, (graph.num_edges, H), x)
    for name, f in (("message", message), ("coordinate", coordinate)):
        if f is not None and not callable(f):
            check.fail(TypeError, op, f"{name} to be callable or None", type(f).__name__)
    act = C.EDGE_ACTS[check.choice(op, "activation", activation, C.EDGE_ACTS)]
    check.choice(op, "reduce", reduce, ("sum", "mean"))
    check.choice(op, "coordinate_reduce", coordinate_reduce, ("sum", "mean"))
    if norm_constant is not None and not (isinstance(norm_constant, (int, float)) and norm_constant > 0):
        check.fail(ValueError, op, "norm_constant to be positive or None", norm_constant)
    check.flags(op, recompute=recompute)

    if message is None and coordinate is None:
        scalar = lp_distance(graph, x, root=False)
        return x, add_act_reduce(
            graph, h_src, h_dst, edge, activation=activation, reduce=reduce, scalar=scalar, direction=distance
        )

    def step(x: Tensor, h_src: Tensor, h_dst: Tensor, distance: Tensor, edge: Tensor | None) -> tuple[Tensor, Tensor]:
        if coordinate is None:
            square = lp_distance(graph, x, root=False)[:, None]
        else:
            d = sddmm(graph, x, x, "sub", "v", "u")
            square = (d * d).sum(1, keepdim=True)
        z = torch.addcmul(sddmm(graph, h_src, h_dst, "add", "u", "v"), square, distance)
        m = ladder.activate(z if edge is None else z + edge, act, 1.0 if activation == "elu" else 0.01)
        m = m if message is None else _result(op, "message", message(m), graph, x, None)
        out = cast(Tensor, spmm(graph, edge=m, message="copy_e", reduce=reduce))
        if coordinate is None:
            return x, out
        if norm_constant is not None:
            zero = square == 0
            d = d / (torch.where(zero, 0, torch.where(zero, 1, square).sqrt()) + norm_constant)
        move = d * _result(op, "coordinate", coordinate(m), graph, x, 1)
        return x + cast(Tensor, spmm(graph, edge=move, message="copy_e", reduce=coordinate_reduce)), out

    operands = (x, h_src, h_dst, distance, edge)
    # torch.func has no saved-tensor hooks, which checkpointing needs.
    if recompute and torch.is_grad_enabled() and is_eager():
        return checkpoint(step, *operands, use_reentrant=False)
    return step(*operands)


def _result(op: str, name: str, t: Any, graph: Graph, like: Tensor, columns: int | None) -> Tensor:
    if not isinstance(t, Tensor) or t.dim() != 2 or t.shape[0] != graph.num_edges or t.shape[1] != (columns or t.shape[1]):
        check.fail(ValueError, op, f"{name} to return [{graph.num_edges}, {columns or 'M'}]", check.describe(t))
    if t.dtype != like.dtype:
        check.fail(TypeError, op, f"{name} to return {like.dtype}", t.dtype)
    return t
