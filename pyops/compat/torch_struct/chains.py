"""torch_struct.distributions: chains."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _check as check
from ...tree import LinearChainCRF as _LinearChainCRF
from ...tree import SemiMarkovCRF as _SemiMarkovCRF
from .._lazy import lazy_property
from .distributions import StructDistribution


def _one_hot(index: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """1 at the flat positions index [*, M] of a zero tensor [*, shape]; -1 is left out."""
    size = 1
    for s in shape:
        size *= s
    out = torch.zeros(*index.shape[:-1], size + 1, dtype=dtype, device=index.device)
    return out.scatter(-1, torch.where(index < 0, size, index), 1)[..., :-1].reshape(*index.shape[:-1], *shape)


class LinearChainCRF(StructDistribution):
    """Chains of N tags. ``log_potentials [B, N - 1, C, C]`` at [n, tag at n + 1, tag at n]; ``lengths [B]`` positions.

    >>> import torch
    >>> from structops.compat.torch_struct import LinearChainCRF
    >>> LinearChainCRF(torch.zeros(1, 2, 3, 3)).count
    tensor([27.])
    """

    def __init__(self, log_potentials: Tensor, lengths: Any = None, args: dict | None = None, validate_args: bool = False) -> None:
        op = type(self).__name__
        check.dense(op, "log_potentials", log_potentials)
        if log_potentials.dim() != 4 or log_potentials.shape[2] != log_potentials.shape[3]:
            check.fail(ValueError, op, "log_potentials of shape [B, N - 1, C, C]", list(log_potentials.shape))
        B, borders, C, _ = log_potentials.shape
        nothing = log_potentials.new_zeros(B, borders + 1, C)
        crf = _LinearChainCRF(nothing, log_potentials.transpose(2, 3), lengths=lengths)
        super().__init__(log_potentials, lengths, crf, args)

    def _again(self, log_potentials: Tensor) -> StructDistribution:
        return LinearChainCRF(log_potentials, self.lengths)

    @lazy_property
    def marginals(self) -> Tensor:
        return self._crf.transition_marginals.transpose(2, 3)

    def _event(self, tree: Tensor) -> Tensor:
        return _tags_to_event(tree, self.log_potentials.shape[2], self.log_potentials.dtype)

    @staticmethod
    def to_event(sequence: Tensor, extra: int, lengths: Any = None) -> Tensor:
        """Tags [B, N] of ``extra`` classes -> [B, N - 1, C, C]."""
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=sequence.device)
            sequence = torch.where(torch.arange(sequence.shape[1], device=sequence.device) < lengths[:, None], sequence, -1)
        return _tags_to_event(sequence, extra, torch.int64)

    @staticmethod
    def from_event(event: Tensor) -> tuple[Tensor, int]:
        """[B, N - 1, C, C] -> tags [B, N], 0 past the sentence, and C."""
        first = event[:, :1].sum(2).argmax(-1)
        return torch.cat([first, event.sum(3).argmax(-1)], 1), event.shape[2]


def _tags_to_event(tags: Tensor, C: int, dtype: torch.dtype) -> Tensor:
    source, target = tags[..., :-1], tags[..., 1:]
    at = torch.where((source >= 0) & (target >= 0), target * C + source, -1)
    return _one_hot(at[..., None], (C, C), dtype)


class HMM(LinearChainCRF):
    """A hidden Markov model: ``transition [C, C]`` at [to, from], ``emission [V, C]``, ``init [C]``, ``observations [B, N]``."""

    def __init__(
        self,
        transition: Tensor,
        emission: Tensor,
        init: Tensor,
        observations: Tensor,
        lengths: Any = None,
        args: dict | None = None,
        validate_args: bool = False,
    ) -> None:
        seen = emission[observations]
        scores = transition + seen[:, 1:, :, None]
        first = (init + seen[:, 0])[:, None, None, :]
        super().__init__(torch.cat([scores[:, :1] + first, scores[:, 1:]], 1), lengths, args)


class SemiMarkovCRF(StructDistribution):
    """Chains of segments. ``log_potentials [B, N - 1, K, C, C]`` at [n, k, tag at n + k, tag at n], k < K; ``lengths [B]`` nodes.

    The compact representation is int64 [B, N], the tag of each node and -1 between nodes.
    """

    def __init__(self, log_potentials: Tensor, lengths: Any = None, args: dict | None = None, validate_args: bool = False) -> None:
        op = type(self).__name__
        check.dense(op, "log_potentials", log_potentials)
        shape = log_potentials.shape
        if log_potentials.dim() != 5 or shape[3] != shape[4] or shape[2] < 2:
            check.fail(ValueError, op, "log_potentials of shape [B, N - 1, K, C, C], K at least 2", list(shape))
        # A segment of the operator ends at its node: from a node at n one of k positions begins at n + 1.
        crf = _SemiMarkovCRF(transitions=log_potentials[:, :, 1:].transpose(3, 4), lengths=lengths)
        super().__init__(log_potentials, lengths, crf, args)

    @lazy_property
    def marginals(self) -> Tensor:
        return F.pad(self._crf._marginals().trans.transpose(3, 4), (0, 0, 0, 0, 1, 0))

    def _event(self, tree: Tensor) -> Tensor:
        _, borders, K, C, _ = self.log_potentials.shape
        position = torch.arange(borders + 1, device=tree.device)
        lengths = self._crf.lengths[:, None]
        begins = (tree >= 0) & (position < lengths)
        ahead = torch.where(begins, position, lengths).flip(-1).cummin(-1).values.flip(-1)
        following = torch.cat([ahead[..., 1:], lengths.expand_as(ahead[..., :1])], -1).minimum(lengths)
        previous = torch.where(begins, position, 0).cummax(-1).values[..., :-1]
        source = tree.gather(-1, previous)
        k = (following - position)[..., 1:]
        at = torch.where(begins[..., 1:], (k * C + tree[..., 1:]) * C + source, -1)
        return _one_hot(at[..., None], (K, C, C), self.log_potentials.dtype)

    @staticmethod
    def to_event(sequence: Tensor, extra: tuple[int, int], lengths: Any = None) -> Tensor:
        """Nodes [B, N] with ``extra = (C, K)`` -> [B, N - 1, K, C, C]. The first and the last position are nodes."""
        C, K = extra
        N = sequence.shape[1]
        position = torch.arange(N, device=sequence.device)
        if lengths is not None:
            sequence = torch.where(position < torch.as_tensor(lengths, device=sequence.device)[:, None], sequence, -1)
        node = sequence >= 0
        ahead = torch.where(node, position, N).flip(-1).cummin(-1).values.flip(-1)[:, 1:]
        target = sequence.gather(1, ahead.clamp(max=N - 1))
        k = ahead - position[:-1]
        at = torch.where(node[:, :-1] & (ahead < N), (k * C + target) * C + sequence[:, :-1], -1)
        return _one_hot(at[..., None], (K, C, C), torch.int64)

    @staticmethod
    def from_event(event: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """[B, N - 1, K, C, C] -> nodes [B, N], -1 between and past them, and (C, K)."""
        B, borders, K, C, _ = event.shape
        sequence = torch.full((B, borders + 1), -1, dtype=torch.int64, device=event.device)
        b, n, k, target, source = event.nonzero().unbind(1)
        sequence[b, n] = source
        sequence[b, n + k] = target
        return sequence, (C, K)
