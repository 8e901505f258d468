"""Interaction and bottleneck of CGIB: pairs of ragged graphs, unbiased deviations per graph, set2set pooling, GINE."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn
from structops import sddmm, segment_gather, segment_reduce, segment_softmax, spmm

SYSTEM = "CGIB: conditional graph information bottleneck"
OPERATORS = (
    "structops.spmm",
    "structops.sddmm",
    "structops.segment_reduce",
    "structops.segment_softmax",
    "structops.segment_gather",
)
S_PTR, T_PTR = torch.tensor([0, 4, 5, 11]), torch.tensor([0, 3, 9, 10])  # the second graph has one atom
D = 6


def rows(x: torch.Tensor, ptr: torch.Tensor) -> list[torch.Tensor]:
    return [x[a:b] for a, b in zip(ptr.tolist(), ptr.tolist()[1:], strict=False)]


def test_interaction_by_moments() -> None:
    """S' = S (T^T T) per pair equals the masked S T^T T, which needs the pairs' [S, T] block."""

    def ours(s, t):
        moments = segment_reduce((t[:, :, None] * t[:, None, :]), T_PTR, "sum")
        return (s[:, None, :] @ segment_gather(moments, S_PTR))[:, 0]

    def dense(s, t):
        return torch.cat([a @ b.T @ b for a, b in zip(rows(s, S_PTR), rows(t, T_PTR), strict=True)])

    agree(ours, dense, randn(11, D), randn(10, D, seed=1))


def test_noise_of_the_bottleneck() -> None:
    """lambda h + (1 - lambda) (mean + eps std) with unbiased deviations; one atom has none."""
    noise = randn(11, D, seed=3)

    def mixed(h, gate, mean, std):
        return gate * h + (1 - gate) * mean + noise * (1 - gate) * std

    def ours(h, gate):
        spread = segment_reduce(h, S_PTR, "std")
        return mixed(h, gate, segment_gather(segment_reduce(h, S_PTR, "mean"), S_PTR), segment_gather(spread, S_PTR))

    def dense(h, gate):
        mean = torch.cat([r.mean(0).expand_as(r) for r in rows(h, S_PTR)])
        std = torch.cat([(r.std(0) if len(r) > 1 else r[0] * 0).expand_as(r) for r in rows(h, S_PTR)])
        return mixed(h, gate, mean, std)

    agree(ours, dense, randn(11, D), torch.rand(11, 1, dtype=torch.float64))


def test_set2set_step() -> None:
    def ours(h, q):
        a = segment_softmax((h * segment_gather(q, S_PTR)).sum(1), S_PTR)
        return segment_reduce(a[:, None] * h, S_PTR, "sum")

    def dense(h, q):
        return torch.stack([torch.softmax(r @ k, 0) @ r for r, k in zip(rows(h, S_PTR), q, strict=True)])

    agree(ours, dense, randn(11, D), randn(3, D, seed=1))


def test_gine() -> None:
    """sum over neighbours of relu(x_j + W e_ij)."""
    graph, coo, incidence = graph_and_matrix(9, 9, 25, seed=4)

    def ours(x, e, w):
        return spmm(graph, None, torch.relu(sddmm(graph, x, e @ w, "add", "u", "e")))

    def dense(x, e, w):
        return torch.einsum("vue,ef->vf", incidence, torch.relu(x[coo[0]] + e @ w))

    agree(ours, dense, randn(9, D), randn(25, 3, seed=1), randn(3, D, seed=2))
