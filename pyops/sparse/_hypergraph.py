"""Hypergraphs: an incidence list analysed once, and convolution from nodes to hyperedges and back."""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ..graph import Graph
from ._spmm import spmm

_REDUCES = ("sum", "mean", "max")
_NORMALISATIONS = ("row", "symmetric", "none")


class Hypergraph:
    """A hypergraph from its incidences: node ``node_index[i]`` belongs to hyperedge ``edge_index[i]``.

    Args:
        node_index, edge_index: int32 or int64 ``[I]``, in any order.
        num_nodes, num_hyperedges: sizes (default: the largest index + 1).

    Attributes:
        to_edges, to_nodes: :class:`Graph` of I edges from nodes to hyperedges and its reverse; incidence values of both are in the
            caller's order. They share memory, and each holds the other's transpose.

    Raises:
        TypeError, ValueError, IndexError: as :class:`Graph`.

    >>> import torch
    >>> from structops.sparse import Hypergraph
    >>> h = Hypergraph(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 0, 1]))
    >>> h.node_degrees().tolist(), h.edge_degrees().tolist()
    ([1, 2, 1], [3, 1])
    """

    def __init__(self, node_index: Tensor, edge_index: Tensor, *, num_nodes: int | None = None, num_hyperedges: int | None = None):
        op = "Hypergraph"
        for name, t in (("node_index", node_index), ("edge_index", edge_index)):
            check.index(op, name, t)
            if t.dim() != 1:
                check.fail(ValueError, op, f"{name} of shape [I]", list(t.shape))
        check.same_device(op, node_index=node_index, edge_index=edge_index)
        if node_index.shape != edge_index.shape:
            check.fail(ValueError, op, f"edge_index of shape {list(node_index.shape)}, as node_index", list(edge_index.shape))
        dtype = torch.promote_types(node_index.dtype, edge_index.dtype)
        pairs = torch.stack([node_index.to(dtype), edge_index.to(dtype)])
        nodes = num_nodes if num_nodes is not None else int(node_index.max()) + 1 if node_index.numel() else 0
        edges = num_hyperedges if num_hyperedges is not None else int(edge_index.max()) + 1 if edge_index.numel() else 0
        self.to_edges = Graph(pairs, num_src=nodes, num_dst=edges)

    @cached_property
    def to_nodes(self) -> Graph:
        return self.to_edges.reverse()

    @property
    def num_nodes(self) -> int:
        return self.to_edges.num_src

    @property
    def num_hyperedges(self) -> int:
        return self.to_edges.num_dst

    @property
    def num_incidences(self) -> int:
        return self.to_edges.num_edges

    def node_degrees(self) -> Tensor:
        """Hyperedges of every node, ``[num_nodes]``."""
        return self.to_edges.out_degrees()

    def edge_degrees(self) -> Tensor:
        """Nodes of every hyperedge, ``[num_hyperedges]``."""
        return self.to_edges.in_degrees()

    def __repr__(self) -> str:
        return f"Hypergraph(num_nodes={self.num_nodes}, num_hyperedges={self.num_hyperedges}, num_incidences={self.num_incidences})"


def _rows(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(-1, *(1,) * (like.dim() - 1))


def _inverse(degree: Tensor, power: float) -> Tensor:
    positive = degree > 0
    return torch.where(positive, torch.where(positive, degree, 1).pow(-power), 0)


@autocast.promotes
def hypergraph_conv(
    hypergraph: Hypergraph,
    x: Tensor,
    edge_weight: Tensor | None = None,
    *,
    normalisation: str = "row",
    reduce: tuple[str, str] | None = None,
    attention: Tensor | None = None,
) -> Tensor:
    """Hypergraph convolution: nodes to hyperedges and back, two products with the incidence matrix H and none stored.

    ``D^-1 H W B^-1 H^T x`` (row) or ``D^-1/2 H W B^-1 H^T D^-1/2 x`` (symmetric), W = ``edge_weight``, D = ``H w`` the weighted
    degrees of nodes, B the sizes of hyperedges.

    Args:
        x: ``[num_nodes, *features]``; float32, float64, bfloat16 or float16.
        edge_weight: ``[num_hyperedges]`` (default: ones).
        normalisation: row, symmetric or none (``H W H^T x``).
        reduce: instead of the normalisation, how nodes meet in a hyperedge and hyperedges in a node: two of sum, mean and max; W
            multiplies between the two.
        attention: factors of the incidences ``[I]`` or ``[I, H]`` for ``x [num_nodes, H, D]``, in the caller's order, on both ways;
            with sums only. A softmax over the incidences of each node is PyG's ``use_attention``.

    Returns:
        ``[num_nodes, *features]``; 0 for nodes without hyperedges. Differentiable in ``x``, ``edge_weight`` and ``attention`` to
        any order. Deterministic. Saved: x and the values of hyperedges where weights or attention need them; nothing per incidence.

    Convention of PyG's HypergraphConv without its linear map (Bai et al., arXiv:1901.08150; symmetric: Feng et al.,
    arXiv:1809.09401).

    >>> import torch
    >>> from structops.sparse import Hypergraph, hypergraph_conv
    >>> h = Hypergraph(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 0, 1]))
    >>> hypergraph_conv(h, torch.tensor([[3.], [6.], [0.]]))
    tensor([[3.0000],
            [4.5000],
            [3.0000]])
    """
    op = "hypergraph_conv"
    if not isinstance(hypergraph, Hypergraph):
        check.fail(TypeError, op, "hypergraph to be a Hypergraph", type(hypergraph).__name__)
    check.dense(op, "x", x)
    check.choice(op, "normalisation", normalisation, _NORMALISATIONS)
    if x.dim() < 1 or x.shape[0] != hypergraph.num_nodes:
        check.fail(ValueError, op, f"x of shape [{hypergraph.num_nodes}, *features]", list(x.shape))
    if edge_weight is not None:
        check.dense(op, "edge_weight", edge_weight)
        if edge_weight.shape != (hypergraph.num_hyperedges,):
            check.fail(ValueError, op, f"edge_weight of shape [{hypergraph.num_hyperedges}]", list(edge_weight.shape))
    if reduce is not None:
        if not isinstance(reduce, tuple) or len(reduce) != 2 or any(r not in _REDUCES for r in reduce):
            check.fail(ValueError, op, "reduce to be two of sum, mean and max", reduce)
        normalisation = "none"
    if attention is not None:
        check.dense(op, "attention", attention)
        if attention.shape[:1] != (hypergraph.num_incidences,) or attention.dim() not in (1, 2):
            check.fail(ValueError, op, f"attention of shape [{hypergraph.num_incidences}] or [.., H]", list(attention.shape))
        if reduce not in (None, ("sum", "sum")):
            check.fail(ValueError, op, "sums with attention", reduce)
        attention = attention.reshape(*attention.shape, *(1,) * (x.dim() - attention.dim()))
    first, second = reduce or ("sum", "sum")
    to_edges, to_nodes = hypergraph.to_edges, hypergraph.to_nodes
    degree = None
    if normalisation != "none":
        if edge_weight is None:
            degree = hypergraph.node_degrees().to(x.dtype)
        else:
            degree = cast(Tensor, spmm(to_nodes, edge_weight.to(x.dtype)))
    h = x
    if normalisation == "symmetric" and degree is not None:
        h = h * _rows(_inverse(degree, 0.5), x)
    y = spmm(to_edges, h, attention, reduce=first)
    assert isinstance(y, Tensor)
    scale = None if edge_weight is None else edge_weight.to(x.dtype)
    if normalisation != "none":
        sizes = _inverse(hypergraph.edge_degrees().to(x.dtype), 1.0)
        scale = sizes if scale is None else scale * sizes
    if scale is not None:
        y = y * _rows(scale, y)
    out = spmm(to_nodes, y, attention, reduce=second)
    assert isinstance(out, Tensor)
    if degree is not None:
        out = out * _rows(_inverse(degree, 0.5 if normalisation == "symmetric" else 1.0), out)
    return out
