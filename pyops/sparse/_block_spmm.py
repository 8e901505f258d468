"""Block-sparse products."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._ladder import _block_spmm as ladder
from ..graph import Graph, checked_graph
from ._operands import analyse, operand
from ._spmm import spmm


@autocast.promotes
def block_spmm(graph: Graph, blocks: Tensor, x: Tensor, *, transpose: bool = False, batch_first: bool = False) -> Tensor:
    """Product with a block-sparse matrix: every edge carries a number, a diagonal or a matrix.

    ``out[v] = sum over edges k: u -> v of blocks[k] @ x[u]``

    Args:
        graph: the structure.
        blocks: ``[E]``, ``[E, d]`` (diagonals) or ``[E, p, q]`` (matrices), in the graph's edge order; float32, float64, bfloat16
            or float16, as x. Accumulated in float32 (float64 for float64).
        x: ``[num_src, *features]``, ``[num_src, d, *features]`` or ``[num_src, q, *features]``.
        transpose: multiply by the transposed blocks: x is ``[num_src, p, *features]``.
        batch_first: x is ``[*batch, num_src, q]``, the result ``[*batch, num_dst, p]``: a block-sparse linear layer. For matrices.

    Returns:
        ``[num_dst, *features]``, ``[num_dst, d, *features]`` or ``[num_dst, p, *features]`` (transposed: q). Destinations without
        edges get 0. Tiles of up to 8 block rows stay in registers; features, or a batch, that fill vectors are fastest.

    Differentiable in ``blocks`` and ``x`` to any order; saves its two operands. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: block compressed rows (BSR) of SciPy.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> swap = torch.tensor([[0., 1.], [1., 0.]]).expand(2, 2, 2)
    >>> structops.sparse.block_spmm(g, swap, torch.tensor([[1., 2.], [10., 20.]]))
    tensor([[ 0.,  0.],
            [22., 11.]])
    """
    op = "block_spmm"
    checked_graph(op, graph)
    check.flags(op, transpose=transpose, batch_first=batch_first)
    operand(op, "blocks", blocks, graph, graph.num_edges, 0)
    operand(op, "x", x, graph, graph.num_src, max(x.dim() - 2, 0) if batch_first and isinstance(x, Tensor) else 0)
    if blocks.dim() > 3:
        check.fail(ValueError, op, f"blocks of shape [{graph.num_edges}], [.., d] or [.., p, q]", list(blocks.shape))
    if blocks.dtype != x.dtype:
        check.fail(TypeError, op, f"x of dtype {blocks.dtype}, as blocks", x.dtype)
    if batch_first and blocks.dim() < 3:
        check.fail(ValueError, op, f"blocks [{graph.num_edges}, p, q] where the batch is first", list(blocks.shape))
    if blocks.dim() < 3:
        if blocks.dim() == 2 and (x.dim() < 2 or x.shape[1] != blocks.shape[1]):
            check.fail(ValueError, op, f"x of shape [{graph.num_src}, {blocks.shape[1]}, *features]", list(x.shape))
        return cast(Tensor, spmm(graph, x, blocks.reshape(*blocks.shape, *(1,) * (x.dim() - blocks.dim()))))
    p, q = (blocks.shape[2], blocks.shape[1]) if transpose else (blocks.shape[1], blocks.shape[2])
    if x.dim() < 2 or x.shape[-1 if batch_first else 1] != q:
        want = f"[*batch, {graph.num_src}, {q}]" if batch_first else f"[{graph.num_src}, {q}, *features]"
        check.fail(ValueError, op, f"x of shape {want}", list(x.shape))
    analyse(graph, x, blocks)
    if batch_first:
        flat, shape = x.reshape(math.prod(x.shape[:-2]), graph.num_src, q), (*x.shape[:-2], graph.num_dst, p)
    else:
        flat, shape = x.reshape(graph.num_src, q, math.prod(x.shape[2:])), (graph.num_dst, p, *x.shape[2:])
    return ladder.block_spmm(
        flat.contiguous(), blocks.contiguous(), None, *graph.structure, 1.0, transpose, batch_first
    ).reshape(shape)  # fmt: skip


@autocast.promotes
def block_sddmm(graph: Graph, lhs: Tensor, rhs: Tensor) -> Tensor:
    """A matrix per edge from its two ends: ``out[k] = lhs[v] @ rhs[u].T`` for edge k: u -> v.

    Args:
        graph: the structure.
        lhs: ``[num_dst, p, *features]``; float32, float64, bfloat16 or float16.
        rhs: ``[num_src, q, *features]`` of the same dtype and features.

    Returns:
        ``[E, p, q]`` in the graph's edge order: the gradient of ``block_spmm`` with respect to its blocks.

    Differentiable in both operands to any order; saves both. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0], [1]]), num_nodes=2)
    >>> structops.sparse.block_sddmm(g, torch.tensor([[0., 0.], [1., 2.]]), torch.tensor([[3., 4.], [0., 0.]]))
    tensor([[[3., 4.],
             [6., 8.]]])
    """
    op = "block_sddmm"
    checked_graph(op, graph)
    operand(op, "lhs", lhs, graph, graph.num_dst, 0)
    operand(op, "rhs", rhs, graph, graph.num_src, 0)
    if lhs.dtype != rhs.dtype:
        check.fail(TypeError, op, f"rhs of dtype {lhs.dtype}, as lhs", rhs.dtype)
    if lhs.dim() < 2 or rhs.dim() < 2 or lhs.shape[2:] != rhs.shape[2:]:
        check.fail(
            ValueError,
            op,
            "lhs [num_dst, p, *features] and rhs [num_src, q, *features]",
            f"{list(lhs.shape)} and {list(rhs.shape)}",
        )
    f = math.prod(lhs.shape[2:])
    analyse(graph, lhs, rhs)
    lhs, rhs = (t.reshape(*t.shape[:2], f).contiguous() for t in (lhs, rhs))
    return ladder.block_sddmm(lhs, rhs, *graph.structure, graph.num_edges, 1.0, False, False)


def from_bsr(matrix: Any) -> tuple[Graph, Tensor]:
    """``(graph, blocks)`` of a SciPy BSR matrix, for ``block_spmm``: rows of blocks are destinations, columns sources.

    Args:
        matrix: ``scipy.sparse.bsr_array`` or ``bsr_matrix`` of float32 or float64.

    Returns:
        The graph of the blocks, and ``blocks [E, p, q]`` in its edge order (a copy).

    Raises:
        TypeError: not BSR, or another dtype.

    >>> import numpy as np, scipy.sparse, structops
    >>> graph, blocks = structops.sparse.from_bsr(scipy.sparse.bsr_array(np.eye(4), blocksize=(2, 2)))
    >>> graph.num_edges, list(blocks.shape)
    (2, [2, 2, 2])
    """
    op = "from_bsr"
    if getattr(matrix, "format", None) != "bsr":
        check.fail(TypeError, op, "a SciPy BSR matrix", getattr(matrix, "format", type(matrix).__name__))
    if matrix.dtype.name not in ("float32", "float64"):
        check.fail(TypeError, op, "a matrix of dtype float32 or float64", matrix.dtype)
    graph = Graph.from_csr(
        torch.as_tensor(matrix.indptr), torch.as_tensor(matrix.indices), matrix.shape[1] // max(matrix.blocksize[1], 1)
    )
    return graph, torch.tensor(matrix.data)
