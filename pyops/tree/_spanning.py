"""Derivatives of the matrix-tree operators, and the entry points of :mod:`_chart` for non-projective trees.

    matrix_tree_logz -> matrix_tree_marginals (weight = the gradient) -> matrix_tree_hvp

As in :mod:`_ops`: a log-partition whose gradient is wanted is one call of matrix_tree_marginals, which keeps [B, N, N] numbers.
Derivatives of the third order are not available.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C
from ._ops import _add, _own_context, _scaled, accumulator, define_hvp

# ---- sums ------------------------------------------------------------------------------------------------------------


def _logz_fake(score, lengths, multiroot):
    return score.new_empty(score.shape[0], dtype=accumulator(score))


def _logz_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.multiroot = inputs[2]


def _logz_backward(ctx, g):
    score, lengths = ctx.saved_tensors
    return matrix_tree_marginals(score, lengths, g.contiguous(), ctx.multiroot)[1], None, None


matrix_tree_logz = define("matrix_tree_logz", _logz_fake, _logz_setup, _logz_backward, (0,))


def _marginals_fake(score, lengths, *_):
    return score.new_empty(score.shape[0], dtype=accumulator(score)), score.new_empty(score.shape)


def _marginals_setup(ctx, inputs, output):
    score, lengths, weight, ctx.multiroot = inputs
    # With a weight, the posteriors are no longer the gradient of logz.
    ctx.save_for_backward(score, lengths, weight, output[1] if weight is None else None)
    if _own_context(ctx):
        ctx.set_materialize_grads(False)


def _marginals_backward(ctx, g_logz, g_post):
    score, lengths, weight, post = ctx.saved_tensors
    d_score = d_weight = None
    if g_logz is not None:
        if weight is not None:
            _, post = matrix_tree_marginals(score, lengths, None, ctx.multiroot)
        d_score = _scaled(g_logz, post)
    if g_post is not None:
        along, curved = matrix_tree_hvp(score, lengths, weight, g_post.contiguous(), ctx.multiroot)
        d_score = _add(d_score, curved)
        d_weight = None if weight is None else along
    return d_score, None, d_weight, None


matrix_tree_marginals = define("matrix_tree_marginals", _marginals_fake, _marginals_setup, _marginals_backward, (0, 2))


def _hvp_fake(score, lengths, weight, v, multiroot):
    return _marginals_fake(score, lengths)


matrix_tree_hvp = define_hvp("matrix_tree_hvp", 1, matrix_tree_marginals, _hvp_fake)


# ---- trees -----------------------------------------------------------------------------------------------------------


def _best_fake(score, lengths, multiroot):
    return score.new_empty(score.shape[0], dtype=accumulator(score)), lengths.new_empty(score.shape[:2])


def _kbest_fake(score, lengths, multiroot, k):
    B, N, _ = score.shape
    return score.new_empty((B, k), dtype=accumulator(score)), lengths.new_empty((B, k, N))


def _sample_fake(score, lengths, seed, multiroot):
    return lengths.new_empty((*seed.shape, score.shape[1]))


def _max_fake(score, lengths, multiroot):
    return score.new_empty(score.shape, dtype=accumulator(score))


def _check_fake(heads, lengths):
    return lengths.new_empty(lengths.shape)


arborescence = define("arborescence", _best_fake, None, None, ())
arborescence_max_marginals = define("arborescence_max_marginals", _max_fake, None, None, ())
arborescence_kbest = define("arborescence_kbest", _kbest_fake, None, None, ())
matrix_tree_sample = define("matrix_tree_sample", _sample_fake, None, None, ())
tree_check = define("tree_check", _check_fake, None, None, ())


# ---- the signatures of _ops ------------------------------------------------------------------------------------------


def log_partition(score: Tensor, sib: None, lengths: Tensor, kind: int) -> Tensor:
    if torch.is_grad_enabled() and score.requires_grad:
        return matrix_tree_marginals(score, lengths, None, kind == C.SPANNING_MULTI)[0]
    return matrix_tree_logz(score, lengths, kind == C.SPANNING_MULTI)


def chart_marginals(score: Tensor, sib: None, lengths: Tensor, weight: Tensor | None, kind: int) -> tuple[Tensor, Tensor, None]:
    return *matrix_tree_marginals(score, lengths, weight, kind == C.SPANNING_MULTI), None


def chart_best(score: Tensor, sib: None, lengths: Tensor, kind: int, k: int) -> tuple[Tensor, Tensor]:
    if k != 1:
        return arborescence_kbest(score, lengths, kind == C.SPANNING_MULTI, k)
    value, heads = arborescence(score, lengths, kind == C.SPANNING_MULTI)
    return value[:, None], heads[:, None]


def max_marginals(score: Tensor, lengths: Tensor, kind: int) -> Tensor:
    return arborescence_max_marginals(score, lengths, kind == C.SPANNING_MULTI)


def sample(score: Tensor, n: int, lengths: Tensor, kind: int, generator: torch.Generator | None) -> Tensor:
    shape = (n, score.shape[0])
    low, high = -(2**63), 2**63 - 1
    seed = torch.randint(low, high, shape, dtype=torch.int64, device=score.device, generator=generator)
    return matrix_tree_sample(score, lengths, seed, kind == C.SPANNING_MULTI)
