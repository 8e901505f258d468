"""Policies and counts of graph generation: ragged categoricals and trajectory balance (A-GFN), attribute counts (FAROS)."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn, simple_graph
from structops import sddmm, segment_gather, segment_reduce, spmm
from torch.nn.functional import one_hot

SYSTEM = "A-GFN: molecule policies with trajectory balance; FAROS: attribute switching"
OPERATORS = ("structops.segment_reduce", "structops.segment_gather", "structops.sddmm", "structops.spmm")
NODES, EDGES = torch.tensor([0, 3, 4, 8]), torch.tensor([0, 5, 5, 9])  # rows per graph; the second has no edges


def test_ragged_categorical() -> None:
    """One distribution per graph over node logits [n, 2] and edge logits [e, 3]: normaliser, entropy."""

    def ours(node, edge):
        parts = torch.stack(
            [segment_reduce(node.logsumexp(1), NODES, "logsumexp"), segment_reduce(edge.logsumexp(1), EDGES, "logsumexp")]
        )
        logz = parts.logsumexp(0)
        p_node, p_edge = node - segment_gather(logz, NODES)[:, None], edge - segment_gather(logz, EDGES)[:, None]
        plogp = [segment_reduce((p.exp() * p).sum(1), ptr, "sum") for p, ptr in ((p_node, NODES), (p_edge, EDGES))]
        return torch.stack([logz, -plogp[0] - plogp[1]])

    def dense(node, edge):
        found = []
        for g in range(3):
            logits = torch.cat([node[NODES[g] : NODES[g + 1]].reshape(-1), edge[EDGES[g] : EDGES[g + 1]].reshape(-1)])
            logp = torch.log_softmax(logits, 0)
            found.append(torch.stack([logits.logsumexp(0), -(logp.exp() * logp).sum()]))
        return torch.stack(found, 1)

    agree(ours, dense, randn(8, 2), randn(9, 3, seed=1))


def test_gumbel_argmax_of_each_graph() -> None:
    noisy = randn(8, seed=4)
    best, where = segment_reduce(noisy, NODES, "max", return_arg=True)
    for g in range(3):
        part = noisy[NODES[g] : NODES[g + 1]]
        assert best[g] == part.max() and where[g] - NODES[g] == part.argmax()


def test_trajectory_balance() -> None:
    ptr = torch.tensor([0, 4, 6, 9])
    reward = torch.tensor([0.3, -0.2, 1.1], dtype=torch.float64)
    agree(
        lambda logz, pf, pb: (logz + segment_reduce(pf - pb, ptr, "sum") - reward).square().sum(),
        lambda logz, pf, pb: sum(
            (logz[0] + pf[a:b].sum() - r - pb[a:b].sum()) ** 2
            for a, b, r in zip(ptr.tolist(), ptr.tolist()[1:], reward, strict=False)
        ),
        *(randn(1), randn(9, seed=1), randn(9, seed=2)),
    )  # fmt: skip


def test_genconv() -> None:
    """sum of relu(x_j + e) + eps."""
    graph, (src, _), incidence = graph_and_matrix(9, 9, 25, seed=3)
    agree(
        lambda x, e: spmm(graph, None, torch.relu(sddmm(graph, x, e, "add", "u", "e")) + 1e-7),
        lambda x, e: torch.einsum("vue,ef->vf", incidence, torch.relu(x[src] + e) + 1e-7),
        *(randn(9, 4), randn(25, 4, seed=1)),
    )


def test_attribute_counts() -> None:
    """Profiles and the mixing matrix, exact, and updated by the switched nodes alone."""
    graph, A = simple_graph(20, 4.0)
    before = one_hot(torch.arange(20) % 3, 3)
    profile = spmm(graph, before.int())
    assert torch.equal(profile.long(), A.long() @ before)
    mixing = before.T @ profile.long()
    assert int(mixing.sum()) == graph.num_edges
    after = before.clone()
    after[[2, 7, 11]] = one_hot(torch.tensor([1, 1, 0]), 3)
    updated = profile + spmm(graph, (after - before).int())
    assert torch.equal(updated, spmm(graph, after.int()))
    assert torch.equal(updated + spmm(graph, (before - after).int()), profile)
