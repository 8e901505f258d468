"""Sampling of neighbours and walks, in whole vectors of nodes; torch's generator gives the random numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import _check as check
from ...graph import checked_indptr
from ...sparse import segment_topk
from . import _index


def checked(op: str, ptr: Tensor, ind: Tensor, nodes: Tensor) -> None:
    """``ptr`` must be pointers of ``ind``, and ``nodes`` within its rows."""
    for name, t in (("pointers", ptr), ("indices", ind), ("nodes", nodes)):
        check.index(op, name, t, like=ptr)
        if t.dim() != 1:
            check.fail(ValueError, op, f"{name} in a vector", list(t.shape))
    checked_indptr(op, "pointers", ptr.contiguous(), ind.numel())
    _index.in_range(op, "nodes", nodes, ptr.numel() - 1)


def checked_graph(op: str, ptr: Tensor, ind: Tensor, nodes: Tensor) -> None:
    """``checked``, and ``ind`` within the rows too."""
    checked(op, ptr, ind, nodes)
    _index.in_range(op, "row", ind, ptr.numel() - 1)


def pointers(count: Tensor) -> Tensor:
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def spans(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers ``first[i]`` to ``first[i] + count[i] - 1`` of every i, and the i of each."""
    start = pointers(count)
    owner = _index.ptr2ind(start, int(start[-1]))
    return owner, torch.arange(owner.numel(), device=first.device) + (first - start[:-1])[owner]


def entries(ptr: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of the rows ``nodes``, with the position in ``nodes`` of each."""
    return spans(ptr[nodes], ptr[nodes + 1] - ptr[nodes])


def draw(ptr: Tensor, nodes: Tensor, k: int, replace: bool) -> tuple[Tensor, Tensor]:
    """Up to k entries of every row of ``nodes`` (all if k < 0), and the position in ``nodes`` of each."""
    return draw_spans(ptr[nodes], ptr[nodes + 1] - ptr[nodes], k, replace)


def draw_spans(first: Tensor, count: Tensor, k: int, replace: bool) -> tuple[Tensor, Tensor]:
    """Up to k of the numbers ``first[i]`` to ``first[i] + count[i] - 1`` of every i (all if k < 0), and the i of each."""
    if replace and k >= 0:
        owner = (count > 0).nonzero().flatten().repeat_interleave(k)
        drawn = (torch.rand(owner.numel(), dtype=torch.float64, device=first.device) * count[owner]).long()
        return owner, first[owner] + torch.minimum(drawn, count[owner] - 1)
    crowded = count > k if k >= 0 else torch.zeros_like(count, dtype=torch.bool)
    if not bool(crowded.any()):
        return spans(first, count)
    few, many = (~crowded).nonzero().flatten(), crowded.nonzero().flatten()
    owner, entry = spans(first[few], count[few])
    _, choices = spans(first[many], count[many])
    at = segment_topk(torch.rand(choices.numel(), device=first.device), pointers(count[many]), k)[1].flatten()
    owner, entry = torch.cat([few[owner], many.repeat_interleave(k)]), torch.cat([entry, choices[at]])
    order = torch.argsort(owner, stable=True)
    return owner[order], entry[order]


def number(known: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Local numbers of ``ids``: their (first) position in ``known``, or after it in order of appearance; and the new ones."""
    n = known.numel()
    both = torch.cat([known, ids])
    distinct, inverse = torch.unique(both, return_inverse=True)
    place = torch.arange(both.numel(), device=both.device)
    first = place.new_full((distinct.numel(),), both.numel()).scatter_reduce(0, inverse, place, "amin")
    fresh = first[first >= n].sort()[0]
    at = first[inverse[n:]]
    return torch.where(at < n, at, n + torch.searchsorted(fresh, at)), both[fresh]


def induced(ptr: Tensor, ind: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries between ``rows`` and ``columns``: positions in both, and the entries. The first of repeated columns counts."""
    owner, entry = entries(ptr, rows)
    local, _ = number(columns, ind[entry])
    inside = local < columns.numel()
    return owner[inside], local[inside], entry[inside]


def random_walk(rowptr: Tensor, col: Tensor, start: Tensor, walk_length: int) -> Tensor:
    """Nodes ``[S, walk_length + 1]``."""
    checked("random_walk", rowptr, col, start)
    _index.in_range("random_walk", "col", col, rowptr.numel() - 1)
    walk, count = [start], rowptr.diff()
    for _ in range(check.size("random_walk", "walk_length", walk_length)):
        at = walk[-1]
        degree = count[at]
        step = (torch.rand(at.numel(), dtype=torch.float64, device=at.device) * degree).long()
        moving = degree > 0
        to = at.clone()
        to[moving] = col[(rowptr[at] + torch.minimum(step, degree - 1))[moving]]
        walk.append(to)
    return torch.stack(walk, 1)


def sample_adj(
    rowptr: Tensor, col: Tensor, idx: Tensor, num_neighbors: int, replace: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rowptr, local columns (ascending in each row), nodes and entries of the rows ``idx``, sampled."""
    checked("sample_adj", rowptr, col, idx)
    owner, entry = draw(rowptr, idx, num_neighbors, replace)
    local, fresh = number(idx, col[entry])
    order = _index.sorted_by(owner, local, (idx.numel(), idx.numel() + fresh.numel()))
    return _index.ind2ptr(owner, idx.numel()), local[order], torch.cat([idx, fresh]), entry[order]


def saint_subgraph(idx: Tensor, rowptr: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and entry of the subgraph of ``idx``."""
    checked("saint_subgraph", rowptr, col, idx)
    return induced(rowptr, col, idx, idx)


def relabel(col: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """``col`` in local numbers, and the nodes these count: ``idx``, then the others in order of appearance."""
    local, fresh = number(idx, col)
    return local, torch.cat([idx, fresh])


def relabel_one_hop(
    rowptr: Tensor, col: Tensor, value: Tensor | None, idx: Tensor, bipartite: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """The rows ``idx`` in local numbers: rowptr (of all nodes unless ``bipartite``), columns, values, nodes."""
    checked("relabel_one_hop", rowptr, col, idx)
    owner, entry = entries(rowptr, idx)
    local, nodes = relabel(col[entry], idx)
    ptr = _index.ind2ptr(owner, idx.numel() if bipartite else nodes.numel())
    return ptr, local, None if value is None else value[entry], nodes


Step = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""Of the nodes of a frontier and the number wanted of each: for every edge sampled the position of its end in the frontier, its
entry and the node it comes from."""


def uniform(ptr: Tensor, ind: Tensor, replace: bool) -> Step:
    def step(nodes: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        owner, entry = draw(ptr, nodes, k, replace)
        return owner, entry, ind[entry]

    return step


def neighbor_sample(
    colptr: Tensor, row: Tensor, input_node: Tensor, num_neighbors: list[int], replace: bool, directed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nodes, and local rows, local columns and entries of the edges sampled hop by hop into ``input_node``.

    ``directed`` False: of all edges among the nodes instead.
    """
    checked_graph("neighbor_sample", colptr, row, input_node)
    nodes, parts = neighbor_hops(input_node, num_neighbors, uniform(colptr, row, replace))[:2]
    if directed:
        rows, cols, edges = map(torch.cat, zip(*parts, strict=True))
        return nodes, rows, cols, edges
    owner, local, entry = induced(colptr, row, nodes, nodes)
    return nodes, local, owner, entry


def neighbor_hops(
    input_node: Tensor, num_neighbors: list[int], step: Step
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]], list[int]]:
    """Nodes, (local rows, local columns, entries) of each hop after an empty one, and the number of nodes before each hop and at
    the end."""
    empty = input_node.new_empty(0)
    nodes, parts, sizes = input_node, [(empty, empty, empty)], [0, input_node.numel()]
    for k in num_neighbors:
        owner, entry, found = step(nodes[sizes[-2] :], k)
        local, fresh = number(nodes, found)
        parts.append((local, owner + sizes[-2], entry))
        nodes = torch.cat([nodes, fresh])
        sizes.append(nodes.numel())
    return nodes, parts, sizes[1:]


def ego_k_hop_sample_adj(
    rowptr: Tensor, col: Tensor, idx: Tensor, depth: int, num_neighbors: int, replace: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The subgraphs around every node of ``idx``, one after the other: rowptr, columns, nodes, entries, pointers, roots."""
    checked("ego_k_hop_sample_adj", rowptr, col, idx)
    _index.in_range("ego_k_hop_sample_adj", "col", col, rowptr.numel() - 1)
    N = rowptr.numel() - 1
    graph, frontier = torch.arange(idx.numel(), device=idx.device), idx
    members = [_index.keys(graph, idx, (idx.numel(), N))]
    for _ in range(depth):
        count = rowptr[frontier + 1] - rowptr[frontier]
        if replace:  # rows that fit are taken whole all the same
            fits = count <= num_neighbors
            parts = [(entries(rowptr, frontier[fits]), fits), (draw(rowptr, frontier[~fits], num_neighbors, True), ~fits)]
            owner = torch.cat([mask.nonzero().flatten()[o] for (o, _), mask in parts])
            entry = torch.cat([e for (_, e), _ in parts])
        else:
            owner, entry = draw(rowptr, frontier, max(num_neighbors, 0), False)
        graph, frontier = graph[owner], col[entry]
        place = torch.unique(_index.keys(graph, frontier, (idx.numel(), N)))
        graph, frontier = torch.div(place, max(N, 1), rounding_mode="floor"), place % max(N, 1)
        members.append(place)
    place = torch.unique(torch.cat(members))
    graph, nodes = torch.div(place, max(N, 1), rounding_mode="floor"), place % max(N, 1)
    owner, entry = entries(rowptr, nodes)
    target = _index.keys(graph[owner], col[entry], (idx.numel(), N))
    at = torch.searchsorted(place, target).clamp_(max=max(place.numel() - 1, 0))
    inside = place[at] == target
    ptr = _index.ind2ptr(graph, idx.numel())
    roots = torch.searchsorted(place, members[0])
    return _index.ind2ptr(owner[inside], nodes.numel()), at[inside], nodes, entry[inside], ptr, roots
