"""Trees with grandparent factors: sums with gradients; and max-marginals of every chart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.kernels import codes
from structops.kernels.tree import chart_ref
from torch import Tensor

from . import models, wavefront
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level


def cases(level: str) -> Iterator[Case]:
    full = [(32, 20), (16, 40), (32, 40), (4, 80)]
    for B, n in at_level(level, smoke=[(2, 6)], quick=[(16, 20)], default=full[:2], full=full):
        traffic = models.grand([n] * B)
        yield Case("tree log-partition, grandparents", BOTH, "trees", f"B={B}, n={n}", B, partial(_grand, B, n), traffic, items=B)
    for B, n in at_level(level, smoke=[(2, 6)], quick=[(16, 20)], default=[(16, 20)], full=[(16, 20), (64, 20)]):
        traffic = models.chart([n] * B, backward=True)
        yield Case("tree max-marginals, first order", FWD, "trees", f"B={B}, n={n}", B, partial(_max, B, n), traffic, items=B)


def _inputs(B: int, n: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    N = n + 1
    drawn = (torch.randn(B, N, N, generator=g), torch.randn(B, N, N, N, generator=g), torch.full((B,), n))
    return tuple(t.to(device) for t in drawn)  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _reference(B: int, n: int, device: str) -> tuple[Tensor, ...]:
    arc, grand, lengths = _inputs(B, n, device)
    leaves = [arc.double().requires_grad_(), grand.double().requires_grad_()]
    out = wavefront.grand(*leaves, lengths)
    return (out.detach(), *torch.autograd.grad(out.sum(), leaves))


def _grand(B: int, n: int, device: str) -> Prepared:
    arc, grand, lengths = _inputs(B, n, device)
    leaves = [arc.clone().requires_grad_(), grand.clone().requires_grad_()]

    def run(partition) -> tuple[Tensor, ...]:
        out = partition()
        return (out.detach(), *torch.autograd.grad(out.sum(), leaves))

    ours = lambda: run(lambda: structops.tree.DependencyCRF(leaves[0], lengths, grand=leaves[1]).log_partition)
    loop = lambda: run(lambda: wavefront.grand(*leaves, lengths))
    return Prepared(Provider(OURS, ours), [Provider("torch, per width", loop)], partial(_reference, B, n, device), tolerance=2e-4)


def _max(B: int, n: int, device: str) -> Prepared:
    arc, _, lengths = _inputs(B, n, device)
    finite = lambda t: t.nan_to_num(neginf=0.0)  # what no tree has
    ours = lambda: (finite(torch.ops.structops.chart_max_marginals(arc, None, lengths, codes.DEP_SINGLE)),)

    def one_at_a_time() -> tuple[Tensor]:
        """The best tree with each arc forced: one batch of charts for every arc of the sentence."""
        N = n + 1
        out = arc.new_full((B, N, N), -torch.inf)
        for dep in range(1, N):
            others = torch.arange(N, device=arc.device) != dep
            forced = arc[:, None].expand(B, N, N, N).clone()  # [sentence, head wanted, dep, head]
            same = torch.eye(N, dtype=torch.bool, device=arc.device)
            forced[:, :, dep] = torch.where(same, forced[:, :, dep], -torch.inf)
            forced = forced[:, others].flatten(0, 1)
            value, _ = torch.ops.structops.chart_best(forced, None, lengths.repeat_interleave(n), codes.DEP_SINGLE, 1)
            out[:, dep, others] = value.reshape(B, n)
        return (finite(out),)

    reference = lambda: (finite(chart_ref.chart_max_marginals(arc.double().cpu(), None, lengths.cpu(), codes.DEP_SINGLE)),)
    return Prepared(Provider(OURS, ours), [Provider("best tree with each arc", one_at_a_time)], reference)


def test_grand(case, bench_case):
    bench_case(case)
