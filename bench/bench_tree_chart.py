"""Projective trees and bracketings: sums with gradients, best trees, minimum Bayes risk, on equal and on real lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.kernels import codes
from structops.kernels.tree import chart_ref
from torch import Tensor

from . import models, treebank, wavefront
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level
from .peers import load

FIRST, SECOND, SPAN = "first order", "second order", "bracketings"
SUM, BEST, MBR = "log-partition", "best tree", "minimum Bayes risk"
ENTROPY, SAMPLE = "entropy", "16 samples"


def cases(level: str) -> Iterator[Case]:
    equal = at_level(
        level,
        smoke=[(FIRST, 3, 6), (SECOND, 3, 6), (SPAN, 3, 6)],
        quick=[(FIRST, 128, 40), (SECOND, 32, 40)],
        default=[(FIRST, 128, 40), (FIRST, 16, 100), (SECOND, 128, 40), (SPAN, 64, 40)],
        full=[(k, B, n) for k in (FIRST, SPAN) for n in (10, 20, 40, 64, 100, 128) for B in (1, 8, 32, 128)]
        + [(SECOND, B, n) for n in (10, 20, 40, 64) for B in (1, 8, 32, 128)]
        + [(FIRST, 64, 256)],
    )
    targets = {(FIRST, 128, 40): 20.0, (FIRST, 16, 100): 20.0, (SECOND, 128, 40): 60.0, (SPAN, 64, 40): 15.0}
    for kind, B, n in equal:
        lengths = torch.full((B,), n)
        for direction in (FWD, BOTH) if level == "full" else (BOTH,):
            target = targets.get((kind, B, n)) if direction == BOTH else None
            yield _case(SUM, kind, direction, f"B={B}, n={n}", lengths, target)
    title, real = treebank.lengths()
    batch = real[: at_level(level, smoke=8, quick=32, default=64, full=256)]
    named = lambda lengths: f"{title}, B={len(lengths)}"
    for kind in at_level(level, smoke=(FIRST,), quick=(FIRST,), default=(FIRST, SECOND), full=(FIRST, SECOND, SPAN)):
        some = batch[:64] if kind == SECOND else batch
        yield _case(SUM, kind, BOTH, named(some), some, None)
    for task in (BEST, MBR):
        yield _case(task, FIRST, FWD, named(batch), batch, 20.0)
    few = batch[: 4 if level == "smoke" else 32]
    yield _case(ENTROPY, FIRST, BOTH, named(few), few, None)
    yield _case(SAMPLE, FIRST, FWD, named(few), few, None)


def _case(task: str, kind: str, direction: str, shape: str, lengths: Tensor, target: float | None) -> Case:
    build = partial(_build, task, kind, direction, tuple(lengths.tolist()))
    traffic = models.chart(lengths.tolist(), second=kind == SECOND, backward=direction == BOTH or task == MBR)
    peers = {"best": target} if target else {}
    B, N = len(lengths), int(lengths.max()) + 1
    return Case(f"tree {task}, {kind}", direction, "trees", f"{shape}, N={N}", B, build, traffic, peers, items=B)


@lru_cache(maxsize=1)
def _inputs(kind: str, lengths: tuple[int, ...], device: str):
    g = torch.Generator().manual_seed(5)
    N = max(lengths) + 1
    score = torch.randn(len(lengths), N, N, generator=g)
    sib = torch.randn(len(lengths), N, N, N, generator=g) if kind == SECOND else None
    grad = torch.rand(len(lengths), generator=g)
    return tuple(None if t is None else t.to(device) for t in (score, sib, torch.tensor(lengths), grad))


@lru_cache(maxsize=1)
def _reference(task: str, kind: str, direction: str, lengths: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    score, sib, length, grad = _inputs(kind, lengths, device)
    score, sib = score.double().requires_grad_(), None if sib is None else sib.double().requires_grad_()
    out = _sums(kind, score, length, sib)
    if task == BEST:
        return (wavefront.heads_of(score, length),)
    if task == SAMPLE:
        return (chart_ref.chart_sample(score.detach(), None, length.cpu(), _uniform(lengths).cpu(), codes.DEP_SINGLE),)
    if task == ENTROPY:
        return _entropy(score, out, grad.double())
    if task == MBR:
        (posterior,) = torch.autograd.grad(out.sum(), score)
        return (wavefront.heads_of(posterior, length),)
    if direction == FWD:
        return (out.detach(),)
    return (out.detach(), *torch.autograd.grad(out, [t for t in (score, sib) if t is not None], grad.double()))


def _entropy(score: Tensor, log_partition: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(entropy, its gradient) from H = log Z - <posteriors, scores>."""
    (posterior,) = torch.autograd.grad(log_partition.sum(), score, create_graph=True)
    entropy = log_partition - (posterior * score).sum((1, 2))
    return entropy.detach(), *torch.autograd.grad(entropy, score, grad)


def _uniform(lengths: tuple[int, ...]) -> Tensor:
    return torch.rand(16, len(lengths), 3 * (max(lengths) + 1), dtype=torch.float64, generator=torch.Generator().manual_seed(6))


def _sums(kind: str, score: Tensor, length: Tensor, sib: Tensor | None) -> Tensor:
    return wavefront.span(score, length) if kind == SPAN else wavefront.dependency(score, length, sib)


def _runs(task: str, direction: str, inputs, partition: Callable, best: Callable, mbr: Callable | None = None) -> Callable:
    """``partition(score, sib)``, ``best(score)`` and ``mbr(score)`` (default: best of the gradient) as one benchmark run."""
    score, sib, _, grad = inputs
    leaves = [t.clone().requires_grad_() for t in (score, sib) if t is not None]
    pair = lambda: (leaves[0], leaves[1] if sib is not None else None)

    def forward():
        with torch.no_grad():
            return (partition(score, sib),)

    def both():
        out = partition(*pair())
        return (out.detach(), *torch.autograd.grad(out, leaves, grad))

    def risk():
        (posterior,) = torch.autograd.grad(partition(*pair()).sum(), leaves[:1])
        return (best(posterior),)

    if task == BEST:
        return lambda: (best(score),)
    if task == MBR:
        return (lambda: (mbr(score),)) if mbr else risk
    return both if direction == BOTH else forward


def _build(task: str, kind: str, direction: str, lengths: tuple[int, ...], device: str) -> Prepared:
    inputs = _inputs(kind, lengths, device)
    length = inputs[2]
    make = partial(_runs, task, direction, inputs)
    best = lambda s: wavefront.heads_of(s, length)
    reference = lambda: _reference(task, kind, direction, lengths, device)
    if task == SAMPLE:
        u, score = _uniform(lengths).to(device), inputs[0]
        ours = lambda: (torch.ops.structops.chart_sample(score, None, length, u, codes.DEP_SINGLE),)
        return Prepared(Provider(OURS, ours), [], reference)
    if task == ENTROPY:
        ours = make(lambda s, b: structops.tree.DependencyCRF(s, length).entropy(), best)
        leaf = inputs[0].clone().requires_grad_()
        loop = lambda: _entropy(leaf, _sums(kind, leaf, length, None), inputs[3])
        structs, reason = load("supar.structs")
        supar = structs and make(lambda s, b: structs.DependencyCRF(s, length).entropy, best)
        peers = [Provider("supar", supar, reason), Provider("torch, per width", loop)]
        return Prepared(Provider(OURS, ours), peers, reference, tolerance=2e-4)
    if kind == SPAN:
        ours = make(lambda s, b: structops.tree.span_log_partition(s, length), lambda s: structops.tree.span_best(s, length)[1])
    else:
        crf = lambda s, b=None: structops.tree.DependencyCRF(s, length, b)
        ours = make(lambda s, b: crf(s, b).log_partition, lambda s: crf(s).argmax.clamp(min=0), lambda s: crf(s).mbr().clamp(min=0))
    peers = [_supar(kind, make, length)]
    if kind == SPAN:
        peers.append(_torch_struct(make, length))
    peers.append(Provider("torch, per width", make(lambda s, b: _sums(kind, s, length, b), best)))
    return Prepared(Provider(OURS, ours), peers, reference, tolerance=2e-4)


def _supar(kind: str, make: Callable, length: Tensor) -> Provider:
    structs, reason = load("supar.structs")
    if structs is None:
        return Provider("supar", reason=reason)
    if kind == SPAN:
        return Provider("supar", make(lambda s, b: structs.ConstituencyCRF(s, length).log_partition, lambda s: None))
    if kind == SECOND:
        return Provider("supar", make(lambda s, b: structs.Dependency2oCRF((s, b), length).log_partition, lambda s: None))
    best = lambda s: structs.DependencyCRF(s.detach(), length).argmax
    mbr = lambda s: best(structs.DependencyCRF(s.detach(), length).marginals)
    return Provider("supar", make(lambda s, b: structs.DependencyCRF(s, length).log_partition, best, mbr))


def _torch_struct(make: Callable, length: Tensor) -> Provider:
    module, reason = load("torch_struct")
    if module is None:
        return Provider("torch-struct", reason=reason)

    def partition(s: Tensor, _) -> Tensor:
        inclusive = s[:, :-1, 1:, None]  # spans of words instead of posts, one label
        return module.TreeCRF(inclusive, length).partition

    return Provider("torch-struct", make(partition, lambda s: None))


def test_chart(case, bench_case):
    bench_case(case)
