"""What distributions over chains of tags have in common: checks, sums, the score of given paths, the best paths, samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import _check as check
from .._dispatch import is_eager
from . import _chain as ops

NINF = float("-inf")


class Scores(NamedTuple):
    """The scores as the operators take them (csrc/tree/chain.h)."""

    emit: Tensor
    segment: Tensor | None
    duration: Tensor | None
    trans: Tensor | None
    start: Tensor | None
    end: Tensor | None


def _traced(t: Tensor) -> bool:
    return not is_eager() or type(t) is not Tensor


def _lengths(op: str, lengths: Any, B: int, N: int, like: Tensor, validate: bool) -> Tensor:
    if lengths is None:
        return torch.full((B,), N, dtype=torch.int64, device=like.device)
    if isinstance(lengths, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in lengths):
        lengths = torch.tensor(lengths, dtype=torch.int64, device=like.device)
    check.index(op, "lengths", lengths, like)
    if tuple(lengths.shape) != (B,):
        check.fail(ValueError, op, f"lengths of shape [{B}]", list(lengths.shape))
    lengths = lengths.long().contiguous()
    if validate and B and not _traced(lengths):
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > N:
            check.fail(ValueError, op, f"lengths between 0 and {N}", low if low < 0 else high)
    return lengths


class ChainDistribution(Distribution):
    """What linear chains and semi-Markov chains share. Nothing is cached and the tensors given are never changed."""

    arg_constraints: dict = {}  # noqa: RUF012

    def __init__(self, given: dict[str, Any], names: tuple[str, ...], lengths: Any, validate_args: bool | None) -> None:
        op = type(self).__name__
        # Not torch's global default: torch.compile switches that off for the whole process.
        self._check_values = validate_args is not False and not torch.compiler.is_compiling()
        tensors = {k: check.dense(op, k, t) for k, t in given.items() if t is not None}
        check.same_device(op, **tensors)
        dtype = next(iter(tensors.values())).dtype
        for t in tensors.values():
            dtype = torch.promote_types(dtype, t.dtype)
        self._names = names
        found = [None if given[k] is None else given[k].to(dtype).contiguous() for k in names]
        self._scores = Scores(*found)
        self._check_shapes(op)
        B, N, _ = self._scores.emit.shape
        self._lengths = _lengths(op, lengths, B, N, self._scores.emit, self._check_values)
        super().__init__(torch.Size([B]), torch.Size([N]), validate_args=False)

    def _check_shapes(self, op: str) -> None:
        s = self._scores
        if s.emit.dim() != 3 or s.emit.shape[2] < 1:
            check.fail(ValueError, op, f"{self._names[0]} of shape [B, N, T], T at least 1", list(s.emit.shape))
        B, N, T = s.emit.shape
        K, borders = self._longest, max(N - 1, 0)
        shapes: dict[int, list[tuple[int, ...]]] = {1: [(B, N, K, T)], 2: [(K, T)], 4: [(T,)], 5: [(T,)]}
        shapes[3] = [(T, T), (B, T, T), (B, borders, T, T)] + ([(B, borders, K, T, T)] if self._segmented else [])
        for i, allowed in shapes.items():
            t = s[i]
            if t is not None and (tuple(t.shape) not in allowed or K < 1):
                expected = " or ".join(str(list(a)) for a in allowed)
                check.fail(ValueError, op, f"{self._names[i]} of shape {expected}", list(t.shape))

    _segmented = False

    @property
    def _longest(self) -> int:
        """K: the most positions of a segment."""
        s = self._scores
        if s.segment is not None:
            return s.segment.shape[2] if s.segment.dim() == 4 else 1
        if s.duration is not None:
            return s.duration.shape[0] if s.duration.dim() == 2 else 1
        return s.trans.shape[2] if self._segmented and s.trans is not None and s.trans.dim() == 5 else 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({check.describe(self._scores.emit)})"

    @property
    def lengths(self) -> Tensor:
        """Positions of each sentence, int64 [B]."""
        return self._lengths

    # ---- sums ----

    @property
    def log_partition(self) -> Tensor:
        """Logarithm of the sum over paths of exp(score), [B]; -inf where every path is forbidden. Differentiable twice."""
        return ops.chain_logz(*self._scores, self._lengths)

    def _marginals(self, scores: Scores | None = None) -> Scores:
        return Scores(*ops.chain_marginals(*(scores or self._scores), self._lengths, None)[1:])

    @property
    def log_count(self) -> Tensor:
        """Logarithm of the number of paths whose score is above -inf, [B]."""
        zero = (None if t is None else torch.where(t.detach() == NINF, NINF, 0.0).to(t.dtype) for t in self._scores)
        return ops.chain_logz(*zero, self._lengths)

    def _expected(self, mine: Scores, of: Scores) -> Tensor:
        """Expectation of the score ``of`` the other under this distribution, [B]."""
        return ops.chain_hvp(*mine, self._lengths, None, *of)[0]

    def entropy(self) -> Tensor:
        """Entropy in nats, [B]; -inf where every path is forbidden. Differentiable once."""
        return self.log_partition - self._expected(self._scores, self._scores)

    def cross_entropy(self, other: ChainDistribution) -> Tensor:
        """Expectation under this distribution of ``-other.log_prob(path)``, [B]; inf where other forbids what this allows.

        Differentiable once in the scores of both.
        """
        mine, theirs = self._comparable("cross_entropy", other)
        return other.log_partition - self._expected(mine, theirs)

    def kl_divergence(self, other: ChainDistribution) -> Tensor:
        """Kullback-Leibler divergence from this distribution to ``other``, [B]. Differentiable once in the scores of both."""
        return self.cross_entropy(other) - self.entropy()

    def _comparable(self, op: str, other: Any) -> tuple[Scores, Scores]:
        """The scores of both, each with the factors that either has, in the same shapes."""
        if type(other) is not type(self):
            check.fail(TypeError, op, f"a {type(self).__name__}", type(other).__name__)
        p, q = self._scores, other._scores
        if p.emit.shape != q.emit.shape or self._longest != other._longest:
            expected = f"scores of {list(p.emit.shape)}, segments up to {self._longest}"
            check.fail(ValueError, op, expected, f"{list(q.emit.shape)}, {other._longest}")
        check.same_device(op, self=p.emit, other=q.emit)
        if self._check_values and not _traced(self._lengths) and not torch.equal(self._lengths, other._lengths):
            check.fail(ValueError, op, "two distributions over the same lengths", "others")
        if (p.trans is not None and p.trans.dim() == 5) != (q.trans is not None and q.trans.dim() == 5):
            check.fail(ValueError, op, "both or neither with transitions of whole segments", "one of them")
        dtype = torch.promote_types(p.emit.dtype, q.emit.dtype)
        rank = max((t.dim() for t in (p.trans, q.trans) if t is not None), default=0)
        mine, theirs = list(p), list(q)
        for i, (a, b) in enumerate(zip(p, q, strict=True)):
            if a is None and b is None:
                continue
            if i == 3:
                a, b = (None if t is None else self._with_rank(t, rank) for t in (a, b))
            mine[i] = (torch.zeros_like(b) if a is None else a).to(dtype)
            theirs[i] = (torch.zeros_like(a) if b is None else b).to(dtype)
        return Scores(*mine), Scores(*theirs)

    def _with_rank(self, trans: Tensor, rank: int) -> Tensor:
        B, N, T = self._scores.emit.shape
        if trans.dim() == rank:
            return trans
        wide = trans[:, None] if trans.dim() == 3 else trans
        return wide.expand((B, T, T) if rank == 3 else (B, max(N - 1, 0), T, T)).contiguous()

    # ---- the score of given paths ----

    def log_prob(self, value: Tensor, partial: bool = False) -> Tensor:
        """Log-probability of paths int64 ``[*, B, N]`` as [*, B]; positions past the sentence are ignored.

        ``partial``: of the set of paths that agree with an annotation of the tags of positions, -1 meaning not annotated: no
        annotation gives 0. -inf where the path, or every path that agrees, is forbidden. Differentiable twice.
        """
        op = f"{type(self).__name__}.log_prob"
        check.flags(op, partial=partial)
        value = self._checked(op, value, partial)
        total = self._constrained(value) if partial else self._score(value)
        forbidden = total == NINF
        return torch.where(forbidden, NINF, torch.where(forbidden, 0, total) - self.log_partition)

    def _checked(self, op: str, value: Any, partial: bool) -> Tensor:
        check.index(op, "value", value, self._scores.emit)
        B, N, T = self._scores.emit.shape
        if value.dim() < 2 or tuple(value.shape[-2:]) != (B, N):
            check.fail(ValueError, op, f"value of shape [*, {B}, {N}]", list(value.shape))
        value = value.long()
        if self._check_values and not _traced(value):
            low = -1 if partial or self._segmented else 0
            if bool((self._valid & ((value < low) | (value >= T))).any()):
                check.fail(IndexError, op, f"tags between {low} and {T - 1}", f"{int(value.min())} to {int(value.max())}")
            if self._segmented and not partial and N and bool(((value[..., 0] < 0) & (self._lengths > 0)).any()):
                check.fail(ValueError, op, "a tag at the first position of every path", -1)
        return value

    @property
    def _valid(self) -> Tensor:
        return torch.arange(self._scores.emit.shape[1], device=self._lengths.device) < self._lengths[:, None]

    def _constrained(self, value: Tensor) -> Tensor:
        """The log-partition of the paths that agree with an annotation."""
        B, N, T = self._scores.emit.shape
        S = math.prod(value.shape[:-2])
        free = (value < 0)[..., None] | (value[..., None] == torch.arange(T, device=value.device))
        emit = torch.where(free, self._scores.emit, NINF).reshape(S * B, N, T)
        rest = []
        for i, t in enumerate(self._scores[1:], 1):
            if t is not None and (i == 1 or (i == 3 and t.dim() > 2)):
                t = t.expand(S, *t.shape).reshape(S * B, *t.shape[1:]).contiguous()
            rest.append(t)
        return ops.chain_logz(emit.contiguous(), *rest, self._lengths.repeat(S)).reshape(value.shape[:-1])

    def _score(self, value: Tensor) -> Tensor:
        """Scores of paths [*, B, N] as [*, B]."""
        s, valid = self._scores, self._valid
        B, N, _ = s.emit.shape
        dtype = torch.promote_types(s.emit.dtype, torch.float32)
        total = torch.zeros(value.shape[:-1], dtype=dtype, device=value.device)
        if N == 0 or B == 0:
            return total
        position, sentence = torch.arange(N, device=value.device), torch.arange(B, device=value.device)[:, None]
        add = lambda picked, where: total + torch.where(where, picked.to(dtype), 0).sum(-1)
        begins = (value >= 0) & valid
        tag = torch.where(valid, value, 0).clamp(min=0)
        if self._segmented:  # the tag that covers each position, and the length of the segment that begins there
            tag = tag.gather(-1, torch.where(begins, position, 0).cummax(-1).values)
            after = torch.where(begins, position, self._lengths[:, None])
            following = after.flip(-1).cummin(-1).values.flip(-1)
            following = torch.cat([following[..., 1:], self._lengths[:, None].expand_as(following[..., :1])], -1)
            d = torch.where(begins, torch.minimum(following, self._lengths[:, None]) - position, 1)
            too_long = (d > self._longest) | ((d > 1) & (position == 0) & (s.trans is not None and s.trans.dim() == 5))
            total = total.masked_fill(too_long.any(-1), NINF)
            d = d.clamp(1, self._longest) - 1
            if s.segment is not None:
                total = add(s.segment[sentence, position, d, tag], begins)
            if s.duration is not None:
                total = add(s.duration[d, tag], begins)
        total = add(s.emit.expand(*tag.shape, -1).gather(-1, tag[..., None])[..., 0], valid)
        if s.trans is not None and N > 1:
            before, after, where = tag[..., :-1], tag[..., 1:], begins[..., 1:]
            where_from = {2: (), 3: (sentence,), 4: (sentence, position[:-1])}.get(s.trans.dim())
            if where_from is None:
                where_from = (sentence, position[:-1], d[..., 1:])
            if s.trans.dim() == 2 and not s.trans.is_cuda:  # the backward of indexing sorts, that of index_select adds up
                picked = s.trans.reshape(-1).index_select(0, (before * s.trans.shape[1] + after).reshape(-1)).reshape(before.shape)
            else:
                picked = s.trans[(*where_from, before, after)]
            total = add(picked, where)
        some = self._lengths > 0
        if s.start is not None:
            total = total + torch.where(some, s.start[tag[..., 0]].to(dtype), 0)
        if s.end is not None:
            last = tag.gather(-1, (self._lengths - 1).clamp(min=0).expand(tag.shape[:-1])[..., None])[..., 0]
            total = total + torch.where(some, s.end[last].to(dtype), 0)
        return total

    # ---- paths ----

    def _detached(self) -> Scores:
        return Scores(*(None if t is None else t.detach() for t in self._scores))

    def _best(self, k: int) -> tuple[Tensor, Tensor]:
        return ops.chain_best(*self._detached(), self._lengths, k)

    @property
    def argmax(self) -> Tensor:
        """The best path, int64 [B, N]; -1 past the sentence and where there is none. Of equal paths always the same one."""
        return self._best(1)[1][:, 0]

    @property
    def mode(self) -> Tensor:
        return self.argmax

    @property
    def max(self) -> Tensor:
        """The score of the best path, [B]; -inf where there is none. Differentiable: the gradient is the path."""
        return self.kbest(1)[0][:, 0]

    def kbest(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores [B, k], descending, and paths [B, k, N] of the k best paths; -inf and -1 where there are fewer.

        The scores are differentiable.
        """
        op = f"{type(self).__name__}.kbest"
        k = check.size(op, "k", k)
        if k == 0:
            check.fail(ValueError, op, "k >= 1", 0)
        value, path = self._best(k)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in self._scores):
            again = self._score(path.transpose(0, 1)).transpose(0, 1)
            value = torch.where(value.isfinite(), again, value)
        return value, path

    def _max_marginals(self) -> Tensor:
        return ops.chain_max_marginals(*self._detached(), self._lengths)

    def topk(self, k: int) -> Tensor:
        """The k best paths, [B, k, N], as in :meth:`kbest`."""
        return self.kbest(k)[1]

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Exact independent paths int64 ``[*sample_shape, B, N]``; -1 where there is none. Not differentiable."""
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        B, N, _ = self._scores.emit.shape
        size = (shape.numel(), B, N if self._longest == 1 else 2 * N)
        uniform = torch.rand(size, dtype=torch.float64, device=self._lengths.device, generator=generator)
        path = ops.chain_sample(*self._detached(), self._lengths, uniform)
        return path.reshape(*shape, B, N)


@torch.distributions.register_kl(ChainDistribution, ChainDistribution)
def _kl(p: ChainDistribution, q: ChainDistribution) -> Tensor:
    return p.kl_divergence(q)
