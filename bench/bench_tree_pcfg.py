"""Grammars with rule scores: the log-partition and its gradient, the best parses, and the best parse through every part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.kernels.tree import pcfg_ref
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
    B, n, NT, T = at_level(level, smoke=(2, 5, 2, 3), quick=(4, 8, 5, 10), default=(4, 12, 10, 20), full=(4, 12, 10, 20))
    traffic = models.pcfg([n] * B, NT, T)
    for k in (1, 2, 8):
        shape = f"B={B}, n={n}, NT={NT}, T={T}, k={k}"
        yield Case("tree best, grammar", FWD, "trees", shape, k, partial(_best, k, B, n, NT, T), traffic, items=B)
    shape = f"B={B}, n={n}, NT={NT}, T={T}"
    yield Case("tree max-marginals, grammar", FWD, "trees", shape, B, partial(_max, B, n, NT, T), traffic, items=B)


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


def _best(k: int, B: int, n: int, NT: int, T: int, device: str) -> Prepared:
    """Scores of the k best parses."""
    *scores, lengths = _inputs(B, n, NT, T, device)
    module, reason = load("torch_struct")
    theirs = module and (lambda: (module.SentCFG(scores, lengths).kmax(k).t(),))
    peers = [
        Provider("torch-struct", theirs, reason),
        Provider("torch, per width", lambda: (wavefront.pcfg_best(*scores, lengths, k),)),
    ]
    ours = lambda: (structops.tree.PCFG(*scores, lengths).kbest(k)[0],)
    wide = [t.double() for t in scores]
    return Prepared(Provider(OURS, ours), peers, lambda: (wavefront.pcfg_best(*wide, lengths, k),))


def _max(B: int, n: int, NT: int, T: int, device: str) -> Prepared:
    """The best parse through every word, rule, root and span."""
    *scores, lengths = _inputs(B, n, NT, T, device)
    finite = lambda through: tuple(t.clamp(min=-1e6) for t in through)
    ours = lambda: finite(structops.tree.PCFG(*scores, lengths).max_marginals())
    reference = lambda: finite(pcfg_ref.pcfg_max_marginals(*(t.double().cpu() for t in scores), None, lengths.cpu()))
    return Prepared(Provider(OURS, ours), [], reference)


def test_pcfg(case, bench_case):
    bench_case(case)
