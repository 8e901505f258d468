"""``pyg_lib.partition`` through pymetis; :mod:`structops.compat.pyg_lib` has it where that is installed."""

from __future__ import annotations

from torch import Tensor

from .._metis import metis as _metis


def metis(
    rowptr: Tensor,
    col: Tensor,
    num_partitions: int,
    node_weight: Tensor | None = None,
    edge_weight: Tensor | None = None,
    recursive: bool = False,
) -> Tensor:
    """The part of every node, int64 ``[N]``.

    Args:
        rowptr, col: the edges, ``[N + 1]`` and ``[E]``, taken as undirected; loops do not count.
        node_weight, edge_weight: ``[N]`` and ``[E]``, integers of at least 1 or floating numbers of at least 0.
        recursive: by repeated bisection instead of in one k-way cut.
    """
    return _metis("metis", rowptr, col, num_partitions, node_weight, edge_weight, recursive)


__all__ = ["metis"]
