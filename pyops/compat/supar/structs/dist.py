"""supar.structs.dist: what all its distributions share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..._lazy import lazy_property


class StructuredDistribution(Distribution):
    """A distribution in supar's manner around one of :mod:`structops.tree`, ``_crf``. Properties are computed once."""

    arg_constraints: dict = {}  # noqa: RUF012
    _crf: Any

    def __init__(self, scores: Any, crf: Any, **kwargs: Any) -> None:
        self.scores, self._crf, self.kwargs = scores, crf, kwargs
        super().__init__(crf.batch_shape, crf.event_shape, validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.kwargs.items() if k != 'lens')})"

    @lazy_property
    def log_partition(self) -> Tensor:
        return self._crf.log_partition

    @lazy_property
    def marginals(self) -> Any:
        return self._crf.marginals

    @lazy_property
    def max(self) -> Tensor:
        return self._crf.max

    @lazy_property
    def argmax(self) -> Any:
        return self._plain(self._crf.argmax)

    @lazy_property
    def mode(self) -> Any:
        return self.argmax

    @lazy_property
    def entropy(self) -> Tensor:  # type: ignore[override]
        return self._crf.entropy()

    def kmax(self, k: int) -> Tensor:
        """Scores of the k best, [B, k]."""
        return self._crf.kbest(k)[0]

    def topk(self, k: int) -> Any:
        return self._several(self._crf.kbest(k)[1])

    def sample(self, sample_shape: Any = ()) -> Any:
        """One exact sample of each sentence."""
        if torch.Size(sample_shape):
            raise NotImplementedError("sample: supar draws one sample; structops.tree draws any number")
        return self._plain(self._crf.sample())

    def cross_entropy(self, other: StructuredDistribution) -> Tensor:
        return self._crf.cross_entropy(other._crf)

    def kl(self, other: StructuredDistribution) -> Tensor:
        return self._crf.kl_divergence(other._crf)

    def log_prob(self, value: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``score(value, partial) - log_partition``; -inf where the score is."""
        score, logz = self.score(value, *args, **kwargs), self.log_partition
        return torch.where(score == float("-inf"), score, score - logz)

    def score(self, value: Any, partial: bool = False) -> Tensor:
        """The score of a structure, or the log-partition of those that agree with a partial annotation."""
        raise NotImplementedError

    def _plain(self, tree: Tensor) -> Any:
        """A tree as supar presents it."""
        raise NotImplementedError

    def _several(self, trees: Tensor) -> Any:
        """The trees [B, k, ..] as supar presents them."""
        raise NotImplementedError
