"""torch_struct's alignments: monotone paths through a grid, in any semiring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check as check
from .._lazy import lazy_property, own_leaves, recording
from .distributions import StructDistribution
from .semirings import (
    CrossEntropySemiring,
    EntropySemiring,
    KLDivergenceSemiring,
    KMaxSemiring,
    LogSemiring,
    MaxSemiring,
    SampledSemiring,
    Semiring,
    StdSemiring,
)
from .structs import Potentials, Struct, _sizes

DOWN, MID, UP = range(3)


class Alignment(Struct):
    """Monotone paths through a grid: potentials [b, N, M, 3] of arriving at (i, j) from (i, j - 1), from (i - 1, j - 1) and from
    (i - 1, j). Paths go from (0, 0), entered diagonally, to (length - 1, M - 1).

    ``local``: paths begin with any diagonal step and end anywhere. ``max_gap``: paths stay within so many cells of the diagonals
    of both ends. ``sparse_rounds`` is not needed and not used.
    """

    def __init__(
        self, semiring: type[Semiring] = LogSemiring, sparse_rounds: int = 3, max_gap: int | None = None, local: bool = False
    ) -> None:
        super().__init__(semiring, max_gap=max_gap, local=local)

    @staticmethod
    def _longest(potentials: Potentials) -> int:
        return (potentials[0] if isinstance(potentials, tuple) else potentials).shape[1]

    @staticmethod
    def _cut(potentials: Tensor, n: int) -> Tensor:
        return potentials[:, :n]

    def _inside(self, edge: Tensor) -> Tensor:
        s, local, gap = self.semiring, self.options["local"], self.options["max_gap"]
        N, M = edge.shape[2:4]
        low, high = (-M - N, M + N) if gap is None else (min(0, M - N) - gap, max(0, M - N) + gap)
        at: dict[tuple[int, int], Tensor] = {}
        for i in range(N):
            for j in range(M):
                if not low <= j - i <= high:
                    continue
                ways = [s.mul(at[i - di, j - dj], edge[:, :, i, j, step])
                        for di, dj, step in ((0, 1, DOWN), (1, 1, MID), (1, 0, UP)) if (i - di, j - dj) in at]  # fmt: skip
                if local or (i, j) == (0, 0):
                    ways.append(edge[:, :, i, j, MID])
                at[i, j] = s.sum(torch.stack(ways, -1))
        return s.sum(torch.stack(list(at.values()), -1)) if local else at[N - 1, M - 1]

    @staticmethod
    def _rand(min_n: int = 2) -> tuple[Tensor, tuple[int, int]]:
        b, N, M = _sizes((2, 4), (min_n, 4), (min_n, 4))
        return torch.rand(b, min(N, M), M, 3), (b, min(N, M))


class AlignmentCRF(StructDistribution):
    """Monotone alignments: ``log_potentials [B, N, M, 3]`` and conventions as in :class:`Alignment`; ``lengths [B]`` of the first
    dimension. There is no operator for them: every query is evaluated in torch, cell by cell.

    >>> import torch
    >>> from structops.compat.torch_struct import AlignmentCRF
    >>> AlignmentCRF(torch.zeros(1, 3, 3, 3)).count
    tensor([13.])
    """

    struct = Alignment

    def __init__(
        self,
        log_potentials: Tensor,
        local: bool = False,
        lengths: Any = None,
        max_gap: int | None = None,
        validate_args: bool = False,
    ) -> None:
        op = "AlignmentCRF"
        check.dense(op, "log_potentials", log_potentials)
        if log_potentials.dim() != 4 or log_potentials.shape[3] != 3 or not 0 < log_potentials.shape[1] <= log_potentials.shape[2]:
            check.fail(ValueError, op, "log_potentials of shape [B, N, M, 3], 1 <= N <= M", list(log_potentials.shape))
        check.flags(op, local=local)
        super().__init__(log_potentials, lengths, None)
        self._options: dict[str, Any] = {"local": local, "max_gap": max_gap}

    def _in(self, semiring: type[Semiring]) -> Alignment:
        return Alignment(semiring, **self._options)

    @lazy_property
    def partition(self) -> Tensor:
        return self._in(LogSemiring).sum(self.log_potentials, self.lengths)

    @lazy_property
    def marginals(self) -> Tensor:
        return self._in(LogSemiring).marginals(self.log_potentials, self.lengths)

    @lazy_property
    def max(self) -> Tensor:
        return self._in(MaxSemiring).sum(self.log_potentials, self.lengths)

    @lazy_property
    def argmax(self) -> Tensor:
        return self._in(MaxSemiring).marginals(self.log_potentials, self.lengths).detach()

    @lazy_property
    def entropy(self) -> Tensor:  # type: ignore[override]
        return self._in(EntropySemiring).sum(self.log_potentials, self.lengths)

    @lazy_property
    def count(self) -> Tensor:
        return self._in(StdSemiring).sum(torch.ones_like(self.log_potentials), self.lengths)

    def kmax(self, k: int) -> Tensor:
        return self._in(KMaxSemiring(k)).sum(self.log_potentials, self.lengths, _raw=True)

    def topk(self, k: int) -> Tensor:
        found: list[Tensor] = []
        with recording():
            (leaf,) = own_leaves([self.log_potentials], False)
            for v in self._in(KMaxSemiring(k))._evaluate(leaf, self.lengths):
                real = v.isfinite()  # there are that many
                some = bool(real.any())
                found += torch.autograd.grad(v[real].sum(), leaf, retain_graph=True) if some else [torch.zeros_like(leaf)]
        return torch.stack(found)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        draw = lambda: self._in(SampledSemiring)._gradient(self.log_potentials.detach(), self.lengths).detach()
        drawn = [draw() for _ in range(shape.numel())]
        event = self.log_potentials.shape
        return torch.stack(drawn).reshape(*shape, *event) if drawn else self.log_potentials.new_zeros(*shape, *event)

    def cross_entropy(self, other: StructDistribution) -> Tensor:
        return self._in(CrossEntropySemiring).sum((self.log_potentials, other.log_potentials), self.lengths)

    def kl(self, other: StructDistribution) -> Tensor:
        return self._in(KLDivergenceSemiring).sum((self.log_potentials, other.log_potentials), self.lengths)
