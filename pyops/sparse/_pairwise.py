"""Log-sum-exp messages over pairwise potentials."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ..graph import Graph, checked_graph
from ._spmm import spmm

_BLOCK = 1 << 22  # elements of an edge block [edges, C, C] at most


@autocast.promotes
def pairwise_log_messages(graph: Graph, unary: Tensor, pairwise: Tensor, scale: Tensor | None = None) -> Tensor:
    """Sum over incoming edges of log-sum-exp messages through a shared pairwise potential.

    ``out[i, c] = sum over edges e = (j, i) of logsumexp over c' of (unary[j, c'] + scale[e] * pairwise[c', c] / 2)``

    Args:
        graph: the structure.
        unary: ``[num_src, C]``; float32, float64, bfloat16 or float16, which bounds the precision of the messages too.
        pairwise: ``[C, C]``, of the dtype of ``unary``.
        scale: ``[E]``, in the graph's edge order; 1 if left out.

    Returns:
        ``[num_dst, C]``; 0 for destinations without edges.

    Without ``scale`` the messages are of nodes: one logsumexp of ``[num_src, C, C]`` and an spmm. With it the edges go in blocks of
    at most 4 million potentials, so no tensor of ``E x C x C`` exists; the messages ``[E, C]`` do. Each block is recomputed in the
    backward. Differentiable in all three operands to any order. Saved: the operands and the messages. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    The star potentials of EPFGNN (explicit pairwise factorised graph neural network).

    >>> import torch, structops
    >>> from structops.sparse import pairwise_log_messages
    >>> g = structops.Graph(torch.tensor([[0], [1]]), num_nodes=2)
    >>> pairwise_log_messages(g, torch.zeros(2, 2), torch.zeros(2, 2)).tolist()[0]
    [0.0, 0.0]
    """
    op = "pairwise_log_messages"
    checked_graph(op, graph)
    _operands(op, graph, unary, pairwise, scale)
    C = unary.shape[1]
    if C == 0:
        return unary.new_zeros(graph.num_dst, 0)
    if scale is None:
        return _sum(graph, torch.logsumexp(unary[:, :, None] + pairwise / 2, 1), None)
    source = graph.edge_index()[0]
    step = max(_BLOCK // (C * C), 1)
    blocks = [
        _block(unary, pairwise, scale[k : k + step], source[k : k + step], graph.num_edges > step)
        for k in range(0, graph.num_edges, step)
    ]
    messages = torch.cat(blocks) if blocks else unary.new_zeros(0, C)
    return _sum(graph, None, messages)


def _sum(graph: Graph, x: Tensor | None, edge: Tensor | None) -> Tensor:
    out = spmm(graph, x, edge)
    assert isinstance(out, Tensor)
    return out


def _messages(unary: Tensor, pairwise: Tensor, scale: Tensor, source: Tensor) -> Tensor:
    return torch.logsumexp(unary.index_select(0, source)[:, :, None] + (scale / 2)[:, None, None] * pairwise, 1)


def _block(unary: Tensor, pairwise: Tensor, scale: Tensor, source: Tensor, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return torch.utils.checkpoint.checkpoint(_messages, unary, pairwise, scale, source, use_reentrant=False)
    return _messages(unary, pairwise, scale, source)


def _operands(op: str, graph: Graph, unary: Any, pairwise: Any, scale: Any) -> None:
    check.dense(op, "unary", unary)
    check.dense(op, "pairwise", pairwise)
    if unary.dim() != 2 or unary.shape[0] != graph.num_src:
        check.fail(ValueError, op, f"unary of shape [{graph.num_src}, C]", list(unary.shape))
    C = unary.shape[1]
    if tuple(pairwise.shape) != (C, C) or pairwise.dtype != unary.dtype:
        check.fail(ValueError, op, f"pairwise of shape [{C}, {C}] and dtype {unary.dtype}", check.describe(pairwise))
    if scale is not None:
        check.dense(op, "scale", scale)
        if scale.dim() != 1 or scale.shape[0] != graph.num_edges or scale.dtype != unary.dtype:
            check.fail(ValueError, op, f"scale of shape [{graph.num_edges}] and dtype {unary.dtype}", check.describe(scale))
    for name, t in (("unary", unary), ("pairwise", pairwise), ("scale", scale)):
        if t is not None and t.device != graph.device:
            check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", t.device)
