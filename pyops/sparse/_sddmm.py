"""g-SDDMM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ._operands import analyse, kernel_layout, operand


def sddmm(
    graph: Graph,
    lhs: Tensor,
    rhs: Tensor | None = None,
    op: str = "dot",
    lhs_target: str = "u",
    rhs_target: str = "v",
    *,
    batch_dims: int = 0,
) -> Tensor:
    """Generalised SDDMM: one value per edge from its two ends (or from edge values).

    ``out[k] = op(lhs[target of k], rhs[target of k])``

    Args:
        graph: the structure.
        lhs, rhs: ``[*batch, rows, *features]``, rows being num_src for target u, num_dst for v, E for e (in the graph's edge
            order); float32, float64, bfloat16 or float16. Features broadcast as in NumPy. ``rhs`` is not used by copy.
        op: dot (sum over the last feature dimension, kept as size 1), add, sub, mul, div or copy.
        lhs_target, rhs_target: u, v or e.
        batch_dims: number of leading dimensions that share the structure; an operand may leave them out.

    Returns:
        ``[*batch, E, *features]`` in the graph's edge order.

    Differentiable in both operands to any order; saves the operands of dot, mul and div. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Convention of DGL's g-SDDMM (arXiv:1909.01315).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sddmm(g, torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([[1., 1.], [10., 10.]]))
    tensor([[30.],
            [ 7.]])
    """
    name = "sddmm"
    checked_graph(name, graph)
    check.choice(name, "op", op, ("dot", *C.EDGE_OPS))
    lt = C.TARGETS[check.choice(name, "lhs_target", lhs_target, C.TARGETS)]
    rt = C.TARGETS[check.choice(name, "rhs_target", rhs_target, C.TARGETS)]
    check.size(name, "batch_dims", batch_dims)
    rows = (graph.num_src, graph.num_dst, graph.num_edges)
    lhs = operand(name, "lhs", lhs, graph, rows[lt], batch_dims, optional_batch=True)
    copy = op == "copy"
    if not copy:
        rhs = operand(name, "rhs", rhs, graph, rows[rt], batch_dims, optional_batch=True)
        if lhs.dtype != rhs.dtype:
            dtype = torch.promote_types(lhs.dtype, rhs.dtype)
            lhs, rhs = lhs.to(dtype), rhs.to(dtype)
    l_batch = lhs.shape[:batch_dims] if lhs.dim() > batch_dims and lhs.shape[batch_dims] == rows[lt] else ()
    r_batch = () if copy else rhs.shape[:batch_dims] if rhs.dim() > batch_dims and rhs.shape[batch_dims] == rows[rt] else ()
    if l_batch and r_batch and l_batch != r_batch:
        check.fail(ValueError, name, f"rhs with batch {list(l_batch)}", list(r_batch))
    l_features = tuple(lhs.shape[len(l_batch) + 1 :])
    if copy:
        features = l_features
    else:
        r_features = tuple(rhs.shape[len(r_batch) + 1 :])
        try:
            features = tuple(torch.broadcast_shapes(l_features, r_features))
        except RuntimeError:
            check.fail(ValueError, name, "features of lhs and rhs that broadcast", f"{list(l_features)} and {list(r_features)}")
        rhs = _full(rhs, len(r_batch), r_features, features)
    lhs = _full(lhs, len(l_batch), l_features, features)
    F, R = math.prod(features), 1
    if op == "dot":
        if not features:
            check.fail(ValueError, name, "at least one feature dimension for dot", "none")
        R = features[-1]
        features = (*features[:-1], 1)
    if F == 0:
        shape = (*(l_batch or r_batch), graph.num_edges, *features)
        nothing = lhs.sum() if copy else lhs.sum() + rhs.sum()  # 0, and part of the graph
        return nothing.expand(shape).contiguous()
    if C.U in (lt, None if copy else rt):
        analyse(graph, lhs, None if copy else rhs)
    code = C.EDGE_MUL if op == "dot" else C.EDGE_OPS[op]
    out = ladder.sddmm(lhs, None if copy else rhs, *graph.structure, None, code, lt, rt, graph.num_edges, F // R, R)
    return out.reshape((*(l_batch or r_batch), graph.num_edges, *features))


def _full(t: Tensor, batch_dims: int, own: tuple, features: tuple) -> Tensor:
    """An operand with its features broadcast, in the kernels' layout."""
    if own != features:
        lead = t.shape[: batch_dims + 1]
        t = t.reshape(*lead, *(1,) * (len(features) - len(own)), *own).expand(*lead, *features)
    return kernel_layout(t, batch_dims, math.prod(features))
