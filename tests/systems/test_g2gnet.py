"""G2GNet: layers whose weights live on a modular mask, pruned by magnitude and regrown by Hebbian correlation."""

from __future__ import annotations

import numpy as np
import torch
from agreement import agree, randn
from cases import generator
from structops import binary

SYSTEM = "G2GNet: ensemble-to-ensemble sparse layers, dynamic sparse training with Hebbian regrowth"
OPERATORS = (
    "structops.binary.mask_graph", "structops.binary.sparse_linear", "structops.binary.block_sparse_linear",
    "structops.binary.prune_regrow", "structops.binary.hebbian_score",
)  # fmt: skip
GROUPS, a, b, BATCH = 4, 3, 5, 7  # groups of a outputs and of b inputs
O, I = GROUPS * a, GROUPS * b
PAIRS = torch.tensor(
    [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
)  # matched groups; the last group of inputs has one


def modular(seed: int = 0) -> torch.Tensor:
    """Dense between matched groups, one place in ten elsewhere; an output without inputs."""
    inside = PAIRS.repeat_interleave(a, 0).repeat_interleave(b, 1) > 0
    mask = inside | (torch.rand(O, I, generator=generator(seed)) < 0.1)
    mask[4] = False
    return mask


def dense_weight(mask, values):
    return torch.zeros(O, I, dtype=values.dtype).masked_scatter(mask, values)


def test_sparse_layer() -> None:
    """(W o M) x + bias; the gradient of W exists on the mask only."""
    mask = modular()
    graph = binary.mask_graph(mask)
    assert graph.num_edges == int(mask.sum())
    agree(
        lambda x, w, c: binary.sparse_linear(x, graph, w, c), lambda x, w, c: x @ dense_weight(mask, w).T + c,
        randn(BATCH, I), randn(int(mask.sum()), seed=1), randn(O, seed=2),
    )  # fmt: skip


def test_layer_of_matched_groups() -> None:
    """Blocks between groups as dense matrices, the same layer as its expanded mask."""
    graph = binary.mask_graph(PAIRS)

    def dense(x, blocks, c):
        W = torch.zeros(GROUPS, GROUPS, a, b, dtype=torch.float64)
        W[PAIRS.nonzero(as_tuple=True)] = blocks
        return x @ W.permute(0, 2, 1, 3).reshape(O, I).T + c

    args = randn(BATCH, I), randn(int(PAIRS.sum()), a, b, seed=1), randn(O, seed=2)
    agree(lambda x, w, c: binary.block_sparse_linear(x, graph, w, c), dense, *args)


def test_hebbian_score() -> None:
    x, y = randn(BATCH, I), randn(BATCH, O, seed=1)
    x[:, 3] = 2.0  # a constant input correlates with nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        want = np.nan_to_num(np.abs(np.corrcoef(x.T.numpy(), y.T.numpy())[I:, :I]))
    torch.testing.assert_close(binary.hebbian_score(x, y), torch.from_numpy(want))


def test_training_steps() -> None:
    """Prune the weakest, regrow the best correlated empty places, by a sort over the dense matrix; the number of edges stays."""
    mask, x = modular(), randn(BATCH, I)
    values = randn(int(mask.sum()), seed=1)
    graph = binary.mask_graph(mask)
    for step in range(4):
        score = binary.hebbian_score(x, torch.tanh(binary.sparse_linear(x, graph, values)) + 0.1 * randn(BATCH, O, seed=step))
        W = dense_weight(mask, values)
        moved = int(0.3 * len(values))
        weakest = torch.sort(torch.where(mask, W.abs(), torch.inf).flatten(), stable=True).indices[:moved]
        empty = torch.where(mask, -1.0, score).flatten()
        grown = torch.sort(empty, descending=True, stable=True).indices[:moved]
        after, kept = mask.flatten().clone(), W.flatten().clone()
        after[weakest], kept[weakest] = False, 0.0
        after[grown] = True
        graph, values, origin = binary.prune_regrow(graph, values, 0.3, score)
        assert graph.num_edges == int(mask.sum()) == int(after.sum()) and int((origin < 0).sum()) == moved
        mask = after.reshape(O, I)
        torch.testing.assert_close(dense_weight(mask, values), kept.reshape(O, I), rtol=0, atol=0)
        assert torch.equal(graph.edge_index(), mask.nonzero().T.flip(0))
        values = values + 0.5 * randn(len(values), seed=20 + step)  # a step of the optimiser


def test_order_within_groups_is_free() -> None:
    """A permutation within groups moves no entry between blocks."""
    count = lambda m: m.reshape(GROUPS, a, GROUPS, b).sum((1, 3))
    mask = modular()
    within = lambda n, seed: torch.cat([g * n + torch.randperm(n, generator=generator(seed + g)) for g in range(GROUPS)])
    rows, cols = within(a, 1), within(b, 2)
    assert torch.equal(count(mask), count(mask[rows][:, cols]))
    x, w = randn(BATCH, I), randn(int(mask.sum()), seed=1)
    moved = dense_weight(mask, w)[rows][:, cols]
    turned = mask[rows][:, cols]
    got = binary.sparse_linear(x[:, cols], binary.mask_graph(turned), moved[turned])
    torch.testing.assert_close(got, binary.sparse_linear(x, binary.mask_graph(mask), w)[:, rows])
