"""Grammars with rule scores: the log-partition and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from . import models, wavefront
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level
from .peers import load


def cases(level: str) -> Iterator[Case]:
    shapes = at_level(
        level,
        smoke=[(2, 5, 2, 3)],
        quick=[(8, 12, 10, 20)],
        default=[(8, 20, 10, 20), (4, 20, 30, 60)],
        full=[(8, 20, 10, 20), (16, 20, 30, 60), (4, 40, 30, 60)],
    )
    for B, n, NT, T in shapes:
        for direction in (FWD, BOTH):
            traffic = models.pcfg([n] * B, NT, T, backward=direction == BOTH)
            build = partial(_build, direction, B, n, NT, T)
            yield Case(
                "tree log-partition, grammar", direction, "trees", f"B={B}, n={n}, NT={NT}, T={T}", B, build, traffic, items=B
            )


def _inputs(B: int, n: int, NT: int, T: int, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(5)
    S = NT + T
    drawn = (
        torch.randn(B, n, T, generator=g),
        torch.randn(B, NT, S, S, generator=g).flatten(2).log_softmax(2),
        torch.randn(B, NT, generator=g),
    )
    return drawn[0].to(device), drawn[1].reshape(B, NT, S, S).to(device), drawn[2].to(device), torch.full((B,), n, device=device)


@lru_cache(maxsize=1)
def _reference(direction: str, shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    *scores, lengths = _inputs(*shape, device)
    leaves = [t.double().requires_grad_(direction == BOTH) for t in scores]
    out = wavefront.pcfg(*leaves, lengths)
    return (out.detach(), *torch.autograd.grad(out.sum(), leaves)) if direction == BOTH else (out,)


def _build(direction: str, B: int, n: int, NT: int, T: int, device: str) -> Prepared:
    *scores, lengths = _inputs(B, n, NT, T, device)
    leaves = [t.clone().requires_grad_(direction == BOTH) for t in scores]

    def run(partition) -> tuple[Tensor, ...]:
        out = partition(*leaves)
        return (out.detach(), *torch.autograd.grad(out.sum(), leaves)) if direction == BOTH else (out,)

    module, reason = load("torch_struct")
    theirs = module and (lambda *t: module.SentCFG(t, lengths).partition)
    peers = [
        Provider("torch-struct", theirs and (lambda: run(theirs)), reason),
        Provider("torch, per width", lambda: run(lambda *t: wavefront.pcfg(*t, lengths))),
    ]
    ours = lambda: run(lambda *t: structops.tree.PCFG(*t, lengths).log_partition)
    return Prepared(Provider(OURS, ours), peers, partial(_reference, direction, (B, n, NT, T), device), tolerance=2e-4)


def test_pcfg(case, bench_case):
    bench_case(case)
