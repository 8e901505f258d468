"""``pyg_lib.sampler``: uniform neighbour sampling and walks, by the samplers of :mod:`structops.compat.torch_sparse`."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ... import _check as check
from ..torch_sparse import _hetero_sampling as hetero
from ..torch_sparse import _sampling as homogeneous


def _missing(name: str, what: str) -> NoReturn:
    raise NotImplementedError(f"pyg_lib.sampler.{name}: structops.compat.pyg_lib has no {what}; use pyg_lib itself for these")


def _only_uniform(op: str, directed: bool, disjoint: bool, **given: object) -> None:
    check.flags(op, directed=directed, disjoint=disjoint)
    if any(value is not None for value in given.values()):
        _missing(op, "temporal or weighted sampling")
    if disjoint:
        _missing(op, "disjoint subgraphs")
    if not directed:
        _missing(op, "induced subgraphs")


def _steps(sizes: list[int]) -> list[int]:
    return [b - a for a, b in zip([0, *sizes[:-1]], sizes, strict=True)]


def neighbor_sample(
    rowptr: Tensor,
    col: Tensor,
    seed: Tensor,
    num_neighbors: list[int],
    node_time: Tensor | None = None,
    edge_time: Tensor | None = None,
    seed_time: Tensor | None = None,
    edge_weight: Tensor | None = None,
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, list[int], list[int]]:
    """The subgraph sampled hop by hop around ``seed``: local rows and columns, nodes, entries, numbers of nodes and edges by hop.

    Up to ``num_neighbors[i]`` neighbours of each node of hop i, all where negative. NotImplementedError for sampling by time or
    weight, disjoint and induced subgraphs.
    """
    _only_uniform("neighbor_sample", directed, disjoint, n=node_time, e=edge_time, s=seed_time, w=edge_weight)
    nodes, parts, sizes = homogeneous.neighbor_hops(rowptr, col, seed, list(num_neighbors), replace)
    found, near, edge = map(torch.cat, zip(*parts, strict=True))
    row, column = (found, near) if csc else (near, found)
    return row, column, nodes, edge if return_edge_id else None, _steps(sizes), [len(p[2]) for p in parts[1:]]


def hetero_neighbor_sample(
    node_types: list[str],
    edge_types: list[tuple[str, str, str]],
    rowptr_dict: dict[str, Tensor],
    col_dict: dict[str, Tensor],
    seed_dict: dict[str, Tensor],
    num_neighbors_dict: dict[str, list[int]],
    node_time_dict: dict[str, Tensor] | None = None,
    edge_time_dict: dict[str, Tensor] | None = None,
    seed_time_dict: dict[str, Tensor] | None = None,
    edge_weight_dict: dict[str, Tensor] | None = None,
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple:
    """:func:`neighbor_sample` by node type and by relation, ``source__name__destination``."""
    op = "hetero_neighbor_sample"
    _only_uniform(op, directed, disjoint, n=node_time_dict, e=edge_time_dict, s=seed_time_dict, w=edge_weight_dict)
    types = {"__".join(t): tuple(t) if csc else (t[2], t[1], t[0]) for t in edge_types}
    hops = max(map(len, num_neighbors_dict.values()), default=0)
    graph = rowptr_dict, col_dict
    nodes, found, sizes = hetero.neighbor_hops(node_types, types, *graph, seed_dict, num_neighbors_dict, hops, replace)
    parts = {name: tuple(map(torch.cat, zip(*edges, strict=True))) for name, edges in found.items()}
    rows, cols, entries = ({name: p[i] for name, p in parts.items()} for i in ((0, 1, 2) if csc else (1, 0, 2)))
    edges = {name: [len(p[2]) for p in hop[1:]] for name, hop in found.items()}
    return rows, cols, nodes, entries if return_edge_id else None, {t: _steps(n) for t, n in sizes.items()}, edges


def subgraph(rowptr: Tensor, col: Tensor, nodes: Tensor, return_edge_id: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pointers, local columns and entries of the subgraph of ``nodes``."""
    homogeneous.checked("subgraph", rowptr, col, nodes)
    owner, local, entry = homogeneous.induced(rowptr, col, nodes, nodes)
    count = torch.bincount(owner, minlength=nodes.numel())
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).to(rowptr.dtype)
    return ptr, local.to(col.dtype), entry if return_edge_id else None


def random_walk(rowptr: Tensor, col: Tensor, seed: Tensor, walk_length: int, p: float = 1.0, q: float = 1.0) -> Tensor:
    """Uniform walks ``[seeds, walk_length + 1]``; NotImplementedError unless p = q = 1."""
    if p != 1 or q != 1:
        _missing("random_walk", "biased walks")
    return homogeneous.random_walk(rowptr, col, seed, walk_length)


__all__ = ["hetero_neighbor_sample", "neighbor_sample", "random_walk", "subgraph"]
