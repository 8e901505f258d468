"""Fast feed-forward networks with load balancing and a master leaf: hard descent, soft mixtures, both losses."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, randn
from structops import binary

SYSTEM = "FFF with load balancing and a master leaf: conditional execution of the leaves of a tree"
OPERATORS = (
    "structops.binary.fff_hard", "structops.binary.fff_soft", "structops.binary.fff_descend", "structops.binary.fff_probabilities",
    "structops.binary.fff_load_balance", "structops.binary.fff_entropy",
)  # fmt: skip
ROWS, I, H, O, MASTER = 9, 5, 3, 4, 8
DEPTHS = [0, 1, 3]


def parameters(depth: int):
    nodes, leaves = 2**depth - 1, 2**depth
    shapes = (ROWS, I), (nodes, I), (nodes,), (leaves, I, H), (leaves, H), (leaves, H, O), (leaves, O)
    return [randn(*s, seed=i) for i, s in enumerate(shapes)]


def leaf(x, k, w1, b1, w2, b2):
    return torch.relu(x @ w1[k] + b1[k]) @ w2[k] + b2[k]


def paths(depth: int):
    """Of every leaf: its (node, second child?) decisions."""
    for k in range(2**depth):
        node, path = 0, []
        for t in reversed(range(depth)):
            second = k >> t & 1
            path.append((node, second))
            node = 2 * node + 1 + second
        yield k, path


def mixture(x, nodes, bias, depth: int):
    p = torch.sigmoid(x @ nodes.T + bias)
    ones = torch.ones(len(x), dtype=x.dtype)
    columns = []
    for _, path in paths(depth):
        m = ones
        for n, second in path:
            m = m * (p[:, n] if second else 1 - p[:, n])
        columns.append(m)
    return torch.stack(columns, 1), p


def reached(x, nodes, bias, depth: int) -> list[int]:
    """The leaf of every row, one decision after the other."""
    found = []
    for row in x:
        node = 0
        for _ in range(depth):
            node = 2 * node + 1 + int(row @ nodes[node] + bias[node] >= 0)
        found.append(node - (2**depth - 1))
    return found


@pytest.mark.parametrize("depth", DEPTHS)
def test_hard_network_with_a_master_leaf(depth: int) -> None:
    """k FFF(x) + (1 - k) MLP(x), k the sigmoid of a learned number; row by row."""
    master = [randn(I, MASTER, seed=20), randn(MASTER, O, seed=21), randn(1, seed=22)]

    def blend(y, x, a, b, k):
        return k.sigmoid() * y + (1 - k.sigmoid()) * (torch.relu(x @ a) @ b)

    def dense(x, nodes, bias, *rest):
        rows = [leaf(r, k, *rest[:4]) for r, k in zip(x, reached(x, nodes, bias, depth), strict=True)]
        return blend(torch.stack(rows), x, *rest[4:])

    agree(lambda *t: blend(binary.fff_hard(*t[:7]), t[0], *t[7:]), dense, *parameters(depth), *master)


@pytest.mark.parametrize("depth", DEPTHS)
def test_soft_network(depth: int) -> None:
    """The mixture over root-to-leaf paths, whose weights sum to 1, and the entropy of decisions that hardening lowers."""

    def dense(x, nodes, bias, *leaves):
        m, _ = mixture(x, nodes, bias, depth)
        return sum(m[:, k, None] * leaf(x, k, *leaves) for k in range(2**depth))

    p = parameters(depth)
    agree(lambda *t: binary.fff_soft(*t)[0], dense, *p)
    torch.testing.assert_close(binary.fff_probabilities(*p[:3])[0].sum(1), torch.ones(ROWS).double())
    if depth:  # else one leaf of probability 1
        agree(lambda *t: binary.fff_probabilities(*t)[0], lambda *t: mixture(*t, depth)[0], *p[:3])
        entropy = lambda *t: torch.distributions.Bernoulli(mixture(*t, depth)[1]).entropy().mean()
        agree(lambda *t: binary.fff_entropy(binary.fff_probabilities(*t)[1]), entropy, *p[:3])


@pytest.mark.parametrize("depth", DEPTHS[1:])
def test_load_balance(depth: int) -> None:
    """sum over leaves of (sum of mixtures) (rows that reach the leaf), those rows by descent or by the mixture alike."""

    def dense(x, nodes, bias):
        m, _ = mixture(x, nodes, bias, depth)
        count = [reached(x, nodes, bias, depth).count(k) for k in range(2**depth)]
        return sum(m[:, k].sum() * c for k, c in enumerate(count))

    x, nodes, bias = parameters(depth)[:3]
    assert binary.fff_descend(x, nodes, bias)[0].tolist() == reached(x, nodes, bias, depth)
    agree(lambda *t: binary.fff_load_balance(binary.fff_probabilities(*t)[0], binary.fff_descend(*t)[0]), dense, x, nodes, bias)
    agree(lambda *t: binary.fff_load_balance(binary.fff_probabilities(*t)[0]), dense, x, nodes, bias)


def test_soft_becomes_hard() -> None:
    x, nodes, bias, *leaves = parameters(3)
    soft = binary.fff_soft(x, 1e4 * nodes, 1e4 * bias, *leaves)[0]
    torch.testing.assert_close(soft, binary.fff_hard(x, nodes, bias, *leaves))
    assert binary.fff_descend(0 * x, nodes, 0 * bias)[0].tolist() == [7] * ROWS  # a tie goes to the second child
