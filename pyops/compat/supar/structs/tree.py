"""supar.structs.tree: dependency and constituency trees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .... import _check as check
from ....tree import DependencyCRF as _DependencyCRF
from ....tree import MatrixTreeCRF as _MatrixTreeCRF
from ....tree import SpanCRF as _SpanCRF
from ....tree import _chart as charts
from .dist import StructuredDistribution


class _Heads(StructuredDistribution):
    """Trees as heads [B, N], 0 at the root and past the sentence."""

    _crf: _DependencyCRF

    def __init__(self, scores, crf, lens, multiroot: bool) -> None:
        super().__init__(scores, crf, lens=lens, multiroot=multiroot)
        self.lens, self.multiroot = crf.lengths, multiroot

    @property
    def mask(self) -> Tensor:
        """bool [B, N]: the words."""
        position = torch.arange(self._crf.event_shape[0], device=self.lens.device)
        return (position > 0) & (position <= self.lens[:, None])

    def _plain(self, tree: Tensor) -> Tensor:
        return tree.clamp(min=0)

    def _several(self, trees: Tensor) -> Tensor:
        return trees.clamp(min=0).transpose(1, 2)

    def score(self, value: Tensor, partial: bool = False) -> Tensor:
        value = self._crf._checked(f"{type(self).__name__}.score", value, partial)
        return charts.log_partition(self._crf._constrained(value)) if partial else self._crf._score(value)


class DependencyCRF(_Heads):
    """Projective dependency trees of first order. ``scores [B, N, N]`` (dependent, head), ``lens [B]`` words.

    >>> import torch
    >>> from structops.compat.supar.structs import DependencyCRF
    >>> DependencyCRF(torch.zeros(1, 4, 4), multiroot=True).log_prob(torch.tensor([[0, 0, 1, 2]])).exp()
    tensor([0.0833])
    """

    def __init__(self, scores: Tensor, lens: Tensor | None = None, multiroot: bool = False) -> None:
        super().__init__(scores, _DependencyCRF(scores, lens, None, multiroot), lens, multiroot)


class MatrixTree(_Heads):
    """All dependency trees. ``scores [B, N, N]`` (dependent, head), ``lens [B]`` words."""

    def __init__(self, scores: Tensor, lens: Tensor | None = None, multiroot: bool = False) -> None:
        super().__init__(scores, _MatrixTreeCRF(scores, lens, multiroot), lens, multiroot)


class Dependency2oCRF(_Heads):
    """Projective dependency trees with adjacent siblings. ``scores``: ``([B, N, N], [B, N, N, N])`` (dependent, head, sibling)."""

    def __init__(self, scores: Sequence[Tensor], lens: Tensor | None = None, multiroot: bool = False) -> None:
        arc, sib = scores
        super().__init__(scores, _DependencyCRF(arc, lens, sib, multiroot), lens, multiroot)

    def score(self, value: tuple[Tensor, Tensor], partial: bool = False) -> Tensor:  # type: ignore[override]
        """``value``: heads [B, N] and the siblings [B, N, N] of every dependent under its head, 0 for none. With ``partial``
        only the heads count."""
        arcs, sibs = value
        if partial:
            return super().score(arcs, True)
        op, (arc, sib) = "Dependency2oCRF.score", self.scores
        arcs = self._crf._checked(op, arcs, False)
        sibs = charts.integers(op, "sibs", sibs, sib)
        if sibs.shape != sib.shape[:3]:
            check.fail(ValueError, op, f"sibs of shape {list(sib.shape[:3])}", list(sibs.shape))
        first_order = _DependencyCRF(arc, self.lens, None, self.multiroot)._score(arcs)
        there = sibs > 0
        picked = sib.gather(-1, torch.where(there, sibs, 0)[..., None]).squeeze(-1)
        return first_order + torch.where(there, picked.to(first_order.dtype), 0).sum((1, 2))


class ConstituencyCRF(StructuredDistribution):
    """Binary constituency trees. ``scores [B, N, N]`` (left, right) between fenceposts, or ``[B, N, N, L]`` with
    ``label=True``; ``lens [B]`` words. Trees are lists of ``(left, right)`` or ``(left, right, label)`` in pre-order."""

    _crf: _SpanCRF

    def __init__(self, scores: Tensor, lens: Tensor | None = None, label: bool = False) -> None:
        op = "ConstituencyCRF"
        check.flags(op, label=label)
        if isinstance(scores, Tensor) and scores.dim() != 3 + label:
            check.fail(ValueError, op, "scores of shape " + ("[B, N, N, L]" if label else "[B, N, N]"), list(scores.shape))
        super().__init__(scores, _SpanCRF(scores, lens), lens=lens, label=label)
        self.lens, self.label = self._crf.lengths, label

    @property
    def mask(self) -> Tensor:
        """bool [B, N, N]: the spans of the sentences."""
        return charts.cells(self._crf._chart.kind, self.lens, self.scores.shape[1])

    def _lists(self, spans: Tensor) -> list[list[list[int]]]:
        return [[row for row in tree if row[0] >= 0] for tree in spans.tolist()]

    def _plain(self, tree: Tensor) -> list[list[list[int]]]:
        return self._lists(tree)

    def _several(self, trees: Tensor) -> list[tuple]:
        return [tuple(self._lists(each)) for each in trees.unbind(0)]

    def score(self, value: Tensor, partial: bool = False) -> Tensor:
        """``value [B, N, N]``: booleans, or the label of each constituent and -1 elsewhere. With ``partial``: the log-partition
        of the trees that hold these constituents."""
        op = "ConstituencyCRF.score"
        check.tensor(op, "value", value)
        check.flags(op, partial=partial)
        if value.shape != self.scores.shape[:3]:
            check.fail(ValueError, op, f"value of shape {list(self.scores.shape[:3])}", list(value.shape))
        given = self.mask & (value if value.dtype == torch.bool else value >= 0)
        label = None
        if self.label:
            if value.dtype == torch.bool:
                check.fail(TypeError, op, "labels, -1 outside the tree", "booleans")
            label = torch.where(given, charts.integers(op, "value", value, self.scores), -1)
        if partial:
            return charts.log_partition(self._crf._agreeing(given.long(), label))
        scores = self.scores if label is None else self.scores.gather(-1, label.clamp(min=0)[..., None]).squeeze(-1)
        return torch.where(given, scores.to(self.log_partition.dtype), 0).sum((1, 2))
