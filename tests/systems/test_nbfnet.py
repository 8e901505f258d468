"""NBFNet's generalised Bellman-Ford layer, and the classical path problems that its semirings contain."""

from __future__ import annotations

import pytest
import torch
from cases import generator, random_coo
from compare import assert_close
from structops.sparse import RelationalGraph, relational_spmm
from torch import Tensor

SYSTEM = "NBFNet: path representations for link prediction by a generalised Bellman-Ford iteration (Zhu et al., 2021)"
OPERATORS = ("structops.sparse.relational_spmm",)

N, R, E, B, D = 11, 3, 45, 2, 4
EDGES = random_coo(N, N, E, seed=21)
KIND = torch.randint(R, (E,), generator=generator(3))
GRAPH = RelationalGraph(EDGES, KIND, N, R)
MASK = torch.rand(E, generator=generator(4)) < 0.7
inf = float("inf")


# ---- the layer -------------------------------------------------------------------------------------------------------


def principal(mean: Tensor, largest: Tensor, least: Tensor, var: Tensor, degree: Tensor) -> Tensor:
    """The four statistics times the scalers 1, s and 1/s: [B, N, 12 D]."""
    features = torch.cat([mean, largest, least, var.clamp(min=1e-6).sqrt()], -1)
    log = (degree + 1).log()[:, None]
    scale = log / log.mean()
    return torch.cat([features, features * scale, features / scale.clamp(min=1e-2)], -1)


def layer(graph: RelationalGraph, rel, h, weight, mask, boundary, degree, mul: str, aggregate: str) -> Tensor:
    """Messages of every edge, and the boundary condition as one more message of every node."""
    reduce = {"pna": ("mean", "max", "min", "var")}.get(aggregate, "sum" if aggregate == "mean" else aggregate)
    fill = -inf if aggregate == "max" else None
    out = relational_spmm(graph, rel, h, weight, mask, mul, reduce, fill_value=fill)
    n = degree[:, None]
    if aggregate == "sum":
        return out + boundary
    if aggregate == "mean":
        return (out + boundary) / (n + 1)
    if aggregate == "max":
        return torch.maximum(out, boundary)
    mean, largest, least, var = out
    some = n > 0
    joint = (mean * n + boundary) / (n + 1)
    # Variances of a group and of one number, put together.
    joint_var = (var * n + (mean - boundary) ** 2 * n / (n + 1)) / (n + 1)
    largest = torch.where(some, torch.maximum(largest, boundary), boundary)
    least = torch.where(some, torch.minimum(least, boundary), boundary)
    return principal(joint, largest, least, joint_var, degree)


def dense_layer(rel, h, weight, mask, boundary, mul: str, aggregate: str) -> Tensor:
    """Node by node from the formula; messages [n + 1, B, D] with the boundary last."""
    rows, counts = [], []
    for v in range(N):
        at = ((EDGES[1] == v) & (torch.ones(E).bool() if mask is None else mask)).nonzero()[:, 0]
        x, r = h[:, EDGES[0, at]], rel[:, KIND[at]]
        if mul == "rotate":
            z = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1).contiguous()) * torch.view_as_complex(
                torch.stack(r.chunk(2, -1), -1).contiguous()
            )
            m = torch.cat([z.real, z.imag], -1)
        else:
            m = x * r if mul == "mul" else x + r
        if weight is not None:
            m = m * weight[at][:, None]
        m = torch.cat([m, boundary[:, v : v + 1]], 1)
        counts.append(at.numel())
        if aggregate == "pna":
            rows.append([m.mean(1), m.amax(1), m.amin(1), (m**2).mean(1) - m.mean(1) ** 2])
        else:
            rows.append([{"sum": m.sum(1), "mean": m.mean(1), "max": m.amax(1)}[aggregate]])
    columns = [torch.stack(c, 1) for c in zip(*rows, strict=True)]
    return principal(*columns, torch.tensor(counts).double()) if aggregate == "pna" else columns[0]


@pytest.mark.parametrize("aggregate", ["sum", "mean", "max", "pna"])
@pytest.mark.parametrize("mul", ["mul", "add", "rotate"])
def test_layer(mul: str, aggregate: str) -> None:
    """With and without dropped edges and edge weights: values and every gradient."""
    rng = generator(6)
    for mask, weighted in ((None, False), (MASK, True)):
        make = lambda *s: torch.randn(*s, dtype=torch.float64, generator=rng).requires_grad_()
        rel, h, boundary = make(B, R, D), make(B, N, D), make(B, N, D)
        weight = make(E) if weighted else None
        kept = torch.ones(E).double() if mask is None else mask.double()
        degree = torch.zeros(N, dtype=torch.float64).index_add(0, EDGES[1], kept)
        ours = layer(GRAPH, rel, h, weight, mask, boundary, degree, mul, aggregate)
        theirs = dense_layer(rel, h, weight, mask, boundary, mul, aggregate)
        assert_close(ours, theirs, terms=256, magnitude=16.0)
        leaves = [t for t in (rel, h, boundary, weight) if t is not None]
        grad = torch.randn(ours.shape, dtype=torch.float64, generator=rng)
        for a, b in zip(*(torch.autograd.grad(o, leaves, grad) for o in (ours, theirs)), strict=True):
            assert_close(a, b, terms=1 << 20, magnitude=64.0)


# ---- path problems ---------------------------------------------------------------------------------------------------


def dense(weight: Tensor, none: float, fold: str) -> Tensor:
    """[target, source] with parallel edges folded."""
    A = torch.full((N * N,), none, dtype=torch.float64)
    return A.scatter_reduce(0, EDGES[1] * N + EDGES[0], weight, fold).reshape(N, N)


def propagate(graph: RelationalGraph, rel: Tensor, h: Tensor, **how) -> Tensor:
    return relational_spmm(graph, rel, h, **how)


def typed(per_edge: Tensor) -> tuple[RelationalGraph, Tensor]:
    """Every edge a relation of its own, so that the relation is the edge's length."""
    return RelationalGraph(EDGES, torch.arange(E), N, E), per_edge[:, None].expand(E, N).contiguous()


LENGTH = torch.rand(E, generator=generator(9), dtype=torch.float64) * 0.9 + 0.05


def test_katz_index() -> None:
    """Sum over path lengths of beta^l A^l."""
    beta, A = 0.05, dense(torch.ones(E, dtype=torch.float64), 0.0, "sum")
    rel, h = torch.full((R, N), beta, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    total = h
    for _ in range(60):
        h = propagate(GRAPH, rel, h)
        total = total + h
    assert_close(total, torch.linalg.inv(torch.eye(N, dtype=torch.float64) - beta * A), terms=256)


def test_personalised_pagerank() -> None:
    alpha = 0.85
    out_degree = torch.bincount(EDGES[0], minlength=N).double()
    A = dense(1 / out_degree[EDGES[0]], 0.0, "sum")
    rel, eye = torch.full((R, N), alpha, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    h = (1 - alpha) * eye
    for _ in range(300):
        h = propagate(GRAPH, rel, h, weight=1 / out_degree[EDGES[0]]) + (1 - alpha) * eye
    assert_close(h, (1 - alpha) * torch.linalg.inv(eye - alpha * A), terms=4096)


@pytest.mark.parametrize("problem", ["distance", "widest", "reliable"])
def test_best_paths(problem: str) -> None:
    """(min, +), (max, min) and (max, x) against dense dynamic programs over intermediate nodes."""
    reduce, mul, none, start, fold = {
        "distance": ("min", "add", inf, 0.0, "amin"),
        "widest": ("max", "min", -inf, inf, "amax"),
        "reliable": ("max", "mul", 0.0, 1.0, "amax"),
    }[problem]
    best = torch.minimum if reduce == "min" else torch.maximum
    join = {"add": torch.add, "min": torch.minimum, "mul": torch.mul}[mul]
    eye = torch.full((N, N), none, dtype=torch.float64).fill_diagonal_(start)
    want = best(dense(LENGTH, none, fold), eye)
    for k in range(N):
        want = best(want, join(want[:, k : k + 1], want[k : k + 1]))
    graph, rel = typed(LENGTH)
    h = eye
    for _ in range(N):
        h = best(propagate(graph, rel, h, mul=mul, reduce=reduce, fill_value=none), eye)
    assert_close(h, want, terms=16)
