"""Reference of the chain operators: the specification of csrc/tree/chain.h in plain torch, a sentence at a time.

Sums are the differentiable recurrence from the left in float64; posteriors and curvature are its first and second derivatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

INF = float("inf")


def log_sum(x: Tensor, dim: int) -> Tensor:
    """logsumexp whose derivatives are 0 where every entry is -inf."""
    reachable = x > -INF
    top = torch.where(reachable, x, -INF).amax(dim, keepdim=True).detach()
    top = torch.where(top > -INF, top, 0.0)
    total = torch.where(reachable, (torch.where(reachable, x, 0.0) - top).exp(), 0.0).sum(dim)
    return torch.where(total > 0, torch.where(total > 0, total, 1.0).log() + top.squeeze(dim), -INF)


def max_length(segment: Tensor | None, duration: Tensor | None, trans: Tensor | None) -> int:
    if segment is not None:
        return segment.shape[2]
    if duration is not None:
        return duration.shape[0]
    return trans.shape[2] if trans is not None and trans.dim() == 5 else 1


class Chain:
    """The scores of sentence b, in float64."""

    def __init__(self, scores: list, lengths: Tensor, b: int) -> None:
        self.emit, self.seg, self.dur, self.tr, self.start, self.end = scores
        self.b, self.n, self.T = b, int(lengths[b]), self.emit.shape[2]
        self.K = max_length(self.seg, self.dur, self.tr)
        self.full = self.tr is not None and self.tr.dim() == 5
        self.zeros = self.emit.new_zeros(self.T)

    def segment(self, i: int, d: int) -> Tensor:
        """S(i, d, .) [T]"""
        s = self.emit[self.b, i]
        for p in range(i + 1, i + d):
            s = s + self.emit[self.b, p]
        if self.seg is not None:
            s = s + self.seg[self.b, i, d - 1]
        return s if self.dur is None else s + self.dur[d - 1]

    def trans(self, i: int, d: int) -> Tensor:
        """[T, T], source first."""
        if self.tr is None:
            return self.emit.new_zeros(self.T, self.T)
        rank = self.tr.dim()
        if rank == 2:
            return self.tr
        return self.tr[self.b] if rank == 3 else self.tr[self.b, i - 1] if rank == 4 else self.tr[self.b, i - 1, d - 1]

    def lengths(self, j: int) -> list[int]:
        """Lengths of the segments that may end at j."""
        return [d for d in range(1, min(self.K, j) + 1) if d == 1 or d < j or not self.full]

    def read(self) -> list[Tensor]:
        """Every score that the sentence reads."""
        if self.n == 0:
            return []
        found = [self.emit[self.b, : self.n], *(t for t in (self.dur, self.start, self.end) if t is not None)]
        for j in range(1, self.n + 1):
            for d in self.lengths(j):
                if self.seg is not None:
                    found.append(self.seg[self.b, j - d, d - 1])
                if j > d and self.tr is not None:
                    found.append(self.trans(j - d, d))
        return found

    def bad(self) -> bool:
        return any(bool((~(t.detach() < INF)).any()) for t in self.read())

    def charts(self) -> tuple[list[Tensor], list[Tensor]]:
        """V [n + 1] and P [n] of rows [T]; P is empty past 0 for full transitions."""
        start = self.zeros if self.start is None else self.start
        V, P = [self.zeros], [start]
        for j in range(1, self.n + 1):
            if j > 1 and not self.full:
                P.append(log_sum(V[j - 1][:, None] + self.trans(j - 1, 1), 0))
            terms = [self.entered(V, P, j - d, d) + self.segment(j - d, d) for d in self.lengths(j)]
            V.append(log_sum(torch.stack(terms), 0))
        return V, P

    def entered(self, V: list, P: list, i: int, d: int) -> Tensor:
        return log_sum(V[i][:, None] + self.trans(i, d), 0) if self.full and i > 0 else P[i]

    def last(self) -> Tensor:
        return self.zeros if self.end is None else self.end

    def logz(self) -> Tensor:
        if self.n == 0:
            return self.emit.new_zeros(())
        return log_sum(self.charts()[0][self.n] + self.last(), 0)


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _wide(scores, grad: bool = False) -> list:
    return [None if t is None else t.detach().double().requires_grad_(grad) for t in scores]


def chain_logz(emit, segment, duration, trans, start, end, lengths):
    """Same signature and results as torch.ops.structops.chain_logz."""
    scores = _wide((emit, segment, duration, trans, start, end))
    chains = [Chain(scores, lengths, b) for b in range(emit.shape[0])]
    out = [float("nan") if c.bad() else float(c.logz()) for c in chains]
    return torch.tensor(out, dtype=_accumulator(emit), device=emit.device)


def _poison(grads: list, c: Chain) -> None:
    """NaN in what a sentence with NaN or +inf touches."""
    for g, shared in zip(grads, (False, False, True, c.tr is not None and c.tr.dim() == 2, True, True), strict=True):
        if g is not None and shared:
            g.fill_(float("nan"))
    grads[0][c.b, : c.n] = float("nan")
    if c.tr is not None and c.tr.dim() == 3:
        grads[3][c.b] = float("nan")
    for i in range(c.n):
        for d in range(1, min(c.K, c.n - i) + 1):
            if c.seg is not None:
                grads[1][c.b, i, d - 1] = float("nan")
            if i > 0 and c.tr is not None and c.tr.dim() == 4:
                grads[3][c.b, i - 1] = float("nan")
            if i > 0 and c.full:
                grads[3][c.b, i - 1, d - 1] = float("nan")


def _posteriors(emit, segment, duration, trans, start, end, lengths, weight, directions):
    scores = _wide((emit, segment, duration, trans, start, end), True)
    present = [t for t in scores if t is not None]
    total = [None if t is None else torch.zeros_like(t) for t in scores]
    values = []
    with torch.enable_grad():
        for b in range(emit.shape[0]):
            c = Chain(scores, lengths, b)
            if c.bad():
                values.append(float("nan"))
                _poison(total, c)
                continue
            value = c.logz()
            if directions is not None:
                grads = _grad(value, present, create_graph=True)
                pairs = zip(grads, [v for v, t in zip(directions, scores, strict=True) if t is not None], strict=True)
                value = sum((g * v.double()).sum() for g, v in pairs if v is not None) + 0 * value.nan_to_num(0, 0, 0)
            values.append(float(value.detach()))
            w = 1.0 if weight is None else float(weight[b])
            grads = iter(_grad(value, present))
            for t in total:
                if t is not None:
                    t += w * next(grads)
    logz = torch.tensor(values, dtype=_accumulator(emit), device=emit.device)
    return logz, *(emit.new_empty(0) if t is None else t.detach().to(emit.dtype) for t in total)


def _grad(value: Tensor, inputs: list, create_graph: bool = False) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(t) for t in inputs]
    found = torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]


def chain_marginals(emit, segment, duration, trans, start, end, lengths, weight):
    """Same signature and results as torch.ops.structops.chain_marginals."""
    return _posteriors(emit, segment, duration, trans, start, end, lengths, weight, None)


def chain_hvp(
    emit, segment, duration, trans, start, end, lengths, weight, v_emit, v_segment, v_duration, v_trans, v_start, v_end
):  # fmt: skip
    """Same signature and results as torch.ops.structops.chain_hvp."""
    directions = (v_emit, v_segment, v_duration, v_trans, v_start, v_end)
    return _posteriors(emit, segment, duration, trans, start, end, lengths, weight, directions)


def _best_of(c: Chain, k: int) -> list[tuple[float, tuple]]:
    """The k best (score, segments (i, tag)) of a sentence: lists of the best prefixes by their end and last tag."""
    best = lambda found: sorted(found, key=lambda x: -x[0])[:k]  # stable: ties keep their order
    T, start, end = range(c.T), (c.zeros if c.start is None else c.start).tolist(), c.last().tolist()
    V: list[list] = [[[] for _ in T]]
    for j in range(1, c.n + 1):
        row: list[list] = [[] for _ in T]
        for d in c.lengths(j):
            i, segment = j - d, c.segment(j - d, d).tolist()
            if i == 0:
                for t in T:
                    row[t].append((start[t] + segment[t], ((0, t),)))
                continue
            trans = c.trans(i, d).tolist()
            for t in T:
                row[t] += best([(x + trans[s][t] + segment[t], (*path, (i, t))) for s in T for x, path in V[i][s]])
        V.append([best(r) for r in row])
    final = best([(x + end[t], path) for t in T for x, path in V[c.n][t]]) if c.n else [(0.0, ())]
    return [f for f in final if f[0] > -INF]


def chain_best(emit, segment, duration, trans, start, end, lengths, k):
    """Same signature and results as torch.ops.structops.chain_best."""
    B, N, _ = emit.shape
    scores = _wide((emit, segment, duration, trans, start, end))
    value = torch.full((B, k), -INF, dtype=_accumulator(emit))
    tags = torch.full((B, k, N), -1)
    for b in range(B):
        c = Chain(scores, lengths, b)
        if c.bad():
            value[b] = float("nan")
            continue
        for m, (x, path) in enumerate(_best_of(c, k)):
            value[b, m] = x
            for i, t in path:
                tags[b, m, i] = t
    return value.to(emit.device), tags.to(emit.device)


def _max_of(c: Chain, through: Tensor) -> None:
    """Fills [N, K, T] of a sentence: the best prefix before every segment, and the best suffix after it."""
    start, none = (c.zeros if c.start is None else c.start), torch.full((c.T,), -INF, dtype=torch.float64)
    V, B = [none] * (c.n + 1), [none] * c.n + [c.last()]
    pairs = [(j - d, d) for j in range(1, c.n + 1) for d in c.lengths(j)]
    before = lambda i, d: (V[i][:, None] + c.trans(i, d)).amax(0) if i > 0 else start
    for i, d in pairs:  # by their ends
        V[i + d] = torch.maximum(V[i + d], before(i, d) + c.segment(i, d))
    for i, d in sorted(pairs, reverse=True):
        after = c.segment(i, d) + B[i + d]
        through[i, d - 1] = before(i, d) + after
        if i > 0:
            B[i] = torch.maximum(B[i], (c.trans(i, d) + after).amax(1))


def chain_max_marginals(emit, segment, duration, trans, start, end, lengths):
    """Same signature and results as torch.ops.structops.chain_max_marginals."""
    B, N, T = emit.shape
    K = max_length(segment, duration, trans)
    scores = _wide((emit, segment, duration, trans, start, end))
    through = torch.full((B, N, K, T), -INF, dtype=torch.float64, device=emit.device)
    for b in range(B):
        c = Chain(scores, lengths, b)
        if c.bad():
            for i in range(c.n):
                through[b, i, : c.n - i] = float("nan")
        else:
            _max_of(c, through[b])
    return through.to(_accumulator(emit))


def _choose(logits: Tensor, u: float) -> int:
    weight = (logits - logits.max()).exp()
    sums = weight.cumsum(0)
    return min(int((sums <= u * float(sums[-1])).sum()), int((weight > 0).nonzero()[-1]))


def chain_sample(emit, segment, duration, trans, start, end, lengths, uniform):
    """Same signature and results as torch.ops.structops.chain_sample."""
    S, B, _ = uniform.shape
    scores = _wide((emit, segment, duration, trans, start, end))
    tags = torch.full((S, B, emit.shape[1]), -1)
    for b in range(B):
        c = Chain(scores, lengths, b)
        if c.n == 0 or c.bad() or float(c.logz()) == -INF:
            continue
        V, P = c.charts()
        for m in range(S):
            u = iter(uniform[m, b].tolist())
            tag, j = _choose(V[c.n] + c.last(), next(u)), c.n
            while j > 0:
                d = 1
                if c.K > 1:
                    found = {e: (c.entered(V, P, j - e, e) + c.segment(j - e, e))[tag] for e in c.lengths(j)}
                    d = list(found)[_choose(torch.stack(list(found.values())), next(u))]
                tags[m, b, j - d] = tag
                if j > d:
                    tag = _choose(V[j - d] + c.trans(j - d, d)[:, tag], next(u))
                j -= d
    return tags.to(emit.device)
