"""torch_struct.distributions: grammars with rule scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ... import _check as check
from ...tree import PCFG
from .distributions import StructDistribution

Parts = tuple[Tensor, Tensor, Tensor]


class SentCFG(StructDistribution):
    """Parses by a grammar: ``log_potentials`` (terms [B, N, T], rules [B, NT, S, S], roots [B, NT]), S = NT + T; ``lengths [B]``.

    Events and ``marginals`` are three tensors of these shapes: how often each part is used, rules over all spans together (there:
    a rule tensor for every span).

    >>> import torch
    >>> from structops.compat.torch_struct import SentCFG
    >>> SentCFG((torch.zeros(1, 4, 1), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1))).count
    tensor([5.])
    """

    _crf: PCFG

    def __init__(self, log_potentials: Parts, lengths: Any = None, args: dict | None = None, validate_args: bool = False) -> None:
        if not isinstance(log_potentials, (tuple, list)) or len(log_potentials) != 3:
            check.fail(TypeError, "SentCFG", "log_potentials (terms, rules, roots)", type(log_potentials).__name__)
        self.log_potentials, self.lengths, self.args = tuple(log_potentials), lengths, args or {}  # type: ignore[assignment]
        self._crf = PCFG(*log_potentials, lengths)
        Distribution.__init__(self, self._crf.term.shape[:1], self._crf.term.shape[1:], validate_args=False)

    def __repr__(self) -> str:
        return f"SentCFG({self._crf!r})"

    @property
    def marginals(self) -> Parts:  # type: ignore[override]
        return tuple(self._crf.counts[:3])  # type: ignore[return-value]

    def _event(self, tree: Tensor) -> Parts:  # type: ignore[override]
        crf, lead = self._crf, tree.shape[:-2]
        shapes = (crf.term.shape[1:], crf.rule.shape[1:], crf.root.shape[1:])
        events = []
        for at, shape in zip(crf._parts(tree)[:3], shapes, strict=True):
            size = shape.numel()
            used = torch.zeros(*lead, size + 1, dtype=crf.term.dtype, device=tree.device)
            used = used.scatter_add(-1, torch.where(at < 0, size, at), torch.ones_like(at, dtype=used.dtype))
            events.append(used[..., :-1].reshape(*lead, *shape))
        return tuple(events)  # type: ignore[return-value]

    def log_prob(self, value: Parts) -> Tensor:  # type: ignore[override]
        """``value``: events (terms, rules, roots) with leading dimensions [*, B]; [*, B]."""
        dtype = self.partition.dtype
        total: Any = 0
        for used, scores in zip(value, (self._crf.term, self._crf.rule, self._crf.root), strict=True):
            picked = torch.where(used != 0, scores.to(dtype) * used.to(dtype), 0)
            total = total + picked.flatten(used.dim() - scores.dim() + 1).sum(-1)
        return torch.where(total == float("-inf"), total, total - self.partition)

    def kl(self, other: SentCFG) -> Tensor:  # type: ignore[override]
        """Computed in float64: a small divergence is the difference of large numbers."""

        def doubled(d: SentCFG) -> PCFG:
            terms, rules, roots = (t.double() for t in d.log_potentials)
            return PCFG(terms, rules, roots, d.lengths)

        return doubled(self).kl_divergence(doubled(other)).to(self.partition.dtype)

    def gumbel_crf(self, temperature: float = 1.0) -> Tensor:
        raise NotImplementedError("SentCFG.gumbel_crf: relaxed samples are not available; sample() draws exact ones")
