"""supar.structs.vi: approximate marginals of second-order scores by a few rounds of mean field or belief propagation, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Iterative(nn.Module):
    """``forward(scores, mask, target=None)`` gives the marginals, or (mean loss of the masked entries, marginals) with a target."""

    def __init__(self, max_iter: int = 3) -> None:
        super().__init__()
        self.max_iter = max_iter

    def extra_repr(self) -> str:
        return f"max_iter={self.max_iter}"


def _third(N: int, device: torch.device) -> Tensor:
    """bool [N, N, N]: the last position is neither of the first two."""
    at = torch.arange(N, device=device)
    return (at != at[:, None])[:, None] & (at != at[:, None])[None]


def _nodes(mask: Tensor) -> Tensor:
    """bool [B, N, N, N] of a mask [B, N] of words: dependent, head and third word are in the sentence, and the third is another."""
    node = mask.clone()
    node[:, 0] = True
    return node[:, :, None, None] & node[:, None, :, None] & node[:, None, None] & _third(mask.shape[1], mask.device)


class _Heads(_Iterative):
    """Scores ``([B, N, N], [B, N, N, N])`` (dependent, head, sibling), mask [B, N] of words, target [B, N] heads."""

    def _logits(self, s_arc: Tensor, s_sib: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, scores, mask: Tensor, target: Tensor | None = None):
        s_arc, s_sib = scores
        logits = self._logits(s_arc, s_sib, mask)
        marginals = logits.softmax(-1)
        return marginals if target is None else (F.cross_entropy(logits[mask], target[mask]), marginals)


class DependencyMFVI(_Heads):
    """Mean field for heads (Wang and Tu 2020)."""

    def _logits(self, s_arc: Tensor, s_sib: Tensor, mask: Tensor) -> Tensor:
        s_sib = torch.where(_nodes(mask), s_sib, 0)
        q = s_arc
        for _ in range(self.max_iter):
            q = s_arc + torch.einsum("bsh,bdhs->bdh", q.softmax(-1), s_sib)
        return q


class DependencyLBP(_Heads):
    """Loopy belief propagation for heads (Smith and Eisner 2008)."""

    def _logits(self, s_arc: Tensor, s_sib: Tensor, mask: Tensor) -> Tensor:
        there = _nodes(mask)
        s_sib = s_sib.masked_fill(~there, torch.finfo(s_sib.dtype).min / 4)
        q, message = s_arc, torch.zeros_like(s_sib)  # of (dependent, head, sibling)
        for _ in range(self.max_iter):
            m = q.log_softmax(-1).unsqueeze(-1) - message
            message = torch.logaddexp(m.logsumexp(2, keepdim=True).expand_as(m), m + s_sib)
            message = message.transpose(1, 3).log_softmax(2)
            q = s_arc + torch.where(there, message, 0).sum(-1)
        return q


class _Edges(_Iterative):
    """Binary variables: mask and target [B, N, N]."""

    binary = True

    def _logits(self, *scores_and_mask: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, scores, mask: Tensor, target: Tensor | None = None):
        logits = self._logits(*scores, mask)
        if self.binary:
            marginals = logits.sigmoid()
            loss = None if target is None else F.binary_cross_entropy_with_logits(logits[mask], target[mask].to(logits.dtype))
        else:
            marginals = logits.softmax(-1)[..., 1]
            loss = None if target is None else F.cross_entropy(logits[mask], target[mask].long())
        return marginals if target is None else (loss, marginals)


class ConstituencyMFVI(_Edges):
    """Mean field for spans. Scores ``([B, N, N], [B, N, N, N])`` (left, right, third post)."""

    def _logits(self, s_span: Tensor, s_pair: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        s_pair = torch.where(mask.unsqueeze(-1) & _third(mask.shape[1], mask.device), s_pair, 0)
        q = s_span
        for _ in range(self.max_iter):
            q = s_span + torch.einsum("blk,blrk->blr", q.sigmoid(), s_pair)
        return q


def _pairs(mask: Tensor) -> Tensor:
    """bool [B, N, N, N] (dependent, head, third): two edges of one head, the third word another."""
    return mask.unsqueeze(-1) & mask.transpose(1, 2).unsqueeze(1) & _third(mask.shape[1], mask.device)


class SemanticDependencyMFVI(_Edges):
    """Mean field for dependency graphs (Wang, Huang and Tu 2019). Scores: edges [B, N, N] (dependent, head), and of (dependent,
    head, third) for siblings, co-parents and grandparents, each [B, N, N, N]."""

    def _logits(self, s_edge: Tensor, s_sib: Tensor, s_cop: Tensor, s_grd: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        there = _pairs(mask)
        s_sib, s_cop, s_grd = (torch.where(there, s, 0) for s in (s_sib, s_cop, s_grd))
        q = s_edge
        for _ in range(self.max_iter):
            p = q.sigmoid()
            q = s_edge + torch.einsum("bsh,bdhs->bdh", p, s_sib) + torch.einsum("bdc,bdhc->bdh", p, s_cop)
            q = q + torch.einsum("bgd,bdhg->bdh", p, s_grd)
        return q


class SemanticDependencyLBP(_Edges):
    """Belief propagation for dependency graphs; scores as of :class:`SemanticDependencyMFVI`."""

    binary = False

    def _logits(self, s_edge: Tensor, s_sib: Tensor, s_cop: Tensor, s_grd: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        there = _pairs(mask)
        own = torch.stack([torch.zeros_like(s_edge), s_edge])
        q = own
        seconds = (s_sib, s_cop, s_grd)
        messages = [torch.zeros(2, *s.shape, dtype=s.dtype, device=s.device) for s in seconds]  # of (dependent, head, third)
        for _ in range(self.max_iter):
            q = q.log_softmax(0)
            for t, s in enumerate(seconds):
                m = q.unsqueeze(-1) - messages[t]
                messages[t] = torch.stack([m.logsumexp(0), torch.logaddexp(m[0], m[1] + s)]).log_softmax(0)
            received = (messages[0] + messages[1] + messages[2]).transpose(2, 4)
            q = own + torch.where(there, received, 0).sum(-1)
        return q.movedim(0, -1)
