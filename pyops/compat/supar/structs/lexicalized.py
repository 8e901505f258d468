"""supar.structs.tree: lexicalised constituency trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .... import _check as check
from ....tree import _chart as charts
from ..._lazy import lazy_property, own_leaves, recording
from .dist import StructuredDistribution

NINF = float("-inf")


class BiLexicalizedConstituencyCRF(StructuredDistribution):
    """Binary constituency trees in which every constituent has a head word (Eisner and Satta 1999). ``scores``: of dependencies
    [B, N, N] (dependent, head; root 0) and of constituents [B, N, N] between fenceposts. Trees are pairs of heads [B, N] and
    constituents, as of ``DependencyCRF`` and ``ConstituencyCRF``; values have the constituents as booleans [B, N, N].

    There is no operator for it: span by span in torch, O(N^4). No ``kmax``, ``topk`` and ``sample``, no scores of heads.

    >>> import torch
    >>> crf = BiLexicalizedConstituencyCRF([torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)])
    >>> crf.log_partition.exp().round()  # 2 bracketings of 3 words, 4 ways to choose heads
    tensor([8.])
    """

    def __init__(self, scores: Sequence[Tensor], lens: Any = None) -> None:
        op = "BiLexicalizedConstituencyCRF"
        if len(scores) != 2:
            check.fail(NotImplementedError, op, "scores of dependencies and constituents", f"{len(scores)} tensors")
        for name, t in zip(("s_dep", "s_con"), scores, strict=True):
            check.dense(op, name, t)
            if t.dim() != 3 or t.shape[1] != t.shape[2] or t.shape != scores[0].shape:
                check.fail(ValueError, op, f"{name} of shape [B, N, N]", list(t.shape))
        dep = scores[0]
        self.lens = charts.checked_lengths(op, lens, dep, dep.shape[1] - 1, True)
        position = torch.arange(dep.shape[1], device=dep.device)
        inside = position <= self.lens[:, None]
        self.mask = inside[:, None] & inside[:, :, None] & (position[:, None] < position)
        self.scores, self.kwargs = (scores[0], scores[1]), {"lens": lens}
        torch.distributions.Distribution.__init__(self, dep.shape[:1], dep.shape[1:2], validate_args=False)

    def _inside(self, dep: Tensor, con: Tensor, add: Callable[[Tensor], Tensor]) -> Tensor:
        """``add`` sums over the last dimension."""
        N = dep.shape[1]
        span: dict[tuple[int, int], Tensor] = {}  # [B, j - i]: by head word
        hook: dict[tuple[int, int], Tensor] = {}  # [B, N - 1]: with the arc to a head outside
        total = torch.where(self.lens == 0, 0.0, NINF).to(con.dtype)
        arcs = dep[:, 1:, 1:]
        for w in range(1, N):
            for i in range(N - w):
                j = i + w
                if w == 1:
                    inner = torch.zeros_like(con[:, i, j : j + 1])
                else:
                    ways = [
                        torch.cat([span[i, k] + hook[k, j][:, i:k], hook[i, k][:, k:j] + span[k, j]], 1) for k in range(i + 1, j)
                    ]
                    inner = add(torch.stack(ways, -1))
                span[i, j] = inner + con[:, i, j, None]
                hook[i, j] = add((arcs[:, i:j] + span[i, j][..., None]).transpose(1, 2))
            total = torch.where(self.lens == w, add(span[0, w] + dep[:, 1 : w + 1, 0]), total)
        return total

    def _gradient(self, add: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        wanted = any(t.requires_grad for t in self.scores) and torch.is_grad_enabled()
        with recording():
            leaves = own_leaves(self.scores, wanted)
            total = self._inside(leaves[0], leaves[1], add)
            dep, con = torch.autograd.grad(total.sum(), leaves, create_graph=wanted, materialize_grads=True)
        return dep, con

    @lazy_property
    def log_partition(self) -> Tensor:
        return self._inside(self.scores[0], self.scores[1], charts._logsumexp)

    @lazy_property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Of dependencies and of constituents."""
        return self._gradient(charts._logsumexp)

    @lazy_property
    def max(self) -> Tensor:
        return self._inside(self.scores[0], self.scores[1], lambda t: t.max(-1)[0])

    @lazy_property
    def argmax(self) -> tuple[Tensor, list[list[list[int]]]]:
        dep, con = (t.detach() for t in self._gradient(lambda t: t.max(-1)[0]))
        brackets = [sorted(c.nonzero().tolist(), key=lambda x: (x[0], -x[1])) for c in con]
        return torch.where(dep.sum(-1) > 0, dep.argmax(-1), 0), brackets

    def _expected(self, other: BiLexicalizedConstituencyCRF) -> Tensor:
        pairs = zip(self.marginals, other.scores, strict=True)
        return sum((mu * torch.where(mu != 0, s, 0)).flatten(1).sum(1) for mu, s in pairs)  # type: ignore[return-value]

    @lazy_property
    def entropy(self) -> Tensor:  # type: ignore[override]
        return self.log_partition - self._expected(self)

    def cross_entropy(self, other: StructuredDistribution) -> Tensor:
        return other.log_partition - self._expected(other)  # type: ignore[arg-type]

    def kl(self, other: StructuredDistribution) -> Tensor:
        return self.cross_entropy(other) - self.entropy

    def score(self, value: tuple[Tensor, Tensor], partial: bool = False) -> Tensor:  # type: ignore[override]
        if partial:
            raise NotImplementedError("BiLexicalizedConstituencyCRF.score: partial annotation is not available")
        deps, cons = value
        s_dep, s_con = self.scores
        word = self.mask[:, 0]
        picked = s_dep.gather(-1, torch.where(word, deps, 0)[..., None]).squeeze(-1)
        return torch.where(word, picked, 0).sum(-1) + torch.where(self.mask & cons.bool(), s_con, 0).flatten(1).sum(-1)

    def _unavailable(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("BiLexicalizedConstituencyCRF: no k-best trees and no samples")

    kmax = topk = sample = _unavailable
