"""Segment reductions of messages in memory, already grouped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch

from . import data, models, reference
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .peers import load

WIDTHS = (1, 8, 32, 64, 128, 256)
SIZES = {False: (1_000_000, 100_000), True: (5_000, 600)}


def cases(level: str) -> Iterator[Case]:
    reduces = ("sum", "mean", "max")
    grid = at_level(
        level,
        smoke=[(F, r) for F in (1, 40) for r in (*reduces, "min")],
        quick=[(64, "sum")],
        default=[(8, "sum"), (64, "sum"), (64, "mean"), (64, "max"), (256, "sum")],
        full=[(F, r) for F in WIDTHS for r in reduces],
    )
    both = at_level(level, smoke=(1, 40), quick=(), default=(), full=(8, 64))
    for F, reduce in grid:
        for direction in (FWD, BOTH) if F in both else (FWD,):
            yield _case(F, reduce, direction, level == "smoke")


def _case(F: int, reduce: str, direction: str, small: bool) -> Case:
    E, N = SIZES[small]
    traffic = models.segment(E, N, F, backward=direction == BOTH, extreme=reduce in ("min", "max"))
    targets, stream = {}, None
    if direction == FWD:
        targets = {"torch.segment_reduce": 4.0}
        if F >= 64 or F <= 8:
            targets["torch_scatter"] = 2.5 if F >= 64 else 1.5
        stream = 0.8 if F >= 64 else None
    build = partial(_build, F, reduce, direction, small)
    return Case(
        f"segment {reduce}",
        direction,
        "random groups",
        f"{data.short(E)} in {data.short(N)} groups, F={F}",
        F,
        build,
        traffic,
        targets,
        stream,
    )


@lru_cache(maxsize=1)
def _inputs(F: int, small: bool, device: str):
    E, N = SIZES[small]
    # No group is empty: peers disagree about what that gives.
    index = torch.cat([torch.arange(N, device=device), data.random_index(E - N, N, device=device)]).sort().values
    count = torch.bincount(index, minlength=N)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return data.features(E, F, device=device), index, indptr, N, data.gradient(N, F, device=device)


@lru_cache(maxsize=1)
def _reference(F: int, reduce: str, backward: bool, small: bool, device: str):
    src, index, _, N, grad = _inputs(F, small, device)
    return reference.scatter(src, index, N, reduce, grad if backward else None)


def _build(F: int, reduce: str, direction: str, small: bool, device: str) -> Prepared:
    src, _, indptr, _, grad = _inputs(F, small, device)
    src = src.detach().requires_grad_(direction == BOTH)
    do = lambda forward: runner(forward, direction, (src,), grad)
    ours = Provider(OURS, do(lambda: structops.segment_reduce(src, indptr, reduce)))
    module, reason = load("torch_scatter")
    torch_scatter = module and do(lambda: module.segment_csr(src, indptr, reduce=reduce))
    native = do(lambda: torch.segment_reduce(src, reduce, offsets=indptr, axis=0, unsafe=True))
    peers = [Provider("torch_scatter", torch_scatter, reason), Provider("torch.segment_reduce", native)]
    return Prepared(ours, peers, lambda: _reference(F, reduce, direction == BOTH, small, device))


def test_segment(case, bench_case):
    bench_case(case)
