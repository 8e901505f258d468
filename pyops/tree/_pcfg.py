"""Derivatives of the grammar charts.

    pcfg_logz -> pcfg_marginals (weight = the gradient) -> pcfg_hvp

As in :mod:`_grand`: log_partition keeps nothing but the scores and counts in the backward. The posteriors of spans have a
derivative whether or not there are scores of spans. Derivatives of the third order are not available.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ._ops import _add, _own_context, _scaled, accumulator, define_hvp


def _like_rule(counts: Tensor, rule: Tensor) -> Tensor:
    """Counts of every sentence, added up where the rules are shared."""
    return counts if counts.shape == rule.shape else counts.sum(0, keepdim=True)


def _logz_fake(term, rule, root, span, lengths):
    return term.new_empty(term.shape[0], dtype=accumulator(term))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _logz_backward(ctx, g):
    term, rule, root, span, lengths = ctx.saved_tensors
    _, d_term, d_rule, d_root, d_span = pcfg_marginals(term, rule, root, span, lengths, g.contiguous())
    return d_term, _like_rule(d_rule, rule), d_root, None if span is None else d_span, None


pcfg_logz = define("pcfg_logz", _logz_fake, _logz_setup, _logz_backward, (0, 1, 2, 3))


def _parts_fake(term, rule, root, dtype):
    B, N, _ = term.shape
    NT = root.shape[1]
    return [
        term.new_empty(shape, dtype=dtype) for shape in (term.shape, (B, *rule.shape[1:]), root.shape, (B, N + 1, N + 1, NT))
    ]


def _marginals_fake(term, rule, root, span, lengths, weight):
    return term.new_empty(term.shape[0], dtype=accumulator(term)), *_parts_fake(term, rule, root, term.dtype)


def _marginals_setup(ctx, inputs, output):
    term, rule, root, span, lengths, weight = inputs
    own = (None,) * 4 if weight is not None else output[1:5]  # with a weight, no longer the gradient of logz
    ctx.save_for_backward(term, rule, root, span, lengths, weight, *own)
    if _own_context(ctx):
        ctx.set_materialize_grads(False)


def _marginals_backward(ctx, g_logz, g_term, g_rule, g_root, g_span):
    term, rule, root, span, lengths, weight, *counts = ctx.saved_tensors
    d: list[Tensor | None] = [None, None, None, None]
    d_weight = None
    if g_logz is not None:
        if weight is not None:
            counts = pcfg_marginals(term, rule, root, span, lengths, None)[1:5]
        d = [None if c is None else _scaled(g_logz, c) for c in counts]
        d[1] = _like_rule(d[1], rule)
    if any(g is not None for g in (g_term, g_rule, g_root, g_span)):
        shared = rule.shape[0] == 1 and term.shape[0] != 1
        if g_rule is not None and shared:  # a direction of its own for every sentence
            rule_of_each = rule.expand(term.shape[0], *rule.shape[1:]).contiguous()
        else:
            rule_of_each = rule
        zero = lambda g, s: torch.zeros_like(s) if g is None else g.contiguous()
        v = (zero(g_term, term), zero(g_rule, rule_of_each), zero(g_root, root), None if g_span is None else g_span.contiguous())
        along, h_term, h_rule, h_root, h_span = pcfg_hvp(term, rule_of_each, root, span, lengths, weight, *v)
        d = [_add(a, b) for a, b in zip(d, (h_term, _like_rule(h_rule, rule), h_root, h_span), strict=True)]
        d_weight = None if weight is None else along
    return *d[:3], None if span is None else d[3], None, d_weight


pcfg_marginals = define("pcfg_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 1, 2, 3, 5))


def _hvp_fake(term, rule, root, span, lengths, weight, v_term, v_rule, v_root, v_span):
    return _marginals_fake(term, rule, root, span, lengths, weight)


pcfg_hvp = define_hvp("pcfg_hvp", 4, pcfg_marginals, _hvp_fake)


def _max_fake(term, rule, root, span, lengths):
    return tuple(_parts_fake(term, rule, root, accumulator(term)))


def _rows(N: int) -> int:
    return 2 * N - 1 if N > 0 else 0


def _best_fake(term, rule, root, span, lengths, k):
    B, N, _ = term.shape
    return term.new_empty((B, k), dtype=accumulator(term)), lengths.new_empty((B, k, _rows(N), 3))


def _sample_fake(term, rule, root, span, lengths, uniform):
    return lengths.new_empty((uniform.shape[0], term.shape[0], _rows(term.shape[1]), 3))


pcfg_max_marginals = define("pcfg_max_marginals", _max_fake, None, None, ())
pcfg_best = define("pcfg_best", _best_fake, None, None, ())
pcfg_sample = define("pcfg_sample", _sample_fake, None, None, ())
