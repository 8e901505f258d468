"""Random chains of every kind, and their paths one by one."""

from __future__ import annotations

import itertools

import torch
from cases import generator
from structops.kernels.tree import chain_ref
from torch import Tensor

INF = float("inf")
KINDS = ("none", "shared", "batch", "position", "full")


def chain(
    kind: str, K: int = 0, B: int = 3, N: int = 4, T: int = 3, dtype=torch.float64, seed: int = 0, scale: float = 2.0, forbid: float = 0.0
) -> tuple:
    """(emit, segment, duration, trans, start, end), lengths. K = 0: a linear chain. ``forbid``: the share of -inf."""
    rng = generator(seed)

    def scores(*shape: int) -> Tensor:
        x = scale * torch.randn(*shape, generator=rng, dtype=torch.float64)
        return torch.where(torch.rand(*shape, generator=rng) < forbid, -INF, x).to(dtype)

    k, borders = max(K, 1), max(N - 1, 0)
    trans = {"none": (), "shared": (T, T), "batch": (B, T, T), "position": (B, borders, T, T), "full": (B, borders, k, T, T)}[kind]
    segment, duration = (scores(B, N, K, T), scores(K, T)) if K else (None, None)
    found = (scores(B, N, T), segment, duration, scores(*trans) if trans else None, scores(T), scores(T))
    return found, torch.tensor([max(N - b, 0) for b in range(B)])


def paths(scores: tuple, lengths: Tensor, b: int) -> dict[tuple, Tensor]:
    """Every path of sentence b, as ((begin, tag), ...), with its score: by definition, in float64."""
    emit, segment, duration, trans, start, end = (None if t is None else t.double() for t in scores)
    n, T, K = int(lengths[b]), emit.shape[2], chain_ref.max_length(*scores[1:4])
    found: dict[tuple, Tensor] = {}
    for cuts in itertools.product((False, True), repeat=max(n - 1, 0)):
        begins = [0, *(i + 1 for i, cut in enumerate(cuts) if cut)] if n else []
        ends = [*begins[1:], n] if n else []
        if any(e - i > K for i, e in zip(begins, ends, strict=True)) or (trans is not None and trans.dim() == 5 and ends and ends[0] > 1):
            continue
        for tags in itertools.product(range(T), repeat=len(begins)):
            total = torch.zeros((), dtype=torch.float64)
            for i, e, t, before in zip(begins, ends, tags, (None, *tags), strict=False):
                total = total + emit[b, i:e, t].sum()
                if segment is not None:
                    total = total + segment[b, i, e - i - 1, t]
                if duration is not None:
                    total = total + duration[e - i - 1, t]
                if before is None:
                    total = total if start is None else total + start[t]
                elif trans is not None:
                    at = {2: (), 3: (b,), 4: (b, i - 1), 5: (b, i - 1, e - i - 1)}[trans.dim()]
                    total = total + trans[(*at, before, t)]
            if end is not None and n:
                total = total + end[tags[-1]]
            found[tuple(zip(begins, tags, strict=True))] = total
    return found


def as_tags(path: tuple, N: int) -> list[int]:
    tags = [-1] * N
    for i, t in path:
        tags[i] = t
    return tags
