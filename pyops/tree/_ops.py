"""Derivatives of the chart operators.

    chart_logz -> chart_marginals (weight = the gradient) -> chart_hvp

chart_marginals is differentiable in both of its results: the gradient of logz is its own posteriors, so that a
log-partition whose gradient is wanted costs one call and keeps [B, N, N] numbers. Derivatives of the third order are not
available.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._dispatch import Entry, define, is_eager
from ..kernels import codes as C


def accumulator(t: Tensor) -> torch.dtype:
    """The dtype of logz, of weights and of the values of trees."""
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def is_traced(t: Tensor) -> bool:
    """Whether the values of ``t`` are not to be looked at: torch.compile, export, torch.func and fake tensors."""
    return not is_eager() or type(t) is not Tensor


def _own_context(ctx) -> bool:
    """Not functorch's, which has neither mark_non_differentiable nor set_materialize_grads."""
    return isinstance(ctx, torch.autograd.function.FunctionCtx)


def _scaled(g: Tensor, t: Tensor) -> Tensor:
    """g [B] times t [B, ...] in the dtype of t."""
    return (g.reshape(-1, *(1,) * (t.dim() - 1)) * t).to(t.dtype)


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def define_hvp(op: str, scores: int, marginals: Callable, fake: Callable) -> Entry:
    """``op(*scores, lengths, weight, *directions, *rest)``: <posterior, v> of every sentence, and the weighted curvature times v.

    Differentiable in the directions v, which forward over reverse mode needs, and the first result in the scores too.
    """

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs[: 2 * scores + 2])
        ctx.rest = inputs[2 * scores + 2 :]
        if _own_context(ctx):
            ctx.set_materialize_grads(False)

    def backward(ctx, g_along, *g):
        saved = ctx.saved_tensors  # once: torch.utils.checkpoint refuses a second time
        given, lengths, weight, v = saved[:scores], saved[scores], saved[scores + 1], saved[scores + 2 :]
        of_scores, of_v = ctx.needs_input_grad[:scores], ctx.needs_input_grad[scores + 2 :]
        of_v = of_v[:scores]
        g = [None if s is None else d for s, d in zip(given, g, strict=True)]
        curved = any(d is not None for d in g)
        if curved and any((*of_scores, ctx.needs_input_grad[scores + 1])):
            raise NotImplementedError(f"structops.tree: derivatives of the third order (of {op}) are not available")
        d_scores, d_v = [None] * scores, [None] * scores
        if g_along is not None and any(of_scores):
            d_scores = entry(*given, lengths, g_along.contiguous(), *v, *ctx.rest)[1:]
        if g_along is not None and any(of_v):
            d_v = marginals(*given, lengths, g_along.contiguous(), *ctx.rest)[1:]
        if curved and any(of_v):
            directions = [
                None if s is None else torch.zeros_like(s) if d is None else d.to(s.dtype).contiguous()
                for s, d in zip(given, g, strict=True)
            ]
            d_v = [_add(a, b) for a, b in zip(d_v, entry(*given, lengths, weight, *directions, *ctx.rest)[1:], strict=True)]
        d_scores = [d if n and t is not None else None for d, t, n in zip(d_scores, given, of_scores, strict=True)]
        d_v = [d if n and t is not None else None for d, t, n in zip(d_v, v, of_v, strict=True)]
        return *d_scores, None, None, *d_v, *(None for _ in ctx.rest)

    entry = define(op, fake, setup, backward, (*range(scores), *range(scores + 1, 2 * scores + 2)))
    return entry


# ---- chart_logz ------------------------------------------------------------------------------------------------------


def _logz_fake(score, sib, lengths, kind):
    return score.new_empty(score.shape[0], dtype=accumulator(score))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.kind = inputs[3]


def _logz_backward(ctx, g):
    score, sib, lengths = ctx.saved_tensors
    _, post, post_sib = chart_marginals(score, sib, lengths, g.contiguous(), ctx.kind)
    return post, None if sib is None else post_sib, None, None


chart_logz = define("chart_logz", _logz_fake, _logz_setup, _logz_backward, (0, 1))


# ---- chart_marginals -------------------------------------------------------------------------------------------------


def _marginals_fake(score, sib, lengths, *_):
    post_sib = score.new_empty(0) if sib is None else score.new_empty(sib.shape)
    return score.new_empty(score.shape[0], dtype=accumulator(score)), score.new_empty(score.shape), post_sib


def _marginals_setup(ctx, inputs, output):
    score, sib, lengths, weight, ctx.kind = inputs
    # With a weight, the posteriors are no longer the gradient of logz.
    own = weight is None
    ctx.save_for_backward(score, sib, lengths, weight, output[1] if own else None, output[2] if own and sib is not None else None)
    if _own_context(ctx):
        ctx.set_materialize_grads(False)
        if sib is None:
            ctx.mark_non_differentiable(output[2])


def _marginals_backward(ctx, g_logz, g_post, g_sib):
    score, sib, lengths, weight, post, post_sib = ctx.saved_tensors
    d_score = d_sib = d_weight = None
    if g_logz is not None:
        if weight is not None:
            _, post, post_sib = chart_marginals(score, sib, lengths, None, ctx.kind)
        d_score = _scaled(g_logz, post)
        d_sib = None if sib is None else _scaled(g_logz, post_sib)
    if sib is None:
        g_sib = None
    if g_post is not None or g_sib is not None:
        v = torch.zeros_like(score) if g_post is None else g_post.contiguous()
        v_sib = None
        if sib is not None:
            v_sib = torch.zeros_like(sib) if g_sib is None else g_sib.contiguous()
        along, h, h_sib = chart_hvp(score, sib, lengths, weight, v, v_sib, ctx.kind)
        d_score = _add(d_score, h)
        d_sib = None if sib is None else _add(d_sib, h_sib)
        d_weight = None if weight is None else along
    return d_score, d_sib, None, d_weight, None


chart_marginals = define("chart_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 1, 3))


# ---- chart_hvp -------------------------------------------------------------------------------------------------------


def _hvp_fake(score, sib, lengths, weight, v, v_sib, kind):
    return _marginals_fake(score, sib, lengths)


chart_hvp = define_hvp("chart_hvp", 2, chart_marginals, _hvp_fake)


# ---- trees -----------------------------------------------------------------------------------------------------------


def _tree_shape(kind: int, N: int) -> tuple[int, ...]:
    if kind != C.SPAN:
        return (N,)
    return (2 * N - 3 if N > 1 else 0, 2)


def _best_fake(score, sib, lengths, kind, k):
    B, N, _ = score.shape
    return score.new_empty((B, k), dtype=accumulator(score)), lengths.new_empty((B, k, *_tree_shape(kind, N)))


def _sample_fake(score, sib, lengths, uniform, kind):
    return lengths.new_empty((uniform.shape[0], score.shape[0], *_tree_shape(kind, score.shape[1])))


def _max_fake(score, sib, lengths, kind):
    return score.new_empty(score.shape, dtype=accumulator(score))


chart_max_marginals = define("chart_max_marginals", _max_fake, None, None, ())
chart_best = define("chart_best", _best_fake, None, None, ())
chart_sample = define("chart_sample", _sample_fake, None, None, ())


# ---- entry points of the public functions ----------------------------------------------------------------------------


def log_partition(score: Tensor, sib: Tensor | None, lengths: Tensor, kind: int) -> Tensor:
    """logz [B]; of first order with its posteriors at once where a gradient is wanted."""
    if sib is None and torch.is_grad_enabled() and score.requires_grad:
        return chart_marginals(score, None, lengths, None, kind)[0]
    return chart_logz(score, sib, lengths, kind)
