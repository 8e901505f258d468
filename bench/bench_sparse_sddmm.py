"""g-SDDMM: one dot product per edge from the features of its two ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch

from . import data, models, reference
from .bench_sparse_spmm import our_graph, our_plan
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .peers import csr_plan, dgl_cached

ALL = (data.HPO, data.SKEWED, data.UNIFORM, data.TINY)


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(g, F) for g in ALL for F in (1, 40)],
        quick=[(data.HPO, 64)],
        default=[(data.HPO, 8), (data.HPO, 64), (data.UNIFORM, 64)],
        full=[(g, F) for g in ALL for F in (1, 8, 32, 64, 128)],
    )
    for graph, F in grid:
        for direction in (FWD, BOTH):
            yield _case(graph, F, direction, level == "smoke")


def _case(graph: str, F: int, direction: str, small: bool) -> Case:
    e = data.edges(graph, small)
    traffic = models.sddmm(e.num_edges, e.num_src, e.num_dst, F)
    if direction == BOTH:
        for rows in ((e.num_src, e.num_dst), (e.num_dst, e.num_src)):
            traffic += models.spmm(e.num_edges, *rows, F, weighted=True)
    build = partial(_build, graph, F, direction, small)
    return Case("sddmm dot", direction, graph, e.shape(F), F, build, traffic, {"gather-mul-sum": 4.0})


@lru_cache(maxsize=1)
def _inputs(graph: str, F: int, small: bool, device: str):
    e = data.edges(graph, small, device)
    x, y = (data.features(n, F, seed=s, device=device) for s, n in enumerate((e.num_src, e.num_dst)))
    return e, x, y, data.gradient(e.num_edges, device=device)


@lru_cache(maxsize=1)
def _reference(graph: str, F: int, small: bool, device: str):
    e, x, y, grad = _inputs(graph, F, small, device)
    return reference.sddmm(e, x, y, grad)


def _build(graph: str, F: int, direction: str, small: bool, device: str) -> Prepared:
    e, x, y, grad = _inputs(graph, F, small, device)
    g = our_graph(graph, small, device)
    x, y = (t.detach().requires_grad_(direction == BOTH) for t in (x, y))
    do = lambda forward: runner(forward, direction, (x, y), grad)
    ours = Provider(OURS, do(lambda: structops.sddmm(g, x, y)), plan=our_plan(e, direction == BOTH))
    peers = [Provider("gather-mul-sum", do(lambda: (x.index_select(0, e.src) * y.index_select(0, e.dst)).sum(1)))]
    pattern = torch.sparse_csr_tensor(
        e.indptr, e.src, torch.zeros(e.num_edges, device=x.device), (e.num_dst, e.num_src), check_invariants=False
    )
    sampled = do(lambda: torch.sparse.sampled_addmm(pattern, y, x.t(), beta=0.0).values()) if direction == FWD else None
    convert = csr_plan(e)
    why = "" if sampled else "no gradient of values"
    peers.append(Provider("sampled_addmm", sampled, why, lambda: convert(False)))
    dgl, cached, plan, reason = dgl_cached(e)
    run = dgl and do(lambda: dgl.ops.u_dot_v(cached, x, y))
    peers.append(Provider("DGL", run, reason, plan and (lambda: plan(direction == BOTH))))
    return Prepared(ours, peers, lambda: _reference(graph, F, small, device))


def test_sddmm(case, bench_case):
    bench_case(case)
