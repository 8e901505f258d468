"""SIR-GCN and ResGatedGraphConv: activations of sums of both ends, summed."""

from __future__ import annotations

import structops
import torch
from cases import random_coo, values
from compare import assert_close
from structops.sparse import add_act_reduce

SYSTEM = "SIR-GCN and gated graph convolutions: summed activations of u_add_v"
OPERATORS = ("structops.sparse.add_act_reduce",)

N, E, F = 12, 55, 5


def check(coo, leaves, ours, message) -> None:
    out, rows = ours(), []
    for v in range(N):
        u = coo[0, coo[1] == v]
        rows.append(message(u, v).sum(0))
    want = torch.stack(rows)
    assert_close(out, want, terms=512, magnitude=8.0)
    g = values(*want.shape, seed=6)
    for a, b in zip(torch.autograd.grad(out, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
        assert_close(a, b, terms=4096, magnitude=32.0)


def test_sir_gcn() -> None:
    """out_v = sum_u W act(W_1 h_u + W_2 h_v): W follows the sum."""
    coo = random_coo(N, N, E)
    graph = structops.Graph(coo, num_nodes=N)
    h, w, w1, w2 = leaves = [values(*s, seed=i).requires_grad_() for i, s in enumerate(((N, F), (F, 3), (F, F), (F, F)))]
    ours = lambda: add_act_reduce(graph, h @ w1, h @ w2, activation="leaky_relu", slope=0.2) @ w
    check(coo, leaves, ours, lambda u, v: torch.nn.functional.leaky_relu(h[u] @ w1 + h[v] @ w2, 0.2) @ w)


def test_gated() -> None:
    """out_v = sum_u sigmoid(K h_v + Q h_u) * V h_u."""
    coo = random_coo(N, N, E)
    graph = structops.Graph(coo, num_nodes=N)
    h, k, q, z = leaves = [values(*s, seed=i).requires_grad_() for i, s in enumerate(((N, F), (F, F), (F, F), (F, F)))]
    ours = lambda: add_act_reduce(graph, h @ q, h @ k, activation="sigmoid", value=h @ z)
    check(coo, leaves, ours, lambda u, v: torch.sigmoid(h[v] @ k + h[u] @ q) * (h[u] @ z))
