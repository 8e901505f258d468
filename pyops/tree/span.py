"""Binary bracketings (constituency trees without rules): sums, posteriors, best trees and samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..kernels import codes as C
from . import _chart as charts
from ._chart import NINF, Chart
from ._distribution import TreeDistribution

__all__ = ["SpanCRF", "span_best", "span_log_partition", "span_marginals", "span_sample"]


def span_log_partition(score: Tensor, lengths: Any = None) -> Tensor:
    """Logarithm of the sum over binary bracketings of exp(score), [B].

    Args:
        score: ``[B, N, N]`` as ``[sentence, left, right]``: the score of the span between posts left < right, spans of one
            word included; or ``[B, N, N, L]`` with labels, summed over. float32, float64, or bfloat16 and float16 (computed
            in float32). -inf forbids a span exactly.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N - 1; None for N - 1. Entries beyond are
            never read.

    Differentiable twice; the first derivative is the marginals. Deterministic. With no words there
    is one tree, of score 0; where all trees are forbidden the result is -inf and the gradient 0.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: the CKY algorithm; Stern, Andreas and Klein 2017; Zhang, Zhou and Li 2020.

    >>> import torch, structops
    >>> structops.tree.span_log_partition(torch.zeros(1, 5, 5)).exp().round()
    tensor([5.])
    """
    return charts.log_partition(charts.prepare("span_log_partition", C.SPAN, "score", score, lengths))


def span_marginals(score: Tensor, lengths: Any = None) -> Tensor:
    """Posterior probability of every (labelled) span, in the shape and dtype of ``score``.

    Arguments and errors as in :func:`span_log_partition`. 0 outside the sentence. Differentiable once.

    >>> import torch, structops
    >>> structops.tree.span_marginals(torch.zeros(1, 4, 4))[0, 0]
    tensor([0.0000, 1.0000, 0.5000, 1.0000])
    """
    return charts.log_partition_and_marginals(charts.prepare("span_marginals", C.SPAN, "score", score, lengths))[1][0]


def span_best(score: Tensor, lengths: Any = None, k: int = 1) -> tuple[Tensor, Tensor]:
    """Scores ``[B, k]``, descending, and spans ``[B, k, 2N - 3, 2]`` of the k best bracketings, (left, right) in pre-order.

    Arguments and errors as in :func:`span_log_partition`. Rows past a tree's end are -1, and so is a tree that does not
    exist, with the score -inf; with labels rows are (left, right, label). The scores are differentiable.

    >>> import torch, structops
    >>> structops.tree.span_best(torch.ones(1, 3, 3))
    (tensor([[3.]]), tensor([[[[0, 2],
              [0, 1],
              [1, 2]]]]))
    """
    return SpanCRF(score, lengths).kbest(k)


def span_sample(score: Tensor, lengths: Any = None, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """n exact independent samples of bracketings for each sentence, spans int64 ``[n, B, 2N - 3, 2]`` as in
    :func:`span_best`. Not differentiable.

    >>> import torch, structops
    >>> structops.tree.span_sample(torch.zeros(2, 4, 4), n=3).shape
    torch.Size([3, 2, 5, 2])
    """
    return SpanCRF(score, lengths).sample((check.size("span_sample", "n", n),), generator)


class SpanCRF(TreeDistribution):
    """A distribution over binary bracketings, with or without labels.

    Args as in :func:`span_log_partition`. ``validate_args=False`` takes lengths and the indices in values for granted.
    A tree is spans int64 ``[B, 2N - 3, 2]``, (left, right), or ``[B, 2N - 3, 3]`` with the label; results are in pre-order.
    In values the order is free, the number of rows too, and rows of -1 are ignored.

    >>> import torch, structops
    >>> crf = structops.tree.SpanCRF(torch.zeros(1, 4, 4))
    >>> crf.log_prob(torch.tensor([[[0, 2]]]), partial=True).exp()
    tensor([0.5000])
    """

    def __init__(self, score: Tensor, lengths: Any = None, validate_args: bool | None = None) -> None:
        chart = charts.prepare("SpanCRF", C.SPAN, "score", score, lengths, validate=validate_args is not False)
        super().__init__(chart, validate_args)

    def _tree_shape(self) -> tuple[int, ...]:
        return max(2 * self._chart.N - 3, 0), 3 if self._chart.labelled else 2

    def _fits(self, value: Tensor, event: tuple[int, ...]) -> bool:
        return value.shape[-1] == event[1]

    def _parts(self, tree: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = tree.unbind(-1)
        return left, right, left >= 0

    def _check_range(self, op: str, value: Tensor, low: int) -> None:
        spans, label = self._split(value)
        left, right, valid = self._parts(spans)
        charts.within(op, "spans", spans, torch.ones_like(spans, dtype=torch.bool), -1, self.lengths[:, None, None])
        if not charts.ops.is_traced(left) and bool((valid & (left >= right)).any()):
            check.fail(IndexError, op, "spans (left, right) with left < right", "others")
        self._check_labels(op, label, valid, low)

    def _constrained(self, value: Tensor) -> Chart:
        spans, label = self._split(value)
        N, M = self._chart.N, spans.shape[-2]
        total = math.prod(spans.shape[:-2])
        spans = spans.reshape(total, M, 2)
        left, right, valid = self._parts(spans)
        at = torch.where(valid, left * N + right, N * N)  # one cell more takes the rows that are ignored
        fill = lambda start, values: at.new_full((total, N * N + 1), start).scatter(1, at, values)[:, :-1].reshape(total, N, N)
        wanted = None if label is None else fill(-1, label.reshape(total, M))
        return self._agreeing(fill(0, torch.ones_like(at)), wanted)

    def _agreeing(self, given: Tensor, label: Tensor | None) -> Chart:
        """The chart of the trees that hold the spans given, 0 or 1 [S * B, N, N], with the labels, -1 or [S * B, N, N]."""
        chart = self._chart
        allowed = ~_crossed(given)
        if label is not None:
            wanted = label[..., None]
            allowed = allowed[..., None] & ((wanted < 0) | (wanted == torch.arange(chart.table.shape[3], device=given.device)))
        samples = given.shape[0] // max(chart.table.shape[0], 1)
        table = torch.where(allowed.reshape(samples, *chart.table.shape), chart.table, NINF).flatten(0, 1)
        return Chart(chart.kind, table, None, chart.lengths.repeat(samples))


def _crossed(given: Tensor) -> Tensor:
    """bool [B, N, N]: the spans that cross one of the given spans (0 or 1, [B, N, N])."""
    position = torch.arange(given.shape[-1], device=given.device)
    # (left, right) crosses a given (a, b) if left < a < right < b or a < left < b < right: sums over a, and over b.
    ends_later = given.flip(2).cumsum(2).flip(2) - given  # [a, right]: given (a, b) with b > right
    starts_before = given.cumsum(1) - given  # [left, b]: given (a, b) with a < left
    by_start, by_end = ends_later.cumsum(1), starts_before.cumsum(2)
    last = (position - 1).clamp(min=0)
    first = by_start[:, last, position][:, None, :] - by_start
    second = by_end[:, :, last] - by_end[:, position, position][:, :, None]
    return ((first > 0) | (second > 0)) & (position[:, None] < position)
