"""Linear chains and semi-Markov chains: log-partition with its gradient, the best path, max-marginals, and the loss of a tagger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
from structops.compat import pytorch_crf
from structops.tree import LinearChainCRF, SemiMarkovCRF
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

B, N = 64, 40
LOGZ, LOSS, BEST, SEMI = "chain_logz", "chain loss", "chain_best", "chain_logz segments"
THROUGH, SEMI_THROUGH = "chain_max_marginals", "chain_max_marginals segments"
LOOP = "torch loop"


def cases(level: str) -> Iterator[Case]:
    tags = at_level(level, smoke=(5,), quick=(9,), default=(9, 50), full=(2, 9, 24, 50, 128))
    for T in tags:
        for op, direction in ((LOGZ, BOTH), (LOSS, BOTH), (BEST, FWD), (THROUGH, FWD)):
            yield _case(op, direction, T, 0, level == "smoke")
    for T, K in at_level(level, smoke=((3, 4),), quick=(), default=((9, 8),), full=((9, 8), (24, 16))):
        yield _case(SEMI, BOTH, T, K, level == "smoke")
        yield _case(SEMI_THROUGH, FWD, T, K, level == "smoke")


def _case(op: str, direction: str, T: int, K: int, small: bool) -> Case:
    b, n = (3, 7) if small else (B, N)
    terms, both = b * n * (T * T + K * T), direction == BOTH
    size = 4 * (b * n * T * max(K, 1) + T * T + 2 * T)
    twice = op in (THROUGH, SEMI_THROUGH)  # a number for every score, from the left and from the right
    moved = size * (2 if both or twice else 1)
    traffic = Traffic(moved, moved, (3 if both else 1 + twice) * 2 * terms)
    shape = f"B={b} N={n} T={T}" + (f" K={K}" if K else "")
    return Case(op, direction, "random", shape, T, partial(_build, op, direction, b, n, T, K), traffic)


@lru_cache(maxsize=2)
def _inputs(b: int, n: int, T: int, K: int, device: str) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(T)
    draw = lambda scale, *shape: (scale * torch.randn(*shape, generator=rng)).to(device)
    emissions = draw(1.0, b, n, K, T) if K else draw(1.0, b, n, T)
    tags = torch.randint(T, (b, n), generator=rng).to(device)
    return emissions, draw(0.3, T, T), draw(0.3, T), draw(0.3, T), tags


def _loop(emissions: Tensor, trans: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The forward algorithm as it is usually written."""
    alpha = start + emissions[:, 0]
    for t in range(1, emissions.shape[1]):
        alpha = torch.logsumexp(alpha[:, :, None] + trans, 1) + emissions[:, t]
    return torch.logsumexp(alpha + end, 1).sum()


def _loop_best(emissions: Tensor, trans: Tensor, start: Tensor, end: Tensor) -> Tensor:
    alpha, back = start + emissions[:, 0], []
    for t in range(1, emissions.shape[1]):
        alpha, source = (alpha[:, :, None] + trans).max(1)
        alpha = alpha + emissions[:, t]
        back.append(source)
    tags = [(alpha + end).argmax(1)]
    for source in reversed(back):
        tags.append(source.gather(1, tags[-1][:, None])[:, 0])
    return torch.stack(tags[::-1], 1)


def _loop_segments(segments: Tensor, trans: Tensor, start: Tensor, end: Tensor) -> Tensor:
    _, N, K, _ = segments.shape
    alpha: list[Tensor] = []
    enter = [start.expand_as(segments[:, 0, 0])]
    for j in range(1, N + 1):
        terms = [enter[j - d] + segments[:, j - d, d - 1] for d in range(1, min(K, j) + 1)]
        alpha.append(torch.logsumexp(torch.stack(terms), 0))
        enter.append(torch.logsumexp(alpha[-1][:, :, None] + trans, 1))
    return torch.logsumexp(alpha[-1] + end, 1).sum()


def _loop_through(segments: Tensor, trans: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The best path through every segment [B, N, K, T], -1e4 where there is none."""
    B, N, K, T = segments.shape
    before, after = segments.new_full((B, N + K, T), -1e4), segments.new_full((B, N + K + 1, T), -1e4)
    after[:, N] = end
    inner = []
    for i in range(N):
        enter = start.expand(B, T) if i == 0 else (before[:, i, :, None] + trans).amax(1)
        inner.append(enter[:, None] + segments[:, i])
        before[:, i + 1 : i + 1 + K] = torch.maximum(before[:, i + 1 : i + 1 + K], inner[i])
    for i in range(N - 1, -1, -1):
        inner[i] = inner[i] + after[:, i + 1 : i + 1 + K]
        after[:, i] = (trans + (segments[:, i] + after[:, i + 1 : i + 1 + K]).amax(1)[:, None]).amax(2)
    inside = torch.arange(N)[:, None] + torch.arange(1, K + 1) <= N
    return torch.stack(inner, 1).masked_fill(~inside[..., None].to(segments.device), -1e4)


def _score(emissions: Tensor, trans: Tensor, start: Tensor, end: Tensor, tags: Tensor) -> Tensor:
    return LinearChainCRF(emissions, trans, start, end)._score(tags).sum()


def _build(op: str, direction: str, b: int, n: int, T: int, K: int, device: str) -> Prepared:
    *given, tags = _inputs(b, n, T, K, device)
    leaves = tuple(t.detach().requires_grad_(direction == BOTH) for t in given)
    do = lambda forward, *parameters: runner(forward, direction, parameters or leaves, leaves[0].new_ones(()))
    wide = tuple(t.detach().double().requires_grad_(direction == BOTH) for t in given)
    module, reason = load("torchcrf")
    if op == SEMI:
        ours = Provider(OURS, do(lambda: SemiMarkovCRF(*leaves).log_partition.sum()))
        peers = [Provider(LOOP, do(lambda: _loop_segments(*leaves)))]
        return Prepared(ours, peers, lambda: do(lambda: _loop_segments(*wide), *wide)())
    if op == SEMI_THROUGH:
        ours = Provider(OURS, do(lambda: SemiMarkovCRF(*leaves).max_marginals().clamp(min=-1e4)))
        peers = [Provider(LOOP, do(lambda: _loop_through(*leaves)))]
        return Prepared(ours, peers, lambda: (_loop_through(*wide),))
    if op == THROUGH:
        through = lambda e, *rest: _loop_through(e[:, :, None], *rest)[:, :, 0]
        ours = Provider(OURS, do(lambda: LinearChainCRF(*leaves).max_marginals()))
        peers = [Provider(LOOP, do(lambda: through(*leaves)))]
        return Prepared(ours, peers, lambda: (through(*wide),))
    if op == LOGZ:
        ours = Provider(OURS, do(lambda: LinearChainCRF(*leaves).log_partition.sum()))
        peers = [Provider(LOOP, do(lambda: _loop(*leaves)))]
        if module:
            peer = _module(module.CRF, leaves)
            forward = lambda: peer._compute_normalizer(leaves[0].transpose(0, 1), _mask(tags).t()).sum()
            peers.insert(0, Provider("pytorch-crf", do(forward, leaves[0], *_parameters(peer))))
        else:
            peers.insert(0, Provider("pytorch-crf", reason=reason))
        return Prepared(ours, peers, lambda: do(lambda: _loop(*wide), *wide)())
    if op == LOSS:
        make: Callable = lambda cls: _loss(cls, leaves, tags, do)
        ours = Provider(OURS, make(pytorch_crf.CRF))
        peers = [Provider("pytorch-crf", make(module.CRF) if module else None, reason)]
        return Prepared(ours, peers, lambda: do(lambda: _loop(*wide) - _score(*wide, tags), *wide)())
    ours = Provider(OURS, do(lambda: LinearChainCRF(*leaves).argmax))
    peer = module and _module(module.CRF, leaves)
    decode = module and do(lambda: torch.tensor(peer.decode(leaves[0], _mask(tags))))
    peers = [Provider("pytorch-crf", decode, reason), Provider(LOOP, do(lambda: _loop_best(*leaves)))]
    return Prepared(ours, peers, lambda: (_loop_best(*wide),))


def _mask(tags: Tensor) -> Tensor:
    return torch.ones_like(tags, dtype=torch.bool)


def _module(cls: type, leaves: tuple[Tensor, ...]):
    crf = cls(leaves[0].shape[2], batch_first=True).to(leaves[0].device)
    with torch.no_grad():
        for p, t in zip(_parameters(crf), leaves[1:], strict=True):
            p.copy_(t)
    return crf


def _parameters(crf) -> tuple[Tensor, ...]:
    return crf.transitions, crf.start_transitions, crf.end_transitions


def _loss(cls: type, leaves: tuple[Tensor, ...], tags: Tensor, do: Callable):
    crf = _module(cls, leaves)
    return do(lambda: -crf(leaves[0], tags, _mask(tags)), leaves[0], *_parameters(crf))


def test_chain(case, bench_case):
    bench_case(case)
