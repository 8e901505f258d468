"""Reference matrix-tree operators: a posterior is a quotient of two sums over trees. The contract is csrc/tree/matrix_tree.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor

INF = math.inf
MASK = 2**64 - 1


def _multi(s: Tensor) -> Tensor:
    """log Z ``[M]`` of s ``[M, n, n + 1]`` (word d + 1 from heads 0..n), several roots allowed: elimination in the log domain."""
    s = s.clone()
    total = s.new_zeros(s.shape[0])
    for k in range(s.shape[1] - 1, -1, -1):
        D = s[:, k, : k + 1].logsumexp(1)
        total = total + D
        p = s[:, k, : k + 1] - torch.where(D == -INF, 0.0, D)[:, None]
        s[:, :k, : k + 1] = torch.logaddexp(s[:, :k, : k + 1], s[:, :k, k + 1 : k + 2] + p[:, None])
    return total


def _logz(s: Tensor, multiroot: bool) -> Tensor:
    """log Z ``[M]``. One root r: its arc from the root, and trees of the others in which nothing else hangs from the root."""
    if multiroot:
        return _multi(s)
    n = s.shape[1]
    parts = []
    for r in range(n):
        only = s.clone()
        only[:, :, 0] = -INF
        only[:, r, 1:] = -INF
        only[:, r, 0] = s[:, r, 0]
        parts.append(_multi(only))
    return torch.stack(parts, 1).logsumexp(1)


def _restrict(s: Tensor) -> Tensor:
    """s with one arc forced: ``[M * n * (n + 1), n, n + 1]``, for every arc in turn."""
    M, n, heads = s.shape
    out = s[:, None, None].expand(M, n, heads, n, heads).clone()
    for d in range(n):
        for h in range(heads):
            out[:, d, h, d] = -INF
            out[:, d, h, d, h] = s[:, d, h]
    return out.reshape(M * n * heads, n, heads)


def _posterior(s: Tensor, multiroot: bool) -> tuple[Tensor, Tensor]:
    """log Z ``[M]`` and posteriors ``[M, n, n + 1]``; 0 where there is no tree."""
    z = _logz(s, multiroot)
    forced = _logz(_restrict(s), multiroot).reshape(s.shape)
    return z, (forced - torch.where(z == -INF, 0.0, z)[:, None, None]).exp()


def _relative(s: Tensor, multiroot: bool) -> Tensor:
    """Scores relative to the best of their word; with one root, the root's relative to their own best."""
    if multiroot:
        return s - s.amax(1, keepdim=True)
    words, root = s[:, 1:], s[:, :1]
    best = words.amax(1, keepdim=True)
    root = root - torch.where(best == -INF, root, best)
    return torch.cat([root - root.amax(), words - best], 1)


def _sentences(score: Tensor, lengths: Tensor, multiroot: bool):
    """(b, n, s ``[1, n, n + 1]`` in float64 with the diagonal forbidden, whether a NaN or +inf was read) of nonempty sentences."""
    for b, n in enumerate(lengths.tolist()):
        if n == 0:
            continue
        s = score[b, 1 : n + 1, : n + 1].double()
        own = torch.eye(n + 1, dtype=torch.bool, device=s.device)[1:]
        s = s.masked_fill(own, -INF)
        bad = bool((s.isnan() | (s == INF)).any())
        yield b, n, torch.where(_relative(s, multiroot) > -(2.0**36), s, -INF)[None], own, bad


def _accumulator(score: Tensor) -> torch.dtype:
    return torch.float64 if score.dtype == torch.float64 else torch.float32


def _run(score: Tensor, lengths: Tensor, weight: Tensor | None, v: Tensor | None, multiroot: bool) -> tuple[Tensor, Tensor]:
    B, N, _ = score.shape
    first = score.new_zeros(B, dtype=torch.float64)
    post = score.new_zeros(B, N, N, dtype=torch.float64)
    for b, n, s, own, bad in _sentences(score, lengths, multiroot):
        if bad:
            first[b] = math.nan
            post[b, 1 : n + 1, : n + 1] = torch.where(own, 0.0, math.nan)
            continue
        z, mu = _posterior(s, multiroot)
        w = 1.0 if weight is None else weight[b].double()
        if v is None:
            first[b] = z[0]
            post[b, 1 : n + 1, : n + 1] = torch.where(mu[0] > 0, w * mu[0], 0.0)
            continue
        # Covariance of an arc with the score of the tree along v.
        along = torch.where(mu > 0, v[b, 1 : n + 1, : n + 1].double()[None], 0.0)
        given = _posterior(_restrict(s), multiroot)[1]
        mean = (mu * along).sum()
        first[b] = mean
        gain = (given * along).sum((1, 2)).reshape(mu.shape[1:]) - mean
        post[b, 1 : n + 1, : n + 1] = torch.where(mu[0] > 0, w * mu[0] * gain, 0.0)
    return first.to(_accumulator(score)), post.to(score.dtype)


def matrix_tree_logz(score, lengths, multiroot):
    out = score.new_zeros(score.shape[0], dtype=torch.float64)
    for b, _, s, _, bad in _sentences(score, lengths, multiroot):
        out[b] = math.nan if bad else _logz(s, multiroot)[0]
    return out.to(_accumulator(score))


def matrix_tree_marginals(score, lengths, weight, multiroot):
    return _run(score, lengths, weight, None, multiroot)


def matrix_tree_hvp(score, lengths, weight, v, multiroot):
    return _run(score, lengths, weight, v, multiroot)


def _uniforms(seed: int):
    """SplitMix64."""
    state = seed & MASK
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield ((z ^ (z >> 31)) >> 11) * 2.0**-53


def _choose(logs: list[float], u: float) -> int:
    top = max(logs)
    weights = [math.exp(x - top) for x in logs]
    running, last = 0.0, -1
    for i, weight in enumerate(weights):
        if weight > 0:
            running, last = running + weight, i
            if running > u * sum(weights):
                break
    return last


def _sample(s: Tensor, multiroot: bool, seed: int) -> list[int]:
    """Heads of words 1..n: the elimination of s ``[n, n + 1]``, then the words brought back one by one."""
    n = s.shape[0]
    shift = 0.0 if multiroot else -1e5  # one root: the limit of small root weights
    w = [[float(x) + (shift if h == 0 else 0.0) for h, x in enumerate(row)] for row in s]
    a = [row.copy() for row in w]
    column: dict[tuple[int, int], float] = {}
    p = [[0.0] * (n + 1) for _ in range(n)]
    for k in range(n - 1, 0, -1):
        top = max(a[k][: k + 1])
        D = top + math.log(sum(math.exp(x - top) for x in a[k][: k + 1]))
        p[k] = [x - D for x in a[k][: k + 1]]
        for d in range(k):
            column[d, k] = a[d][k + 1]
            for h in range(k + 1):
                x, y = a[d][h], a[d][k + 1] + p[k][h]
                hi = max(x, y)
                a[d][h] = hi if hi == -INF else hi + math.log(math.exp(x - hi) + math.exp(y - hi))
    u = _uniforms(seed)
    heads, via = [0] * n, [n] * n

    def expand(d: int, h: int, k: int) -> None:
        heads[d] = h
        i = _choose([w[d][h], *(column[d, j] + p[j][h] for j in range(k, n))], next(u))
        via[d] = k + i - 1 if i > 0 else n

    def below(d: int, k: int) -> bool:
        while via[d] != k and heads[d] > 0:
            d = heads[d] - 1
        return via[d] == k

    expand(0, 0, 1)
    for k in range(1, n):
        inside = [below(d, k) for d in range(k)]
        back = [d for d in range(k) if via[d] == k]
        expand(k, _choose([-INF if h and inside[h - 1] else p[k][h] for h in range(k + 1)], next(u)), k + 1)
        for d in back:
            expand(d, k + 1, k + 1)
    return heads


def matrix_tree_sample(score, lengths, seed, multiroot):
    S, (B, N, _) = seed.shape[0], score.shape
    heads = torch.full((S, B, N), -1, dtype=torch.int64)
    for b, n, s, _, bad in _sentences(score.cpu(), lengths, multiroot):
        if bad or float(_logz(s, multiroot)[0]) == -INF:
            continue
        for i in range(S):
            heads[i, b, 1 : n + 1] = torch.tensor(_sample(s[0], multiroot, int(seed[i, b])))
    return heads.to(score.device)
