"""Cost of a call: a graph of 10 nodes, where nothing but the call itself takes time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import structops
import torch

from . import data, models, peers
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, runner

N, E, F = 10, 30, 8
OPS = ("spmm sum", "scatter sum", "segment sum")


def cases(level: str) -> Iterator[Case]:
    for op in OPS if level != "quick" else OPS[:1]:
        for direction in (FWD, BOTH):
            build = partial(_build, op, direction)
            targets = {"torch_scatter": 1.0} if direction == BOTH else {}
            shape = f"{N} nodes, {E} edges, F={F}"
            yield Case(f"{op} call", direction, "10 nodes", shape, F, build, models.Traffic(0, 0, 0), targets)


def _build(op: str, direction: str, device: str) -> Prepared:
    keys = torch.randperm(N * N, generator=torch.Generator().manual_seed(0))[:E].sort().values
    src, dst = (keys % N).to(device), (keys // N).to(device)
    count = torch.bincount(dst, minlength=N)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    e = data.Edges("ten", "10 nodes", src, dst, indptr, N, N)
    x = data.features(N if op == "spmm sum" else E, F, device=device).requires_grad_(direction == BOTH)
    grad = data.gradient(N, F, device=device)
    do = lambda forward: runner(forward, direction, (x,), grad)
    scatter, reason = peers.load("torch_scatter")
    messages = (lambda: x.index_select(0, src)) if op == "spmm sum" else (lambda: x)
    native = Provider("torch index_add", do(lambda: x.new_zeros(N, F).index_add(0, dst, messages())))
    if op == "spmm sum":
        g = structops.Graph.from_csr(indptr, src, N)
        ours = lambda: structops.spmm(g, x)
        others = [p.provider(direction, x, None, grad) for p in peers.spmm(e, "sum", False)]
        others = [Provider(p.name, p.run, p.reason) for p in others]
    elif op == "scatter sum":
        ours, others = (lambda: structops.scatter_reduce(x, dst, N)), []
    else:
        ours, others = (lambda: structops.segment_reduce(x, indptr)), []
    by_index = lambda: scatter.scatter(messages(), dst, 0, None, N, "sum")
    call = (lambda: scatter.segment_csr(x, indptr)) if op == "segment sum" else by_index
    first = Provider("torch_scatter", do(call) if scatter else None, reason)
    return Prepared(Provider(OURS, do(ours)), [first, native, *others], lambda: _reference(src, dst, x, grad, op))


def _reference(src, dst, x, grad, op):
    x64 = x.detach().double().requires_grad_()
    out = x64.new_zeros(N, F).index_add(0, dst, x64[src] if op == "spmm sum" else x64)
    return out.detach(), *torch.autograd.grad(out, x64, grad.double())


def test_overhead(case, bench_case):
    bench_case(case)
