"""Derivatives of the charts with factored sibling scores, and their entry points.

    factored_logz -> factored_marginals (weight = the gradient) -> factored_hvp

As in :mod:`_ops`: a log-partition whose gradient is wanted is one call of factored_marginals, which keeps [B, N, N + 3 D] numbers.
Derivatives of the third order are not available.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ._ops import _add, _own_context, _scaled, chart_best, chart_sample, define_hvp

# ---- sums ------------------------------------------------------------------------------------------------------------


def _logz_fake(score, x, y, z, lengths, kind):
    return score.new_empty(score.shape[0])


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:5])
    ctx.kind = inputs[5]


def _logz_backward(ctx, g):
    *factors, lengths = ctx.saved_tensors
    return *factored_marginals(*factors, lengths, g.contiguous(), ctx.kind)[1:], None, None


factored_logz = define("factored_logz", _logz_fake, _logz_setup, _logz_backward, (0, 1, 2, 3))


def _marginals_fake(score, x, y, z, lengths, *_):
    return tuple(score.new_empty(s) for s in (score.shape[:1], score.shape, x.shape, x.shape, x.shape))


def _marginals_setup(ctx, inputs, output):
    *given, weight, ctx.kind = inputs
    # With a weight, the results are no longer the gradient of logz.
    ctx.save_for_backward(*given, weight, *(output[1:] if weight is None else (None,) * 4))
    if _own_context(ctx):
        ctx.set_materialize_grads(False)


def _marginals_backward(ctx, g_logz, *g):
    score, x, y, z, lengths, weight, *post = ctx.saved_tensors
    d: list[Tensor | None] = [None] * 4
    d_weight = None
    if g_logz is not None:
        if weight is not None:
            post = factored_marginals(score, x, y, z, lengths, None, ctx.kind)[1:]
        d = [_scaled(g_logz, p) for p in post]
    if any(t is not None for t in g):
        v = [torch.zeros_like(t) if u is None else u.contiguous() for t, u in zip((score, x, y, z), g, strict=True)]
        along, *curved = factored_hvp(score, x, y, z, lengths, weight, *v, ctx.kind)
        d = [_add(a, b) for a, b in zip(d, curved, strict=True)]
        d_weight = None if weight is None else along
    return *d, None, d_weight, None


factored_marginals = define("factored_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 1, 2, 3, 5))


def _hvp_fake(score, x, y, z, lengths, *_):
    return _marginals_fake(score, x, y, z, lengths)


factored_hvp = define_hvp("factored_hvp", 4, factored_marginals, _hvp_fake)


def log_partition(score: Tensor, factors: tuple[Tensor, Tensor, Tensor], lengths: Tensor, kind: int) -> Tensor:
    if torch.is_grad_enabled() and any(t.requires_grad for t in (score, *factors)):
        return factored_marginals(score, *factors, lengths, None, kind)[0]
    return factored_logz(score, *factors, lengths, kind)


# ---- trees: the scores of a few sentences at a time ------------------------------------------------------------------

_AT_ONCE = 1 << 24  # sibling scores


def siblings(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """[B, N, N, N] of few sentences."""
    B, N, D = x.shape
    pairs = (x[:, :, None] * y[:, None]).reshape(B, N * N, D)
    return (pairs @ z.transpose(1, 2)).reshape(B, N, N, N)


def _groups(x: Tensor) -> list[slice]:
    B, N, _ = x.shape
    step = max(1, _AT_ONCE // max(1, N**3))
    return [slice(b, min(b + step, B)) for b in range(0, B, step)] or [slice(0, 0)]


def best(score: Tensor, factors: tuple[Tensor, ...], lengths: Tensor, kind: int, k: int) -> tuple[Tensor, Tensor]:
    parts = [chart_best(score[g], siblings(*(t[g] for t in factors)), lengths[g], kind, k) for g in _groups(factors[0])]
    value, tree = zip(*parts, strict=True)
    return torch.cat(value), torch.cat(tree)


def sample(score: Tensor, factors: tuple[Tensor, ...], lengths: Tensor, uniform: Tensor, kind: int) -> Tensor:
    parts = [
        chart_sample(score[g], siblings(*(t[g] for t in factors)), lengths[g], uniform[:, g].contiguous(), kind)
        for g in _groups(factors[0])
    ]
    return torch.cat(parts, 1)
