"""Reference arborescence and tree_check. The contract is csrc/tree/arborescence.h.

The textbook recursion: best head of every word; if they close a cycle, contract it, solve, and open it where the solution enters.
"""

from __future__ import annotations

import heapq
import math

import torch

INF = math.inf


def _cycle(heads: dict[int, int]) -> list[int] | None:
    for start in heads:
        seen, v = [], start
        while v in heads and v not in seen:
            seen.append(v)
            v = heads[v]
        if v in seen:
            return seen[seen.index(v) :]
    return None


def _chu_liu_edmonds(arcs: dict[int, dict[int, float]]) -> dict[int, int] | None:
    """Best head of every node; ``arcs[dep][head]`` are the scores, node 0 is the root. None without a tree."""
    if any(not heads for heads in arcs.values()):
        return None
    best = {d: max(sorted(heads), key=heads.__getitem__) for d, heads in arcs.items()}
    cycle = _cycle(best)
    if cycle is None:
        return best
    new = max(arcs) + 1
    reduced: dict[int, dict[int, float]] = {new: {}}
    enters, leaves = {}, {}
    for d, heads in arcs.items():
        for h, x in sorted(heads.items()):
            if d in cycle and h not in cycle:
                gain = x - arcs[d][best[d]]
                if gain > reduced[new].get(h, -INF):
                    reduced[new][h], enters[h] = gain, d
            elif d not in cycle and h in cycle:
                if x > reduced.setdefault(d, {}).get(new, -INF):
                    reduced[d][new], leaves[d] = x, h
            elif d not in cycle:
                reduced.setdefault(d, {})[h] = x
    solved = _chu_liu_edmonds({d: reduced.get(d, {}) for d in [new, *(d for d in arcs if d not in cycle)]})
    if solved is None:
        return None
    opened = {d: best[d] for d in cycle}
    entry = solved.pop(new)
    opened[enters[entry]] = entry
    opened.update({d: leaves[d] if h == new else h for d, h in solved.items()})
    return opened


def _best(s: list[list[float]], multiroot: bool) -> dict[int, int] | None:
    n = len(s) - 1
    arcs = {d: {h: s[d][h] for h in range(n + 1) if h != d and s[d][h] > -INF} for d in range(1, n + 1)}
    if multiroot:
        return _chu_liu_edmonds(arcs)
    found, top = None, -INF
    for r in range(1, n + 1):
        if 0 not in arcs[r]:
            continue
        only = {d: ({0: a[0]} if d == r else {h: x for h, x in a.items() if h > 0}) for d, a in arcs.items()}
        heads = _chu_liu_edmonds(only)
        if heads is not None:
            total = sum(s[d][h] for d, h in heads.items())
            if found is None or total > top:
                found, top = heads, total
    return found


def arborescence(score, lengths, multiroot):
    B, N, _ = score.shape
    value = torch.zeros(B, dtype=torch.float64)
    heads = torch.full((B, N), -1, dtype=torch.int64)
    for b, n in enumerate(lengths.tolist()):
        s = score[b, : n + 1, : n + 1].double().tolist()
        read = [s[d][h] for d in range(1, n + 1) for h in range(n + 1) if h != d]
        if any(x != x or x == INF for x in read):
            value[b] = math.nan
            continue
        found = _best(s, multiroot) if n else {}
        if found is None:
            value[b] = -INF
            continue
        for d, h in found.items():
            heads[b, d] = h
        value[b] = sum(s[d][found[d]] for d in range(1, n + 1))
    dtype = torch.float64 if score.dtype == torch.float64 else torch.float32
    return value.to(dtype).to(score.device), heads.to(score.device)


def _single_or_not(s: list[list[float]], multiroot: bool) -> tuple[float, dict[int, int]] | None:
    heads = _best(s, multiroot)
    return None if heads is None else (sum(s[d][h] for d, h in heads.items()), heads)


def _kbest(s: list[list[float]], multiroot: bool, k: int) -> list[tuple[float, dict[int, int]]]:
    """Lawler's partition: the trees other than one found are parted by the first word whose head differs from its."""
    n = len(s) - 1
    found: list[tuple[float, dict[int, int]]] = []
    order = 0
    top = _single_or_not(s, multiroot)
    parts: list[tuple[float, int, dict[int, int], int, frozenset[int]]] = []
    if top is not None:
        parts.append((-top[0], order, top[1], 1, frozenset()))
    while parts and len(found) < k:
        negative, _, heads, word, taken = heapq.heappop(parts)
        found.append((-negative, heads))
        for d in range(word, n + 1):
            forbidden = {heads[d]} | (taken if d == word else frozenset())
            rest = [list(row) for row in s]
            for e in range(1, d):
                rest[e] = [x if h == heads[e] else -INF for h, x in enumerate(s[e])]
            rest[d] = [-INF if h in forbidden else x for h, x in enumerate(s[d])]
            part = _single_or_not(rest, multiroot)
            if part is not None:
                order += 1
                heapq.heappush(parts, (-part[0], order, part[1], d, frozenset(forbidden)))
    return found


def arborescence_kbest(score, lengths, multiroot, k):
    """Same signature and results as torch.ops.structops.arborescence_kbest, equal sums in any order."""
    B, N, _ = score.shape
    value = torch.full((B, k), -INF, dtype=torch.float64)
    heads = torch.full((B, k, N), -1, dtype=torch.int64)
    for b, n in enumerate(lengths.tolist()):
        s = score[b, : n + 1, : n + 1].double().tolist()
        read = [s[d][h] for d in range(1, n + 1) for h in range(n + 1) if h != d]
        if any(x != x or x == INF for x in read):
            value[b] = math.nan
            continue
        for rank, (total, tree) in enumerate(_kbest(s, multiroot, k) if n else [(0.0, {})]):
            value[b, rank] = total
            for d, h in tree.items():
                heads[b, rank, d] = h
    dtype = torch.float64 if score.dtype == torch.float64 else torch.float32
    return value.to(dtype).to(score.device), heads.to(score.device)


def arborescence_max_marginals(score, lengths, multiroot):
    """Same signature and results as torch.ops.structops.arborescence_max_marginals, by a best tree for every arc."""
    B, N, _ = score.shape
    through = torch.full((B, N, N), -INF, dtype=torch.float64)
    for b, n in enumerate(lengths.tolist()):
        s = score[b, : n + 1, : n + 1].double().tolist()
        arcs = [(d, h) for d in range(1, n + 1) for h in range(n + 1) if h != d]
        bad = any(s[d][h] != s[d][h] or s[d][h] == INF for d, h in arcs)
        for d, h in arcs:
            only = [x if i == h else -INF for i, x in enumerate(s[d])]
            found = None if bad else _single_or_not([*s[:d], only, *s[d + 1 :]], multiroot)
            through[b, d, h] = math.nan if bad else -INF if found is None else found[0]
    dtype = torch.float64 if score.dtype == torch.float64 else torch.float32
    return through.to(dtype).to(score.device)


def _flags(heads: list[int]) -> int:
    """Flags of heads[0..n], position 0 aside."""
    n = len(heads) - 1
    if any(not 0 <= h <= n for h in heads[1:]) or _cycle({d: heads[d] for d in range(1, n + 1)}):
        return 0
    arcs = [(min(d, heads[d]), max(d, heads[d])) for d in range(1, n + 1)]
    crossing = any(a < c < b < d for a, b in arcs for c, d in arcs)
    return 1 + 2 * (not crossing) + 4 * (n == 0 or heads[1:].count(0) == 1)


def tree_check(heads, lengths):
    flags = [_flags(row[: n + 1]) for row, n in zip(heads.tolist(), lengths.tolist(), strict=True)]
    return torch.tensor(flags, dtype=torch.int64, device=heads.device)
