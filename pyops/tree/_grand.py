"""Derivatives of the grandparent charts.

    grand_logz -> grand_marginals (weight = the gradient) -> grand_hvp

As in :mod:`_ops`, but the posteriors have as many numbers as the grandparent scores, so that log_partition keeps none of them and
computes them in the backward. Derivatives of the third order are not available.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ._ops import _add, _own_context, _scaled, accumulator, define_hvp

# ---- sums ------------------------------------------------------------------------------------------------------------


def _logz_fake(arc, grand, sib, lengths, multiroot):
    return arc.new_empty(arc.shape[0], dtype=accumulator(arc))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.multiroot = inputs[4]


def _logz_backward(ctx, g):
    arc, grand, sib, lengths = ctx.saved_tensors
    _, post, post_grand, post_sib = grand_marginals(arc, grand, sib, lengths, g.contiguous(), ctx.multiroot)
    return post, post_grand, None if sib is None else post_sib, None, None


grand_logz = define("grand_logz", _logz_fake, _logz_setup, _logz_backward, (0, 1, 2))


def _marginals_fake(arc, grand, sib, *_):
    post_sib = arc.new_empty(0) if sib is None else arc.new_empty(sib.shape)
    return arc.new_empty(arc.shape[0], dtype=accumulator(arc)), arc.new_empty(arc.shape), arc.new_empty(grand.shape), post_sib


def _marginals_setup(ctx, inputs, output):
    arc, grand, sib, lengths, weight, ctx.multiroot = inputs
    # With a weight, the posteriors are no longer the gradient of logz.
    own = (None,) * 3 if weight is not None else (*output[1:3], None if sib is None else output[3])
    ctx.save_for_backward(arc, grand, sib, lengths, weight, *own)
    if _own_context(ctx):
        ctx.set_materialize_grads(False)
        if sib is None:
            ctx.mark_non_differentiable(output[3])


def _marginals_backward(ctx, g_logz, *g_posts):
    arc, grand, sib, lengths, weight, *posts = ctx.saved_tensors
    scores = [arc, grand, sib]
    d: list[Tensor | None] = [None, None, None]
    d_weight = None
    if g_logz is not None:
        if weight is not None:
            posts = grand_marginals(arc, grand, sib, lengths, None, ctx.multiroot)[1:]
        d = [None if s is None else _scaled(g_logz, p) for s, p in zip(scores, posts, strict=True)]
    g_posts = tuple(None if s is None else g for s, g in zip(scores, g_posts, strict=True))
    if any(g is not None for g in g_posts):
        v = [
            None if s is None else torch.zeros_like(s) if g is None else g.contiguous()
            for s, g in zip(scores, g_posts, strict=True)
        ]
        along, *h = grand_hvp(arc, grand, sib, lengths, weight, *v, ctx.multiroot)
        d = [None if s is None else _add(a, b) for s, a, b in zip(scores, d, h, strict=True)]
        d_weight = None if weight is None else along
    return *d, None, d_weight, None


grand_marginals = define("grand_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 1, 2, 4))


def _hvp_fake(arc, grand, sib, lengths, weight, v, v_grand, v_sib, multiroot):
    return _marginals_fake(arc, grand, sib)


grand_hvp = define_hvp("grand_hvp", 3, grand_marginals, _hvp_fake)


# ---- trees -----------------------------------------------------------------------------------------------------------


def _best_fake(arc, grand, sib, lengths, multiroot, k):
    B, N, _ = arc.shape
    return arc.new_empty((B, k), dtype=accumulator(arc)), lengths.new_empty((B, k, N))


def _sample_fake(arc, grand, sib, lengths, uniform, multiroot):
    return lengths.new_empty((uniform.shape[0], *arc.shape[:2]))


def _max_fake(arc, grand, sib, lengths, multiroot):
    return arc.new_empty(arc.shape, dtype=accumulator(arc))


grand_best = define("grand_best", _best_fake, None, None, ())
grand_sample = define("grand_sample", _sample_fake, None, None, ())
grand_max_marginals = define("grand_max_marginals", _max_fake, None, None, ())
