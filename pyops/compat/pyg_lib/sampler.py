"""``pyg_lib.sampler``: neighbour sampling and walks, on the samplers of :mod:`structops.compat.torch_sparse`."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ... import _check as check
from ..torch_sparse import _hetero_sampling as hetero
from ..torch_sparse import _index
from ..torch_sparse import _sampling as homogeneous
from . import _steps

EdgeType = tuple[str, str, str]


def _missing(name: str, what: str) -> NoReturn:
    raise NotImplementedError(f"pyg_lib.sampler.{name}: structops.compat.pyg_lib has no {what}; use pyg_lib itself for these")


def _options(op: str, flags: dict[str, bool], strategy: str, node_time: object, edge_time: object) -> None:
    check.flags(op, **flags)
    check.choice(op, "temporal_strategy", strategy, ("uniform", "last"))
    if node_time is not None and edge_time is not None:
        check.fail(ValueError, op, "node_time or edge_time", "both")
    if not flags["disjoint"] and (node_time is not None or edge_time is not None):
        check.fail(ValueError, op, "disjoint=True to sample by time", "disjoint=False")
    if not flags["directed"]:
        _missing(op, "induced subgraphs")


def _steps_of(sizes: list[int]) -> list[int]:
    return [b - a for a, b in zip([0, *sizes[:-1]], sizes, strict=True)]


def _pairs(numbers: Tensor, size: int, like: Tensor) -> Tensor:
    return torch.stack(_steps.parted(numbers, size), 1).to(like.dtype)


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

    Args:
        rowptr, col: the graph, ``[N + 1]`` and ``[E]``.
        seed: ``[S]``.
        num_neighbors: up to ``num_neighbors[i]`` neighbours of each node of hop i, all where negative.
        node_time, edge_time: ``[N]`` or ``[E]``, integers or floating, one of them: neighbours (edges) later than the seed of
            their subgraph are not sampled. Needs ``disjoint``, and the neighbours of every node in ascending order of time.
        seed_time: ``[S]``, of the seeds; default their ``node_time``.
        edge_weight: ``[E]``, finite and >= 0: neighbours are drawn one after the other in proportion to it. Those of weight 0 are
            taken only where all are (a negative number of neighbours): a node with no other gets none.
        csc: rows and columns of the result change places.
        disjoint: one subgraph for every seed; nodes are then ``[nodes, 2]``, position of the seed and node.
        temporal_strategy: "uniform", or "last" for the most recent neighbours.

    Raises:
        TypeError, ValueError, IndexError: wrong arguments, as times out of order at a node that is reached.
        NotImplementedError: ``directed=False``.
    """
    op = "neighbor_sample"
    flags = dict(csc=csc, replace=replace, directed=directed, disjoint=disjoint, return_edge_id=return_edge_id)
    _options(op, flags, temporal_strategy, node_time, edge_time)
    homogeneous.checked_graph(op, rowptr, col, seed)
    N = rowptr.numel() - 1
    weight = None if edge_weight is None else _steps.checked_weight(op, "edge_weight", edge_weight, col)
    clock = None
    if node_time is not None or edge_time is not None:
        name, time, size = ("node_time", node_time, N) if edge_time is None else ("edge_time", edge_time, col.numel())
        time = _steps.checked_time(op, name, time, col, size)
        limit = _steps.limit(op, "seed_time", seed, seed_time, node_time, time)
        clock = _steps.Clock(time, edge_time is not None, limit, temporal_strategy == "last")
    trees = _steps.Trees(N, N) if disjoint else None
    start = _steps.joined(torch.arange(seed.numel(), device=seed.device), seed, N) if disjoint else seed
    step = _steps.chosen(op, rowptr, col, replace, trees, clock, weight)
    nodes, parts, sizes = homogeneous.neighbor_hops(start, list(num_neighbors), step)
    found, near, edge = map(torch.cat, zip(*parts, strict=True))
    row, column = (found, near) if csc else (near, found)
    nodes = _pairs(nodes, N, seed) if disjoint else nodes
    return row, column, nodes, edge if return_edge_id else None, _steps_of(sizes), [len(p[2]) for p in parts[1:]]


def hetero_neighbor_sample(
    rowptr_dict: dict[EdgeType, Tensor],
    col_dict: dict[EdgeType, Tensor],
    seed_dict: dict[str, Tensor],
    num_neighbors_dict: dict[EdgeType, list[int]],
    node_time_dict: dict[str, Tensor] | None = None,
    edge_time_dict: dict[EdgeType, Tensor] | None = None,
    seed_time_dict: dict[str, Tensor] | None = None,
    edge_weight_dict: dict[EdgeType, Tensor] | None = None,
    csc: bool = False,
    replace: bool = False,
    directed: bool = True,
    disjoint: bool = False,
    temporal_strategy: str = "uniform",
    return_edge_id: bool = True,
) -> tuple:
    """:func:`neighbor_sample` by node type and by edge type ``(source, name, destination)``.

    Seeds are counted through the types in the order of ``seed_dict``. Node types without times, edge types without times or
    weights are sampled as if there were none.
    """

    def named(of: dict | None) -> dict | None:
        return None if of is None else {"__".join(kind): value for kind, value in of.items()}

    node_types = sorted({t for kind in rowptr_dict for t in (kind[0], kind[2])})
    kinds = {"__".join(kind): kind for kind in rowptr_dict}
    graph = named(rowptr_dict), named(col_dict), seed_dict, named(num_neighbors_dict)
    marks = node_time_dict, named(edge_time_dict), seed_time_dict, named(edge_weight_dict)
    out = hetero_neighbor_sample_by_name(
        node_types, list(rowptr_dict), *graph, *marks, csc, replace, directed, disjoint, temporal_strategy, return_edge_id
    )
    by_type = {0, 1, 3, 5}
    return tuple({kinds[n]: v for n, v in part.items()} if part and i in by_type else part for i, part in enumerate(out))


def hetero_neighbor_sample_by_name(
    node_types: list[str],
    edge_types: list[EdgeType],
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
    """``torch.ops.pyg.hetero_neighbor_sample``: edge types are named ``source__name__destination``."""
    op = "hetero_neighbor_sample"
    flags = dict(csc=csc, replace=replace, directed=directed, disjoint=disjoint, return_edge_id=return_edge_id)
    _options(op, flags, temporal_strategy, node_time_dict, edge_time_dict)
    types = {"__".join(t): tuple(t) if csc else (t[2], t[1], t[0]) for t in edge_types}
    hops = max(map(len, num_neighbors_dict.values()), default=0)
    hetero.checked_relations(op, types, rowptr_dict, col_dict, seed_dict, num_neighbors_dict, hops)
    sizes = _sizes(types, rowptr_dict, col_dict, seed_dict)
    clocks = _clocks(op, types, col_dict, seed_dict, sizes, node_time_dict, edge_time_dict, seed_time_dict, temporal_strategy)
    steps = {}
    for name, ptr in rowptr_dict.items():
        col, weight = col_dict[name], (edge_weight_dict or {}).get(name)
        if weight is not None:
            weight = _steps.checked_weight(op, f"edge_weight of {name}", weight, col)
        source, _, destination = types[name]
        trees = _steps.Trees(sizes[destination], sizes[source]) if disjoint else None
        steps[name] = _steps.chosen(op, ptr, col, replace, trees, clocks.get(name), weight)
    start = dict(seed_dict)
    if disjoint:
        first = 0
        for t, seed in seed_dict.items():
            start[t] = _steps.joined(torch.arange(first, first + seed.numel(), device=seed.device), seed, sizes[t])
            first += seed.numel()
    nodes, found, counts = hetero.neighbor_hops(node_types, types, start, num_neighbors_dict, hops, steps)
    if disjoint:
        like = next(iter(seed_dict.values()), torch.empty(0, dtype=torch.int64, device="cpu"))
        nodes = {t: _pairs(n, sizes.get(t, 0), like) for t, n in nodes.items()}
    parts = {name: tuple(map(torch.cat, zip(*edges, strict=True))) for name, edges in found.items()}
    rows, cols, entries = ({name: p[i] for name, p in parts.items()} for i in ((0, 1, 2) if csc else (1, 0, 2)))
    edges = {name: [len(p[2]) for p in hop[1:]] for name, hop in found.items()}
    return rows, cols, nodes, entries if return_edge_id else None, {t: _steps_of(n) for t, n in counts.items()}, edges


def _sizes(types: dict, ptrs: dict[str, Tensor], cols: dict[str, Tensor], seeds: dict[str, Tensor]) -> dict[str, int]:
    """The number of nodes of every type: of its pointers or, without any, those that occur."""
    known = {types[name][2]: ptr.numel() - 1 for name, ptr in ptrs.items()}
    seen: dict[str, int] = {t: _index.extent(seed) for t, seed in seeds.items() if t not in known}
    for name, col in cols.items():
        source = types[name][0] if name in types else None
        if source is not None and source not in known:
            seen[source] = max(seen.get(source, 0), _index.extent(col))
    return {**seen, **known}


def _clocks(
    op: str,
    types: dict,
    cols: dict[str, Tensor],
    seeds: dict[str, Tensor],
    sizes: dict[str, int],
    node_time: dict[str, Tensor] | None,
    edge_time: dict[str, Tensor] | None,
    seed_time: dict[str, Tensor] | None,
    strategy: str,
) -> dict[str, _steps.Clock]:
    """The clocks of the relations that have one."""
    times, what = (node_time, "node_time") if edge_time is None else (edge_time, "edge_time")
    if not times:
        return {}
    comparable = next(iter(times.values()))
    for key, time in times.items():
        size = cols[key].numel() if edge_time and key in cols else None
        _steps.checked_time(op, f"{what} of {key}", time, time, size, comparable)
        if edge_time is None and time.numel() < sizes.get(key, 0):
            check.fail(ValueError, op, f"{what} of {key} for {sizes[key]} nodes", list(time.shape))
    limits = [
        _steps.limit(op, f"seed_time of {t}", seed, (seed_time or {}).get(t), (node_time or {}).get(t), comparable)
        for t, seed in seeds.items()
    ]
    if not limits:
        return {}
    by_edge, limit = edge_time is not None, torch.cat(limits)
    keys = {name: name if by_edge else types[name][0] for name in cols}
    return {name: _steps.Clock(times[key], by_edge, limit, strategy == "last") for name, key in keys.items() if key in times}


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
