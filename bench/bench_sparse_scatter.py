"""Scatter of messages in memory by an unsorted index, with and without a plan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops

from . import data, models, reference
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .peers import NO_SUCH, load

WIDTHS = (1, 8, 64, 256)
TARGETS = {1: 1.0, 8: 8.0, 64: 2.5, 256: 2.0}
SIZES = {False: (1_000_000, 100_000), True: (5_000, 600)}


def cases(level: str) -> Iterator[Case]:
    reduces = ("sum", "mean", "min", "max")
    grid = at_level(
        level,
        smoke=[(F, r, p) for F in (1, 40) for r in reduces for p in (False, True)],
        quick=[(F, r, False) for F, r in ((8, "sum"), (64, "sum"), (8, "max"))],
        default=[(F, "sum", p) for F in (1, 8, 64) for p in (False, True)] + [(F, "max", False) for F in (8, 64)],
        full=[(F, r, p) for F in WIDTHS for r in reduces for p in (False, True)],
    )
    both = at_level(level, smoke=(1, 40), quick=(), default=(8,), full=(8, 64))
    for F, reduce, planned in grid:
        for direction in (FWD, BOTH) if F in both else (FWD,):
            yield _case(F, reduce, planned, direction, level == "smoke")


def _case(F: int, reduce: str, planned: bool, direction: str, small: bool) -> Case:
    E, N = SIZES[small]
    extreme = reduce in ("min", "max")
    traffic = models.scatter(E, N, F, backward=direction == BOTH, extreme=extreme, planned=planned)
    targets: dict[str, float] = {}
    if direction == FWD and extreme:
        targets = {"torch_scatter": 10.0}
    elif direction == FWD and reduce == "sum" and F in TARGETS:
        targets = {"torch_scatter": TARGETS[F], "torch index_add": TARGETS[F]}
    build = partial(_build, F, reduce, planned, direction, small)
    op = f"scatter {reduce}" + (" planned" if planned else "")
    return Case(op, direction, "random index", f"unsorted {data.short(E)} → {data.short(N)}, F={F}", F, build, traffic, targets)


@lru_cache(maxsize=1)
def _inputs(F: int, small: bool, device: str):
    E, N = SIZES[small]
    src, index = data.features(E, F, device=device), data.random_index(E, N, device=device)
    return src, index, N, data.gradient(N, F, device=device)


@lru_cache(maxsize=1)
def _reference(F: int, reduce: str, backward: bool, small: bool, device: str):
    src, index, N, grad = _inputs(F, small, device)
    return reference.scatter(src, index, N, reduce, grad if backward else None)


def _build(F: int, reduce: str, planned: bool, direction: str, small: bool, device: str) -> Prepared:
    src, index, N, grad = _inputs(F, small, device)
    src = src.detach().requires_grad_(direction == BOTH)
    plan = (lambda: structops.ScatterPlan(index, N)) if planned else None
    key = plan() if planned else index
    do = lambda forward: runner(forward, direction, (src,), grad)
    ours = Provider(OURS, do(lambda: structops.scatter_reduce(src, key, N, reduce)), plan=plan)
    wide = index[:, None].expand_as(src)
    peers = []
    module, reason = load("torch_scatter")
    peers.append(Provider("torch_scatter", module and do(lambda: module.scatter(src, index, 0, None, N, reduce)), reason))
    if reduce == "sum":
        peers.append(Provider("torch index_add", do(lambda: src.new_zeros(N, F).index_add(0, index, src))))
        peers.append(Provider("torch scatter_add", do(lambda: src.new_zeros(N, F).scatter_add(0, wide, src))))
    else:
        kind = {"mean": "mean", "min": "amin", "max": "amax"}[reduce]
        call = lambda: src.new_zeros(N, F).scatter_reduce(0, wide, src, kind, include_self=False)
        peers += [Provider("torch index_add", reason=NO_SUCH), Provider("torch scatter_reduce", do(call))]
    return Prepared(ours, peers, lambda: _reference(F, reduce, direction == BOTH, small, device))


def test_scatter(case, bench_case):
    bench_case(case)
