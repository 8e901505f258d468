"""Order-independent hashes of multisets, and Weisfeiler-Lehman refinement on them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph, checked_graph
from ._segment import segment_reduce
from ._spmm import spmm

# Odd multipliers of a 64-bit finaliser, as signed numbers: integer arithmetic wraps.
_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)
_OFFSETS = (-7046029254386353131, -2691343689449507777)  # of the two words


def _shift(x: Tensor, n: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix(x: Tensor, seed: int) -> Tensor:
    """A bijection of 64-bit words without visible structure (the splitmix64 finaliser)."""
    x = x + _OFFSETS[seed]
    x = (x ^ _shift(x, 30)) * _MULTIPLIERS[0]
    x = (x ^ _shift(x, 27)) * _MULTIPLIERS[1]
    return x ^ _shift(x, 31)


def multiset_hash(structure: Graph | Tensor, colours: Tensor, *, words: int = 1) -> Tensor:
    """A hash of every multiset of colours that does not depend on their order: the wrapping sum of mixed 64-bit colours.

    Args:
        structure: a :class:`Graph` (the multiset of a node: colours of the sources of its incoming edges), or an indptr ``[G + 1]``
            of consecutive groups.
        colours: int64 ``[num_src]``, or ``[L]`` with an indptr.
        words: 1 or 2 independent 64-bit words.

    Returns:
        int64 ``[num_dst]`` (``[num_dst, 2]`` with two words); 0 for an empty multiset. Not differentiable.

    Equal multisets have equal hashes, on every device and in every order of edges. Two given different multisets collide with a
    probability of about 2^-64 a word if the mixing is modelled as a random function; among n of them, n^2 / 2 pairs. The function
    is fixed and public, so it is no defence against inputs made to collide.

    Source: sums of random values as multiset hashes (Clarke et al., 2003); splitmix64.

    >>> import torch
    >>> from structops.sparse import multiset_hash
    >>> h = multiset_hash(torch.tensor([0, 3, 6, 7]), torch.tensor([5, 8, 8, 8, 5, 8, 5]))
    >>> bool(h[0] == h[1]), bool(h[0] == h[2])
    (True, False)
    """
    op = "multiset_hash"
    check.tensor(op, "colours", colours)
    if colours.dtype != torch.int64 or colours.dim() != 1:
        check.fail(TypeError, op, "colours int64 of one dimension", check.describe(colours))
    if type(words) is not int or words not in (1, 2):
        check.fail(ValueError, op, "words to be 1 or 2", words)
    found: list[Tensor] = []
    for seed in range(words):
        mixed = _mix(colours, seed)
        if isinstance(structure, Graph):
            if colours.shape[0] != structure.num_src:
                check.fail(ValueError, op, f"colours of shape [{structure.num_src}]", list(colours.shape))
            found.append(cast(Tensor, spmm(structure, mixed)))
        else:
            found.append(cast(Tensor, segment_reduce(mixed, structure)))
    return found[0] if words == 1 else torch.stack(found, 1)


def weisfeiler_lehman(graph: Graph, colours: Tensor, rounds: int, *, words: int = 1) -> Tensor:
    """Colours after ``rounds`` of 1-WL refinement: a colour of the old one and those of the in-neighbours.

    Args:
        graph: a square graph; undirected graphs hold both directions.
        colours: int64 ``[N]``.
        rounds: number of refinements; 0 only relabels.
        words: of :func:`multiset_hash`. Nodes of different refinement get one colour only if their hashes collide.

    Returns:
        int64 ``[N]``, 0 to the number of classes - 1, by ``torch.unique``: comparable within one call, so put graphs to be compared
        into one disjoint union. Refinement never merges classes.

    >>> import torch, structops
    >>> from structops.sparse import weisfeiler_lehman
    >>> path = structops.Graph(torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]), num_nodes=4)
    >>> c = weisfeiler_lehman(path, torch.zeros(4, dtype=torch.int64), 2)
    >>> bool(c[0] == c[3]), bool(c[1] == c[2]), bool(c[0] == c[1])
    (True, True, False)
    """
    op = "weisfeiler_lehman"
    checked_graph(op, graph, square=True)
    rounds = check.size(op, "rounds", rounds)
    if not isinstance(colours, Tensor) or colours.dtype != torch.int64 or colours.shape != (graph.num_src,):
        check.fail(ValueError, op, f"colours int64 of shape [{graph.num_src}]", check.describe(colours))
    current = torch.unique(colours, return_inverse=True)[1]
    for _ in range(rounds):
        hashed = multiset_hash(graph, current, words=words).reshape(graph.num_dst, -1)
        current = torch.unique(torch.cat([current[:, None], hashed], 1), dim=0, return_inverse=True)[1]
    return current
