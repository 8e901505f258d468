"""Softmax over the incoming edges of every node, per head."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch

from . import data, models, reference
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .peers import dgl_cached, load


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(g, H) for g in (data.HPO, data.UNIFORM) for H in (1, 8)],
        quick=[(data.HPO, 4)],
        default=[(data.HPO, 1), (data.HPO, 4)],
        full=[(g, H) for g in (data.HPO, data.SKEWED, data.UNIFORM, data.TINY) for H in (1, 4, 8, 64)],
    )
    for graph, H in grid:
        for direction in (FWD, BOTH):
            yield _case(graph, H, direction, level == "smoke")


def _case(graph: str, H: int, direction: str, small: bool) -> Case:
    e = data.edges(graph, small)
    traffic = models.softmax(e.num_edges, e.num_dst, H, backward=direction == BOTH)
    build = partial(_build, graph, H, direction, small)
    return Case("segment softmax", direction, graph, e.shape(H), H, build, traffic)


@lru_cache(maxsize=1)
def _inputs(graph: str, H: int, small: bool, device: str):
    e = data.edges(graph, small, device)
    return e, 4 * data.features(e.num_edges, H, device=device), data.gradient(e.num_edges, H, device=device)


@lru_cache(maxsize=1)
def _reference(graph: str, H: int, small: bool, device: str):
    e, src, grad = _inputs(graph, H, small, device)
    return reference.softmax(src, e.dst, e.num_dst, grad)


def _torch_softmax(src: torch.Tensor, index: torch.Tensor, N: int) -> torch.Tensor:
    """The usual composition: subtract the largest, exponentiate, divide by the sum."""
    wide = index[:, None].expand_as(src)
    top = src.new_zeros(N, src.shape[1]).scatter_reduce(0, wide, src.detach(), "amax", include_self=False)
    e = (src - top.index_select(0, index)).exp()
    return e / e.new_zeros(N, src.shape[1]).index_add(0, index, e).index_select(0, index)


def _build(graph: str, H: int, direction: str, small: bool, device: str) -> Prepared:
    e, src, grad = _inputs(graph, H, small, device)
    src, N = src.detach().requires_grad_(direction == BOTH), e.num_dst
    do = lambda forward: runner(forward, direction, (src,), grad)
    ours = Provider(OURS, do(lambda: structops.segment_softmax(src, e.indptr)))
    module, reason = load("torch_scatter")
    composite = module and do(lambda: module.scatter_softmax(src, e.dst, 0, dim_size=N))
    peers = [Provider("torch_scatter", composite, reason)]
    peers.append(Provider("torch composed", do(lambda: _torch_softmax(src, e.dst, N))))
    dgl, cached, plan, reason = dgl_cached(e)
    run = dgl and do(lambda: dgl.ops.edge_softmax(cached, src))
    peers.append(Provider("DGL", run, reason, plan and (lambda: plan(direction == BOTH))))
    return Prepared(ours, peers, lambda: _reference(graph, H, small, device))


def test_softmax(case, bench_case):
    bench_case(case)
