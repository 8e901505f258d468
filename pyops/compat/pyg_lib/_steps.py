"""One hop of a sampler: which neighbours of a frontier are taken, by time, by weight and tree by tree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import _check as check
from ...sparse import segment_topk
from ..torch_sparse import _index
from ..torch_sparse._sampling import Step, draw_spans, pointers, spans


class Trees(NamedTuple):
    """Disjoint subgraphs: node v of tree i has the number ``i * N + v``, N that of its type."""

    near: int
    far: int


class Clock(NamedTuple):
    """Times of neighbours, or of entries if ``by_entry``, and the latest that each tree takes; ``last``: the most recent."""

    time: Tensor
    by_entry: bool
    limit: Tensor
    last: bool


def joined(tree: Tensor, node: Tensor, size: int) -> Tensor:
    """Numbers of the nodes of trees."""
    return _index.keys(tree, node.long(), (int(tree.max()) + 1 if tree.numel() else 0, max(size, 1)))


def parted(number: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Trees and nodes of numbers."""
    return torch.div(number, max(size, 1), rounding_mode="floor"), number % max(size, 1)


def checked_weight(op: str, name: str, weight: Tensor, ind: Tensor) -> Tensor:
    """A finite weight of at least 0 for every entry."""
    check.dense(op, name, weight, integers=True)
    _vector(op, name, weight, ind, ind.numel())
    if weight.numel():
        low, high = (float(x) for x in weight.aminmax())
        if not (low >= 0 and high < float("inf")):
            check.fail(ValueError, op, f"{name} finite and >= 0", f"values from {low} to {high}")
    return weight


def checked_time(op: str, name: str, time: Tensor, like: Tensor, size: int | None, comparable: Tensor | None = None) -> Tensor:
    """Times without NaN; integers where those compared with are."""
    check.dense(op, name, time, integers=True)
    _vector(op, name, time, like, size)
    if time.is_floating_point() and bool(time.isnan().any()):
        check.fail(ValueError, op, f"{name} without NaN", "NaN")
    if comparable is not None and time.is_floating_point() != comparable.is_floating_point():
        kind = "a floating" if comparable.is_floating_point() else "an integer"
        check.fail(TypeError, op, f"{name} of {kind} dtype, as the times of the graph", time.dtype)
    return time


def limit(op: str, name: str, seed: Tensor, seed_time: Tensor | None, node_time: Tensor | None, comparable: Tensor) -> Tensor:
    """The times of seeds: ``seed_time``, else those of the nodes."""
    if seed_time is not None:
        return checked_time(op, name, seed_time, seed, seed.numel(), comparable)
    if node_time is None:
        check.fail(ValueError, op, f"{name}, where the nodes have no time", "None")
    return node_time[seed]


def _vector(op: str, name: str, t: Tensor, like: Tensor, size: int | None) -> None:
    if t.dim() != 1 or (size is not None and t.numel() != size):
        check.fail(ValueError, op, f"{name} of shape [{'*' if size is None else size}]", list(t.shape))
    if t.device != like.device:
        check.fail(ValueError, op, f"{name} on {like.device}", t.device)


def chosen(
    op: str, ptr: Tensor, ind: Tensor, replace: bool, trees: Trees | None, clock: Clock | None, weight: Tensor | None
) -> Step:
    """The step of one relation. Its frontier, and the nodes that it finds, are numbers of nodes of ``trees`` where given."""

    def step(nodes: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        tree = None
        if trees is not None:
            tree, nodes = parted(nodes, trees.near)
        first = ptr[nodes]
        count = ptr[nodes + 1] - first
        if clock is not None and tree is not None:
            first, count = _in_time(op, ind, first, count, clock, clock.limit[tree], k)
        if weight is None or k < 0:
            owner, entry = draw_spans(first, count, k, replace)
        else:
            owner, entry = _by_weight(first, count, weight, k, replace)
        found = ind[entry]
        return owner, entry, found if trees is None or tree is None else joined(tree[owner], found, trees.far)

    return step


def _in_time(op: str, ind: Tensor, first: Tensor, count: Tensor, clock: Clock, limit: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The spans cut to the entries up to ``limit``, which come first in every row."""
    owner, entry = spans(first, count)
    time = clock.time[entry if clock.by_entry else ind[entry]]
    falls = (time[1:] < time[:-1]) & (owner[1:] == owner[:-1])
    if bool(falls.any()):
        at = int(falls.nonzero()[0])
        got = f"{time[at + 1].item()} after {time[at].item()} at entry {int(entry[at + 1])}"
        check.fail(ValueError, op, "the neighbours of every node in order of time", got)
    left = torch.bincount(owner[time <= limit[owner]], minlength=count.numel())
    if not clock.last or k < 0:
        return first, left
    return first + (left - k).clamp(min=0), left.clamp(max=k)


def _by_weight(first: Tensor, count: Tensor, weight: Tensor, k: int, replace: bool) -> tuple[Tensor, Tensor]:
    """Up to k entries of every span, one after the other with probability proportional to weight, never one of weight 0."""
    owner, entry = spans(first, count)
    share = weight[entry].double()
    positive = share > 0
    owner, entry, share = owner[positive], entry[positive], share[positive]
    left = torch.bincount(owner, minlength=count.numel())
    largest = share.new_zeros(count.numel()).scatter_reduce(0, owner, share, "amax")
    share = share / largest[owner]  # so that no row is lost beside another in the sums
    start = pointers(left)
    if not replace:
        # The k smallest of exponential times with these rates are a sample of this kind.
        at = segment_topk(torch.log(torch.empty_like(share).exponential_()) - share.log(), start, k, largest=False)[1].flatten()
        kept = at[at >= 0]
        return owner[kept], entry[kept]
    rows = (left > 0).nonzero().flatten().repeat_interleave(k)
    total = torch.cat([share.new_zeros(1), share.cumsum(0)])
    low, high = total[start[:-1][rows]], total[start[1:][rows]]
    point = low + torch.rand(rows.numel(), dtype=torch.float64, device=share.device) * (high - low)
    at = torch.searchsorted(total[1:].contiguous(), torch.minimum(point, torch.nextafter(high, low)), right=True)
    return rows, entry[at]
