"""Attention along typed edges."""

from __future__ import annotations

from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ._attention import dot_attention
from ._typed_matmul import typed_matmul
from ._typed_plan import RelationPlan


@autocast.lowers
def typed_attention(
    plan: RelationPlan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    prior: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dot-product attention whose keys and values go through a matrix of the edge's relation and head; one softmax over all
    incoming edges. Edge k: u -> v of relation r has the score
    ``scale * prior[r, h] * <query[v, h], key[u, h] @ key_weight[r, h]> + bias[k, h]`` and the value
    ``value[u, h] @ value_weight[r, h]``.

    Every (source, relation) that occurs is transformed once: keys ``[unique_src, H, Q]`` and values ``[unique_src, H, D]`` are
    made, nothing of the size of the edges. Other scores take the same rows: ``typed_matmul(x, weight, plan.rows())`` are values
    for :func:`structops.sparse.gat_attention` on ``plan.row_graph`` (RGAT).

    Args:
        plan: the relations of a graph's edges.
        query: ``[num_dst, H, Q]``; key: ``[num_src, H, K]``; value: ``[num_src, H, C]``; float32, float64, bfloat16 or float16.
        key_weight: ``[R, H, K, Q]``; value_weight: ``[R, H, C, D]``.
        prior: ``[R, H]`` (default: 1).
        bias: ``[E, H]`` in the graph's edge order; -inf masks an edge.
        scale: default ``1 / sqrt(Q)``.
        return_weights: also return the attention weights ``[E, H]``.

    Returns:
        ``[num_dst, H, D]``; 0 for destinations without edges.

    Differentiable in all tensors to any order. Saved: the operands, the transformed rows, the result and ``[num_dst, H]``.
    Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: HGT (arXiv:2003.01332); compact rows as in Hector (ASPLOS 2024).

    >>> import torch, structops
    >>> from structops.sparse import RelationPlan, typed_attention
    >>> graph = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> plan = RelationPlan(graph, torch.tensor([0, 1]))
    >>> x, w = torch.tensor([[[1.]], [[3.]]]), torch.tensor([1., 10.]).view(2, 1, 1, 1)
    >>> typed_attention(plan, 0 * x, x, x, w, w).flatten().tolist()
    [0.0, 15.5]
    """
    op = "typed_attention"
    if not isinstance(plan, RelationPlan):
        check.fail(TypeError, op, "plan to be a RelationPlan", type(plan).__name__)
    graph, R = plan.graph, plan.num_relations
    query = check.shaped(op, "query", query, (graph.num_dst, None, None))
    H, Q = query.shape[1:]
    key = check.shaped(op, "key", key, (graph.num_src, H, None), query)
    value = check.shaped(op, "value", value, (graph.num_src, H, None), query)
    key_weight = check.shaped(op, "key_weight", key_weight, (R, H, key.shape[2], Q), query)
    value_weight = check.shaped(op, "value_weight", value_weight, (R, H, value.shape[2], None), query)
    if prior is not None:
        key_weight = key_weight * check.shaped(op, "prior", prior, (R, H), query)[..., None, None]
    if query.device != graph.device:
        check.fail(ValueError, op, f"query on {graph.device}, as the graph", query.device)

    def rows(x: Tensor, weight: Tensor) -> Tensor:
        return typed_matmul(x.flatten(0, 1), weight.flatten(0, 1), plan.rows(H)).unflatten(0, (plan.unique_src, H))

    keys, values = rows(key, key_weight), rows(value, value_weight)
    return dot_attention(plan.row_graph, query, keys, values, bias, scale=scale, return_weights=return_weights)

