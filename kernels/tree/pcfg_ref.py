"""Reference of the grammar charts: the specification of csrc/tree/pcfg.h, one span at a time, in float64. Counts and curvature are
derivatives by autograd of the sum."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

INF = float("inf")


def _logsumexp(t: Tensor) -> Tensor:
    """Of all entries; exactly -inf, with the gradient 0, where all are -inf."""
    top = t.detach().amax()
    total = (t - (top if top > -INF else 0.0)).exp().sum()
    return torch.where(total == 0, -INF, torch.where(total == 0, 1.0, total).log() + top)


def _pair(left: Tensor, right: Tensor, NT: int, S: int, wide_left: bool, wide_right: bool) -> Tensor:
    """left[B] + right[C] as [S, S], -inf at the symbols that the widths do not have."""
    out = left.new_full((S, S), -INF)
    rows = slice(0, NT) if wide_left else slice(NT, S)
    columns = slice(0, NT) if wide_right else slice(NT, S)
    out[rows, columns] = left[:, None] + right[None, :]
    return out


def _pairs(v: dict, i: int, j: int, NT: int, S: int) -> list[Tensor]:
    return [_pair(v[i, r], v[r, j], NT, S, r - i > 1, j - r > 1) for r in range(i + 1, j)]


def _inside(term: Tensor, rule: Tensor, root: Tensor, span: Tensor, n: int) -> tuple[Tensor, dict]:
    """logz and the chart; ``span`` [n + 1, n + 1, NT], whose derivatives are the posteriors of the spans."""
    NT, S = rule.shape[:2]
    v = {(i, i + 1): term[i] for i in range(n)}
    for w in range(2, n + 1):
        for i in range(n - w + 1):
            j = i + w
            terms = torch.stack(_pairs(v, i, j, NT, S))  # [r, B, C]
            v[i, j] = torch.stack([_logsumexp(terms + rule[a]) for a in range(NT)]) + span[i, j]
    if n == 0:
        return term.new_zeros(()), v
    return (_logsumexp(v[0, n] + root) if n > 1 else term.new_tensor(-INF)), v


def _wide(t: Tensor) -> Tensor:
    return t.detach().to("cpu", torch.float64)


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _sentences(term, rule, root, span, lengths):
    """(b, n, term, rule, root, span, whether they can be summed) of every sentence."""
    t, r, o = _wide(term), _wide(rule), _wide(root)
    s = None if span is None else _wide(span)
    for b, n in enumerate(lengths.tolist()):
        rules = r[0 if len(r) == 1 else b]
        inside = torch.arange(n + 1) - torch.arange(n + 1)[:, None] > 1
        of_all = t.new_zeros(n + 1, n + 1, o.shape[1]) if s is None else s[b, : n + 1, : n + 1]
        spans = torch.where(inside[..., None], of_all, 0.0)
        read = [t[b, :n], *([rules, o[b], spans] if n > 1 else [])]
        yield b, n, t[b, :n], rules, o[b], spans, all(bool((x < INF).all()) for x in read)


def pcfg_logz(term, rule, root, span, lengths):
    """Same signature and results as torch.ops.structops.pcfg_logz."""
    out = []
    for _, n, t, r, o, s, ok in _sentences(term, rule, root, span, lengths):
        out.append(float(_inside(t, r, o, s, n)[0]) if ok else np.nan)
    return torch.tensor(out, dtype=_accumulator(term), device=term.device)


def _counts(term, rule, root, span, lengths, weight, direction):
    B, N, T = term.shape
    NT, S = rule.shape[1:3]
    logz = torch.zeros(B, dtype=torch.float64)
    posts = [torch.zeros(*shape, dtype=torch.float64) for shape in ((B, N, T), (B, NT, S, S), (B, NT), (B, N + 1, N + 1, NT))]
    w = torch.ones(B, dtype=torch.float64) if weight is None else _wide(weight)
    for b, n, t, r, o, s, ok in _sentences(term, rule, root, span, lengths):
        if not ok:
            logz[b] = np.nan
            posts[0][b, :n] = np.nan
            if n > 1:
                posts[1][b], posts[2][b] = np.nan, np.nan
                for i in range(n - 1):
                    posts[3][b, i, i + 2 : n + 1] = np.nan
            continue
        with torch.enable_grad():
            leaves = [x.clone().requires_grad_() for x in (t, r, o, s)]
            total = _inside(*leaves, n)[0]
            if direction is None:
                logz[b] = total.detach()
            if n < 2 or total == -INF:
                continue
            grads = torch.autograd.grad(total, leaves, create_graph=direction is not None)
            if direction is not None:
                v = [_wide(direction[0])[b, :n], _wide(direction[1])[0 if len(direction[1]) == 1 else b], _wide(direction[2])[b]]
                v.append(torch.zeros_like(s) if direction[3] is None else _wide(direction[3])[b, : n + 1, : n + 1])
                along = sum((torch.where(g != 0, g, 0) * torch.where(g != 0, d, 0)).sum() for g, d in zip(grads, v, strict=True))
                logz[b] = along.detach()
                grads = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
        posts[0][b, :n], posts[1][b], posts[2][b] = (w[b] * g.detach() for g in grads[:3])
        posts[3][b, : n + 1, : n + 1] = w[b] * grads[3].detach()
    return logz.to(term.device, _accumulator(term)), *(p.to(term.device, term.dtype) for p in posts)


def pcfg_marginals(term, rule, root, span, lengths, weight):
    """Same signature and results as torch.ops.structops.pcfg_marginals."""
    return _counts(term, rule, root, span, lengths, weight, None)


def pcfg_hvp(term, rule, root, span, lengths, weight, v_term, v_rule, v_root, v_span):
    """Same signature and results as torch.ops.structops.pcfg_hvp."""
    return _counts(term, rule, root, span, lengths, weight, (v_term, v_rule, v_root, v_span))


# ---- parses ----------------------------------------------------------------------------------------------------------


def _parse(n: int, symbol: int, rank: int, out: np.ndarray, choose) -> None:
    """Rows (left, right, symbol) in pre-order: choose(i, j, symbol, rank) -> (B, C, r, rank of the left part, of the right one)."""
    stack, row = [(0, n, symbol, rank)], 0
    while stack:
        i, j, a, rank = stack.pop()
        out[row] = i, j, a
        row += 1
        if j - i > 1:
            B, C, r, left, right = choose(i, j, a, rank)
            stack += [(r, j, C, right), (i, r, B, left)]


def _first(candidates: list[tuple], k: int) -> list[tuple]:
    """The k best (value, ..), of equal ones the first."""
    there = [c for c in candidates if c[0] > -INF]
    return sorted(there, key=lambda c: -c[0])[:k]


def _derivations(term, rule, span, n: int, k: int) -> dict:
    """By (i, j, symbol), the k best (value, B, C, r, rank of the left part, of the right one)."""
    NT, S = rule.shape[:2]
    rule, span = rule.numpy(), span.numpy()
    best = {(i, i + 1, NT + t): _first([(float(v),)], 1) for i in range(n) for t, v in enumerate(term[i])}
    for w in range(2, n + 1):
        for i in range(n - w + 1):
            j = i + w
            pairs = {}
            for B, C in np.ndindex(S, S):
                splits = [
                    (x[0] + y[0], B, C, r, left, right)
                    for r in range(i + 1, j)
                    for left, x in enumerate(best.get((i, r, B), ()))
                    for right, y in enumerate(best.get((r, j, C), ()))
                ]
                pairs[B, C] = _first(splits, k)
            for a in range(NT):
                every = [(x[0] + rule[a, B, C], *x[1:]) for (B, C), found in pairs.items() for x in found]
                best[i, j, a] = [(x[0] + span[i, j, a], *x[1:]) for x in _first(every, k) if span[i, j, a] > -INF]
    return best


def pcfg_best(term, rule, root, span, lengths, k):
    """Same signature and results as torch.ops.structops.pcfg_best."""
    B, N, _ = term.shape
    value, tree = np.full((B, k), -INF), np.full((B, k, max(2 * N - 1, 0), 3), -1, dtype=np.int64)
    for b, n, t, r, o, s, ok in _sentences(term, rule, root, span, lengths):
        if not ok or n == 0:
            value[b, : None if not ok else 1] = 0.0 if ok else np.nan
            continue
        best = _derivations(t, r, s, n, k)
        roots = [(x[0] + float(o[a]), a, rank) for a in range(len(r)) for rank, x in enumerate(best.get((0, n, a), ()))]
        for at, (v, a, rank) in enumerate(_first(roots, k)):
            value[b, at] = v
            _parse(n, a, rank, tree[b, at], lambda i, j, a, rank, best=best: best[i, j, a][rank][1:])
    return torch.from_numpy(value).to(term.device, _accumulator(term)), torch.from_numpy(tree).to(term.device)


def pcfg_max_marginals(term, rule, root, span, lengths):
    """Same signature and results as torch.ops.structops.pcfg_max_marginals: by what every part scores outside itself at best."""
    B, N, T = term.shape
    NT, S = rule.shape[1:3]
    through = [np.full(shape, -INF) for shape in ((B, N, T), (B, NT, S, S), (B, NT), (B, N + 1, N + 1, NT))]
    for b, n, t, r, o, s, ok in _sentences(term, rule, root, span, lengths):
        if not ok:
            through[0][b, :n] = np.nan
            if n > 1:
                through[1][b], through[2][b] = np.nan, np.nan
                for i in range(n - 1):
                    through[3][b, i, i + 2 : n + 1] = np.nan
        if not ok or n < 2:
            continue
        inner = {at: x[0][0] for at, x in _derivations(t, r, s, n, 1).items() if x}
        outer = {(0, n, a): float(o[a]) for a in range(NT)}
        for w in range(n, 1, -1):
            for i in range(n - w + 1):
                j = i + w
                for a, B_, C in np.ndindex(NT, S, S):
                    above = outer.get((i, j, a), -INF) + float(s[i, j, a]) + float(r[a, B_, C])
                    for at in range(i + 1, j):
                        left, right = (i, at, B_), (at, j, C)
                        x, y = inner.get(left, -INF), inner.get(right, -INF)
                        outer[left], outer[right] = max(outer.get(left, -INF), above + y), max(outer.get(right, -INF), above + x)
                        through[1][b, a, B_, C] = max(through[1][b, a, B_, C], above + x + y)
        for (i, j, a), x in inner.items():
            value = x + outer.get((i, j, a), -INF)
            if j - i == 1:
                through[0][b, i, a - NT] = value
            else:
                through[3][b, i, j, a] = value
                if j - i == n:
                    through[2][b, a] = value
    return tuple(torch.from_numpy(x).to(term.device, _accumulator(term)) for x in through)


def pcfg_sample(term, rule, root, span, lengths, uniform):
    """Same signature and results as torch.ops.structops.pcfg_sample."""
    u = _wide(uniform).numpy()
    NT, S = rule.shape[1:3]
    tree = np.full((u.shape[0], *term.shape[:1], max(2 * term.shape[1] - 1, 0), 3), -1, dtype=np.int64)

    def pick(scores: Tensor, number: float) -> int:
        flat = scores.flatten().numpy()
        weight = np.exp(flat - flat.max())
        reached = weight.cumsum()
        return int(((reached >= number * reached[-1]) & (weight > 0)).argmax())

    for b, n, t, r, o, s, ok in _sentences(term, rule, root, span, lengths):
        if not ok or n < 2:
            continue
        logz, v = _inside(t, r, o, s, n)
        if logz == -INF:
            continue
        for draw in range(u.shape[0]):
            numbers = iter(u[draw, b])

            def choose(i, j, a, _, v=v, r=r, numbers=numbers):
                terms = torch.stack(_pairs(v, i, j, NT, S))
                top = terms.amax(0)
                total = torch.where(top == -INF, -INF, (terms - torch.where(top == -INF, 0, top)).exp().sum(0).log() + top)
                B, C = divmod(pick(r[a] + total, next(numbers)), S)
                return B, C, i + 1 + pick(terms[:, B, C], next(numbers)), 0, 0

            _parse(n, pick(v[0, n] + o, next(numbers)), 0, tree[draw, b], choose)
    return torch.from_numpy(tree).to(term.device)
