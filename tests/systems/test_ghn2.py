"""GHN-2's gated graph network: along a computational DAG and back, virtual edges weighted by the inverse of their length."""

from __future__ import annotations

import torch
from cases import values
from compare import assert_close
from structops.sparse import DagSchedule, dag_propagate

SYSTEM = "GHN-2 / PPUDA: gated recurrence over computational DAGs, one step a level"
OPERATORS = ("structops.sparse.DagSchedule", "structops.sparse.dag_propagate", "structops.spmm")
C, N = 3, 10


def graph(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two DAGs side by side: pairs (u, v) at distance s of at most 3, and s."""
    rng = torch.Generator().manual_seed(seed)
    adjacent = torch.triu(torch.rand(N, N, generator=rng) < 0.4, 1)
    adjacent[: N // 2, N // 2 :] = False
    distance, reach = torch.full((N, N), 99), torch.eye(N, dtype=torch.float64)
    for s in (1, 2, 3):
        reach = (reach @ adjacent.double() > 0).double()
        distance = torch.where((reach > 0) & (distance == 99), s, distance)
    edges = (distance < 99).nonzero().T
    return edges, distance[edges[0], edges[1]].double()


def layer(edges, s, x, mlp, mlp_sp, gru):
    """m_v = sum of MLP(h_u) over edges + sum of MLP_sp(h_u) / s over virtual edges;  h_v = GRU(m_v, h_v)."""
    schedule = DagSchedule(edges, N)
    weight = torch.cat([(s == 1).double()[:, None].expand(-1, C), (1 / s)[:, None].expand(-1, C)], 1)
    for reverse in (False, True):
        x = dag_propagate(
            schedule,
            x,
            lambda m, h: gru(m[:, :C] + m[:, C:], h),
            message=lambda h: torch.cat([mlp(h), mlp_sp(h)], 1),
            message_features=2 * C,
            edge_weight=weight,
            reverse=reverse,
        )
    return x


def sequential(edges, s, x, mlp, mlp_sp, gru, order):
    for reverse in (False, True):
        src, dst = edges.flip(0) if reverse else edges
        h = list(x.split(1))
        for v in reversed(order) if reverse else order:
            m = x.new_zeros(1, C)
            for e in (dst == v).nonzero()[:, 0].tolist():
                u = h[int(src[e])]
                m = m + mlp_sp(u) / s[e] + (mlp(u) if s[e] == 1 else 0)
            h[v] = gru(m, h[v])
        x = torch.cat(h)
    return x


def test_layer_is_the_sequential_loop() -> None:
    edges, s = graph(1)
    x = values(N, C).requires_grad_()
    modules = [torch.nn.Linear(C, C).double(), torch.nn.Linear(C, C).double(), torch.nn.GRUCell(C, C).double()]
    leaves = [x, *(p for m in modules for p in m.parameters())]
    ours, theirs = layer(edges, s, x, *modules), sequential(edges, s, x, *modules, list(range(N)))
    assert_close(ours, theirs, terms=64)
    for a, b in zip(torch.autograd.grad(ours.sin().sum(), leaves), torch.autograd.grad(theirs.sin().sum(), leaves), strict=True):
        assert_close(a, b, terms=1000)


def test_numbering_does_not_matter() -> None:
    edges, s = graph(2)
    x, perm = values(N, C), torch.randperm(N)
    modules = [torch.nn.Linear(C, C).double(), torch.nn.Linear(C, C).double(), torch.nn.GRUCell(C, C).double()]
    moved = layer(perm[edges], s, x[torch.argsort(perm)], *modules)
    assert_close(moved[perm], layer(edges, s, x, *modules).detach(), terms=64)
