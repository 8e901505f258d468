"""g-SpMM: sum, mean, min and max over the sources, plain and with edge weights, forward and with gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops

from . import data, models, peers, reference
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner

REDUCES = ("sum", "mean", "min", "max")
WIDTHS = (1, 8, 32, 64, 128, 256)
ALL = (data.HPO, data.SKEWED, data.UNIFORM, data.TINY)


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(g, F, r, w) for g in ALL for F in (1, 40) for r, w in _variants()],
        quick=[(data.HPO, 64, r, False) for r in ("sum", "max")],
        default=[(data.HPO, F, r, False) for F in (8, 64) for r in ("sum", "mean", "max")]
        + [(data.HPO, 64, "sum", True)]
        + [(g, 64, r, False) for g, r in ((data.SKEWED, "sum"), (data.SKEWED, "max"), (data.UNIFORM, "sum"))]
        + [(data.TINY, 64, "sum", False)],
        full=[(g, F, r, w) for g in ALL for F in WIDTHS for r, w in _variants()],
    )
    for graph, F, reduce, weighted in grid:
        for direction in (FWD, BOTH):
            yield _case(graph, F, reduce, weighted, direction, level == "smoke")


def _variants():
    return [(r, False) for r in REDUCES] + [("sum", True)]


def _case(graph: str, F: int, reduce: str, weighted: bool, direction: str, small: bool) -> Case:
    e = data.edges(graph, small)
    op = f"spmm {reduce}" + (" weighted" if weighted else "")
    traffic = models.spmm(
        e.num_edges,
        e.num_src,
        e.num_dst,
        F,
        weighted=weighted,
        extreme=reduce in ("min", "max"),
        backward=direction == BOTH,
    )
    targets = {} if weighted else {"best": _target(data.SKEW[graph], F, direction)}
    build = partial(_build, graph, F, reduce, weighted, direction, small)
    return Case(op, direction, graph, e.shape(F), F, build, traffic, targets)


def _target(skewed: bool, F: int, direction: str) -> float:
    if direction == BOTH:
        return 15.0 if skewed else 5.0
    return 2.0 if F < 64 else 6.0 if skewed else 3.0


@lru_cache(maxsize=1)
def _inputs(graph: str, F: int, small: bool, device: str):
    e = data.edges(graph, small, device)
    x = data.features(e.num_src, F, device=device)
    w = data.features(e.num_edges, 1, seed=3, device=device)[:, 0].contiguous()
    return e, x, w, data.gradient(e.num_dst, F, device=device)


@lru_cache(maxsize=1)
def _reference(graph: str, F: int, reduce: str, weighted: bool, small: bool, device: str):
    e, x, w, grad = _inputs(graph, F, small, device)
    return reference.spmm(e, x, reduce, w if weighted else None, grad)


@lru_cache(maxsize=4)
def our_graph(graph: str, small: bool, device: str) -> structops.Graph:
    e = data.edges(graph, small, device)
    return structops.Graph.from_csr(e.indptr, e.src, e.num_src)


def our_plan(edges: data.Edges, backward: bool):
    """Our analysis of unsorted edges; for the backward with the reversed edges."""
    index = edges.shuffled()

    def plan():
        graph = structops.Graph(index, num_src=edges.num_src, num_dst=edges.num_dst)
        return graph.reversed_structure if backward else graph

    return plan


def _build(graph: str, F: int, reduce: str, weighted: bool, direction: str, small: bool, device: str) -> Prepared:
    e, x, w, grad = _inputs(graph, F, small, device)
    g = our_graph(graph, small, device)
    x, w = x.detach(), w.detach() if weighted else None
    if direction == BOTH:
        x.requires_grad_()
        if weighted:
            w.requires_grad_()
    leaves = (x, w) if weighted else (x,)
    forward = lambda: structops.spmm(g, x, w[:, None] if weighted else None, reduce=reduce)
    ours = Provider(OURS, runner(forward, direction, leaves, grad), plan=our_plan(e, direction == BOTH))
    others = [p.provider(direction, x, w, grad) for p in peers.spmm(e, reduce, weighted)]
    return Prepared(ours, others, lambda: _reference(graph, F, reduce, weighted, small, device))


def test_spmm(case, bench_case):
    bench_case(case)
