"""Reference of the chart operators: the specification of csrc/tree/chart.h over an explicit hypergraph, in float64.

A chart is a list of items in an order in which parts come before wholes. An item has the score of one arc or span (or none)
and alternatives, each a left item, a right item and possibly a sibling score, listed in the order that breaks ties and that
sampling walks. Sums, posteriors, curvature, best trees and samples are the same few lines for every kind of chart.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..codes import DEP_SINGLE, SPAN

INF = float("inf")


@dataclass
class Item:
    name: str
    i: int | tuple[int, int]  # the grandparent first, where there is one
    j: int
    cell: tuple[int, int] | None  # of score
    left: np.ndarray  # item numbers, one per alternative
    right: np.ndarray
    sib: list[tuple[int, int, int] | None]


class Hypergraph:
    """The chart of one sentence: ``items`` bottom-up, the last is the goal. An item without alternatives is an axiom,
    except that ``empty`` names items with no derivation at all."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.number: dict[tuple[str, int | tuple[int, int], int], int] = {}
        self.empty: set[int] = set()

    def add(self, name: str, i: int | tuple[int, int], j: int, cell=None, pairs=(), empty: bool = False) -> None:
        """``pairs``: (left, right) or (left, right, sib)."""
        self.number[name, i, j] = len(self.items)
        if empty:
            self.empty.add(len(self.items))
        left = np.array([self.number[p[0]] for p in pairs], dtype=np.int64)
        right = np.array([self.number[p[1]] for p in pairs], dtype=np.int64)
        self.items.append(Item(name, i, j, cell, left, right, [p[2] if len(p) > 2 else None for p in pairs]))


@lru_cache(maxsize=256)
def hypergraph(kind: int, n: int, second: bool) -> Hypergraph:
    h = Hypergraph()
    add = h.add
    if kind == SPAN:
        if n == 0:
            add("empty", 0, 0)
        for w in range(1, n + 1):
            for i in range(n - w + 1):
                j = i + w
                add("V", i, j, (i, j), [(("V", i, r), ("V", r, j)) for r in range(i + 1, j)])
        return h
    single = kind == DEP_SINGLE
    for i in range(n + 1):
        add("CL", i, i)
        add("CR", i, i)
    for w in range(1, n + 1):
        for i in range(n - w + 1):
            j = i + w
            halves: list[tuple] = [(("CR", i, r), ("CL", r + 1, j)) for r in range(i, j)]
            to_left, to_right = halves, halves
            if second:
                add("S", i, j, None, halves)
                to_left = [(("CR", i, j - 1), ("CL", j, j))]
                to_left += [(("S", i, r), ("IL", r, j), (i, j, r)) for r in range(i + 1, j)]
                to_right = [(("CR", i, i), ("CL", i + 1, j))]
                if i > 0 or not single:
                    to_right += [(("IR", i, r), ("S", r, j), (j, i, r)) for r in range(i + 1, j)]
            if i > 0:  # the root is nobody's dependent
                add("IL", i, j, (i, j), to_left)
                add("CL", i, j, None, [(("CL", i, r), ("IL", r, j)) for r in range(i, j)])
            add("IR", i, j, (j, i), to_right)
            cut = i == 0 and single and not second and j < n
            add("CR", i, j, None, () if cut else [(("IR", i, r), ("CR", r, j)) for r in range(i + 1, j + 1)], empty=cut)
    goal = h.number["CR", 0, n]
    assert goal == len(h.items) - 1
    return h


# ---- sums ------------------------------------------------------------------------------------------------------------


class Inside:
    """Inside values ``value`` and, of every item, the probabilities ``p`` of its alternatives."""

    def __init__(self, h: Hypergraph, score: np.ndarray, sib: np.ndarray | None, best: bool = False) -> None:
        self.h, self.score, self.sib = h, score, sib
        self.value = np.zeros(len(h.items))
        self.p: list[np.ndarray] = []
        for k, item in enumerate(h.items):
            own = score[item.cell] if item.cell else 0.0
            total, p = 0.0, np.zeros(0)
            if k in h.empty:
                total = -INF
            elif len(item.left):
                terms = self.terms(item)
                top = terms.max()
                if best:
                    total, p = top, np.eye(len(terms))[int(terms.argmax())]
                elif top == -INF:
                    total, p = -INF, np.zeros(len(terms))
                else:
                    p = np.exp(terms - top)
                    total = top + np.log(p.sum())
                    p = p / p.sum()
            self.p.append(p)
            self.value[k] = own + total

    def terms(self, item: Item) -> np.ndarray:
        terms = self.value[item.left] + self.value[item.right]
        for a, cell in enumerate(item.sib):
            if cell is not None:
                terms[a] += self.sib[cell]
        return terms

    @property
    def goal(self) -> float:
        return float(self.value[-1])

    def outside(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Posteriors of the items, of the cells of score and of those of sib."""
        alpha = np.zeros(len(self.h.items))
        post = np.zeros_like(self.score)
        post_sib = None if self.sib is None else np.zeros_like(self.sib)
        alpha[-1] = 0.0 if self.goal == -INF else 1.0
        for k in range(len(self.h.items) - 1, -1, -1):
            item = self.h.items[k]
            if item.cell:
                post[item.cell] += alpha[k]
            share = alpha[k] * self.p[k]
            alpha[item.left] += share
            alpha[item.right] += share
            for a, cell in enumerate(item.sib):
                if cell is not None:
                    post_sib[cell] += share[a]
        return alpha, post, post_sib

    def along(self, v: np.ndarray, v_sib: np.ndarray | None) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Derivatives of logz and of the posteriors along (v, v_sib): the tangent of every line above."""
        if self.goal == -INF:
            return 0.0, np.zeros_like(self.score), None if self.sib is None else np.zeros_like(self.sib)
        items = self.h.items
        d = np.zeros(len(items))
        dp: list[np.ndarray] = []
        for k, item in enumerate(items):
            dterms = d[item.left] + d[item.right]
            for a, cell in enumerate(item.sib):
                if cell is not None:
                    dterms[a] += v_sib[cell]
            live = self.p[k] > 0
            mean = float(np.dot(self.p[k][live], dterms[live]))
            dp.append(np.where(live, self.p[k] * (dterms - mean), 0.0))
            d[k] = mean + (v[item.cell] if item.cell and self.value[k] > -INF else 0.0)
        alpha, dalpha = self.outside()[0], np.zeros(len(items))
        dpost = np.zeros_like(self.score)
        dpost_sib = None if self.sib is None else np.zeros_like(self.sib)
        for k in range(len(items) - 1, -1, -1):
            item = items[k]
            if item.cell:
                dpost[item.cell] += dalpha[k]
            share = dalpha[k] * self.p[k] + alpha[k] * dp[k]
            dalpha[item.left] += share
            dalpha[item.right] += share
            for a, cell in enumerate(item.sib):
                if cell is not None:
                    dpost_sib[cell] += share[a]
        return float(d[-1]), dpost, dpost_sib


def _through(h: Hypergraph, score: np.ndarray, sib: np.ndarray | None, ok: bool, out: np.ndarray) -> None:
    """Writes the score of the best tree through each cell to ``out``, filled with -inf; NaN at what is read if not ``ok``."""
    inside = Inside(h, score, sib, best=True)
    outer = np.full(len(h.items), -INF)
    outer[-1] = 0.0
    for k in range(len(h.items) - 1, -1, -1):
        item = h.items[k]
        if item.cell:
            out[item.cell] = max(out[item.cell], outer[k] + inside.value[k]) if ok else np.nan
        own = outer[k] + (score[item.cell] if item.cell else 0.0)
        for a, (left, right) in enumerate(zip(item.left, item.right, strict=True)):
            through = own + (sib[item.sib[a]] if item.sib[a] is not None else 0.0)
            outer[left] = max(outer[left], through + inside.value[right])
            outer[right] = max(outer[right], through + inside.value[left])


def chart_max_marginals(score, sib, lengths, kind):
    """Same signature and results as torch.ops.structops.chart_max_marginals."""
    out = np.full(score.shape, -INF)
    for b, h, s, t, ok in _sentences(score, sib, lengths, kind):
        _through(h, s, t, ok, out[b])
    return torch.from_numpy(out).to(score.device, _accumulator(score))


# ---- trees -----------------------------------------------------------------------------------------------------------


def _sum_of(item: Item, a: int, lists: list[list], sib, x: int, y: int) -> float:
    value = lists[item.left[a]][x][0] + lists[item.right[a]][y][0]
    return value + (sib[item.sib[a]] if item.sib[a] is not None else 0.0)


def _best_lists(h: Hypergraph, score: np.ndarray, sib: np.ndarray | None, K: int) -> list[list[tuple]]:
    """Of every item its K best derivations (value, alternative, left rank, right rank), none of them -inf."""
    lists: list[list[tuple]] = []
    for k, item in enumerate(h.items):
        own = float(score[item.cell]) if item.cell else 0.0
        if not len(item.left):
            found = [] if k in h.empty or own == -INF else [(own, -1, 0, 0)]
        else:
            heap: list[tuple[float, int, int, int]] = []
            for a in range(len(item.left)):
                if lists[item.left[a]] and lists[item.right[a]]:
                    heapq.heappush(heap, (-_sum_of(item, a, lists, sib, 0, 0), a, 0, 0))
            seen, found = {h_[1:] for h_ in heap}, []
            while heap and len(found) < K:
                negative, a, x, y = heapq.heappop(heap)
                if negative == INF or own == -INF:
                    break
                found.append((own - negative, a, x, y))
                for nx, ny in ((x + 1, y), (x, y + 1)):
                    inside = nx < len(lists[item.left[a]]) and ny < len(lists[item.right[a]])
                    if inside and (a, nx, ny) not in seen:
                        seen.add((a, nx, ny))
                        heapq.heappush(heap, (-_sum_of(item, a, lists, sib, nx, ny), a, nx, ny))
        lists.append(found)
    return lists


def _walk(h: Hypergraph, choose, visit, rank: int) -> None:
    """From the goal down in pre-order: ``visit(item)``, then the left part of its chosen alternative, then the right."""
    stack = [(len(h.items) - 1, rank)]
    while stack:
        k, rank = stack.pop()
        item = h.items[k]
        visit(item)
        if len(item.left):
            a, x, y = choose(k, rank)
            stack.append((int(item.right[a]), y))
            stack.append((int(item.left[a]), x))


def _tree(h: Hypergraph, span: bool, out: np.ndarray, choose, rank: int = 0) -> None:
    """Writes heads [N] or spans [2N - 3, 2] into ``out``, filled with -1."""
    count = 0

    def visit(item: Item) -> None:
        nonlocal count
        if item.cell and span:
            out[count] = item.cell
            count += 1
        elif item.cell:
            out[item.cell[0]] = item.cell[1]

    _walk(h, choose, visit, rank)


def _draw(h: Hypergraph, inside: Inside, uniform: np.ndarray, span: bool, out: np.ndarray) -> None:
    """Trees [S, ..] by the uniform numbers [S, ..], as chart_sample says."""
    if inside.goal == -INF:
        return
    for draw in range(len(uniform)):
        numbers = iter(uniform[draw])

        def choose(item: int, _: int, numbers=numbers):
            weight = inside.p[item].cumsum()
            reached = (weight >= next(numbers) * weight[-1]) & (inside.p[item] > 0)
            return int(reached.argmax()), 0, 0

        _tree(h, span, out[draw], choose)


# ---- the raw operators -----------------------------------------------------------------------------------------------


def _numpy(t: Tensor) -> np.ndarray:
    return t.detach().to("cpu", torch.float64).numpy()


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _read(h: Hypergraph, score: np.ndarray, sib: np.ndarray | None) -> bool:
    """Whether every number that is read is finite or -inf."""
    bad = any(item.cell and not score[item.cell] < INF for item in h.items)
    return not bad and not any(cell is not None and not sib[cell] < INF for item in h.items for cell in item.sib)


def _sentences(score: Tensor, sib: Tensor | None, lengths: Tensor, kind: int):
    """(b, hypergraph, score, sib, whether it can be summed) of every sentence."""
    s, t = _numpy(score), None if sib is None else _numpy(sib)
    for b, n in enumerate(lengths.tolist()):
        h = hypergraph(kind, n, sib is not None)
        tb = None if t is None else t[b]
        yield b, h, s[b], tb, _read(h, s[b], tb)


def _poison(h: Hypergraph, post: np.ndarray, post_sib: np.ndarray | None) -> None:
    for item in h.items:
        if item.cell:
            post[item.cell] = np.nan
        for cell in item.sib:
            if cell is not None:
                post_sib[cell] = np.nan


def chart_logz(score, sib, lengths, kind):
    """Same signature and results as torch.ops.structops.chart_logz."""
    out = [Inside(h, s, t).goal if ok else np.nan for _, h, s, t, ok in _sentences(score, sib, lengths, kind)]
    return torch.tensor(out, dtype=_accumulator(score), device=score.device)


def _posteriors(score, sib, lengths, weight, kind, of):
    B, N, _ = score.shape
    logz, post = np.zeros(B), np.zeros((B, N, N))
    post_sib = None if sib is None else np.zeros((B, N, N, N))
    w = np.ones(B) if weight is None else _numpy(weight)
    for b, h, s, t, ok in _sentences(score, sib, lengths, kind):
        if ok:
            logz[b], p, ps = of(b, Inside(h, s, t))
            post[b] = w[b] * p
            if post_sib is not None:
                post_sib[b] = w[b] * ps
        else:
            logz[b] = np.nan
            _poison(h, post[b], None if post_sib is None else post_sib[b])
    like = {"dtype": score.dtype, "device": score.device}
    tensor = torch.from_numpy
    return (
        tensor(logz).to(score.device, _accumulator(score)),
        tensor(post).to(**like),
        torch.empty(0, **like) if post_sib is None else tensor(post_sib).to(**like),
    )


def chart_marginals(score, sib, lengths, weight, kind):
    """Same signature and results as torch.ops.structops.chart_marginals."""
    return _posteriors(score, sib, lengths, weight, kind, lambda b, inside: (inside.goal, *inside.outside()[1:]))


def chart_hvp(score, sib, lengths, weight, v, v_sib, kind):
    """Same signature and results as torch.ops.structops.chart_hvp."""
    d, ds = _numpy(v), None if v_sib is None else _numpy(v_sib)
    return _posteriors(score, sib, lengths, weight, kind, lambda b, inside: inside.along(d[b], None if ds is None else ds[b]))


def _empty_trees(kind: int, first: int, second: int, N: int) -> np.ndarray:
    shape = (max(2 * N - 3, 0), 2) if kind == SPAN else (N,)
    return np.full((first, second, *shape), -1, dtype=np.int64)


def chart_best(score, sib, lengths, kind, k):
    """Same signature and results as torch.ops.structops.chart_best. Of equal derivations of one alternative the one with
    the better-ranked left part comes first. NaN or +inf: values NaN, trees -1."""
    value = np.full((score.shape[0], k), -INF)
    tree = _empty_trees(kind, score.shape[0], k, score.shape[1])
    for b, h, s, t, ok in _sentences(score, sib, lengths, kind):
        if not ok:
            value[b] = np.nan
            continue
        lists = _best_lists(h, s, t, k)
        for rank, (total, *_) in enumerate(lists[-1]):
            value[b, rank] = total
            _tree(h, kind == SPAN, tree[b, rank], lambda item, r, lists=lists: lists[item][r][1:], rank)
    return torch.from_numpy(value).to(score.device, _accumulator(score)), torch.from_numpy(tree).to(score.device)


def chart_sample(score, sib, lengths, uniform, kind):
    """Same signature and results as torch.ops.structops.chart_sample. Choices are made in pre-order, the left part of an
    item wholly before its right part; an item with alternatives makes one choice, also where there is a single one. It
    takes the next uniform number u and the first alternative of positive weight whose cumulative weight reaches u times
    the total. No tree, NaN or +inf: -1."""
    u = _numpy(uniform)
    tree = _empty_trees(kind, u.shape[0], score.shape[0], score.shape[1])
    for b, h, s, t, ok in _sentences(score, sib, lengths, kind):
        if ok:
            _draw(h, Inside(h, s, t), u[:, b], kind == SPAN, tree[:, b])
    return torch.from_numpy(tree).to(score.device)
