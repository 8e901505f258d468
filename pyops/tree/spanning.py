"""Non-projective dependency trees: sums by the matrix-tree theorem, maximum spanning trees, and checks of given trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..kernels import codes as C
from . import _chart as charts
from . import _spanning as spanning
from ._chart import Chart
from ._distribution import TreeDistribution
from .dependency import DependencyCRF

__all__ = ["MatrixTreeCRF", "is_projective", "is_tree", "maximum_spanning_tree"]

TREE, PROJECTIVE, SINGLE_ROOT = 1, 2, 4


def _chart(op: str, arc: Any, lengths: Any, multiroot: Any, validate: bool = True) -> Chart:
    check.flags(op, multiroot=multiroot)
    return charts.prepare(op, C.SPANNING_MULTI if multiroot else C.SPANNING_SINGLE, "arc", arc, lengths, None, validate)


class MatrixTreeCRF(DependencyCRF):
    """A distribution over all dependency trees, projective or not, of independent arcs.

    Args:
        arc: ``[B, N, N]`` as ``[sentence, dependent, head]``, position 0 the root; or ``[B, N, N, L]`` with labels. float32,
            float64, bfloat16 or float16, computed in float64. -inf forbids an arc exactly. The scores of the diagonal, of the root
            as dependent and past the sentence are never read.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N - 1; None for N - 1.
        multiroot: whether the root may have more than one dependent.
        validate_args: False takes lengths and the indices in values for granted.

    Everything of :class:`DependencyCRF`: log_partition (differentiable twice), marginals, log_prob with partial annotation,
    entropy, cross_entropy and kl_divergence (once), argmax, kbest, max_marginals (O(N^3)), sample (exact), mbr.
    Right at any scale of the scores: no determinant is computed and nothing subtracted. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: Koo, Globerson, Carreras and Collins 2007; McDonald and Satta 2007; csrc/tree/matrix_tree.h for the algorithm.

    >>> import torch, structops
    >>> crf = structops.tree.MatrixTreeCRF(torch.zeros(1, 4, 4), multiroot=True)
    >>> crf.log_partition.exp().round()
    tensor([16.])
    >>> crf.marginals[0, 1]
    tensor([0.5000, 0.0000, 0.2500, 0.2500])
    """

    def __init__(self, arc: Tensor, lengths: Any = None, multiroot: bool = False, validate_args: bool | None = None) -> None:
        chart = _chart("MatrixTreeCRF", arc, lengths, multiroot, validate_args is not False)
        TreeDistribution.__init__(self, chart, validate_args)

    @property
    def multiroot(self) -> bool:
        return self._chart.kind == C.SPANNING_MULTI


def maximum_spanning_tree(score: Tensor, lengths: Any = None, multiroot: bool = False) -> tuple[Tensor, Tensor]:
    """Value ``[B]`` and heads ``[B, N]`` of the dependency tree with the largest sum of scores, projective or not.

    Args:
        score: ``[B, N, N]`` as ``[sentence, dependent, head]``, position 0 the root; float32, float64, bfloat16 or float16.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N - 1; None for N - 1.
        multiroot: whether the root may have more than one dependent. False is exact, not a penalty on root arcs.

    Heads are int64, -1 at the root and past the sentence. Without a tree (-inf forbids an arc) the value is -inf and all heads are
    -1; with a NaN or +inf, NaN and -1. Of equal trees always the same one. The value is differentiable: its gradient is the tree.
    O(N^2) for each sentence. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: Chu and Liu 1965; Edmonds 1967.

    >>> import torch, structops
    >>> score = torch.tensor([[[0., 0., 0.], [1., 0., 5.], [2., 5., 0.]]])
    >>> structops.tree.maximum_spanning_tree(score)
    (tensor([7.]), tensor([[-1,  2,  0]]))
    """
    op = "maximum_spanning_tree"
    check.dense(op, "score", score)
    if score.dim() != 3:
        check.fail(ValueError, op, "score of shape [B, N, N], N at least 1", list(score.shape))
    chart = _chart(op, score, lengths, multiroot)
    dense = score.detach().contiguous()
    value, heads = spanning.arborescence(dense, chart.lengths, bool(multiroot))
    if torch.is_grad_enabled() and score.requires_grad:
        picked = score.gather(2, heads.clamp(min=0)[..., None])[..., 0]
        total = torch.where(heads >= 0, picked, 0).sum(1, dtype=value.dtype)
        value = torch.where(value.isfinite(), total, value)
    return value, heads


def _flags(op: str, heads: Any, lengths: Any) -> Tensor:
    check.index(op, "heads", heads)
    if heads.dim() != 2 or heads.shape[1] < 1:
        check.fail(ValueError, op, "heads of shape [B, N], N at least 1", list(heads.shape))
    lengths = charts.checked_lengths(op, lengths, heads, heads.shape[1] - 1, True)
    return spanning.tree_check(heads.long().contiguous(), lengths)


def is_tree(heads: Tensor, lengths: Any = None, multiroot: bool = True) -> Tensor:
    """Whether each head sequence is a dependency tree, bool ``[B]``.

    Args:
        heads: int32 or int64 ``[B, N]``, heads of positions 1..n in 0..n; position 0 and positions past the sentence are not read.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list; None for N - 1.
        multiroot: False also asks for exactly one dependent of the root.

    No synchronisation with the host but the check of lengths. The empty sentence is a tree.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, or length.

    >>> import torch, structops
    >>> structops.tree.is_tree(torch.tensor([[0, 0, 1, 2], [0, 2, 1, 0]]))
    tensor([ True, False])
    """
    check.flags("is_tree", multiroot=multiroot)
    wanted = TREE if multiroot else TREE | SINGLE_ROOT
    return (_flags("is_tree", heads, lengths) & wanted) == wanted


def is_projective(heads: Tensor, lengths: Any = None) -> Tensor:
    """Whether each head sequence is a projective dependency tree: no two arcs cross, the root's included. bool ``[B]``.

    Arguments and errors as in :func:`is_tree`.

    >>> import torch, structops
    >>> structops.tree.is_projective(torch.tensor([[0, 0, 1, 2], [0, 3, 0, 2]]))
    tensor([ True, False])
    """
    return (_flags("is_projective", heads, lengths) & PROJECTIVE) != 0
