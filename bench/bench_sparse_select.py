"""Pick one row per (group, feature) and its transpose: the gradients of min and max."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from structops import _ladder as ladder

from . import data, models
from .case import FWD, OURS, Case, Prepared, Provider, at_level, runner

SIZES = {False: (1_000_000, 100_000), True: (5_000, 600)}


def cases(level: str) -> Iterator[Case]:
    widths = at_level(level, smoke=(1, 40), quick=(), default=(64,), full=(1, 8, 64))
    for F in widths:
        for op in ("select", "select_bwd"):
            yield _case(op, F, level == "smoke")


def _case(op: str, F: int, small: bool) -> Case:
    E, N = SIZES[small]
    traffic = models.select(N, F)
    if op == "select_bwd":
        traffic += models.Traffic(E * F * models.S, E * F * models.S, 0)  # the result starts at zero
    build = partial(_build, op, F, small)
    return Case(op, FWD, "random winners", f"{data.short(N)} of {data.short(E)} rows, F={F}", F, build, traffic)


@lru_cache(maxsize=1)
def _inputs(F: int, small: bool, device: str):
    E, N = SIZES[small]
    idx = torch.randint(0, E, (N, F), generator=torch.Generator().manual_seed(9)).to(device)
    return data.features(E, F, device=device), idx, data.gradient(N, F, device=device)


def _build(op: str, F: int, small: bool, device: str) -> Prepared:
    src, idx, grad = _inputs(F, small, device)
    E, winners = src.shape[0], idx.int()
    if op == "select":
        ours, peer = lambda: ladder.select(src, winners), lambda: src.gather(0, idx)
        reference = lambda: (src.double().gather(0, idx),)
    else:
        ours, peer = lambda: ladder.select_bwd(grad, winners, E), lambda: src.new_zeros(E, F).scatter_add_(0, idx, grad)
        reference = lambda: (torch.zeros_like(src, dtype=torch.float64).scatter_add_(0, idx, grad.double()),)
    name = "torch gather" if op == "select" else "torch scatter_add"
    return Prepared(Provider(OURS, runner(ours, FWD)), [Provider(name, runner(peer, FWD))], reference)


def test_select(case, bench_case):
    bench_case(case)
