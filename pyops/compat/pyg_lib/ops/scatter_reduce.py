"""Several reductions by one index."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from .... import _check as check
from .... import sparse

REDUCTIONS = ["sum", "mean", "min", "max"]


def fused_scatter_reduce(inputs: Tensor, index: Tensor, dim_size: int, reduce_list: list[str]) -> Tensor:
    """Reductions of ``inputs [E, F]`` by ``index [E]``, side by side: ``[dim_size, len(reduce_list) * F]``; 0 for empty groups.

    ``reduce_list``: of sum, mean, min and max. The index is sorted once for all of them.
    """
    op = "fused_scatter_reduce"
    check.dense(op, "inputs", inputs)
    if inputs.dim() != 2:
        check.fail(ValueError, op, "inputs of shape [E, F]", list(inputs.shape))
    if not isinstance(reduce_list, list) or not reduce_list or len(set(reduce_list)) < len(reduce_list):
        check.fail(ValueError, op, "reduce_list to be a list of different reductions", reduce_list)
    for one in reduce_list:
        check.choice(op, "reduce_list", one, REDUCTIONS)
    plan = sparse.ScatterPlan(index, dim_size)
    return torch.cat([cast(Tensor, sparse.scatter_reduce(inputs, plan, reduce=one)) for one in reduce_list], 1)
