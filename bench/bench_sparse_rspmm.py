"""Relational SpMM (relational_spmm, relational_spmm_bwd) on knowledge graphs, against the unfused forms."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from structops.sparse import RelationalGraph, relational_spmm
from torch import Tensor

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level
from .models import Traffic
from .peers import load

KINSHIPS, UMLS, NATIONS, LARGE = "kinships", "umls", "nations", "synthetic KG"
TARGETS = {FWD: {"best": 5.0}, BOTH: {"best": 10.0}}
PNA = "pna"


@lru_cache(maxsize=4)
def triples(name: str, small: bool) -> tuple[Tensor, Tensor, int, int]:
    """(edge_index, edge_type, entities, relations) of the training triples, with inverse relations, sorted by nothing."""
    found = None if name == LARGE else _pykeen(name)
    if found is None:
        rng = np.random.default_rng(6)
        N, R, E = (300, 10, 3_000) if small or name != LARGE else (20_000, 200, 300_000)
        rank = rng.permutation(N)
        weight = (np.arange(N) + 10.0) ** -0.7
        ends = rank[rng.choice(N, (2, E), p=weight / weight.sum())]
        kind = rng.zipf(1.6, E) % R
    else:
        rows = np.array(found)
        names, ends = np.unique(rows[:, [0, 2]].T, return_inverse=True)
        kinds, kind = np.unique(rows[:, 1], return_inverse=True)
        ends, N, R = ends.reshape(2, -1), len(names), len(kinds)
    edges, kind = torch.as_tensor(ends).long(), torch.as_tensor(kind).long()
    return torch.cat([edges, edges.flip(0)], 1), torch.cat([kind, kind + R]), N, 2 * R


def _pykeen(name: str) -> list[list[str]] | None:
    """Triples in the files of the pykeen package, which is not imported."""
    spec = importlib.util.find_spec("pykeen")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in Path(folder).glob("datasets/**/train.txt"):
            if path.parent.name.lower() == name:
                return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    return None


def cases(level: str) -> Iterator[Case]:
    every = [(mul, reduce) for mul in ("mul", "add") for reduce in ("sum", "max", PNA)]
    grid = at_level(
        level,
        smoke=[(UMLS, 4, 2, *how) for how in every],
        quick=[(UMLS, 32, 8, "mul", "sum"), (UMLS, 32, 8, "mul", PNA)],
        default=[(UMLS, 32, 16, "mul", "sum"), *((LARGE, 32, 4, *how) for how in (("add", "sum"), ("mul", "max"), ("mul", PNA)))],
        full=[(g, 32, B, *how) for g, B in ((NATIONS, 16), (KINSHIPS, 16), (UMLS, 16), (LARGE, 4)) for how in every],
    )
    for graph, D, B, mul, reduce in grid:
        for direction in (FWD, BOTH):
            yield _case(graph, D, B, mul, reduce, direction, level == "smoke")


def _case(graph: str, D: int, B: int, mul: str, reduce: str, direction: str, small: bool) -> Case:
    edges, _, N, R = triples(graph, small)
    E, planes = edges.shape[1], 4 if reduce == PNA else 1
    row, passes = B * D * 4, 1 if direction == FWD else 2
    least, most = E * 12 + (2 * N + R) * row * planes, E * (12 + row) + (N * planes + R) * row
    traffic = Traffic(passes * least, passes * most, (1 if direction == FWD else 4) * E * B * D * 2 * planes)
    shape = f"{graph} {data.short(N)} nodes, {data.short(E)} edges, {R} relations, B={B}, D={D}"
    build = partial(_build, graph, D, B, mul, reduce, direction, small)
    return Case(f"relational {mul}-{reduce}", direction, graph, shape, B * D, build, traffic, TARGETS[direction])


@lru_cache(maxsize=1)
def _inputs(graph: str, D: int, B: int, small: bool, device: str):
    edges, kind, N, R = triples(graph, small)
    g = torch.Generator().manual_seed(1)
    make = lambda *s: torch.randn(*s, generator=g).to(device)
    return edges.to(device), kind.to(device), N, R, make(B, N, D), make(B, R, D)


def _gather(mul: str, rel: Tensor, x: Tensor, edges: Tensor, kind: Tensor) -> Tensor:
    a, b = rel.index_select(1, kind), x.index_select(1, edges[0])
    return a * b if mul == "mul" else a + b


def _unfused(reduce: str, m: Tensor, dst: Tensor, N: int, degree: Tensor, add: Callable, extreme: Callable) -> Tensor:
    if reduce == "sum":
        return add(m)
    if reduce == "max":
        return extreme(m, "amax")
    mean = add(m) / degree
    var = add(m * m) / degree - mean * mean
    return torch.stack([mean, extreme(m, "amax"), extreme(m, "amin"), var.clamp(min=1e-12).sqrt()])


def _torch(reduce: str, m: Tensor, dst: Tensor, N: int, degree: Tensor) -> Tensor:
    wide = dst[None, :, None].expand_as(m)
    zeros = lambda: m.new_zeros(m.shape[0], N, m.shape[2])
    add = lambda t: zeros().index_add(1, dst, t)
    extreme = lambda t, how: zeros().scatter_reduce(1, wide, t, how, include_self=False)
    return _unfused(reduce, m, dst, N, degree, add, extreme)


def _scatter(module, reduce: str, m: Tensor, dst: Tensor, N: int, degree: Tensor) -> Tensor:
    add = lambda t: module.scatter_add(t, dst, 1, dim_size=N)
    extreme = lambda t, how: getattr(module, f"scatter_{how[1:]}")(t, dst, 1, dim_size=N)[0]
    return _unfused(reduce, m, dst, N, degree, add, extreme)


def _build(graph: str, D: int, B: int, mul: str, reduce: str, direction: str, small: bool, device: str) -> Prepared:
    edges, kind, N, R, x, rel = _inputs(graph, D, B, small, device)
    structure = RelationalGraph(edges, kind, N, R)
    structure.reversed_structure  # noqa: B018
    dst, degree = edges[1], torch.bincount(edges[1], minlength=N).clamp(min=1).to(x)[:, None]
    planes = (4,) if reduce == PNA else ()
    grad = data.gradient(*planes, B, N, D, device=device)
    x, rel = (t.detach().requires_grad_(direction == BOTH) for t in (x, rel))
    # A deviation of nearly 0, of edges whose messages agree, has a slope that rounding decides: it gets no gradient.
    flat = _flat(mul, rel, x, edges, kind, N, degree) if reduce == PNA else None
    if flat is not None:
        grad[3][flat] = 0

    def run(forward: Callable[[Tensor, Tensor], Tensor], rel: Tensor, x: Tensor, grad: Tensor = grad):
        if direction == FWD:
            with torch.no_grad():
                return (forward(rel, x),)
        out = forward(rel, x)
        return (out.detach(), *torch.autograd.grad(out, (rel, x), grad))

    def ours(rel: Tensor, x: Tensor) -> Tensor:
        out = relational_spmm(structure, rel, x, mul=mul, reduce=reduce)
        return torch.stack(out) if reduce == PNA else out  # type: ignore[arg-type]

    unfused = lambda rel, x: _torch(reduce, _gather(mul, rel, x, edges, kind), dst, N, degree)
    peers = [Provider("torch composed", lambda: run(unfused, rel, x))]
    module, reason = load("torch_scatter")
    theirs = lambda rel, x: _scatter(module, reduce, _gather(mul, rel, x, edges, kind), dst, N, degree)
    peers.append(Provider("torch_scatter", (lambda: run(theirs, rel, x)) if module else None, reason))

    def reference() -> tuple[Tensor, ...]:
        wide = [t.detach().double().requires_grad_(direction == BOTH) for t in (rel, x)]
        blocks = [run(lambda r, t: _torch(reduce, _gather(mul, r, t, edges, kind), dst, N, degree.double()),
                      wide[0][b : b + 1].detach().requires_grad_(direction == BOTH),
                      wide[1][b : b + 1].detach().requires_grad_(direction == BOTH), grad[..., b : b + 1, :, :].double())
                  for b in range(B)]  # fmt: skip
        return (torch.cat([t[0] for t in blocks], -3), *(torch.cat(t, 0) for t in list(zip(*blocks, strict=True))[1:]))

    plan = lambda: RelationalGraph(edges, kind, N, R).reversed_structure
    mine = Provider(OURS, lambda: run(ours, rel, x), plan=plan)
    return Prepared(mine, peers, reference, tolerance=2e-3 if reduce == PNA else 1e-4)


def _flat(mul: str, rel: Tensor, x: Tensor, edges: Tensor, kind: Tensor, N: int, degree: Tensor) -> Tensor:
    """Where the standard deviation is below a hundredth."""
    with torch.no_grad():
        return torch.stack([
            _torch(PNA, _gather(mul, rel[b : b + 1], x[b : b + 1], edges, kind), edges[1], N, degree)[3, 0] < 1e-2
            for b in range(x.shape[0])
        ])  # fmt: skip


def test_rspmm(case, bench_case):
    bench_case(case)
