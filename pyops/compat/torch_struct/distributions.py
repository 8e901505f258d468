"""torch_struct.distributions: the distributions over trees, and what all distributions share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from ... import _check as check
from ...tree import DependencyCRF as _DependencyCRF
from ...tree import MatrixTreeCRF as _MatrixTreeCRF
from ...tree import SpanCRF as _SpanCRF
from .._lazy import lazy_property


class StructDistribution(Distribution):
    """A distribution in torch_struct's manner around one of :mod:`structops.tree`, ``_crf``. Properties are computed once."""

    arg_constraints: dict = {}  # noqa: RUF012
    _crf: Any

    def __init__(self, log_potentials: Tensor, lengths: Any, crf: Any, args: dict | None = None) -> None:
        self.log_potentials, self.lengths, self.args, self._crf = log_potentials, lengths, args or {}, crf
        super().__init__(log_potentials.shape[:1], log_potentials.shape[1:], validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({check.describe(self.log_potentials)})"

    # ---- layouts ----

    def _from_scores(self, t: Tensor) -> Tensor:
        """Numbers laid out as the scores of ``_crf``, in the layout of the potentials."""
        raise NotImplementedError

    def _event(self, tree: Tensor) -> Tensor:
        """Trees of ``_crf`` [*, B, ..] as one-hot events [*, B, ..] in the dtype of the potentials."""
        raise NotImplementedError

    @staticmethod
    def to_event(sequence: Tensor, extra: Any, lengths: Any = None) -> Tensor:
        """One-hot events, int64, of the compact representation."""
        raise NotImplementedError

    @staticmethod
    def from_event(event: Tensor) -> tuple[Tensor, Any]:
        """The compact representation of events, and the ``extra`` of :meth:`to_event`."""
        raise NotImplementedError

    # ---- queries ----

    @lazy_property
    def partition(self) -> Tensor:
        """The log-partition, [B]."""
        return self._crf.log_partition

    @lazy_property
    def marginals(self) -> Tensor:
        return self._from_scores(self._crf.marginals)

    @lazy_property
    def max(self) -> Tensor:
        return self._crf.max

    @lazy_property
    def argmax(self) -> Tensor:
        return self._event(self._crf.argmax)

    @lazy_property
    def mode(self) -> Tensor:
        return self.argmax

    @lazy_property
    def entropy(self) -> Tensor:  # type: ignore[override]
        return self._crf.entropy()

    @lazy_property
    def count(self) -> Tensor:
        """The number of structures, [B]."""
        return self._crf.log_count.exp().round()

    def kmax(self, k: int) -> Tensor:
        return self._crf.kbest(k)[0].t()

    def topk(self, k: int) -> Tensor:
        return self._event(self._crf.kbest(k)[1].transpose(0, 1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._event(self._crf.sample(sample_shape))

    def cross_entropy(self, other: StructDistribution) -> Tensor:
        return self._crf.cross_entropy(other._crf)

    def kl(self, other: StructDistribution) -> Tensor:
        """Computed in float64: a small divergence is the difference of large numbers."""
        mine, theirs = (d._again(d.log_potentials.double())._crf for d in (self, other))
        return mine.kl_divergence(theirs).to(self.partition.dtype)

    def _again(self, log_potentials: Tensor) -> StructDistribution:
        """The same distribution over other potentials."""
        return type(self)(log_potentials, self.lengths)  # type: ignore[call-arg]

    def log_prob(self, value: Tensor) -> Tensor:
        """``value``: one-hot events [*, B, ..]; [*, B]."""
        check.tensor(f"{type(self).__name__}.log_prob", "value", value)
        event = self.log_potentials.shape
        if value.shape[value.dim() - len(event) :] != event:
            check.fail(ValueError, f"{type(self).__name__}.log_prob", f"value of shape [*, {list(event)}]", list(value.shape))
        dtype = self.partition.dtype
        picked = torch.where(value != 0, self.log_potentials.to(dtype) * value.to(dtype), 0)
        total = picked.flatten(value.dim() - len(event) + 1).sum(-1)
        return torch.where(total == float("-inf"), total, total - self.partition)

    def gumbel_crf(self, temperature: float = 1.0) -> Tensor:
        """A sample of each sentence with the gradient of a relaxed one, straight through. By the recurrence, in torch."""
        from .semirings import GumbelCRFSemiring

        options = {"multiroot": self.multiroot} if hasattr(self, "multiroot") else {}
        return self.struct(GumbelCRFSemiring(temperature), **options)._gradient(self.log_potentials, self.lengths)  # type: ignore[attr-defined]


# ---- dependency trees ------------------------------------------------------------------------------------------------


def arcs_from_diagonal(t: Tensor) -> Tensor:
    """[B, head, child(, L)] over words, root scores on the diagonal, as [B, N + 1, N + 1(, L)] (dependent, head), root 0."""
    root = t.diagonal(dim1=1, dim2=2)
    root = root.movedim(-1, 1)
    arcs = torch.cat([root.unsqueeze(2), t.transpose(1, 2)], 2)
    return torch.cat([torch.zeros_like(arcs[:, :1]), arcs], 1)


def diagonal_from_arcs(arcs: Tensor) -> Tensor:
    """The inverse, of numbers that are 0 where a word would head itself."""
    words = arcs[:, 1:]
    root = torch.diag_embed(words[:, :, 0].movedim(1, -1), dim1=1, dim2=2)
    return words[:, :, 1:].transpose(1, 2) + root


class DependencyCRF(StructDistribution):
    """Projective dependency trees. ``log_potentials [B, N, N]`` (head, child) with root scores on the diagonal, or with
    labels ``[B, N, N, L]``; ``lengths [B]`` words.

    >>> import torch
    >>> from structops.compat.torch_struct import DependencyCRF
    >>> DependencyCRF(torch.zeros(1, 3, 3)).count, DependencyCRF(torch.zeros(1, 3, 3), multiroot=False).count
    (tensor([12.]), tensor([7.]))
    """

    _kind: type[_DependencyCRF] = _DependencyCRF

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Any = None,
        args: dict | None = None,
        multiroot: bool = True,
        validate_args: bool = False,
    ) -> None:
        op = type(self).__name__
        check.dense(op, "log_potentials", log_potentials)
        if log_potentials.dim() not in (3, 4) or log_potentials.shape[1] != log_potentials.shape[2]:
            check.fail(ValueError, op, "log_potentials of shape [B, N, N] or [B, N, N, L]", list(log_potentials.shape))
        self.multiroot = multiroot
        crf = self._kind(arcs_from_diagonal(log_potentials), lengths, multiroot=multiroot)
        super().__init__(log_potentials, lengths, crf, args)

    def _again(self, log_potentials: Tensor) -> StructDistribution:
        return type(self)(log_potentials, self.lengths, None, self.multiroot)

    def _from_scores(self, t: Tensor) -> Tensor:
        return diagonal_from_arcs(t)

    def _event(self, tree: Tensor) -> Tensor:
        heads, label = self._crf._split(tree)
        N = self._crf._chart.N
        arcs = F.one_hot(heads.clamp(min=0), N) * (heads >= 0)[..., None]
        if label is not None:
            arcs = arcs[..., None] * F.one_hot(label.clamp(min=0), self.log_potentials.shape[3])[..., None, :]
        lead = heads.shape[:-1]
        event = diagonal_from_arcs(arcs.reshape(-1, *arcs.shape[len(lead) :]))
        return event.reshape(*lead, *event.shape[1:]).to(self.log_potentials.dtype)

    @staticmethod
    def to_event(sequence: Tensor, extra: Any = None, lengths: Any = None) -> Tensor:
        """Heads [B, N] in 0..N, 0 the root, of words 1..N -> [B, N, N]."""
        N = sequence.shape[1]
        arcs = F.one_hot(sequence, N + 1)
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=sequence.device)
            arcs = arcs * (torch.arange(N, device=sequence.device) < lengths[:, None])[..., None]
        return diagonal_from_arcs(F.pad(arcs, (0, 0, 1, 0)))

    @staticmethod
    def from_event(event: Tensor) -> tuple[Tensor, None]:
        """[B, N, N] -> heads [B, N], 0 the root, and also 0 past the sentence."""
        if event.dim() == 4:
            event = event.sum(-1)
        arcs = arcs_from_diagonal(event)[:, 1:]
        arcs.diagonal(offset=1, dim1=1, dim2=2).zero_()
        return arcs.argmax(-1), None


class NonProjectiveDependencyCRF(DependencyCRF):
    """All dependency trees, projective or not, otherwise as :class:`DependencyCRF`; single-root by default.

    >>> import torch
    >>> from structops.compat.torch_struct import NonProjectiveDependencyCRF
    >>> NonProjectiveDependencyCRF(torch.zeros(1, 3, 3)).count
    tensor([9.])
    """

    _kind = _MatrixTreeCRF

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Any = None,
        args: dict | None = None,
        multiroot: bool = False,
        validate_args: bool = False,
    ) -> None:
        super().__init__(log_potentials, lengths, args, multiroot, validate_args)


def deptree_part(arc_scores: Tensor, multi_root: bool = False, lengths: Any = None, eps: float = 0.0) -> Tensor:
    """The log-partition of :class:`NonProjectiveDependencyCRF`, [B]. ``eps`` is not needed and not used."""
    return NonProjectiveDependencyCRF(arc_scores, lengths, None, multi_root).partition


def deptree_nonproj(arc_scores: Tensor, multi_root: bool = False, lengths: Any = None, eps: float = 0.0) -> Tensor:
    """The marginals of :class:`NonProjectiveDependencyCRF`, [B, N, N]. ``eps`` is not needed and not used."""
    return NonProjectiveDependencyCRF(arc_scores, lengths, None, multi_root).marginals


# ---- constituency trees ----------------------------------------------------------------------------------------------


class TreeCRF(StructDistribution):
    """Labelled binary trees without rules. ``log_potentials [B, N, N, NT]`` of inclusive spans i..j; ``lengths [B]`` words.

    >>> import torch
    >>> from structops.compat.torch_struct import TreeCRF
    >>> TreeCRF(torch.zeros(1, 4, 4, 1)).count
    tensor([5.])
    """

    def __init__(self, log_potentials: Tensor, lengths: Any = None, args: dict | None = None, validate_args: bool = False) -> None:
        op = "TreeCRF"
        check.dense(op, "log_potentials", log_potentials)
        if log_potentials.dim() != 4 or log_potentials.shape[1] != log_potentials.shape[2]:
            check.fail(ValueError, op, "log_potentials of shape [B, N, N, NT]", list(log_potentials.shape))
        super().__init__(log_potentials, lengths, _SpanCRF(F.pad(log_potentials, (0, 0, 1, 0, 0, 1)), lengths), args)

    def _from_scores(self, t: Tensor) -> Tensor:
        return t[:, :-1, 1:]

    def _event(self, tree: Tensor) -> Tensor:
        left, right, label = tree.unbind(-1)
        N, L = self.log_potentials.shape[1], self.log_potentials.shape[3]
        at = torch.where(left >= 0, (left * N + right - 1) * L + label, N * N * L)
        event = self.log_potentials.new_zeros(*at.shape[:-1], N * N * L + 1)
        return event.scatter(-1, at, 1.0)[..., :-1].reshape(*at.shape[:-1], N, N, L)

    @staticmethod
    def to_event(sequence: Tensor, extra: Any = None, lengths: Any = None) -> Tensor:
        """The compact representation is the event itself."""
        return sequence

    @staticmethod
    def from_event(event: Tensor) -> tuple[Tensor, None]:
        return event, None
