"""Co-representation hypergraph diffusion (CoNHD): states on incidences, set attention within hyperedges and nodes."""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import generator
from structops import segment_gather, segment_reduce, segment_softmax

SYSTEM = "CoNHD: co-representation neural hypergraph diffusion"
OPERATORS = ("structops.segment_softmax", "structops.segment_reduce", "structops.segment_gather")
SIZES = [1, 5, 2, 8]
PTR = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()])
P, C, Q, H = 16, 8, 4, 2  # incidences, channels, inducing points, heads


def heads(x):
    return x.reshape(*x.shape[:-1], H, C // H)


def induced(z, points, wk, wv):
    """Attention of Q inducing points to each hyperedge's incidences, scale sqrt(C): [G, Q, C]."""
    score = torch.einsum("qhc,phc->pqh", heads(points), heads(z @ wk)) / C**0.5
    weight = segment_softmax(score, PTR)
    return segment_reduce(weight[..., None] * heads(z @ wv)[:, None], PTR, "sum").flatten(2) + points


def block(z, points, wk, wv):
    """And back: every incidence attends to its hyperedge's points."""
    summary = segment_gather(induced(z, points, wk, wv), PTR)  # [P, Q, C]
    weight = torch.softmax(torch.einsum("phc,pqhc->pqh", heads(z), heads(summary)) / C**0.5, 1)
    return (weight[..., None] * heads(summary)).sum(1).flatten(1) + z


def dense(z, points, wk, wv):
    found = []
    for part in z.split(SIZES):
        first = torch.softmax(torch.einsum("qhc,phc->pqh", heads(points), heads(part @ wk)) / C**0.5, 0)
        summary = torch.einsum("pqh,phc->qhc", first, heads(part @ wv)).flatten(1) + points
        second = torch.softmax(torch.einsum("phc,qhc->pqh", heads(part), heads(summary)) / C**0.5, 1)
        found.append(torch.einsum("pqh,qhc->phc", second, heads(summary)).flatten(1) + part)
    return torch.cat(found)


def inputs():
    return randn(P, C), randn(Q, C, seed=1), randn(C, C, seed=2), randn(C, C, seed=3)


def test_attention_within_hyperedges() -> None:
    agree(block, dense, *inputs())


def test_mean_and_members() -> None:
    """W2 [z || mean of W1 z], with the first map split."""
    agree(
        lambda z, a, b, c: z @ a + segment_gather(segment_reduce(z @ b, PTR, "mean") @ c, PTR),
        lambda z, a, b, c: torch.cat([torch.cat([p, (p @ b).mean(0).expand_as(p)], 1) @ torch.cat([a, c]) for p in z.split(SIZES)]),
        *(randn(P, C), *(randn(C, C, seed=k) for k in (1, 2, 3))),
    )


def test_order_of_members() -> None:
    """Members permuted within their hyperedges, and node order and hyperedge order there and back."""
    z, *rest = inputs()
    order = torch.cat([a + torch.randperm(n, generator=generator(n)) for a, n in zip(PTR.tolist(), SIZES, strict=False)])
    torch.testing.assert_close(block(z[order], *rest), block(z, *rest)[order], atol=1e-12, rtol=1e-12)
    by_node = torch.argsort(torch.randint(5, (P,), generator=generator(9)), stable=True)
    assert torch.equal(z[by_node][torch.argsort(by_node)], z)
