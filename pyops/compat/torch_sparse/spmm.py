"""The product with a dense matrix, from indices and values."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ...graph import Graph
from ._spmm import product


def spmm(index: Tensor, value: Tensor, m: int, n: int, matrix: Tensor) -> Tensor:
    """``[*, m, K]``: the m x n matrix of ``index [2, E]`` (any order, duplicates add up) and ``value [E]`` times ``[*, n, K]``.

    The dtypes are promoted. Differentiable in ``value`` and ``matrix`` to any order; no message is stored (integers: they are).
    """
    check.index("spmm", "index", index)
    if index.dim() != 2 or index.shape[0] != 2:
        check.fail(ValueError, "spmm", "index of shape [2, E]", list(index.shape))
    check.dense("spmm", "value", value, integers=True)
    check.dense("spmm", "matrix", matrix, integers=True)
    graph = Graph(index.flip(0), num_src=n, num_dst=m)
    dtype = torch.promote_types(value.dtype, matrix.dtype)
    if not dtype.is_floating_point and graph.eid is not None:
        value = value[graph.eid.long()]
        graph = Graph.from_csr(graph.rowptr, graph.col, n)
    return product("spmm", graph, value, matrix.to(dtype), "sum")
