"""Derivatives of the grammar charts.

    pcfg_logz -> pcfg_marginals (weight = the gradient) -> pcfg_hvp

As in :mod:`_grand`: log_partition keeps nothing but the scores and counts in the backward. The posteriors of spans have no
derivative of their own. Derivatives of the third order are not available.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ._ops import _add, _own_context, _scaled, accumulator


def _like_rule(counts: Tensor, rule: Tensor) -> Tensor:
    """Counts of every sentence, added up where the rules are shared."""
    return counts if counts.shape == rule.shape else counts.sum(0, keepdim=True)


def _logz_fake(term, rule, root, lengths):
    return term.new_empty(term.shape[0], dtype=accumulator(term))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _logz_backward(ctx, g):
    term, rule, root, lengths = ctx.saved_tensors
    _, d_term, d_rule, d_root, _ = pcfg_marginals(term, rule, root, lengths, g.contiguous())
    return d_term, _like_rule(d_rule, rule), d_root, None


pcfg_logz = define("pcfg_logz", _logz_fake, _logz_setup, _logz_backward, (0, 1, 2))


def _marginals_fake(term, rule, root, lengths, weight):
    B, N, _ = term.shape
    NT = root.shape[1]
    counts = [term.new_empty(term.shape), term.new_empty((B, *rule.shape[1:])), term.new_empty(root.shape)]
    return term.new_empty(B, dtype=accumulator(term)), *counts, term.new_empty((B, N + 1, N + 1, NT))


def _marginals_setup(ctx, inputs, output):
    term, rule, root, lengths, weight = inputs
    own = (None,) * 3 if weight is not None else output[1:4]  # with a weight, no longer the gradient of logz
    ctx.save_for_backward(term, rule, root, lengths, weight, *own)
    if _own_context(ctx):
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[4])


def _marginals_backward(ctx, g_logz, g_term, g_rule, g_root, _):
    term, rule, root, lengths, weight, *counts = ctx.saved_tensors
    d: list[Tensor | None] = [None, None, None]
    d_weight = None
    if g_logz is not None:
        if weight is not None:
            counts = pcfg_marginals(term, rule, root, lengths, None)[1:4]
        d = [_scaled(g_logz, c) for c in counts]
        d[1] = _like_rule(d[1], rule)
    if g_term is not None or g_rule is not None or g_root is not None:
        shared = rule.shape[0] == 1 and term.shape[0] != 1
        if g_rule is not None and shared:  # a direction of its own for every sentence
            rule_of_each = rule.expand(term.shape[0], *rule.shape[1:]).contiguous()
        else:
            rule_of_each = rule
        zero = lambda g, s: torch.zeros_like(s) if g is None else g.contiguous()
        v = (zero(g_term, term), zero(g_rule, rule_of_each), zero(g_root, root))
        along, h_term, h_rule, h_root, _ = pcfg_hvp(term, rule_of_each, root, lengths, weight, *v)
        d = [_add(a, b) for a, b in zip(d, (h_term, _like_rule(h_rule, rule), h_root), strict=True)]
        d_weight = None if weight is None else along
    return *d, None, d_weight


pcfg_marginals = define("pcfg_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 1, 2, 4))


def _hvp_fake(term, rule, root, lengths, weight, v_term, v_rule, v_root):
    return _marginals_fake(term, rule, root, lengths, weight)


def _hvp_setup(ctx, inputs, output):
    pass


def _hvp_backward(ctx, *_):
    raise NotImplementedError("structops.tree: derivatives of the third order (of pcfg_hvp) are not available")


pcfg_hvp = define("pcfg_hvp", _hvp_fake, _hvp_setup, _hvp_backward, (0, 1, 2, 4, 5, 6, 7))


def _rows(N: int) -> int:
    return 2 * N - 1 if N > 0 else 0


def _best_fake(term, rule, root, lengths):
    return term.new_empty(term.shape[0], dtype=accumulator(term)), lengths.new_empty((term.shape[0], _rows(term.shape[1]), 3))


def _sample_fake(term, rule, root, lengths, uniform):
    return lengths.new_empty((uniform.shape[0], term.shape[0], _rows(term.shape[1]), 3))


pcfg_best = define("pcfg_best", _best_fake, None, None, ())
pcfg_sample = define("pcfg_sample", _sample_fake, None, None, ())
