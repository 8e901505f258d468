"""PNA: the message is linear in both ends, so the target's part is added to the aggregates."""

from __future__ import annotations

import structops
import torch
from cases import random_coo, values
from compare import assert_close
from structops.sparse import multi_aggregate

SYSTEM = "PNA: four aggregators times three degree scalers of linear messages"
OPERATORS = ("structops.sparse.multi_aggregate",)

N, E, F = 14, 60, 4
DELTA = 1.4


def layer(graph, h, edge, w_dst, w_src, w_edge):
    return multi_aggregate(
        graph, h @ w_src, ("mean", "max", "min", "std"), ("identity", "amplification", "attenuation"),
        x_dst=h @ w_dst, edge=edge @ w_edge, delta=DELTA,
    )  # fmt: skip


def dense(coo, h, edge, w_dst, w_src, w_edge):
    rows = []
    for v in range(N):
        at = (coo[1] == v).nonzero()[:, 0]
        n = at.numel()
        if n == 0:
            zero = h.new_zeros(F)
            block = torch.cat([zero, zero, zero, zero + 1e-5**0.5])
            low = torch.log(torch.tensor(2.0, dtype=torch.float64))
            rows.append(torch.cat([block, block * 0, block * DELTA / low]))
            continue
        m = torch.cat([h[v].expand(n, F), h[coo[0, at]], edge[at]], 1) @ torch.cat([w_dst, w_src, w_edge])
        var = ((m - m.mean(0)) ** 2).mean(0)
        std = (var + 1e-5).sqrt()
        block = torch.cat([m.mean(0), m.max(0).values, m.min(0).values, std])
        log = torch.log(torch.tensor(n + 1.0, dtype=torch.float64))
        rows.append(torch.cat([block, block * log / DELTA, block * DELTA / log]))
    return torch.stack(rows)


def test_layer() -> None:
    """Values and every gradient; with empty nodes, nodes of one edge, and parallel edges that tie."""
    coo = random_coo(N, N, E)
    coo[1, coo[1] == 3] = 4
    coo[1, 0] = 3  # one edge
    graph = structops.Graph(coo, num_nodes=N)
    leaves = [values(N, F), values(E, 2, seed=1), values(F, F, seed=2), values(F, F, seed=3), values(2, F, seed=4)]
    leaves = [t.requires_grad_() for t in leaves]
    out, want = layer(graph, *leaves), dense(coo, *leaves)
    assert_close(out, want, terms=512, magnitude=8.0)
    g = values(*want.shape, seed=5)
    for a, b in zip(torch.autograd.grad(out, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
        assert_close(a, b, terms=8192, magnitude=64.0)


def test_large_offset() -> None:
    """x + 1e4 in float32: the standard deviation stays."""
    coo = random_coo(N, N, E)
    graph = structops.Graph(coo, num_nodes=N)
    x = (values(N, F, dtype=torch.float32) * 64).round() / 64
    std = lambda t: multi_aggregate(graph, t, ("std",))
    assert (std(x + 1e4) - std(x)).abs().max() < 2e-3
