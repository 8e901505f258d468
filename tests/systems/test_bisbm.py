"""biSBM: edge counts between blocks, label histograms and entropies of a bipartite network, and how moves change them."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from cases import generator
from structops import Graph, scatter_reduce, spmm
from torch.nn.functional import one_hot

SYSTEM = "biSBM: bipartite stochastic block model with integer counts between blocks and exact entropy changes"
OPERATORS = ("structops.scatter_reduce", "structops.spmm")
WOMEN = nx.davis_southern_women_graph()  # 18 women, 14 events, 89 attendances
A_NODES = [n for n, d in WOMEN.nodes(data=True) if d["bipartite"] == 0]
NODES = [*A_NODES, *(n for n in WOMEN if n not in set(A_NODES))]
NA, N, KA, KB = 18, 32, 3, 4
PAIRS = torch.tensor([sorted((NODES.index(u), NODES.index(v))) for u, v in WOMEN.edges]).T  # woman, event
BOTH = Graph(torch.cat([PAIRS, PAIRS.flip(0)], 1), num_nodes=N)
DEGREE = BOTH.in_degrees()


def labels(seed: int = 0) -> torch.Tensor:
    """Blocks 0..KA - 1 of women, KA..KA + KB - 1 of events; none empty."""
    mixed = lambda n, k, s: (torch.arange(n) % k)[torch.randperm(n, generator=generator(s))]
    return torch.cat([mixed(NA, KA, seed), KA + mixed(N - NA, KB, seed + 1)])


def edge_counts(b: torch.Tensor) -> torch.Tensor:
    """e_rs ``[KA, KB]``, every edge once."""
    cell = b[PAIRS[0]] * KB + b[PAIRS[1]] - KA
    return scatter_reduce(torch.ones_like(cell), cell, KA * KB).reshape(KA, KB)


def neighbour_labels(b: torch.Tensor) -> torch.Tensor:
    return spmm(BOTH, one_hot(b, KA + KB))


def log_factorial(t: torch.Tensor) -> torch.Tensor:
    return torch.lgamma(t.double() + 1)


def entropy(e: torch.Tensor) -> torch.Tensor:
    """Of the degree-corrected microcanonical model: log of prod e_r! prod e_s! / (prod e_rs! prod k_i!)."""
    ends = log_factorial(e.sum(1)).sum() + log_factorial(e.sum(0)).sum()
    return ends - log_factorial(e).sum() - log_factorial(DEGREE).sum()


def test_counts() -> None:
    b = labels()
    e, k = edge_counts(b), neighbour_labels(b)
    slow, histogram = torch.zeros(KA, KB, dtype=torch.long), torch.zeros(N, KA + KB, dtype=torch.long)
    for u, v in PAIRS.T.tolist():
        slow[b[u], b[v] - KA] += 1
        histogram[u, b[v]] += 1
        histogram[v, b[u]] += 1
    assert torch.equal(e, slow) and torch.equal(k, histogram) and int(e.sum()) == 89
    assert torch.equal(e, (one_hot(b[:NA], KA + KB).T @ k[:NA])[:KA, KA:])


def test_entropy_counts_configurations() -> None:
    """exp(S) is the number of ways to wire half-edges within the counts over that of ways for one simple graph."""
    b = labels()
    e = edge_counts(b)
    ways = math.prod(math.factorial(int(t)) for t in (*e.sum(1), *e.sum(0)))
    same = math.prod(math.factorial(int(t)) for t in (*e.flatten(), *DEGREE))
    assert abs(float(entropy(e)) - (math.log(ways) - math.log(same))) < 1e-9
    one = torch.tensor([[89]])
    assert abs(float(entropy(one)) - (math.lgamma(90) - float(log_factorial(DEGREE).sum()))) < 1e-9


@pytest.mark.parametrize("node", [0, 7, 17, 18, 31])
def test_moves(node: int) -> None:
    """A node's move changes two rows (or columns) of e by its histogram; the entropies' difference from those two alone."""
    b = labels(3)
    e, k = edge_counts(b), neighbour_labels(b)[node]
    woman = node < NA
    old = int(b[node]) - (0 if woman else KA)
    blocks = e if woman else e.T
    moving = k[KA:] if woman else k[:KA]
    for new in range(KA if woman else KB):
        if new == old:
            continue
        before, after = blocks[[old, new]], blocks[[old, new]] + torch.stack([-moving, moving])
        change = lambda t: log_factorial(t.sum(1)).sum() - log_factorial(t).sum()
        moved = b.clone()
        moved[node] = new + (0 if woman else KA)
        torch.testing.assert_close(
            change(after) - change(before), entropy(edge_counts(moved)) - entropy(e), rtol=1e-9, atol=1e-9
        )


def test_merges_of_all_pairs() -> None:
    """Two blocks of women become one: changes of all pairs at once."""
    e = edge_counts(labels(5))
    size = lambda t: log_factorial(t.sum(-1)) - log_factorial(t).sum(-1)
    change = size(e[:, None] + e[None]) - size(e)[:, None] - size(e)[None]
    for r in range(KA):
        for s in range(r):
            merged = torch.cat([e[[k for k in range(KA) if k not in (r, s)]], (e[r] + e[s])[None]])
            torch.testing.assert_close(change[r, s], entropy(merged) - entropy(e))
