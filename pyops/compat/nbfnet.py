"""The relational SpMM of NBFNet-PyG and ULTRA: ``from structops.compat.nbfnet import generalized_rspmm``.

The same arguments, results and gradients, with these differences: where several edges tie under min or max, the first of them
gets the gradient rather than all of them; NaN propagates; derivatives of any order exist; float16 and bfloat16 are taken. The
relation's gradient takes no locks. A composition of several calls, such as their PNA, gives what it gives there: the sum of
squares of ``mul="add"`` messages is not among it, while ``structops.sparse.relational_spmm(..., reduce="pna")`` has it right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..sparse import RelationalGraph, relational_spmm

__all__ = ["generalized_rspmm"]


def generalized_rspmm(
    edge_index: Tensor, edge_type: Tensor, edge_weight: Tensor, relation: Tensor, input: Tensor, sum: str = "add", mul: str = "mul"
) -> Tensor:  # fmt: skip
    """``out[edge_index[0]] = sum over edges of edge_weight * mul(relation[edge_type], input[edge_index[1]])``.

    Args:
        edge_index ``[2, E]``, edge_type ``[E]``, edge_weight ``[E]``, relation ``[R, D]``, input ``[N, D]``.
        sum: add, min or max. mul: mul or add.

    Returns:
        ``[N, D]``; rows without edges hold 0 for add, the largest finite number for min and the lowest for max.

    The structure is analysed on every call: a model that keeps its graph does better with a RelationalGraph.

    >>> import torch
    >>> from structops.compat.nbfnet import generalized_rspmm
    >>> edges, kind = torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1])
    >>> generalized_rspmm(edges, kind, torch.ones(2), torch.tensor([[2.], [3.]]), torch.tensor([[0.], [1.], [10.]])).tolist()
    [[32.0], [0.0], [0.0]]
    """
    if sum not in ("add", "min", "max"):
        raise ValueError(f"generalized_rspmm: expected sum to be add, min or max, got {sum!r}")
    if mul not in ("mul", "add"):
        raise ValueError(f"generalized_rspmm: expected mul to be mul or add, got {mul!r}")
    graph = RelationalGraph(edge_index.flip(0), edge_type, input.shape[0], relation.shape[0])
    info = torch.finfo(input.dtype)
    fill = {"add": None, "min": info.max, "max": info.min}[sum]
    reduce = "sum" if sum == "add" else sum
    out = relational_spmm(graph, relation, input, edge_weight, mul=mul, reduce=reduce, fill_value=fill)
    assert isinstance(out, Tensor)
    return out
