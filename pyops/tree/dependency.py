"""Projective dependency trees: sums, posteriors, best trees and samples, of arcs, adjacent siblings and grandparents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ..kernels import codes as C
from . import _chart as charts
from ._chart import NINF, Chart
from ._distribution import TreeDistribution

__all__ = [
    "DependencyCRF", "adjacent_siblings", "dependency_best", "dependency_log_partition", "dependency_marginals",
    "dependency_sample",
]  # fmt: skip


Factors = tuple[Tensor, Tensor, Tensor]


def _chart(
    op: str,
    arc: Any,
    lengths: Any,
    sib: Any,
    multiroot: Any,
    validate: bool = True,
    grand: Any = None,
    sib_factors: Any = None,
) -> Chart:
    check.flags(op, multiroot=multiroot)
    kind = C.DEP_MULTI if multiroot else C.DEP_SINGLE
    return charts.prepare(op, kind, "arc", arc, lengths, sib, validate, grand, sib_factors)


@autocast.promotes
def dependency_log_partition(
    arc: Tensor, lengths: Any = None, sib: Tensor | None = None, multiroot: bool = False, sib_factors: Factors | None = None
) -> Tensor:
    """Logarithm of the sum over projective dependency trees of exp(score), [B].

    Args:
        arc: ``[B, N, N]`` as ``[sentence, dependent, head]``, position 0 the root; or ``[B, N, N, L]`` with labels, summed
            over. float32, float64, or bfloat16 and float16 (computed in float32). -inf forbids an arc exactly; finite
            scores beyond 1e14 count as 1e14 on the CPU.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N - 1; None for N - 1. Entries of arc and
            sib beyond are never read.
        sib: ``[B, N, N, N]`` as ``[sentence, dependent, head, sibling]``: the score of an arc next to the arc from the same
            head to the sibling, the nearest one between head and dependent. None for first order.
        multiroot: whether the root may have more than one dependent.
        sib_factors: in place of sib, ``(x, y, z)`` of ``[B, N, D]`` with
            ``sib[b, i, j, k] = sum_d x[b, i, d] y[b, j, d] z[b, k, d]`` of dependent, head and sibling. The scores of the batch
            are never formed: those of one sentence at a time are, in scratch of each thread. Finite.

    Differentiable in arc, sib and sib_factors twice; the first derivative is the marginals. Deterministic. Saved for backward:
    the arguments, and with first order or factors as many numbers as they have.
    With no words there is one tree, of score 0; where all trees are forbidden the result is -inf and the gradient 0.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: Eisner 1996; McDonald and Pereira 2006; Zhang, Li and Zhang 2020.

    >>> import torch, structops
    >>> structops.tree.dependency_log_partition(torch.zeros(1, 4, 4), multiroot=True).exp().round()
    tensor([12.])
    """
    return charts.log_partition(_chart("dependency_log_partition", arc, lengths, sib, multiroot, sib_factors=sib_factors))


@autocast.promotes
def dependency_marginals(
    arc: Tensor, lengths: Any = None, sib: Tensor | None = None, multiroot: bool = False, sib_factors: Factors | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Posterior probability of every arc, in the shape and dtype of ``arc``; with ``sib`` also of every pair of siblings.
    (With ``sib_factors`` of the arcs alone.)

    Arguments and errors as in :func:`dependency_log_partition`. 0 outside the sentence. Differentiable once.

    >>> import torch, structops
    >>> structops.tree.dependency_marginals(torch.zeros(1, 3, 3))[0, 1:]
    tensor([[0.5000, 0.0000, 0.5000],
            [0.5000, 0.5000, 0.0000]])
    """
    chart = _chart("dependency_marginals", arc, lengths, sib, multiroot, sib_factors=sib_factors)
    post = charts.log_partition_and_marginals(chart)[1]
    return post[0] if sib is None else (post[0], post[1])


@autocast.promotes
def dependency_best(
    arc: Tensor, lengths: Any = None, sib: Tensor | None = None, multiroot: bool = False, k: int = 1
) -> tuple[Tensor, Tensor]:
    """Scores ``[B, k]``, descending, and heads ``[B, k, N]`` of the k best projective trees.

    Arguments and errors as in :func:`dependency_log_partition`. Heads are -1 at the root, past the sentence and, with the
    score -inf, where there are fewer than k trees; with labels the result is ``[B, k, N, 2]``, (head, label). The scores are
    differentiable. Of equal trees always the same one wins.

    >>> import torch, structops
    >>> arc = torch.zeros(1, 3, 3)
    >>> arc[0, 1, 2] = 1
    >>> structops.tree.dependency_best(arc)
    (tensor([[1.]]), tensor([[[-1,  2,  0]]]))
    """
    return DependencyCRF(arc, lengths, sib, multiroot).kbest(k)


@autocast.promotes
def dependency_sample(
    arc: Tensor,
    lengths: Any = None,
    sib: Tensor | None = None,
    multiroot: bool = False,
    n: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n exact independent samples of projective trees for each sentence, heads int64 ``[n, B, N]`` as in
    :func:`dependency_best`. Not differentiable.

    >>> import torch, structops
    >>> structops.tree.dependency_sample(torch.zeros(2, 2, 2), n=3).shape
    torch.Size([3, 2, 2])
    """
    return DependencyCRF(arc, lengths, sib, multiroot).sample((check.size("dependency_sample", "n", n),), generator)


def adjacent_siblings(heads: Tensor, lengths: Any = None) -> Tensor:
    """The adjacent sibling of every dependent: the nearest dependent of the same head between it and the head.

    heads: int32 or int64 ``[*, B, N]``; entries at the root and past the sentence are not looked at. Returns int64
    ``[*, B, N]``, 0 where there is none.

    >>> import torch, structops
    >>> structops.tree.adjacent_siblings(torch.tensor([[0, 2, 0, 2, 2]]))
    tensor([[0, 0, 0, 0, 3]])
    """
    op = "adjacent_siblings"
    check.index(op, "heads", heads)
    if heads.dim() < 2:
        check.fail(ValueError, op, "heads of shape [*, B, N]", list(heads.shape))
    like = heads.new_empty(heads.shape[-2])
    lengths = charts.checked_lengths(op, lengths, like, heads.shape[-1] - 1, True)
    position = torch.arange(heads.shape[-1], device=heads.device)
    valid = (position > 0) & (position <= lengths[:, None])
    return _siblings(heads.long(), valid)


def _siblings(heads: Tensor, valid: Tensor) -> Tensor:
    N = heads.shape[-1]
    heads = torch.where(valid, heads, -1)
    position = torch.arange(N, device=heads.device)
    dep, head = position[:, None], heads[..., :, None]
    same = (heads[..., :, None] == heads[..., None, :]) & valid[..., :, None] & valid[..., None, :]
    right = torch.where(same & (position > head) & (position < dep), position, 0).amax(-1)
    left = torch.where(same & (position < head) & (position > dep), position, N).amin(-1)
    return torch.where(position > heads, right, torch.where(left == N, 0, left))


class DependencyCRF(TreeDistribution):
    """A distribution over projective dependency trees, of first order, with adjacent siblings, with grandparents, or with both.

    Args as in :func:`dependency_log_partition`, and

        grand: ``[B, N, N, N]`` as ``[sentence, dependent, head, head of the head]``: a score of every arc whose head is a word.
            Entries of the root's arcs, past the sentence, and with the grandparent within the arc are never read. O(N^4) time,
            O(N^3) charts for each sentence at work.

    ``validate_args=False`` takes lengths and the indices in values for granted. A tree is heads int64 ``[B, N]``: -1 at the root
    and past the sentence in results, not looked at in ``log_prob``; with labels ``[B, N, 2]``, (head, label). ``mbr`` looks at
    the marginals of arcs alone.

    Source of the grandparents: Koo and Collins 2010, model 0, and with siblings model 1.

    >>> import torch, structops
    >>> crf = structops.tree.DependencyCRF(torch.zeros(1, 4, 4), multiroot=True)
    >>> crf.log_prob(torch.tensor([[0, 0, 1, 2]])).exp()
    tensor([0.0833])
    >>> crf.entropy().exp().round()
    tensor([12.])
    """

    @autocast.promotes
    def __init__(
        self,
        arc: Tensor,
        lengths: Any = None,
        sib: Tensor | None = None,
        multiroot: bool = False,
        validate_args: bool | None = None,
        grand: Tensor | None = None,
        sib_factors: Factors | None = None,
    ) -> None:
        chart = _chart("DependencyCRF", arc, lengths, sib, multiroot, validate_args is not False, grand, sib_factors)
        super().__init__(chart, validate_args)

    @property
    def multiroot(self) -> bool:
        return self._chart.kind == C.DEP_MULTI

    def _tree_shape(self) -> tuple[int, ...]:
        return (self._chart.N, 2) if self._chart.labelled else (self._chart.N,)

    def _words(self) -> Tensor:
        position = torch.arange(self._chart.N, device=self.lengths.device)
        return (position > 0) & (position <= self.lengths[:, None])

    def _parts(self, tree: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        valid = self._words() & (tree >= 0)
        return torch.arange(self._chart.N, device=tree.device).expand_as(tree), tree, valid

    def _part_scores(self, tree: Tensor, dtype: torch.dtype) -> Tensor | float:
        chart = self._chart
        row, head, valid = self._parts(tree)
        total: Tensor | float = 0.0
        if chart.sib is not None or chart.sib_factors is not None:
            sibling = _siblings(tree, valid)
            second = valid & (sibling > 0)
        if chart.sib is not None:
            total = total + charts.gather(chart.sib, row, head, sibling, second, dtype).sum(-1)
        if chart.sib_factors is not None:
            x, y, z = (t.to(dtype).expand(*tree.shape, -1) for t in chart.sib_factors)
            pick = lambda t, at: t.gather(-2, at.clamp(min=0)[..., None].expand(*at.shape, t.shape[-1]))
            picked = (x * pick(y, head) * pick(z, sibling)).sum(-1)
            total = total + torch.where(second, picked, 0).sum(-1)
        if chart.grand is not None:
            valid = valid & (head > 0)
            above = tree.gather(-1, torch.where(valid, head, 0))
            total = total + charts.gather(chart.grand, row, head, above, valid, dtype).sum(-1)
        return total

    def _check_range(self, op: str, value: Tensor, low: int) -> None:
        heads, label = self._split(value)
        valid = self._words().expand_as(heads)
        charts.within(op, "heads", heads, valid, low, self.lengths[:, None])
        self._check_labels(op, label, valid, low)

    def _constrained(self, value: Tensor) -> Chart:
        heads, label = self._split(value)
        N, samples = self._chart.N, math.prod(heads.shape[:-2])
        head = heads[..., None]
        allowed = (head < 0) | (head == torch.arange(N, device=heads.device)) | ~self._words()[..., None]
        if label is not None:
            L = self._chart.table.shape[3]
            wanted = (label < 0)[..., None] | (label[..., None] == torch.arange(L, device=heads.device))
            allowed = allowed[..., None] & (wanted | ~self._words()[..., None])[..., None, :]
        chart = self._chart
        repeat = lambda t: None if t is None else t.expand(samples, *t.shape).flatten(0, 1)
        table = torch.where(allowed.reshape(samples, *chart.table.shape), chart.table, NINF).flatten(0, 1)
        factors = None if chart.sib_factors is None else tuple(repeat(t) for t in chart.sib_factors)
        return Chart(chart.kind, table, repeat(chart.sib), chart.lengths.repeat(samples), repeat(chart.grand), factors)
