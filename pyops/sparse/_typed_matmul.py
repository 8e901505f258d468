"""Products with a matrix per type, and with a matrix per edge."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from .._ladder import _typed_matmul as products
from ..graph import Graph, checked_graph, checked_indptr
from ..kernels import codes as C
from ._operands import analyse
from ._typed_plan import NOTHING, RelationPlan, TypePlan


def _matrices(op: str, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int | None, types: int | None) -> None:
    check.shaped(op, "x", x, (rows, None))
    check.shaped(op, "weight", weight, (types, x.shape[1], None), x)
    if bias is not None:
        check.shaped(op, "bias", bias, (weight.shape[0], weight.shape[2]), x)


def _contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


@autocast.lowers
def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply consecutive rows by the matrix of their segment.

    ``out[i] = x[i] @ weight[t] + bias[t]`` for ``ptr[t] <= i < ptr[t + 1]``.

    Args:
        x: ``[M, K]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        ptr: int32 or int64 ``[R + 1]``, non-decreasing from 0 to M.
        weight: ``[R, K, N]``. bias: ``[R, N]`` or None.

    Returns:
        ``[M, N]``. Gradients of matrices without rows are 0.

    Differentiable in ``x``, ``weight`` and ``bias`` to any order. Saved: the operands. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or pointer, before any kernel runs.

    Convention of pyg_lib's segment_matmul.

    >>> import torch
    >>> from structops.sparse import segment_matmul
    >>> segment_matmul(torch.ones(3, 2), torch.tensor([0, 1, 3]), torch.tensor([[[1.], [1.]], [[2.], [3.]]]))
    tensor([[2.],
            [5.],
            [5.]])
    """
    op = "segment_matmul"
    _matrices(op, x, weight, bias, None, None)
    check.index(op, "ptr", ptr, like=x)
    if ptr.dim() != 1 or ptr.numel() != weight.shape[0] + 1:
        check.fail(ValueError, op, f"ptr of shape [{weight.shape[0] + 1}]", list(ptr.shape))
    if not torch.compiler.is_compiling():  # the operator checks the ends again
        checked_indptr(op, "ptr", ptr.contiguous(), x.shape[0])
    lists = (ptr.contiguous(), *NOTHING[1:])
    return products.typed_matmul(x.contiguous(), weight.contiguous(), _contiguous(bias), None, None, *lists, *NOTHING, x.shape[0])


@autocast.lowers
def typed_matmul(
    x: Tensor, weight: Tensor, types: Tensor | TypePlan, gather: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multiply gathered rows by the matrix of their type, in any order of types.

    ``out[i] = x[gather[i]] @ weight[types[i]] + bias[types[i]]``.

    Rows are gathered tile by tile inside the product; neither ``x[gather]`` nor ``weight[types]`` is made.

    Args:
        x: ``[N, K]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        weight: ``[R, K, N]``. bias: ``[R, N]`` or None.
        types: int32 or int64 ``[M]``, or a :class:`TypePlan` that holds them sorted (sorting takes longer than small products).
        gather: int32 or int64 ``[M]`` (default: row i). With a plan it is the plan's.

    Returns:
        ``[M, N]``.

    Differentiable in ``x``, ``weight`` and ``bias`` to any order: the gradient of x sums in a fixed order. Saved: the operands and
    the sorted lists. Deterministic.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device or index, before any kernel runs.

    Gather and scatter lists inside the product as in Hector (ASPLOS 2024).

    >>> import torch
    >>> from structops.sparse import typed_matmul
    >>> w = torch.tensor([[[1.]], [[10.]]])
    >>> typed_matmul(torch.tensor([[1.], [2.]]), w, torch.tensor([1, 0, 1]), torch.tensor([0, 0, 1]))
    tensor([[10.],
            [ 1.],
            [20.]])
    """
    op = "typed_matmul"
    _matrices(op, x, weight, bias, None, None)
    if isinstance(types, TypePlan):
        if gather is not None:
            check.fail(ValueError, op, "gather in the plan", "a second one")
        plan = types
    else:
        check.index(op, "types", types, like=x)
        plan = TypePlan(types, weight.shape[0], gather, None if gather is None else x.shape[0])
    _matrices(op, x, weight, bias, plan.num_rows, plan.num_types)
    return products.typed_matmul(
        x.contiguous(), weight.contiguous(), _contiguous(bias), None, None, *plan.lists, *plan.lists_t, plan.rows
    )  # fmt: skip


@autocast.lowers
def rgcn_aggregate(
    graph: Graph,
    x: Tensor,
    edge_type: Tensor | RelationPlan,
    weight: Tensor,
    norm: str | Tensor | None = "mean",
    form: str = "auto",
) -> Tensor:
    """Sum over relations of transformed neighbours: ``out[v] = sum over edges k: u -> v of c[k] x[u] @ weight[edge_type[k]]``.

    Two forms, chosen by their flops. *direct* sums the neighbours of every (destination, relation) into a tile, multiplies the tile
    and adds it to its rows: nothing of the size of the edges is made. *compact* transforms every (source, relation) that occurs
    once, ``[unique_src, N]``, and aggregates those.

    Args:
        graph: the structure.
        x: ``[num_src, K]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        edge_type: int32 or int64 ``[E]`` in the graph's edge order, or a :class:`RelationPlan`, built once.
        weight: ``[R, K, N]``.
        norm: mean (one over the edges of v with the same relation), None (1), or coefficients ``[E]``.
        form: direct, compact or auto; coefficients that need a gradient take the compact form.

    Returns:
        ``[num_dst, N]``; 0 for destinations without edges.

    Differentiable in ``x``, ``weight`` and coefficients to any order. Saved: the operands; in the compact form also its rows where
    coefficients need a gradient. Deterministic.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device or relation, before any kernel runs.

    The layer of arXiv:1703.06103; compact rows and their choice as in Hector (ASPLOS 2024).

    >>> import torch, structops
    >>> from structops.sparse import rgcn_aggregate
    >>> graph = structops.Graph(torch.tensor([[0, 1, 1], [2, 2, 2]]), num_nodes=3)
    >>> rgcn_aggregate(graph, torch.tensor([[1.], [3.], [0.]]), torch.tensor([0, 0, 1]), torch.tensor([[[1.]], [[10.]]]))
    tensor([[ 0.],
            [ 0.],
            [32.]])
    """
    op = "rgcn_aggregate"
    checked_graph(op, graph)
    check.choice(op, "form", form, ("auto", "direct", "compact"))
    _matrices(op, x, weight, None, graph.num_src, None)
    if isinstance(edge_type, RelationPlan):
        if edge_type.graph is not graph:
            check.fail(ValueError, op, "a plan of this graph", "one of another graph")
        plan = edge_type
    else:
        plan = RelationPlan(graph, edge_type, weight.shape[0])
    _matrices(op, x, weight, None, graph.num_src, plan.num_relations)
    if x.device != graph.device:
        check.fail(ValueError, op, f"x on {graph.device}, as the graph", x.device)
    if isinstance(norm, Tensor):
        check.shaped(op, "norm", norm, (graph.num_edges,), x)
    elif norm is not None:
        check.choice(op, "norm", norm, ("mean",))
    x, weight = x.contiguous(), weight.contiguous()
    trained = isinstance(norm, Tensor) and norm.requires_grad and torch.is_grad_enabled()
    if trained and form == "direct":
        check.fail(ValueError, op, "form compact or auto where norm needs a gradient", "direct")
    if form == "auto":
        form = "compact" if trained or _compact_is_less(plan, *weight.shape[1:]) else "direct"
    if form == "direct":
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        scales: tuple = (None, None)
        if norm is not None:
            scales = plan.scales(norm.detach().to(wide)) if isinstance(norm, Tensor) else plan.mean_scales(wide)
        return products.typed_matmul(x, weight, None, *scales, *plan.lists, *plan.lists_t, graph.num_dst)
    there, back, pairs = plan.compact()
    rows = products.typed_matmul(x, weight, None, None, None, *there, *back, plan.unique_src)
    if norm is None:
        return ladder.spmm(rows, None, *pairs.structure, None, C.COPY_U, C.SUM, C.ARG_NONE, 0.0, False, True)[0]
    c = norm if isinstance(norm, Tensor) else plan.mean().to(x.dtype)
    return ladder.spmm(rows, c[:, None].contiguous(), *pairs.structure, None, C.MUL, C.SUM, C.ARG_NONE, 0.0, False, True)[0]


def _compact_is_less(plan: RelationPlan, K: int, N: int) -> bool:
    """Whether transforming the sources' pairs and summing N columns takes fewer flops than summing K and transforming the sums."""
    E = plan.graph.num_edges
    return plan.unique_src * K * N + E * N < plan.unique_dst * K * N + E * K


@autocast.lowers
def edge_conditioned_matmul(graph: Graph, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Sum of neighbours, each through a matrix that its edge combines.

    ``out[v] = sum over edges k: u -> v of x[u] @ (sum_j h[k, j] weight[j] + bias)``.

    No matrix of an edge is made: the outer products ``h[k] x[u]`` of a row are summed tile by tile and multiplied once.

    Args:
        graph: the structure.
        x: ``[num_src, K]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64).
        h: ``[E, J]``, in the graph's edge order. weight: ``[J, K, N]``. bias: ``[K, N]`` or None.

    Returns:
        ``[num_dst, N]``; 0 for destinations without edges. PyG's NNConv with ``nn = Linear(J, K N)`` on h has
        ``weight = nn.weight.T.view(J, K, N)`` and ``bias = nn.bias.view(K, N)``.

    Differentiable in every operand to any order, tile by tile. Saved: the operands. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    The edge network of arXiv:1704.01212.

    >>> import torch, structops
    >>> from structops.sparse import edge_conditioned_matmul
    >>> graph = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> h, w = torch.tensor([[1., 0.], [1., 1.]]), torch.tensor([[[1.]], [[10.]]])
    >>> edge_conditioned_matmul(graph, torch.tensor([[1.], [2.]]), h, w)
    tensor([[ 0.],
            [23.]])
    """
    op = "edge_conditioned_matmul"
    checked_graph(op, graph)
    check.shaped(op, "h", h, (graph.num_edges, None))
    _matrices(op, x, weight, None, graph.num_src, h.shape[1])
    check.shaped(op, "h", h, tuple(h.shape), x)
    if x.device != graph.device:
        check.fail(ValueError, op, f"x on {graph.device}, as the graph", x.device)
    x = x.contiguous()
    analyse(graph, x)
    out = products.edge_matmul(x, h.contiguous(), weight.contiguous(), *graph.structure)
    if bias is None:
        return out
    check.shaped(op, "bias", bias, tuple(weight.shape[1:]), x)
    total = ladder.spmm(x, None, *graph.structure, None, C.COPY_U, C.SUM, C.ARG_NONE, 0.0, False, True)[0]
    return out + total @ bias
