"""Sheaf Laplacians, matrix-free, and the inverse square root of small matrices that normalises them."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._dispatch import lasting
from .._ladder import _block_spmm as ladder
from .._ladder._eigh_small import eigh_small
from ..graph import Graph
from ._operands import analyse, operand
from ._sddmm import sddmm
from ._spmm import spmm


class SheafGraph:
    """An undirected (multi)graph as pairs of directed edges (u, v), (v, u), for sheaf Laplacians.

    Args:
        edge_index: int32 or int64 ``[2, E]``, both directions of every edge, in any order. Parallel edges are paired by
            occurrence: the i-th (u, v) with the i-th (v, u). Self-loops are not taken: their part of a sheaf Laplacian is 0.
        num_nodes: number of nodes (default: the largest index + 1).

    Attributes:
        graph: the Graph. pair ``[E]``: the number of every edge's reverse, an involution in the caller's edge order.

    Raises:
        TypeError, IndexError: as Graph. ValueError: a self-loop, or an edge without its reverse.

    >>> import torch, structops
    >>> structops.sparse.SheafGraph(torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]])).pair.tolist()
    [1, 0, 3, 2]
    """

    graph: Graph
    pair: Tensor

    def __init__(self, edge_index: Tensor, num_nodes: int | None = None) -> None:
        op = "SheafGraph"
        self.graph = Graph(edge_index, num_nodes=num_nodes)
        src, dst = edge_index[0].long(), edge_index[1].long()
        if bool((src == dst).any()):
            check.fail(ValueError, op, "edges between different nodes", f"a self-loop at node {int(src[src == dst][0])}")
        n = max(self.graph.num_dst, 1)
        forward, backward = dst * n + src, src * n + dst
        order, mirror = torch.sort(forward, stable=True).indices, torch.sort(backward, stable=True).indices
        wrong = forward[order] != backward[mirror]
        if bool(wrong.any()):
            k = int(order[wrong.nonzero()[0, 0]])
            check.fail(
                ValueError,
                op,
                "every edge (u, v) as often as (v, u)",
                f"edge {k}, {int(src[k])} -> {int(dst[k])}, unpaired or near one",
            )
        with lasting():
            pair = torch.empty_like(order)
            pair[order] = mirror
            self.pair = pair.to(self.graph.col.dtype)

    def to(self, device: torch.device | str) -> SheafGraph:
        """The structure on another device."""
        moved = SheafGraph.__new__(SheafGraph)
        moved.graph, moved.pair = self.graph.to(device), self.pair.to(device)
        return moved

    def __repr__(self) -> str:
        return f"SheafGraph(num_nodes={self.graph.num_dst}, num_edges={self.graph.num_edges}, device={self.graph.device})"


@autocast.promotes
def sheaf_laplacian(graph: SheafGraph, maps: Tensor, x: Tensor, normalised: bool = True, augmented: bool = True) -> Tensor:
    """The sheaf Laplacian of restriction maps applied to x, without building its matrix.

    ``(L x)[v] = sum over edges k: u -> v of F_k^T (F_k x[v] - F_pair(k) x[u])``, and normalised ``D^-1/2 L D^-1/2`` with D the
    block diagonal of L, plus the identity if ``augmented``.

    Args:
        graph: the paired edges.
        maps: ``F_k``, the map of edge k: u -> v from the stalk of its destination v to that of the edge; ``[E]`` (numbers),
            ``[E, d]`` (diagonals) or ``[E, m, d]`` (orthogonal or general), in the caller's edge order; float32, float64, bfloat16
            or float16.
        x: ``[N, *features]`` for numbers, else ``[N, d, *features]``, of the same dtype.
        normalised, augmented: see above. Without ``augmented``, D may be singular: its pseudo-inverse is taken.

    Returns:
        The shape of x. Nodes without edges get 0.

    Differentiable in ``maps`` and ``x`` to any order (through ``inverse_sqrt_psd`` for matrices). Holds a few tensors of the size
    of the maps, and nothing of E x features. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: Hansen and Ghrist (arXiv:1808.01513); Bodnar et al. (arXiv:2202.04579).

    >>> import torch, structops
    >>> g = structops.sparse.SheafGraph(torch.tensor([[0, 1], [1, 0]]))
    >>> structops.sparse.sheaf_laplacian(g, torch.ones(2), torch.tensor([[1.], [3.]]), normalised=False)
    tensor([[-2.],
            [ 2.]])
    """
    op = "sheaf_laplacian"
    if not isinstance(graph, SheafGraph):
        check.fail(TypeError, op, "graph to be a structops.sparse.SheafGraph", type(graph).__name__)
    check.flags(op, normalised=normalised, augmented=augmented)
    g, pair = graph.graph, graph.pair
    operand(op, "maps", maps, g, g.num_edges, 0)
    operand(op, "x", x, g, g.num_dst, 0)
    if maps.dim() > 3:
        check.fail(ValueError, op, f"maps of shape [{g.num_edges}], [.., d] or [.., m, d]", list(maps.shape))
    if maps.dtype != x.dtype:
        check.fail(TypeError, op, f"x of dtype {maps.dtype}, as maps", x.dtype)
    if maps.dim() > 1 and (x.dim() < 2 or x.shape[1] != maps.shape[-1]):
        check.fail(ValueError, op, f"x of shape [{g.num_dst}, {maps.shape[-1]}, *features]", list(x.shape))
    if maps.dim() < 3:
        return _diagonal(g, pair, maps, x, normalised, augmented)
    d = maps.shape[2]
    maps = maps.contiguous()
    if normalised:
        own = _own_blocks(g, maps)
        root = inverse_sqrt_psd(own + torch.eye(d, dtype=own.dtype, device=own.device) if augmented else own)
        spread = sddmm(g, root.reshape(g.num_dst, d * d), op="copy", lhs_target="v").reshape(-1, d, d)
        maps = ladder.block_matmul(maps, spread, None, False, False, False, False)
    own = _own_blocks(g, maps)
    between = ladder.block_matmul(maps, maps, pair, False, True, True, False)
    analyse(g, x, maps)
    flat = x.reshape(g.num_dst, d, math.prod(x.shape[2:])).contiguous()
    return ladder.block_spmm(flat, between, own, *g.structure, -1.0, False, False).reshape(x.shape)


def _own_blocks(g: Graph, maps: Tensor) -> Tensor:
    """The diagonal blocks of L: the sums of F^T F over the edges of every node, [N, d, d]."""
    d = maps.shape[2]
    squares = ladder.block_matmul(maps, maps, None, False, False, True, False)
    return cast(Tensor, spmm(g, None, squares.reshape(-1, d * d))).reshape(g.num_dst, d, d)


def _diagonal(g: Graph, pair: Tensor, maps: Tensor, x: Tensor, normalised: bool, augmented: bool) -> Tensor:
    own = cast(Tensor, spmm(g, None, maps * maps))
    if normalised:
        size = own + 1 if augmented else own
        flat = size <= 0
        root = torch.where(flat, torch.zeros_like(size), torch.where(flat, torch.ones_like(size), size).rsqrt())
        maps = maps * sddmm(g, root, op="copy", lhs_target="v")
        own = own * root * root
    between = maps * maps.index_select(0, pair)
    pad = (1,) * (x.dim() - maps.dim())
    return own.reshape(*own.shape, *pad) * x - cast(Tensor, spmm(g, x, between.reshape(*between.shape, *pad)))


def inverse_sqrt_psd(matrix: Tensor) -> Tensor:
    """The inverse square root of symmetric positive semidefinite matrices, differentiable at repeated eigenvalues.

    Args:
        matrix: ``[*, d, d]`` symmetric (its symmetric part is read); float32, float64, bfloat16 or float16 (in float32).
            Eigenvalues up to ``d * eps`` of the largest count as 0, and the pseudo-inverse is taken.

    Returns:
        ``[*, d, d]``, symmetric.

    Differentiable to any order: the derivative solves a Lyapunov equation, in the basis of eigenvectors the factors
    ``-1 / (sqrt(a) sqrt(b) (sqrt(a) + sqrt(b)))`` of Daleckii and Krein, finite where eigenvalues a and b are equal. Directions
    that leave the range of a singular matrix have derivative 0. Deterministic.

    Raises:
        TypeError, ValueError: not a floating tensor, or not square.

    >>> import torch, structops
    >>> structops.sparse.inverse_sqrt_psd(torch.tensor([[4., 0.], [0., 16.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    op = "inverse_sqrt_psd"
    check.dense(op, "matrix", matrix)
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        check.fail(ValueError, op, "matrix of shape [*, d, d]", list(matrix.shape))
    wide = matrix.float() if matrix.dtype in (torch.bfloat16, torch.float16) else matrix
    out: Any = _InverseSqrt.apply((wide + wide.mT) / 2)
    return out[0].to(matrix.dtype)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    d = matrix.shape[-1]
    if d == 0:
        return matrix.new_zeros(matrix.shape[:-1]), matrix.clone()
    if not 2 <= d <= 8:
        return torch.linalg.eigh(matrix)
    values, vectors = eigh_small(matrix.reshape(-1, d, d).contiguous())
    return values.reshape(matrix.shape[:-1]), vectors.reshape(matrix.shape)


class _InverseSqrt(torch.autograd.Function):
    """(S, U, s) with S = A^-1/2 = U diag(s) U^T; only S has a derivative."""

    @staticmethod
    def forward(ctx, matrix):
        values, vectors = _eigh(matrix)
        floor = values.abs().amax(-1, keepdim=True) * (torch.finfo(values.dtype).eps * values.shape[-1]) if values.numel() else 0
        zero = values <= floor
        s = torch.where(zero, torch.zeros_like(values), torch.where(zero, torch.ones_like(values), values).rsqrt())
        root = (vectors * s[..., None, :]) @ vectors.mT
        ctx.save_for_backward(root, vectors, s)
        ctx.mark_non_differentiable(vectors, s)
        return root, vectors, s

    @staticmethod
    @autocast.disabled
    def backward(ctx, g, _vectors, _s):
        root, vectors, s = ctx.saved_tensors
        square = root @ root
        return -(square @ _Lyapunov.apply(root, (g + g.mT) / 2, vectors, s) @ square)


class _Lyapunov(torch.autograd.Function):
    """The symmetric Y with S Y + Y S = G for symmetric S = U diag(s) U^T and G."""

    @staticmethod
    def forward(ctx, root, g, vectors, s):
        total = s[..., :, None] + s[..., None, :]
        zero = total <= 0
        inner = torch.where(
            zero, torch.zeros_like(total), (vectors.mT @ g @ vectors) / torch.where(zero, torch.ones_like(total), total)
        )
        y = vectors @ inner @ vectors.mT
        ctx.save_for_backward(root, y, vectors, s)
        return y

    @staticmethod
    @autocast.disabled
    def backward(ctx, h):
        root, y, vectors, s = ctx.saved_tensors
        z = _Lyapunov.apply(root, (h + h.mT) / 2, vectors, s)
        return -(z @ y + y @ z), z, None, None
