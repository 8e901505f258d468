"""RGCN, RGAT and HGT layers with compact rows and reordered products, against one dense product for every relation."""

from __future__ import annotations

import pytest
import torch
from agreement import agree, graph_and_matrix, randn
from cases import generator
from structops import spmm
from structops.sparse import RelationPlan, TypePlan, gat_attention, rgcn_aggregate, typed_attention, typed_matmul
from torch import Tensor
from torch.nn.functional import leaky_relu

SYSTEM = "Hector (PIGEON): RGCN, RGAT and HGT layers with compact materialisation"
OPERATORS = (
    "structops.sparse.rgcn_aggregate",
    "structops.sparse.typed_matmul",
    "structops.sparse.gat_attention",
    "structops.sparse.typed_attention",
)

N, E, R, D, H = 12, 60, 4, 6, 2
GRAPH, (SRC, DST), _ = graph_and_matrix(N, N, E, seed=7)
KIND = torch.randint(0, R - 1, (E,), generator=generator(1))  # the last relation has no edges
PLAN = RelationPlan(GRAPH, KIND, R)


def softmax(score: Tensor, dst: Tensor = DST) -> Tensor:
    """Over the incoming edges of every node, all relations together."""
    same = (dst[:, None] == dst[None, :])[..., None]
    return torch.where(same, score[None].expand(len(dst), -1, -1), -torch.inf).softmax(1)[
        torch.arange(len(dst)), torch.arange(len(dst))
    ]


def sum_to_nodes(message: Tensor) -> Tensor:
    return message.new_zeros(N, *message.shape[1:]).index_add(0, DST, message)


# ---- RGCN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["direct", "compact"])
def test_rgcn(form: str) -> None:
    counts = torch.zeros(N, R).index_put((DST, KIND), torch.ones(E), accumulate=True).double()
    c = 1 / counts[DST, KIND]

    def ours(x, w, root):
        return torch.relu(x @ root + rgcn_aggregate(GRAPH, x, PLAN, w, "mean", form))

    def dense(x, w, root):
        messages = [sum_to_nodes(((r == KIND) * c)[:, None] * (x[SRC] @ w[r])) for r in range(R)]
        return torch.relu(x @ root + sum(messages))

    agree(ours, dense, randn(N, D), randn(R, D, 5, seed=1), randn(D, 5, seed=2))


# ---- RGAT ------------------------------------------------------------------------------------------------------------


def rgat(x: Tensor, w: Tensor, att_src: Tensor, att_dst: Tensor) -> Tensor:
    """z once for every (source, relation); att_dst W_r folded into one vector for every relation: linear reordering."""
    z = typed_matmul(x, w, PLAN.rows()).view(-1, H, w.shape[2] // H)
    left = (z * att_src[PLAN.row_type]).sum(2)
    folded = torch.einsum("rkhc,rhc->rkh", w.view(R, D, H, -1), att_dst)  # att_r W_r^T
    right = torch.einsum("nk,rkh->nrh", x, folded)[DST, KIND]
    return gat_attention(PLAN.row_graph, z, left, torch.zeros(N, H, dtype=x.dtype), right).flatten(1)


def rgat_dense(x: Tensor, w: Tensor, att_src: Tensor, att_dst: Tensor) -> Tensor:
    z = torch.einsum("nk,rkc->nrc", x, w).view(N, R, H, -1)
    zu, zv = z[SRC, KIND], z[DST, KIND]
    alpha = softmax(leaky_relu((att_src[KIND] * zu + att_dst[KIND] * zv).sum(2), 0.2))
    return sum_to_nodes(alpha[..., None] * zu).flatten(1)


def test_rgat() -> None:
    C = 3
    agree(rgat, rgat_dense, randn(N, D), randn(R, D, H * C, seed=1), randn(R, H, C, seed=2), randn(R, H, C, seed=3))


def test_compact_rows_are_fewer() -> None:
    assert PLAN.unique_src == len(torch.unique(KIND * N + SRC)) < E


# ---- HGT -------------------------------------------------------------------------------------------------------------

NODE_KIND = torch.randint(0, 3, (N,), generator=generator(2))
PER_NODE = TypePlan(NODE_KIND, 3)


def hgt(x: Tensor, wk: Tensor, wq: Tensor, wv: Tensor, watt: Tensor, wmsg: Tensor, mu: Tensor) -> Tensor:
    k, q, v = (typed_matmul(x, w, PER_NODE).view(N, H, -1) for w in (wk, wq, wv))
    return typed_attention(PLAN, q, k, v, watt, wmsg, mu, scale=1.0).flatten(1)


def hgt_dense(x: Tensor, wk: Tensor, wq: Tensor, wv: Tensor, watt: Tensor, wmsg: Tensor, mu: Tensor) -> Tensor:
    k, q, v = (torch.einsum("nk,nkc->nc", x, w[NODE_KIND]).view(N, H, -1) for w in (wk, wq, wv))
    score = torch.einsum("ehc,ehcd,ehd->eh", k[SRC], watt[KIND], q[DST]) * mu[KIND]
    messages = torch.einsum("ehc,ehcd->ehd", v[SRC], wmsg[KIND])
    return sum_to_nodes(softmax(score)[..., None] * messages).flatten(1)


def test_hgt() -> None:
    C = 3
    weights = (
        [randn(3, D, H * C, seed=s) / 2 for s in (1, 2, 3)]
        + [randn(R, H, C, C, seed=s) / 2 for s in (4, 5)]
        + [randn(R, H, seed=6)]
    )
    agree(hgt, hgt_dense, randn(N, D), *weights)


# ---- acceptance ------------------------------------------------------------------------------------------------------


def test_one_relation_is_a_graph_convolution() -> None:
    plan = RelationPlan(GRAPH, torch.zeros(E, dtype=torch.int64), 1)
    x, w = randn(N, D), randn(1, D, 5, seed=1)
    torch.testing.assert_close(rgcn_aggregate(GRAPH, x, plan, w), spmm(GRAPH, x, reduce="mean") @ w[0], atol=1e-12, rtol=1e-12)


def test_relabelled_relations_change_nothing() -> None:
    x, w, order = randn(N, D), randn(R, D, 5, seed=1), torch.tensor([2, 3, 0, 1])
    same = rgcn_aggregate(GRAPH, x, order[KIND], w[torch.argsort(order)])
    torch.testing.assert_close(same, rgcn_aggregate(GRAPH, x, KIND, w), atol=1e-12, rtol=1e-12)
