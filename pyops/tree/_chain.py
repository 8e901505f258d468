"""Derivatives of the chain operators: chain_logz -> chain_marginals (weight = the gradient) -> chain_hvp, and no further.

The first result of chain_hvp, <posterior, v>, is the expectation of v by sentence: entropies are made of it, and it may be
differentiated.

Scores travel as six positions: emit, segment, duration, trans, start, end (csrc/tree/chain.h). Nothing but the scores is saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ._ops import define_hvp

SCORES = 6


def _accumulator(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _like(emit: Tensor, scores) -> tuple:
    return tuple(emit.new_empty(0) if s is None else torch.empty_like(s) for s in scores)


def _contiguous(grads, scores) -> list:
    """Directions of the scores that are present, in their dtype."""
    return [None if s is None or g is None else g.to(s.dtype).contiguous() for g, s in zip(grads, scores, strict=True)]


# ---- logz ------------------------------------------------------------------------------------------------------------


def _logz_fake(emit, segment, duration, trans, start, end, lengths):
    return emit.new_empty(emit.shape[0], dtype=_accumulator(emit))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _logz_backward(ctx, g):
    *scores, lengths = ctx.saved_tensors
    posts = chain_marginals(*scores, lengths, g.contiguous())[1:]
    return *_wanted(ctx, posts, scores), None


def _wanted(ctx, grads, scores) -> list:
    return [g if s is not None and n else None for g, s, n in zip(grads, scores, ctx.needs_input_grad[:SCORES], strict=True)]


# ---- marginals -------------------------------------------------------------------------------------------------------


def _marginals_fake(emit, segment, duration, trans, start, end, lengths, weight):
    logz = emit.new_empty(emit.shape[0], dtype=_accumulator(emit))
    return logz, *_like(emit, (emit, segment, duration, trans, start, end))


def _marginals_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.set_materialize_grads(False)


def _marginals_backward(ctx, g_logz, *g_posts):
    *scores, lengths, weight = ctx.saved_tensors
    grads, g_weight = [None] * SCORES, None
    v = _contiguous(g_posts, scores)
    if any(t is not None for t in v):
        along, *grads = chain_hvp(*scores, lengths, weight, *v)
        if ctx.needs_input_grad[SCORES + 1]:
            g_weight = along
    if g_logz is not None:
        posts = chain_marginals(*scores, lengths, g_logz.contiguous())[1:]
        grads = [p if g is None else g + p for g, p in zip(grads, posts, strict=True)]
    return *_wanted(ctx, grads, scores), None, g_weight


# ---- hvp -------------------------------------------------------------------------------------------------------------


def _hvp_fake(emit, segment, duration, trans, start, end, lengths, weight, *directions):
    return _marginals_fake(emit, segment, duration, trans, start, end, lengths, weight)


chain_logz = define("chain_logz", _logz_fake, _logz_setup, _logz_backward, tuple(range(SCORES)))
chain_marginals = define("chain_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (*range(SCORES), SCORES + 1))
chain_hvp = define_hvp("chain_hvp", SCORES, chain_marginals, _hvp_fake)


# ---- paths -----------------------------------------------------------------------------------------------------------


def _best_fake(emit, segment, duration, trans, start, end, lengths, k):
    B, N, _ = emit.shape
    return emit.new_empty(B, k, dtype=_accumulator(emit)), emit.new_empty(B, k, N, dtype=torch.int64)


def _sample_fake(emit, segment, duration, trans, start, end, lengths, uniform):
    return emit.new_empty(uniform.shape[0], *emit.shape[:2], dtype=torch.int64)


def _max_fake(emit, segment, duration, trans, start, end, lengths):
    B, N, T = emit.shape
    if segment is not None:
        K = segment.shape[2]
    else:
        K = duration.shape[0] if duration is not None else trans.shape[2] if trans is not None and trans.dim() == 5 else 1
    return emit.new_empty(B, N, K, T, dtype=_accumulator(emit))


chain_best = define("chain_best", _best_fake, None, None, ())
chain_sample = define("chain_sample", _sample_fake, None, None, ())
chain_max_marginals = define("chain_max_marginals", _max_fake, None, None, ())
