"""Activations of both ends (edge_act): messages that need more than one pass elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor
from torch.nn import functional

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load


def cases(level: str) -> Iterator[Case]:
    graphs = at_level(
        level,
        smoke=(data.HPO, data.UNIFORM),
        quick=(data.HPO,),
        default=(data.HPO, data.SKEWED),
        full=(data.HPO, data.SKEWED, data.UNIFORM, data.TINY),
    )
    small = level == "smoke"
    F = 16 if small else 64
    for graph in graphs:
        e = data.edges(graph, small)
        for direction in (FWD, BOTH):
            passes = 1 if direction == FWD else 3
            index = (e.num_edges + e.num_dst) * 4
            nodes = (e.num_src + 2 * e.num_dst) * F * 4
            gathered = e.num_edges * F * 4
            traffic = Traffic(passes * (nodes + index), passes * (gathered + nodes), passes * e.num_edges * F * 8)
            build = partial(_build_act, graph, F, direction, small)
            targets = {"best": 8.0} if direction == BOTH else {}
            yield Case("act(u + v), sum", direction, graph, e.shape(F), F, build, traffic, targets)
            scalars = e.num_edges * 4
            traffic = Traffic(passes * (nodes + index + scalars), passes * (gathered + nodes), passes * e.num_edges * F * 10)
            build = partial(_build_act, graph, F, direction, small, rank_one=True)
            yield Case("act(u + v + d w), sum", direction, graph, e.shape(F), F, build, traffic, targets)


@lru_cache(maxsize=1)
def _inputs(graph: str, F: int, small: bool, device: str):
    e = data.edges(graph, small, device)
    x, y = data.features(e.num_src, F, device=device), data.features(e.num_dst, F, device=device).flip(1).contiguous()
    return e, x, y, data.gradient(e.num_dst, F, device=device)


def _message(e: data.Edges, x: Tensor, y: Tensor, scalar: Tensor | None = None, direction: Tensor | None = None) -> Tensor:
    z = x.index_select(0, e.src) + y.index_select(0, e.dst)
    return functional.silu(z if scalar is None else z + scalar[:, None] * direction)


def _composed_act(e: data.Edges):
    def run(x: Tensor, y: Tensor, *rank_one: Tensor) -> Tensor:
        m = _message(e, x, y, *rank_one)
        return m.new_zeros(e.num_dst, m.shape[1]).index_add(0, e.dst, m)

    return run


def _build_act(graph: str, F: int, direction: str, small: bool, device: str, rank_one: bool = False) -> Prepared:
    e, x, y, grad = _inputs(graph, F, small, device)
    extra = (data.features(e.num_edges, 1, device=device)[:, 0], data.features(F, 1, device=device)[:, 0]) if rank_one else ()
    leaves = tuple(t.detach().requires_grad_(direction == BOTH) for t in (x, y, *extra))
    do = lambda forward: runner(lambda: forward(*leaves), direction, leaves, grad)
    plan = structops.Graph(torch.stack([e.src, e.dst]), num_src=e.num_src, num_dst=e.num_dst)
    names = ("scalar", "direction")[: len(extra)]
    act = partial(structops.sparse.add_act_reduce, plan, activation="silu")
    ours = Provider(OURS, do(lambda x, y, *more: act(x, y, **dict(zip(names, more, strict=True)))))
    peers = [Provider("gather-act-scatter", do(_composed_act(e)))]
    module, reason = load("torch_scatter")

    def scattered(*operands: Tensor) -> Tensor:
        return module.segment_csr(_message(e, *operands), e.indptr, reduce="sum")

    peers.append(Provider("torch_scatter", module and do(scattered), reason))

    def reference() -> tuple[Tensor, ...]:
        doubles = [t.double().requires_grad_() for t in (x, y, *extra)]
        out = _composed_act(e)(*doubles)
        return (out.detach(), *torch.autograd.grad(out, doubles, grad.double()))

    return Prepared(ours, peers, reference)


def test_edge_act(case, bench_case):
    bench_case(case)
