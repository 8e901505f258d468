"""Reference of charts with factored sibling scores: the scores are formed and given to the charts.

The contract is csrc/tree/factored.h.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import chart_ref


def _siblings(x: Tensor, y: Tensor, z: Tensor, lengths: Tensor) -> Tensor:
    """sib[b, i, j, k] of float64, of what a chart reads; NaN and inf in a factor give NaN."""
    N = x.shape[1]
    position = torch.arange(N, device=x.device)
    word = (position > 0) & (position <= lengths[:, None])
    node = position <= lengths[:, None]
    x, z = (torch.where(word[..., None], t.double(), 0) for t in (x, z))
    y = torch.where(node[..., None], y.double(), 0)
    sib = torch.einsum("bid,bjd,bkd->bijk", x, y, z)
    return torch.where(sib.abs() == float("inf"), float("nan"), sib)


def factored_logz(score, x, y, z, lengths, kind):
    """Same signature and results as torch.ops.structops.factored_logz."""
    return chart_ref.chart_logz(score.double(), _siblings(x, y, z, lengths), lengths, kind).to(score.dtype)


def _poisoned(logz: Tensor, lengths: Tensor, grads: list[Tensor]) -> list[Tensor]:
    """NaN in the factors of the sentences whose sum is NaN, 0 past the sentences."""
    inside = (torch.arange(grads[0].shape[1], device=logz.device) <= lengths[:, None])[..., None]
    return [torch.where(inside, torch.where(logz.isnan()[:, None, None], float("nan"), g), 0) for g in grads]


def factored_marginals(score, x, y, z, lengths, weight, kind):
    """Same signature and results as torch.ops.structops.factored_marginals."""
    a, b, c = (t.double() for t in (x, y, z))
    w = None if weight is None else weight.double()
    logz, post, p = chart_ref.chart_marginals(score.double(), _siblings(x, y, z, lengths), lengths, w, kind)
    p = p.nan_to_num(0)
    a, b, c = (t.nan_to_num(0, 0, 0) for t in (a, b, c))
    grads = [
        torch.einsum("bijk,bjd,bkd->bid", p, b, c),
        torch.einsum("bijk,bid,bkd->bjd", p, a, c),
        torch.einsum("bijk,bid,bjd->bkd", p, a, b),
    ]
    return tuple(t.to(score.dtype) for t in (logz, post, *_poisoned(logz, lengths, grads)))


def factored_hvp(score, x, y, z, lengths, weight, v, v_x, v_y, v_z, kind):
    """Same signature and results as torch.ops.structops.factored_hvp."""
    given = [t.double() for t in (x, y, z)]
    along = [t.double() for t in (v_x, v_y, v_z)]
    w = None if weight is None else weight.double()
    sib = _siblings(x, y, z, lengths)
    d_sib = sum(torch.einsum("bid,bjd,bkd->bijk", *[along[s] if s == t else given[s] for s in range(3)]) for t in range(3))
    p = chart_ref.chart_marginals(score.double(), sib, lengths, w, kind)[2].nan_to_num(0)
    tangent, post, dp = chart_ref.chart_hvp(score.double(), sib, lengths, w, v.double(), d_sib, kind)
    dp = dp.nan_to_num(0)
    given, along = ([t.nan_to_num(0, 0, 0) for t in ts] for ts in (given, along))
    rules = ("bijk,bjd,bkd->bid", "bijk,bid,bkd->bjd", "bijk,bid,bjd->bkd")
    grads = []
    for t, rule in enumerate(rules):
        r, s = (u for u in range(3) if u != t)
        total = torch.einsum(rule, dp, given[r], given[s])
        grads.append(total + torch.einsum(rule, p, along[r], given[s]) + torch.einsum(rule, p, given[r], along[s]))
    return tuple(t.to(score.dtype) for t in (tangent, post, *_poisoned(tangent, lengths, grads)))
