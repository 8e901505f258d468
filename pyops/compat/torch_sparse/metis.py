"""Graph partitioning by METIS."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from .._metis import metis
from .permute import permute
from .tensor import SparseTensor


def partition(
    src: SparseTensor,
    num_parts: int,
    recursive: bool = False,
    weighted: bool = False,
    node_weight: Tensor | None = None,
    balance_edge: bool = False,
) -> tuple[SparseTensor, Tensor, Tensor]:
    """``src`` with its nodes in the order of their parts, the pointers of the parts ``[num_parts + 1]``, and that order.

    Args:
        src: a square matrix, taken as undirected. weighted: its values are the weights of its edges, else all weigh the same.
        node_weight: what is balanced, ``[N]``; or, with ``balance_edge``, the number of edges into each node.

    Raises:
        NotImplementedError: more than one part without pymetis.
    """
    op = "partition"
    check.flags(op, recursive=recursive, weighted=weighted, balance_edge=balance_edge)
    if not src.is_quadratic():
        check.fail(ValueError, op, "a square matrix", src.sparse_sizes())
    if balance_edge and node_weight is not None:
        check.fail(ValueError, op, "balance_edge or node_weight, not both", "both")
    rowptr, col, value = src.csr()
    if check.size(op, "num_parts", num_parts) == 1:
        N = src.sparse_size(0)
        return src, col.new_tensor([0, N]), torch.arange(N, device=col.device)
    if balance_edge:
        node_weight = torch.bincount(col, minlength=src.sparse_size(0)).clamp_(min=1)
    cluster = metis(op, rowptr, col, num_parts, node_weight, value if weighted else None, recursive)
    cluster, perm = cluster.sort(stable=True)
    counts = torch.bincount(cluster, minlength=num_parts)
    return permute(src, perm), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), perm


def by_edges(rowptr, col, value, num_parts, recursive):
    return metis("partition", rowptr, col, num_parts, None, value, recursive)


def by_nodes(rowptr, col, value, node_weight, num_parts, recursive, num_workers=1):
    return metis("partition", rowptr, col, num_parts, node_weight, value, recursive)
