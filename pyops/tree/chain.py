"""Chains of tags: linear-chain and semi-Markov conditional random fields."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from ._chain_distribution import NINF, ChainDistribution

__all__ = ["LinearChainCRF", "SemiMarkovCRF"]


class LinearChainCRF(ChainDistribution):
    """A linear-chain conditional random field: p(tags) proportional to exp of a sum of emissions and transitions.

    Args:
        emissions: ``[B, N, T]``, the score of tag t at each position; float32, float64, or bfloat16 and float16 (computed in
            float32). Scores of several dtypes are promoted to one.
        transitions: ``[T, T]`` shared, ``[B, T, T]`` by sentence, or ``[B, N - 1, T, T]`` by position, always [source,
            destination]; at i the transition from position i to i + 1. None for zeros.
        start, end: ``[T]``, scores of the first and the last tag; None for zeros.
        lengths: positions of each sentence, int32 or int64 ``[B]`` or a list, in 0..N; None for N. Entries past the sentence
            are never read. ``validate_args=False`` takes lengths and tags for granted.

    -inf forbids exactly. A sentence of no positions has one path, of score 0. Log-partitions are differentiable twice,
    posteriors and entropies once; saved for backward: the scores. Deterministic, irrespective of threads; a sentence's results
    do not depend on the batch.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device or length, before any kernel runs.

    Source: Lafferty, McCallum and Pereira 2001.

    >>> import torch, structops
    >>> crf = structops.tree.LinearChainCRF(torch.zeros(1, 3, 2), torch.tensor([[0.0, float("-inf")], [0.0, 0.0]]))
    >>> crf.log_partition.exp()
    tensor([4.])
    """

    @autocast.promotes
    def __init__(
        self,
        emissions: Tensor,
        transitions: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
        lengths: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        check.tensor(type(self).__name__, "emissions", emissions)
        given = {"emissions": emissions, "transitions": transitions, "start": start, "end": end, "-": None}
        super().__init__(given, ("emissions", "-", "-", "transitions", "start", "end"), lengths, validate_args)

    @property
    def marginals(self) -> Tensor:
        """Posterior probability of every tag at every position, [B, N, T]; 0 past the sentence. Differentiable once."""
        return self._marginals().emit

    @property
    def transition_marginals(self) -> Tensor:
        """Posterior probability of every pair of neighbouring tags, [B, N - 1, T, T]. Differentiable once."""
        s = self._scores
        T = s.emit.shape[2]
        trans = s.emit.new_zeros(T, T) if s.trans is None else s.trans
        return self._marginals(s._replace(trans=self._with_rank(trans, 4))).trans

    def max_marginals(self) -> Tensor:
        """The score of the best path through every tag, [B, N, T]; -inf where there is none. float32, or float64 for float64. Not
        differentiable."""
        return self._max_marginals()[:, :, 0]

    def mbr(self) -> Tensor:
        """The tag with the largest posterior at every position, int64 [B, N]: minimum Bayes risk. As argmax."""
        post = self.marginals.detach()
        return torch.where(self._valid & (post.amax(-1) > 0), post.argmax(-1), -1)


class SemiMarkovCRF(ChainDistribution):
    """A semi-Markov conditional random field: a path cuts the positions into tagged segments of 1 to K positions.

    Its score adds over segments the emissions of their positions, the score of the segment and that of its length, and over
    borders a transition. A path is int64 ``[B, N]``: the tag at the first position of each segment, -1 elsewhere.

    Args:
        segments: ``[B, N, K, T]``, at [b, i, d - 1, t] the score of the segment of d positions from i with tag t; or None.
        transitions: as in :class:`LinearChainCRF`, or ``[B, N - 1, K, T, T]``, at [b, i - 1, d - 1, s, t] the score of a
            segment of d positions from i > 0 with tag t after one with tag s; then the first segment has one position. This is
            the semi-Markov potential of torch_struct with (source, destination) exchanged and lengths counted from 1.
        start, end, lengths: as in :class:`LinearChainCRF`.
        emissions: ``[B, N, T]``, summed over the positions of a segment without forming the sums; or None.
        durations: ``[K, T]``, the score of the length of a segment; or None.

    One of segments, emissions and five-dimensional transitions is needed. ``log_prob(value, partial=True)`` takes tags of
    positions, whatever the segments are. Otherwise as :class:`LinearChainCRF`.

    Source: Sarawagi and Cohen 2004.

    >>> import torch, structops
    >>> structops.tree.SemiMarkovCRF(torch.zeros(1, 3, 2, 1)).log_partition.exp().round()
    tensor([3.])
    """

    _segmented = True

    @autocast.promotes
    def __init__(
        self,
        segments: Tensor | None = None,
        transitions: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
        lengths: Any = None,
        emissions: Tensor | None = None,
        durations: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        op = type(self).__name__
        if emissions is None:
            if segments is not None:
                if check.dense(op, "segments", segments).dim() != 4:
                    check.fail(ValueError, op, "segments of shape [B, N, K, T]", list(segments.shape))
                emissions = segments.new_zeros((*segments.shape[:2], segments.shape[3]))
            elif transitions is not None and check.dense(op, "transitions", transitions).dim() == 5:
                B, borders, _, T, _ = transitions.shape
                emissions = transitions.new_zeros(B, borders + 1, T)
            else:
                expected = "emissions [B, N, T], segments [B, N, K, T] or transitions [B, N - 1, K, T, T]"
                check.fail(ValueError, op, expected, "none of them")
        given = {
            "emissions": emissions, "segments": segments, "durations": durations, "transitions": transitions,
            "start": start, "end": end,
        }  # fmt: skip
        super().__init__(given, tuple(given), lengths, validate_args)

    @property
    def marginals(self) -> Tensor:
        """Posterior probability of every tagged segment, [B, N, K, T]; 0 past the sentence. Differentiable once."""
        s = self._scores
        B, N, T = s.emit.shape
        segment = s.emit.new_zeros(B, N, self._longest, T) if s.segment is None else s.segment
        return self._marginals(s._replace(segment=segment)).segment

    def max_marginals(self) -> Tensor:
        """The score of the best path through every tagged segment, [B, N, K, T]; -inf where there is none. float32, or float64 for
        float64. Not differentiable."""
        return self._max_marginals()

    def mbr(self) -> Tensor:
        """The path with the largest sum of posteriors of its segments, none of them 0; transitions are not looked at: minimum Bayes
        risk. As argmax."""
        post = self.marginals.detach()
        return SemiMarkovCRF(torch.where(post == 0, NINF, post), lengths=self._lengths, validate_args=False).argmax

    @property
    def tag_marginals(self) -> Tensor:
        """Posterior probability of every tag at every position, [B, N, T]. Differentiable once."""
        return self._marginals().emit
