"""EGNN: the first layer of the edge network moves to the nodes; its activations are summed without being stored."""

from __future__ import annotations

import pytest
import structops
import torch
from agreement import agree, randn
from cases import random_coo, values
from compare import assert_close
from structops.so2 import egnn_step
from structops.sparse import add_act_reduce
from torch.nn.functional import silu

SYSTEM = "EGNN: equivariant layer whose edge network starts with a split linear layer, with gate and velocities"
OPERATORS = ("structops.so2.egnn_step", "structops.sparse.add_act_reduce", "structops.sparse.sddmm", "structops.sparse.spmm")

N, E, F, H = 11, 50, 4, 6
SHAPES = ((F, H), (F, H), (H,), (H,), (H, F), (F,), (F, H), (F, H))


def parameters():
    return [values(*s, seed=20 + i) / 3 for i, s in enumerate(SHAPES)]


def squared(graph, x):
    d = structops.sddmm(graph, x, x, "sub", "u", "v")
    return (d * d).sum(-1)


def node_update(graph, h, x, p):
    """h + sum_j phi_e(h_i, h_j, |x_i - x_j|^2), phi_e a SiLU layer and a linear one: the linear one follows the sum."""
    w_dst, w_src, w_dist, bias, second, second_bias, *_ = p
    total = add_act_reduce(graph, h @ w_src, h @ w_dst + bias, activation="silu", edge=squared(graph, x)[:, None] * w_dist)
    return h + total @ second + graph.in_degrees()[:, None] * second_bias


def coordinate_update(graph, h, x, p):
    """x + mean_j (x_i - x_j) phi_x, phi_x = SiLU(split linear) . scale: per edge, as a scalar is needed there."""
    *_, to_src, to_dst = p
    z = structops.sddmm(graph, h @ to_src, h @ to_dst, "add", "u", "v")
    scale = torch.nn.functional.silu(z).sum(-1) / H
    difference = structops.sddmm(graph, x, x, "sub", "u", "v")
    return x - structops.spmm(graph, edge=difference * scale[:, None], reduce="mean")


def dense(coo, h, x, p):
    w_dst, w_src, w_dist, bias, second, second_bias, to_src, to_dst = p
    hs, xs = [], []
    for v in range(N):
        u = coo[0, coo[1] == v]
        d = ((x[u] - x[v]) ** 2).sum(-1, keepdim=True)
        inputs = torch.cat([h[v].expand(len(u), F), h[u], d], 1)
        m = torch.nn.functional.silu(inputs @ torch.cat([w_dst, w_src, w_dist[None]]) + bias) @ second + second_bias
        scale = torch.nn.functional.silu(h[u] @ to_src + h[v] @ to_dst).sum(-1, keepdim=True) / H
        hs.append(h[v] + m.sum(0))
        xs.append(x[v] + ((x[v] - x[u]) * scale).sum(0) / max(len(u), 1))
    return torch.stack(hs), torch.stack(xs)


@pytest.mark.parametrize("D", [2, 3, 5])
def test_layer_and_equivariance(D: int) -> None:
    """Against the formula, with isolated and coincident nodes; rotations, reflections, translations, permutations."""
    coo = random_coo(N, N, E)
    graph = structops.Graph(coo, num_nodes=N)
    h, x = values(N, F, seed=7), values(N, D, seed=8)
    x[1] = x[0]
    leaves = [t.requires_grad_() for t in (h, x, *parameters())]
    h, x, *p = leaves
    got = node_update(graph, h, x, p), coordinate_update(graph, h, x, p)
    want = dense(coo, h, x, p)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, terms=512, magnitude=8.0)
    loss = lambda t: t[0].sin().sum() + t[1].cos().sum()
    for a, b in zip(torch.autograd.grad(loss(got), leaves), torch.autograd.grad(loss(want), leaves), strict=True):
        assert_close(a, b, terms=8192, magnitude=64.0)
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    turn = turn if D != 3 else -turn
    shift = torch.randn(D, dtype=torch.float64)
    h, x = h.detach(), x.detach()
    moved = x @ turn.T + shift
    assert_close(node_update(graph, h, moved, p), node_update(graph, h, x, p).detach(), terms=4096, magnitude=64.0)
    assert_close(
        coordinate_update(graph, h, moved, p),
        (coordinate_update(graph, h, x, p) @ turn.T + shift).detach(),
        terms=4096,
        magnitude=64.0,
    )
    order = torch.randperm(N)
    other = structops.Graph(torch.argsort(order)[coo], num_nodes=N)
    assert_close(node_update(other, h[order], x[order], p), node_update(graph, h, x, p)[order].detach(), terms=512, magnitude=8.0)


def with_velocities(graph, h, x, v, w1, w2, gate, wx1, wx2, wv, wh):
    """x', v', h' of the layer with gated messages and velocities: v' = phi_v(h) v + sum_j (x_i - x_j) phi_x(m_ij) / degree."""

    def message(z):
        m = silu(z @ w2)
        return m * torch.sigmoid(m @ gate)

    moved, total = egnn_step(
        graph, x, h @ w1[F : 2 * F], h @ w1[:F], w1[2 * F], message=message, coordinate=lambda m: silu(m @ wx1) @ wx2
    )
    v = torch.tanh(h @ wv) * v + (moved - x)
    return torch.cat([x + v, v, h + silu(torch.cat([h, total], 1) @ wh)], 1)


def dense_with_velocities(graph, h, x, v, w1, w2, gate, wx1, wx2, wv, wh):
    """Node by node, the inputs of the edge network concatenated."""
    src, dst = graph.edge_index()
    rows = []
    for i in range(N):
        u = src[dst == i]
        d = x[i] - x[u]
        m = silu(silu(torch.cat([h[i].expand(len(u), F), h[u], d.square().sum(1, keepdim=True)], 1) @ w1) @ w2)
        m = m * torch.sigmoid(m @ gate)
        step = torch.tanh(h[i] @ wv) * v[i] + (d * (silu(m @ wx1) @ wx2)).sum(0) / max(len(u), 1)
        rows.append(torch.cat([x[i] + step, step, h[i] + silu(torch.cat([h[i], m.sum(0)]) @ wh)]))
    return torch.stack(rows)


def test_layer_with_gate_and_velocities() -> None:
    graph = structops.Graph(random_coo(N, N, E), num_nodes=N)
    shapes = ((2 * F + 1, H), (H, H), (H, 1), (H, H), (H, 1), (F, 1), (F + H, F))
    h, x, v = randn(N, F), randn(N, 3, seed=1), randn(N, 3, seed=2)
    x[1] = x[0]
    weights = [randn(*s, seed=10 + i) / s[0] ** 0.5 for i, s in enumerate(shapes)]
    agree(lambda *a: with_velocities(graph, *a), lambda *a: dense_with_velocities(graph, *a), h, x, v, *weights)
    Q = -torch.linalg.qr(randn(3, 3, seed=7)).Q
    base, turned = with_velocities(graph, h, x, v, *weights), with_velocities(graph, h, x @ Q.T + 2.0, v @ Q.T, *weights)
    want = torch.cat([base[:, :3] @ Q.T + 2.0, base[:, 3:6] @ Q.T, base[:, 6:]], 1)
    torch.testing.assert_close(turned, want, atol=1e-10, rtol=1e-10)
