"""Reference of the grandparent charts: the specification of csrc/tree/grand.h as a hypergraph over (item, span, grandparent).

One table holds arc + grand at [dep, head, grandparent], the arcs of the root at [dep, 0, 0]: the hypergraph of chart_ref then knows
everything else. The posterior of an arc is the sum of its cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from . import chart_ref as chart
from .chart_ref import INF, Hypergraph, Inside, _accumulator, _numpy


@lru_cache(maxsize=64)
def hypergraph(n: int, second: bool, multiroot: bool) -> Hypergraph:
    h = Hypergraph()

    def lanes(i: int, j: int, right: bool) -> list[int]:
        if i == 0:
            return [0] if right else []
        return [g for g in range(n + 1) if g < i or g > j]

    def add(name: str, g: int, i: int, j: int, *more, **flags) -> None:
        h.add(name, (g, i), j, *more, **flags)

    at = lambda name, g, i, j: (name, (g, i), j)
    for i in range(n + 1):
        for name in ("CR", "CL"):
            for g in lanes(i, i, name == "CR"):
                add(name, g, i, i)
    for w in range(1, n + 1):
        for i in range(n - w + 1):
            j = i + w
            for g in lanes(i, j, True):
                halves: list[tuple] = [(at("CR", g, i, r), at("CL", i, r + 1, j)) for r in range(i, j)]
                if second:
                    halves = halves[:1]
                    if i > 0 or multiroot:
                        halves += [(at("IR", g, i, r), at("S", i, r, j), (j, i, r)) for r in range(i + 1, j)]
                add("IR", g, i, j, (j, i, g), halves)
            for g in lanes(i, j, False):
                halves = [(at("CR", j, i, r), at("CL", g, r + 1, j)) for r in range(i, j)]
                if second:
                    halves = halves[-1:] + [(at("S", j, i, r), at("IL", g, r, j), (i, j, r)) for r in range(i + 1, j)]
                    add("S", g, i, j, None, [(at("CR", g, i, r), at("CL", g, r + 1, j)) for r in range(i, j)])
                add("IL", g, i, j, (i, j, g), halves)
                add("CL", g, i, j, None, [(at("CL", j, i, r), at("IL", g, r, j)) for r in range(i, j)])
            for g in lanes(i, j, True):
                cut = i == 0 and not multiroot and j < n
                pairs = () if cut else [(at("IR", g, i, r), at("CR", i, r, j)) for r in range(i + 1, j + 1)]
                add("CR", g, i, j, None, pairs, empty=cut)
    return h


def _scores(arc: np.ndarray, grand: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        table = arc[:, :, None] + grand
    table[:, 0, 0] = arc[:, 0]
    return table


def _sentences(arc, grand, sib, lengths, multiroot):
    """(b, hypergraph, scores, sib, whether they can be summed) of every sentence."""
    a, g, s = _numpy(arc), _numpy(grand), None if sib is None else _numpy(sib)
    for b, n in enumerate(lengths.tolist()):
        h = hypergraph(n, sib is not None, bool(multiroot))
        table, own = _scores(a[b], g[b]), None if s is None else s[b]
        yield b, h, table, own, chart._read(h, table, own)


def grand_logz(arc, grand, sib, lengths, multiroot):
    """Same signature and results as torch.ops.structops.grand_logz."""
    out = [Inside(h, t, s).goal if ok else np.nan for _, h, t, s, ok in _sentences(arc, grand, sib, lengths, multiroot)]
    return torch.tensor(out, dtype=_accumulator(arc), device=arc.device)


def _posteriors(arc, grand, sib, lengths, weight, multiroot, of):
    B, N, _ = arc.shape
    logz, post, post_grand = np.zeros(B), np.zeros((B, N, N)), np.zeros((B, N, N, N))
    post_sib = None if sib is None else np.zeros((B, N, N, N))
    w = np.ones(B) if weight is None else _numpy(weight)
    for b, h, t, s, ok in _sentences(arc, grand, sib, lengths, multiroot):
        if ok:
            logz[b], p, ps = of(b, Inside(h, t, s))
            p = w[b] * p
            if ps is not None:
                post_sib[b] = w[b] * ps
        else:
            logz[b], p = np.nan, np.zeros((N, N, N))
            chart._poison(h, p, None if post_sib is None else post_sib[b])
        post[b] = p.sum(2)
        p[:, 0] = 0  # arcs of the root have no grandparent
        post_grand[b] = p
    like = {"dtype": arc.dtype, "device": arc.device}
    tensor = torch.from_numpy
    return (
        tensor(logz).to(arc.device, _accumulator(arc)),
        tensor(post).to(**like),
        tensor(post_grand).to(**like),
        torch.empty(0, **like) if post_sib is None else tensor(post_sib).to(**like),
    )


def grand_marginals(arc, grand, sib, lengths, weight, multiroot):
    """Same signature and results as torch.ops.structops.grand_marginals."""
    return _posteriors(arc, grand, sib, lengths, weight, multiroot, lambda b, inside: (inside.goal, *inside.outside()[1:]))


def grand_hvp(arc, grand, sib, lengths, weight, v, v_grand, v_sib, multiroot):
    """Same signature and results as torch.ops.structops.grand_hvp."""
    d, dg, ds = _numpy(v), _numpy(v_grand), None if v_sib is None else _numpy(v_sib)
    along = lambda b, inside: inside.along(_scores(d[b], dg[b]), None if ds is None else ds[b])
    return _posteriors(arc, grand, sib, lengths, weight, multiroot, along)


def grand_best(arc, grand, sib, lengths, multiroot, k):
    """Same signature and results as torch.ops.structops.grand_best."""
    B, N, _ = arc.shape
    value, tree = np.full((B, k), -INF), np.full((B, k, N), -1, dtype=np.int64)
    for b, h, t, s, ok in _sentences(arc, grand, sib, lengths, multiroot):
        if not ok:
            value[b] = np.nan
            continue
        lists = chart._best_lists(h, t, s, k)
        for rank, (total, *_) in enumerate(lists[-1]):
            value[b, rank] = total
            chart._tree(h, False, tree[b, rank], lambda item, r, lists=lists: lists[item][r][1:], rank)
    return torch.from_numpy(value).to(arc.device, _accumulator(arc)), torch.from_numpy(tree).to(arc.device)


def grand_sample(arc, grand, sib, lengths, uniform, multiroot):
    """Same signature and results as torch.ops.structops.grand_sample; the rule is that of chart_sample."""
    u = _numpy(uniform)
    tree = np.full((u.shape[0], arc.shape[0], arc.shape[1]), -1, dtype=np.int64)
    for b, h, t, s, ok in _sentences(arc, grand, sib, lengths, multiroot):
        if ok:
            chart._draw(h, Inside(h, t, s), u[:, b], False, tree[:, b])
    return torch.from_numpy(tree).to(arc.device)


def grand_max_marginals(arc, grand, sib, lengths, multiroot):
    """Same signature and results as torch.ops.structops.grand_max_marginals."""
    B, N, _ = arc.shape
    out = np.full((B, N, N), -INF)
    for b, h, t, s, ok in _sentences(arc, grand, sib, lengths, multiroot):
        through = np.full((N, N, N), -INF)
        chart._through(h, t, s, ok, through)
        out[b] = through.max(2)
    return torch.from_numpy(out).to(arc.device, _accumulator(arc))
