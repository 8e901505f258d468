"""Linear layers with masked weights that store and differentiate only what the mask keeps, and the steps that move the mask."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ..graph import Graph, checked_graph
from ..sparse import block_spmm, spmm
from ._masks import _members, _topk_mask


def mask_graph(mask: Tensor) -> Graph:
    """The structure of a mask ``[O, I]`` (bool, or not 0): inputs are sources, outputs destinations, in row order.

    >>> import torch, structops
    >>> structops.binary.mask_graph(torch.eye(3)).num_edges
    3
    """
    op = "mask_graph"
    check.tensor(op, "mask", mask)
    if mask.dim() != 2:
        check.fail(ValueError, op, "mask [O, I]", list(mask.shape))
    row, col = (mask != 0).nonzero(as_tuple=True)
    count = torch.bincount(row, minlength=mask.shape[0])
    return Graph.from_csr(torch.cat([count.new_zeros(1), count.cumsum(0)]), col, mask.shape[1])


@autocast.lowers
def sparse_linear(x: Tensor, graph: Graph, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W' + bias`` where W has ``values`` at the edges of ``graph`` and 0 elsewhere.

    Args:
        x: ``[*, I]``. graph: of :func:`mask_graph`. values: ``[E]`` in its order. bias: ``[O]``.

    Returns:
        ``[*, O]``. Differentiable to any order; the gradient of values is computed on the edges only and no ``[O, I]`` matrix is
        formed. Deterministic. Saves x and values.

    >>> import torch, structops
    >>> g = structops.binary.mask_graph(torch.tensor([[1, 0, 1], [0, 1, 0]]))
    >>> structops.binary.sparse_linear(torch.tensor([[1.0, 2.0, 3.0]]), g, torch.tensor([1.0, 10.0, 100.0]))
    tensor([[ 31., 200.]])
    """
    op = "sparse_linear"
    check.dense(op, "x", x)
    check.dense(op, "values", values)
    checked_graph(op, graph)
    if x.dim() < 1 or x.shape[-1] != graph.num_src:
        check.fail(ValueError, op, f"x [.., {graph.num_src}]", list(x.shape))
    if tuple(values.shape) != (graph.num_edges,):
        check.fail(ValueError, op, f"values [{graph.num_edges}]", list(values.shape))
    if bias is not None and tuple(bias.shape) != (graph.num_dst,):
        check.fail(ValueError, op, f"bias [{graph.num_dst}]", list(bias.shape))
    flat = x.reshape(-1, x.shape[-1]).t().contiguous()
    y = cast(Tensor, spmm(graph, flat, values[:, None], "mul", "sum")).t()
    y = y if bias is None else y + bias
    return y.reshape(*x.shape[:-1], graph.num_dst)


@autocast.lowers
def block_sparse_linear(x: Tensor, graph: Graph, blocks: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`sparse_linear` whose edges are dense blocks: edge e from group j of the inputs to group i of the outputs.

    Args:
        x: ``[*, J * b]``, J the sources of graph. blocks: ``[E, a, b]`` in the order of the graph. bias: ``[I * a]``.

    Returns:
        ``[*, I * a]``, I the destinations. Differentiable to any order; the gradient of blocks is on them only. Saves x and
        blocks. Deterministic.

    >>> import torch, structops
    >>> g = structops.binary.mask_graph(torch.tensor([[0, 1], [1, 0]]))
    >>> structops.binary.block_sparse_linear(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), g, torch.eye(2).repeat(2, 1, 1))
    tensor([[3., 4., 1., 2.]])
    """
    op = "block_sparse_linear"
    check.dense(op, "x", x)
    check.dense(op, "blocks", blocks)
    checked_graph(op, graph)
    if blocks.dim() != 3 or blocks.shape[0] != graph.num_edges:
        check.fail(ValueError, op, f"blocks [{graph.num_edges}, a, b]", list(blocks.shape))
    a, b = blocks.shape[1:]
    if x.dim() < 1 or x.shape[-1] != graph.num_src * b:
        check.fail(ValueError, op, f"x [.., {graph.num_src * b}]", list(x.shape))
    if bias is not None and tuple(bias.shape) != (graph.num_dst * a,):
        check.fail(ValueError, op, f"bias [{graph.num_dst * a}]", list(bias.shape))
    y = block_spmm(graph, blocks, x.reshape(*x.shape[:-1], graph.num_src, b), batch_first=True).flatten(-2)
    return y if bias is None else y + bias


@autocast.promotes
def hebbian_score(x: Tensor, y: Tensor) -> Tensor:
    """``|correlation|`` over the batch of every output with every input, ``[O, I]`` (G2GNet, arXiv:2508.14140); 0 for constants.

    Args:
        x: inputs ``[B, I]``. y: outputs ``[B, O]``. Not differentiable.

    >>> import torch, structops
    >>> structops.binary.hebbian_score(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [1.0]])).round()
    tensor([[1.]])
    """
    op = "hebbian_score"
    for name, t in (("x", x), ("y", y)):
        check.dense(op, name, t)
        if t.dim() != 2 or t.shape[0] != x.shape[0]:
            check.fail(ValueError, op, f"{name} [B, features]", list(t.shape))
    with torch.no_grad():
        u, v = ((t - t.mean(0)).to(torch.promote_types(t.dtype, torch.float32)) for t in (x, y))
        u, v = (torch.nan_to_num(t / t.norm(dim=0), 0.0, 0.0, 0.0) for t in (u, v))
        return (v.t() @ u).abs().clamp(max=1)


def prune_regrow(
    graph: Graph, values: Tensor, share: float, score: Tensor | None = None, *, generator: torch.Generator | None = None
) -> tuple[Graph, Tensor, Tensor]:
    """One step of dynamic sparse training: the weakest edges go, as many grow where there was none.

    Args:
        graph, values: of :func:`sparse_linear`. share: of the edges that move, ``int(share * E)``, at most the empty places.
        score: ``[O, I]``, the largest scores of empty places grow (:func:`hebbian_score`); default random places.

    Returns:
        ``(graph, values, origin)``: the new structure and its values, 0 where they grew; ``origin [E]`` is each one's old edge, -1
        for grown ones, to move an optimiser's state along. The number of edges is unchanged. Edges go by magnitude;
        of equal ones the last go and the first grow. A place that was pruned does not grow in the same step.

    >>> import torch, structops
    >>> g = structops.binary.mask_graph(torch.tensor([[1, 1, 0]]))
    >>> structops.binary.prune_regrow(g, torch.tensor([0.5, 2.0]), 0.5)[1:]
    (tensor([2., 0.]), tensor([ 1, -1]))
    """
    op = "prune_regrow"
    check.dense(op, "values", values)
    if not isinstance(graph, Graph) or tuple(values.shape) != (graph.num_edges,):
        check.fail(ValueError, op, "a Graph and its values [E]", check.describe(values))
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        check.fail(ValueError, op, "share within [0, 1]", share)
    O, I, E = graph.num_dst, graph.num_src, graph.num_edges
    with torch.no_grad():
        row = torch.repeat_interleave(torch.arange(O, device=values.device), graph.rowptr.diff().long())
        place = row * I + graph.col.long()
        if score is None:
            score = torch.rand(O, I, generator=generator, device=values.device)
        check.dense(op, "score", score)
        if tuple(score.shape) != (O, I):
            check.fail(ValueError, op, f"score {[O, I]}", list(score.shape))
        moved = min(int(share * E), O * I - E)
        kept = _members(_topk_mask(values.detach().contiguous(), E - moved, True), values.detach())
        flat = score.detach().reshape(-1).nan_to_num(-math.inf, math.inf, -math.inf)
        flat = flat.index_fill(0, place, math.nan)  # taken places come last
        grown = _members(_topk_mask(flat, moved, False), flat).nonzero()[:, 0]
        every = torch.cat([place[kept], grown])
        old = torch.cat([kept.nonzero()[:, 0], grown.new_full(grown.shape, -1)])
        order = torch.argsort(every)
        every, origin = every[order], old[order]
        new = torch.where(origin >= 0, values.detach()[origin.clamp(min=0)], 0) if E else values.detach().clone()
        count = torch.bincount(every // I, minlength=O) if E else torch.zeros(O, dtype=torch.int64, device=values.device)
        rowptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return Graph.from_csr(rowptr, every % max(I, 1), I), new, origin
