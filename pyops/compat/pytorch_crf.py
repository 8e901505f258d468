"""The module of pytorch-crf 0.7.2 on the chain operators: ``from structops.compat.pytorch_crf import CRF``.

The same constructor, parameters, state dict, checks and results; a mask must be a prefix of every sentence, which
pytorch-crf takes for granted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..tree.chain import LinearChainCRF

__all__ = ["CRF"]


class CRF(nn.Module):
    """A linear-chain conditional random field with learned transitions.

    Args:
        num_tags: T.
        batch_first: emissions are ``[B, N, T]``, not ``[N, B, T]``; tags and masks likewise.

    Parameters ``start_transitions [T]``, ``end_transitions [T]`` and ``transitions [T, T]`` (source, destination), drawn from
    [-0.1, 0.1].

    >>> import torch
    >>> from structops.compat.pytorch_crf import CRF
    >>> crf = CRF(3, batch_first=True)
    >>> [len(path) for path in crf.decode(torch.zeros(2, 4, 3))]
    [4, 4]
    """

    def __init__(self, num_tags: int, batch_first: bool = False) -> None:
        if num_tags <= 0:
            raise ValueError(f"invalid number of tags: {num_tags}")
        super().__init__()
        self.num_tags, self.batch_first = num_tags, batch_first
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters again."""
        for p in (self.start_transitions, self.end_transitions, self.transitions):
            nn.init.uniform_(p, -0.1, 0.1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_tags={self.num_tags})"

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        """Log-likelihood of tags ``[N, B]``: [B] with reduction none, else its sum, mean, or token_mean (over the mask).

        Tags outside the mask are not looked at; IndexError for one within it that is no tag.
        """
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        crf = self._distribution(emissions, tags, mask)
        llh = crf.log_prob(tags if self.batch_first else tags.transpose(0, 1))
        if reduction == "none":
            return llh
        if reduction == "sum":
            return llh.sum()
        return llh.mean() if reduction == "mean" else llh.sum() / crf.lengths.sum().to(llh.dtype)

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """The best tags of each sentence."""
        with torch.no_grad():
            crf = self._distribution(emissions, None, mask)
            return [path[:n] for path, n in zip(crf.argmax.tolist(), crf.lengths.tolist(), strict=True)]

    def _distribution(self, emissions: Tensor, tags: Tensor | None, mask: Tensor | None) -> LinearChainCRF:
        if emissions.dim() != 3:
            raise ValueError(f"emissions must have dimension of 3, got {emissions.dim()}")
        if emissions.size(2) != self.num_tags:
            raise ValueError(f"expected last dimension of emissions is {self.num_tags}, got {emissions.size(2)}")
        for name, t in (("tags", tags), ("mask", mask)):
            if t is not None and emissions.shape[:2] != t.shape:
                sizes = f"got {tuple(emissions.shape[:2])} and {tuple(t.shape)}"
                raise ValueError(f"the first two dimensions of emissions and {name} must match, {sizes}")
        if not self.batch_first:
            emissions = emissions.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        lengths = None
        if mask is not None:
            mask = mask.bool()
            lengths = mask.sum(1)
            if not bool(mask[:, 0].all()):
                raise ValueError("mask of the first timestep must all be on")
            if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
                raise ValueError("mask must be a prefix of every sentence: lengths, without holes")
        parameters = self.transitions, self.start_transitions, self.end_transitions
        return LinearChainCRF(emissions, *parameters, lengths, validate_args=None if tags is not None else False)
