"""Sampling in heterogeneous graphs. A relation is named ``source__name__destination``."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from . import _index
from ._sampling import Step, checked, draw, induced, number, uniform

_MANY = 50  # neighbours beyond these are a sample, in hgt_sample


def _structures(op: str, types: dict[str, tuple], colptr: dict[str, Tensor], row: dict[str, Tensor]) -> None:
    for name in colptr:
        if name not in types or name not in row:
            check.fail(ValueError, op, "relations with an edge type and rows", repr(name))
        checked(op, colptr[name], row[name], colptr[name].new_empty(0))


def _seeds(op: str, types: dict, colptr: dict[str, Tensor], row: dict[str, Tensor], nodes: dict[str, Tensor]) -> None:
    """Every node that a relation is asked for must be one of its columns."""
    for name, (source, _, destination) in types.items():
        if name in colptr:
            size = colptr[name].numel() - 1
            _index.in_range(op, f"nodes of {destination}", nodes.get(destination, row[name][:0]), size)
            for other, (_, _, end) in types.items():
                if end == source and other in colptr:
                    _index.in_range(op, f"rows of {name}", row[name], colptr[other].numel() - 1)


def hetero_neighbor_sample(
    node_types: list[str],
    edge_types: list[tuple[str, str, str]],
    colptr: dict[str, Tensor],
    row: dict[str, Tensor],
    input_node: dict[str, Tensor],
    num_neighbors: dict[str, list[int]],
    num_hops: int,
    replace: bool,
    directed: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Nodes by type, and local rows, local columns and entries by relation; as ``neighbor_sample`` otherwise."""
    types = {"__".join(t): tuple(t) for t in edge_types}
    checked_relations("hetero_neighbor_sample", types, colptr, row, input_node, num_neighbors, num_hops)
    steps = {name: uniform(colptr[name], row[name], replace) for name in colptr}
    nodes, found, _ = neighbor_hops(node_types, types, input_node, num_neighbors, num_hops, steps)
    if not directed:
        found = {name: [_between(types[name], colptr[name], row[name], nodes)] for name in colptr}
    parts = {name: tuple(map(torch.cat, zip(*edges, strict=True))) for name, edges in found.items()}
    rows, cols, entries = ({name: p[i] for name, p in parts.items()} for i in range(3))
    return nodes, rows, cols, entries


def checked_relations(
    op: str,
    types: dict[str, tuple],
    colptr: dict[str, Tensor],
    row: dict[str, Tensor],
    input_node: dict[str, Tensor],
    num_neighbors: dict[str, list[int]],
    num_hops: int,
) -> None:
    """The graph, the nodes within it, and the numbers of neighbours. ``types``: (source, name, destination) of each relation,
    sampled from destinations."""
    _structures(op, types, colptr, row)
    _seeds(op, types, colptr, row, input_node)
    if any(name not in colptr or len(k) < num_hops for name, k in num_neighbors.items()):
        check.fail(ValueError, op, f"num_neighbors of {num_hops} hops, for relations of colptr", num_neighbors)


def neighbor_hops(
    node_types: list[str],
    types: dict[str, tuple],
    input_node: dict[str, Tensor],
    num_neighbors: dict[str, list[int]],
    num_hops: int,
    steps: dict[str, Step],
) -> tuple[dict[str, Tensor], dict[str, list[tuple[Tensor, Tensor, Tensor]]], dict[str, list[int]]]:
    """Nodes by type; (local rows, local columns, entries) of each hop after an empty one by relation; the number of nodes before
    each hop and at the end by type."""
    empty = next(iter(input_node.values()), torch.empty(0, dtype=torch.int64, device="cpu")).new_empty(0)
    nodes = {t: input_node.get(t, empty) for t in node_types}
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [(empty, empty, empty)] for name in steps}
    begin, sizes = dict.fromkeys(node_types, 0), {t: [n.numel()] for t, n in nodes.items()}
    for hop in range(num_hops):
        end = {t: n.numel() for t, n in nodes.items()}
        for name in sorted(num_neighbors):
            source, _, destination = types[name]
            frontier = nodes[destination][begin[destination] : end[destination]]
            owner, entry, ids = steps[name](frontier, num_neighbors[name][hop])
            local, fresh = number(nodes[source], ids)
            found[name].append((local, owner + begin[destination], entry))
            nodes[source] = torch.cat([nodes[source], fresh])
        begin = end
        for t, n in nodes.items():
            sizes[t].append(n.numel())
    return nodes, found, sizes


def _between(kind: tuple, colptr: Tensor, row: Tensor, nodes: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    owner, local, entry = induced(colptr, row, nodes[kind[2]], nodes[kind[0]])
    return local, owner, entry


def hgt_sample(
    colptr: dict[str, Tensor],
    row: dict[str, Tensor],
    input_node: dict[str, Tensor],
    num_samples: dict[str, list[int]],
    num_hops: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Nodes by type, and the edges among them by relation: HGSampling of the Heterogeneous Graph Transformer.

    Every hop draws ``num_samples`` nodes of each type among the neighbours of those sampled, with probability proportional to
    the square of the sum of 1 / degree over the edges that lead to them.
    """
    op = "hgt_sample"
    types = {name: tuple(name.split("__")) for name in colptr}
    _structures(op, types, colptr, row)
    _seeds(op, types, colptr, row, input_node)
    empty = torch.empty(0, dtype=torch.int64, device="cpu")
    kinds = {t for s, _, d in types.values() for t in (s, d)}
    if any(len(num_samples.get(t, ())) < num_hops for t in kinds):
        check.fail(ValueError, op, f"num_samples of {num_hops} hops for each of {', '.join(sorted(kinds))}", num_samples)
    nodes = {t: input_node.get(t, empty) for t in kinds}
    budget = {t: (empty, torch.empty(0, device="cpu")) for t in kinds}
    last = dict(nodes)
    for hop in range(num_hops):
        for name, (source, _, destination) in types.items():
            owner, entry = draw(colptr[name], last[destination], _MANY, False)
            degree = colptr[name].diff()[last[destination]].clamp(1, _MANY)
            budget[source] = _spent(nodes[source], *budget[source], row[name][entry], 1 / degree[owner])
        for t in kinds:
            ids, weight = budget[t]
            k = min(num_samples[t][hop], ids.numel())
            chosen = torch.multinomial(weight**2, k) if k else empty
            last[t] = ids[chosen]
            nodes[t] = torch.cat([nodes[t], last[t]])
            kept = torch.ones_like(ids, dtype=torch.bool)
            kept[chosen] = False
            budget[t] = ids[kept], weight[kept]
    edges = {name: _between(types[name], colptr[name], row[name], nodes) for name in colptr}
    rows, cols, entries = ({name: e[i] for name, e in edges.items()} for i in range(3))
    return {t: n for t, n in nodes.items() if n.numel()}, rows, cols, entries


def _spent(nodes: Tensor, ids: Tensor, weight: Tensor, more: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The budget with ``added`` for the ids ``more`` that are not among ``nodes``."""
    new = ~torch.isin(more, nodes)
    distinct, inverse = torch.unique(torch.cat([ids, more[new]]), return_inverse=True)
    return distinct, torch.zeros(distinct.numel(), device="cpu").index_add(0, inverse, torch.cat([weight, added[new].float()]))
