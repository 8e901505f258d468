"""supar.structs.chain: linear-chain and semi-Markov distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import _check as check
from ....tree import LinearChainCRF as _LinearChainCRF
from ....tree import SemiMarkovCRF as _SemiMarkovCRF
from ..._lazy import lazy_property
from .dist import StructuredDistribution


class LinearChainCRF(StructuredDistribution):
    """Chains of tags. ``scores [B, N, T]``; ``trans [T + 1, T + 1]`` (from, to), its last row for starts and its last column
    for ends; ``lens [B]``. Tags are int64 [B, N], 0 past the sentence.

    >>> import torch
    >>> from structops.compat.supar.structs import LinearChainCRF
    >>> LinearChainCRF(torch.zeros(1, 3, 2)).log_partition.exp().round()
    tensor([8.])
    """

    _crf: _LinearChainCRF

    def __init__(self, scores: Tensor, trans: Tensor | None = None, lens: Tensor | None = None) -> None:
        check.dense("LinearChainCRF", "scores", scores)
        self.n_tags = scores.shape[-1]
        parts: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        if trans is not None:
            check.dense("LinearChainCRF", "trans", trans)
            if tuple(trans.shape) != (self.n_tags + 1, self.n_tags + 1):
                check.fail(ValueError, "LinearChainCRF", f"trans of shape {[self.n_tags + 1] * 2}", list(trans.shape))
            parts = trans[:-1, :-1], trans[-1, :-1], trans[:-1, -1]
        super().__init__(scores, _LinearChainCRF(scores, *parts, lengths=lens), lens=lens)
        self.trans, self.lens = trans, self._crf.lengths

    def _plain(self, path: Tensor) -> Tensor:
        return path.clamp(min=0)

    def _several(self, paths: Tensor) -> Tensor:
        return paths.clamp(min=0).transpose(1, 2)

    def score(self, value: Tensor, partial: bool = False) -> Tensor:
        value = self._crf._checked("LinearChainCRF.score", value, partial)
        return self._crf._constrained(value) if partial else self._crf._score(value)


class SemiMarkovCRF(StructuredDistribution):
    """Chains of tagged segments. ``scores [B, N, N, T]`` of segments from l to r, both included; ``trans [T, T]`` (from, to);
    ``lens [B]``. Segmentations are lists of ``(l, r, tag)``, values charts [B, N, N] of tags with -1 elsewhere."""

    _crf: _SemiMarkovCRF

    def __init__(self, scores: Tensor, trans: Tensor | None = None, lens: Tensor | None = None) -> None:
        check.dense("SemiMarkovCRF", "scores", scores)
        if scores.dim() != 4 or scores.shape[1] != scores.shape[2]:
            check.fail(ValueError, "SemiMarkovCRF", "scores of shape [B, N, N, T]", list(scores.shape))
        N = scores.shape[1]
        self.n_tags = scores.shape[3]
        left = torch.arange(N, device=scores.device)[:, None]
        longer = torch.arange(N, device=scores.device)
        segments = scores[:, left, (left + longer).clamp(max=N - 1)]  # [b, l, r - l, t]
        super().__init__(scores, _SemiMarkovCRF(segments, trans, lengths=lens), lens=lens)
        self.trans, self.lens = trans, self._crf.lengths

    @lazy_property
    def marginals(self) -> Tensor:
        """[B, N, N, T], as the scores."""
        post = self._crf.marginals
        position = torch.arange(post.shape[1], device=post.device)
        longer = position - position[:, None]
        return torch.where((longer >= 0)[..., None], post[:, position[:, None], longer.clamp(min=0)], 0)

    def _plain(self, path: Tensor) -> list[list[list[int]]]:
        found = []
        for tags, n in zip(path.tolist(), self.lens.tolist(), strict=True):
            begins = [i for i, t in enumerate(tags) if t >= 0]
            found.append([[i, j - 1, tags[i]] for i, j in zip(begins, [*begins[1:], n], strict=True)] if begins else [])
        return found

    def _several(self, paths: Tensor) -> list[tuple]:
        return list(zip(*(self._plain(p) for p in paths.unbind(1)), strict=True))

    def score(self, value: Tensor, partial: bool = False) -> Tensor:
        if partial:
            raise NotImplementedError("SemiMarkovCRF.score: partial charts; structops.tree.SemiMarkovCRF takes tags of positions")
        check.index("SemiMarkovCRF.score", "value", value, self.scores)
        if value.shape != self.scores.shape[:3]:
            check.fail(ValueError, "SemiMarkovCRF.score", f"value of shape {list(self.scores.shape[:3])}", list(value.shape))
        position = torch.arange(value.shape[1], device=value.device)
        inside = (position < self.lens[:, None])[:, None, :] & (position[:, None] <= position)
        path = torch.where(inside, value, -1).amax(2)
        return self._crf._score(self._crf._checked("SemiMarkovCRF.score", path, False))
