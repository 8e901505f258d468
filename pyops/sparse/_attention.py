"""Attention over the edges of a graph: scores, softmax and weighted sum in one operator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ..kernels.sparse.attention_ref import by_head, from_heads
from ._operands import analyse
from ._sddmm import sddmm


def _operand(op: str, name: str, t: Any, shape: tuple[int | None, ...], like: Tensor | None = None) -> Tensor:
    return check.shaped(op, name, t, shape, like).contiguous()


def _run(op, graph, key, query, value, edge, att, score, slope, scale, return_weights, key_blocks=(), value_blocks=()):
    if value.device != graph.device:
        check.fail(ValueError, op, f"values on {graph.device}, as the graph", value.device)
    check.fits(op, value.dtype, graph.num_dst, *value.shape[1:])
    analyse(graph, key, query, value, edge, att)
    how = score, float(slope), float(scale), list(key_blocks), list(value_blocks)
    out, _ = ladder.attention(key, query, value, edge, att, *graph.structure, *how)
    return (out, _weights(graph, key, query, edge, att, score, slope, scale)) if return_weights else out


def _weights(graph, key, query, edge, att, score, slope, scale) -> Tensor:
    if score == C.DOT:
        logits = scale * sddmm(graph, key, query, "dot")[..., 0]
        logits = logits if edge is None else logits + edge
    else:
        z = sddmm(graph, key, query, "add")
        z = z if edge is None else z + edge.reshape(z.shape)
        z = torch.where(z > 0, z, slope * z)
        logits = z[..., 0] if score == C.ADDITIVE else (z * att).sum(2)
    return edge_softmax(graph, logits)


def blocked_attention(
    op: str,
    graph: Graph,
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    bias: Tensor | None,
    key_blocks: tuple[int, ...],
    value_blocks: tuple[int, ...],
    scale: float | None,
) -> Tensor:
    """Attention by checked operands ``[rows, heads, width]`` whose rows are in blocks (HeadBlocks of csrc/sparse/attention.h): by
    dot products, or by ``bias`` alone where there is no key. Rows are copied head by head where the kernels do not take so many
    runs of blocks, and where blocks are not whole vectors and every row is read often."""
    ragged = any(width % 8 for width in (*key_blocks[::2], *value_blocks[::2])) and graph.num_edges > 4 * graph.num_src
    if ragged or max(len(key_blocks), len(value_blocks)) > 2 * C.HEAD_BLOCKS:
        key, query = (None if t is None else by_head(t, key_blocks) for t in (key, query))
        out = blocked_attention(op, graph, query, key, by_head(value, value_blocks), bias, (), (), scale)
        return from_heads(out, value_blocks)
    value = value.contiguous()
    bias = None if bias is None else bias.contiguous()
    if query is None or key is None:
        heads = value.shape[1]
        sides = value.new_zeros(graph.num_src, heads, 1), value.new_zeros(graph.num_dst, heads, 1)
        return _run(op, graph, *sides, value, bias, None, C.ADDITIVE, 1.0, 1.0, False, (), value_blocks)  # type: ignore[return-value]
    scale = 1 / math.sqrt(max(key.shape[2], 1)) if scale is None else scale
    tensors = key.contiguous(), query.contiguous(), value, bias, None
    return _run(op, graph, *tensors, C.DOT, 0.0, scale, False, key_blocks, value_blocks)  # type: ignore[return-value]


@autocast.promotes
def gat_attention(
    graph: Graph,
    value: Tensor,
    src_score: Tensor,
    dst_score: Tensor,
    edge_score: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Graph attention (GAT): softmax over incoming edges of ``leaky_relu(src_score[u] + dst_score[v] + edge_score[k])``, and the
    sum of ``value[u]`` so weighted, in one pass.

    Args:
        graph: the structure, possibly bipartite.
        value: ``[num_src, H, D]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        src_score, dst_score: ``[num_src, H]`` and ``[num_dst, H]``.
        edge_score: ``[E, H]`` in the graph's edge order.
        negative_slope: of the leaky ReLU.
        return_weights: also return the attention weights ``[E, H]`` (computed apart, differentiable).

    Returns:
        ``[num_dst, H, D]``; 0 for destinations without edges or whose scores are all -inf.

    Differentiable in all tensors to any order. Kept for the backward beyond the operands: the result and ``[num_dst, H]`` float32;
    scores are computed again. Second and higher orders hold messages ``[E, H, D]`` while they run. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: arXiv:1710.10903.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
    >>> x, zero = torch.tensor([[[1.]], [[3.]], [[5.]]]), torch.zeros(3, 1)
    >>> structops.sparse.gat_attention(g, x, zero, zero).flatten().tolist()
    [5.0, 2.0, 0.0]
    """
    op = "gat_attention"
    checked_graph(op, graph)
    value = _operand(op, "value", value, (graph.num_src, None, None))
    H = value.shape[1]
    src_score = _operand(op, "src_score", src_score, (graph.num_src, H), value)[..., None]
    dst_score = _operand(op, "dst_score", dst_score, (graph.num_dst, H), value)[..., None]
    if edge_score is not None:
        edge_score = _operand(op, "edge_score", edge_score, (graph.num_edges, H), value)
    return _run(op, graph, src_score, dst_score, value, edge_score, None, C.ADDITIVE, negative_slope, 1.0, return_weights)


@autocast.lowers
def gatv2_attention(
    graph: Graph,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge: Tensor | None = None,
    *,
    value: Tensor | None = None,
    negative_slope: float = 0.2,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """GATv2 attention: scores ``sum_j att[h, j] * leaky_relu(x_src[u, h, j] + x_dst[v, h, j] + edge[k, h, j])``, softmax over
    incoming edges, and the sum of ``value[u]`` so weighted.

    Args:
        graph: the structure, possibly bipartite.
        x_src, x_dst: ``[num_src, H, K]`` and ``[num_dst, H, K]``; float32, float64, bfloat16 or float16.
        att: ``[H, K]``.
        edge: ``[E, H, K]`` in the graph's edge order.
        value: ``[num_src, H, D]`` (default: ``x_src``).
        negative_slope, return_weights: as in :func:`gat_attention`.

    Returns, derivatives, memory, errors:
        as in :func:`gat_attention`.

    Source: arXiv:2105.14491.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> x = torch.tensor([[[1., 0.]], [[3., 0.]]])
    >>> structops.sparse.gatv2_attention(g, x, x, torch.zeros(1, 2)).flatten().tolist()
    [0.0, 0.0, 2.0, 0.0]
    """
    op = "gatv2_attention"
    checked_graph(op, graph)
    x_src = _operand(op, "x_src", x_src, (graph.num_src, None, None))
    H, K = x_src.shape[1:]
    x_dst = _operand(op, "x_dst", x_dst, (graph.num_dst, H, K), x_src)
    att = _operand(op, "att", att, (H, K), x_src)
    value = x_src if value is None else _operand(op, "value", value, (graph.num_src, H, None), x_src)
    if edge is not None:
        edge = _operand(op, "edge", edge, (graph.num_edges, H, K), x_src)
    return _run(op, graph, x_src, x_dst, value, edge, att, C.GATV2, negative_slope, 1.0, return_weights)


@autocast.lowers
def dot_attention(
    graph: Graph,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scaled dot-product attention along edges: scores ``scale * <query[v, h], key[u, h]> + bias[k, h]``.

    Args:
        graph: the structure, possibly bipartite.
        query: ``[num_dst, H, K]``; key: ``[num_src, H, K]``; value: ``[num_src, H, D]``; float32, float64, bfloat16 or float16.
        bias: ``[E, H]`` in the graph's edge order; -inf masks an edge.
        scale: default ``1 / sqrt(K)``.
        return_weights: as in :func:`gat_attention`.

    Returns, derivatives, memory, errors:
        as in :func:`gat_attention`.

    Source: the message of PyG's TransformerConv (arXiv:2009.03509).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> q, v = torch.zeros(2, 1, 4), torch.tensor([[[1.]], [[3.]]])
    >>> structops.sparse.dot_attention(g, q, q, v).flatten().tolist()
    [0.0, 2.0]
    """
    op = "dot_attention"
    checked_graph(op, graph)
    value = _operand(op, "value", value, (graph.num_src, None, None))
    H = value.shape[1]
    key = _operand(op, "key", key, (graph.num_src, H, None), value)
    query = _operand(op, "query", query, (graph.num_dst, H, key.shape[2]), value)
    if bias is not None:
        bias = _operand(op, "bias", bias, (graph.num_edges, H), value)
    scale = 1 / math.sqrt(max(key.shape[2], 1)) if scale is None else scale
    return _run(op, graph, key, query, value, bias, None, C.DOT, 0.0, scale, return_weights)


def edge_softmax(graph: Graph, logits: Tensor, norm_by: str = "dst") -> Tensor:
    """Softmax of edge values over the edges that share a destination, or a source.

    Args:
        graph: the structure.
        logits: ``[E, *]`` in the graph's edge order; float32, float64, bfloat16 or float16.
        norm_by: dst or src.

    Returns:
        ``[E, *]``; NaN where all logits of a group are -inf.

    Differentiable to any order; saves the result. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Convention of DGL's edge_softmax.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 1], [1, 1, 0]]), num_nodes=2)
    >>> structops.sparse.edge_softmax(g, torch.zeros(3)).tolist()
    [0.5, 0.5, 1.0]
    """
    op = "edge_softmax"
    checked_graph(op, graph)
    check.dense(op, "logits", logits)
    if logits.dim() < 1 or logits.shape[0] != graph.num_edges:
        check.fail(ValueError, op, f"logits of shape [{graph.num_edges}, *]", list(logits.shape))
    if logits.device != graph.device:
        check.fail(ValueError, op, f"logits on {graph.device}, as the graph", logits.device)
    by_src = check.choice(op, "norm_by", norm_by, ("dst", "src")) == "src"
    rowptr, _, eid, colptr, _, eid_t = (*graph.structure[:3], *graph.reversed_structure) if by_src else graph.structure
    flat = logits.reshape(logits.shape[0], math.prod(logits.shape[1:])) if logits.dim() != 1 else logits
    ptr, order = (colptr, eid_t) if by_src else (rowptr, eid)
    return ladder.segment_softmax(flat.contiguous(), ptr, order, False).reshape(logits.shape)
