"""Probabilistic context-free grammars with rule scores: sums, expected counts, best parses and samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import _check as check
from . import _chart as charts
from . import _ops as ops
from . import _pcfg as kernels
from ._chart import NINF

__all__ = ["PCFG", "PCFGCounts"]


class PCFGCounts(NamedTuple):
    """Expected counts of a grammar's parts in the parse of each sentence, and the posteriors of its spans."""

    term: Tensor  # [B, N, T]
    rule: Tensor  # [B, NT, S, S]
    root: Tensor  # [B, NT]
    span: Tensor  # [B, N + 1, N + 1, NT]: (left, right, nonterminal), spans of two words and more; has no derivative


class PCFG(Distribution):
    """A distribution over the parses of each sentence by a context-free grammar in Chomsky normal form with preterminals.

    Args:
        term: ``[B, N, T]``: the score of every word under every preterminal. float32, float64, bfloat16 or float16 (computed in
            float32).
        rule: ``[NT, S, S]``, one grammar for all sentences, or ``[B, NT, S, S]``: the scores of A -> B C. Of the S = NT + T symbols
            the first NT are nonterminals, for spans of two words and more, the others preterminals, for single words.
        root: ``[NT]`` or ``[B, NT]``: the score of a nonterminal over the whole sentence.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N; None for N.
        validate_args: False takes lengths and the indices in values for granted.

    Scores need not be normalised: p(parse) = exp(score - log_partition). -inf forbids exactly. A sentence of no words has one
    parse, of score 0; one of a single word has none. A parse is int64 ``[B, 2N - 1, 3]``: rows (left, right, symbol) in
    pre-order, posts 0 <= left < right <= n, then rows of -1.

    log_partition is differentiable twice, counts, entropy, cross_entropy and kl_divergence once. Keeps the scores for backward.
    Deterministic. O(n^3 NT^2 + n^2 NT S^2) time, O(n^2 NT + NT S^2) memory for each sentence at work.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: Lari and Young 1990; Kim, Dyer and Rush 2019.

    >>> import torch, structops
    >>> grammar = structops.tree.PCFG(torch.zeros(1, 4, 1), torch.zeros(1, 2, 2), torch.zeros(1))
    >>> grammar.log_partition.exp().round()
    tensor([5.])
    """

    arg_constraints: dict = {}  # noqa: RUF012

    def __init__(self, term: Tensor, rule: Tensor, root: Tensor, lengths: Any = None, validate_args: bool | None = None) -> None:
        op = "PCFG"
        for name, t in (("term", term), ("rule", rule), ("root", root)):
            check.dense(op, name, t)
            if t.dtype != term.dtype:
                check.fail(TypeError, op, f"{name} of dtype {term.dtype}, as term", t.dtype)
        if term.dim() != 3 or term.shape[2] < 1:
            check.fail(ValueError, op, "term of shape [B, N, T], T at least 1", list(term.shape))
        B, N, T = term.shape
        NT = root.shape[-1] if root.dim() else 0
        if NT < 1 or tuple(root.shape) not in ((NT,), (B, NT)):
            check.fail(ValueError, op, f"root of shape [NT] or [{B}, NT], NT at least 1", list(root.shape))
        S = NT + T
        if tuple(rule.shape) not in ((NT, S, S), (B, NT, S, S)):
            check.fail(ValueError, op, f"rule of shape {[NT, S, S]} or {[B, NT, S, S]}", list(rule.shape))
        check.same_device(op, term=term, rule=rule, root=root)
        self.term = term
        self.rule = rule if rule.dim() == 4 else rule[None]
        self.root = root if root.dim() == 2 else root.expand(B, NT)
        self.lengths = charts.checked_lengths(op, lengths, term, N, validate_args is not False)
        self._check_values = validate_args is not False and not torch.compiler.is_compiling()
        super().__init__(torch.Size([B]), torch.Size((max(2 * N - 1, 0), 3)), validate_args=False)

    def __repr__(self) -> str:
        B, N, T = self.term.shape
        return f"PCFG(batch: {B}, words: {N}, nonterminals: {self.root.shape[1]}, preterminals: {T}, {check.describe(self.term)})"

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.term.contiguous(), self.rule.contiguous(), self.root.contiguous()

    # ---- sums ----

    @property
    def log_partition(self) -> Tensor:
        """Logarithm of the sum over parses of exp(score), [B]; -inf where there is none. Differentiable twice."""
        return kernels.pcfg_logz(*self._scores(), self.lengths)

    def _counts(self) -> tuple[Tensor, PCFGCounts]:
        logz, *counts = kernels.pcfg_marginals(*self._scores(), self.lengths, None)
        return logz, PCFGCounts(*counts)

    @property
    def counts(self) -> PCFGCounts:
        """Expected counts of terms, rules and roots, of each sentence, and the posteriors of labelled spans."""
        return self._counts()[1]

    @property
    def log_count(self) -> Tensor:
        """Logarithm of the number of parses whose score is above -inf, [B]."""
        zero = (torch.where(t.detach() == NINF, NINF, 0.0).to(t.dtype) for t in self._scores())
        return kernels.pcfg_logz(*zero, self.lengths)

    def _expected(self, counts: PCFGCounts, dtype: torch.dtype) -> Tensor:
        return charts.expected(list(counts[:3]), [self.term, self.rule, self.root], dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, [B]; -inf where there is no parse. Differentiable once."""
        logz, counts = self._counts()
        return logz - self._expected(counts, logz.dtype)

    def cross_entropy(self, other: PCFG) -> Tensor:
        """Expectation of ``-other.log_prob(parse)``, [B]; inf where other forbids what this allows. Differentiable once in both."""
        self._comparable("cross_entropy", other)
        _, counts = self._counts()
        logz = other.log_partition
        return logz - other._expected(counts, logz.dtype)

    def kl_divergence(self, other: PCFG) -> Tensor:
        """Kullback-Leibler divergence from this distribution to ``other``, [B]. Differentiable once in the scores of both."""
        self._comparable("kl_divergence", other)
        logz, counts = self._counts()
        return other.log_partition - other._expected(counts, logz.dtype) - (logz - self._expected(counts, logz.dtype))

    def _comparable(self, op: str, other: Any) -> None:
        if not isinstance(other, PCFG):
            check.fail(TypeError, op, "a PCFG", type(other).__name__)
        if other.term.shape != self.term.shape or other.root.shape != self.root.shape:
            check.fail(ValueError, op, f"terms of shape {list(self.term.shape)}", list(other.term.shape))
        if self._check_values and not ops.is_traced(self.lengths) and not torch.equal(self.lengths, other.lengths):
            check.fail(ValueError, op, "two distributions over the same lengths", "others")

    # ---- the score of given parses ----

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of parses ``[*, B, 2N - 1, 3]``, which are taken to be parses in pre-order, as [*, B]."""
        op = "PCFG.log_prob"
        value = charts.integers(op, "value", value, self.term)
        if value.dim() < 3 or tuple(value.shape[-3:]) != (self.term.shape[0], *self.event_shape):
            want = [self.term.shape[0], *self.event_shape]
            check.fail(ValueError, op, f"value of shape [*, {', '.join(map(str, want))}]", list(value.shape))
        if self._check_values:
            left, _, symbol = value.unbind(-1)
            there = left >= 0
            S = self.rule.shape[-1]
            charts.within(op, "symbols", symbol, there, 0, torch.full_like(symbol, S - 1))
            posts, both = value[..., :2], there[..., None].expand(*there.shape, 2)
            charts.within(op, "spans", posts, both, 0, self.lengths[:, None, None].expand_as(posts))
        score = self._score(value)
        forbidden = score == NINF
        return torch.where(forbidden, NINF, torch.where(forbidden, 0, score) - self.log_partition)

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of parses [*, B, M, 3] the flat positions in term [N, T], rule [NT, S, S] and root [NT]: [*, B, M] twice and [*, B, 1];
        -1 where a row has none."""
        T, NT, S, M = self.term.shape[2], self.root.shape[1], self.rule.shape[-1], value.shape[-2]
        left, right, symbol = value.unbind(-1)
        there = (left >= 0) & (right > left)
        inner = there & (right - left > 1)
        term = torch.where(there & ~inner, left * T + symbol - NT, -1)
        # In pre-order the left part follows its whole, and the right part the 2 w - 1 rows of a left part of w words.
        row = torch.arange(M, device=value.device)
        first = (row + 1).clamp(max=max(M - 1, 0)).expand_as(left)
        width = (right - left).gather(-1, first)
        second = (row + 2 * width).clamp(0, max(M - 1, 0))
        rule = (symbol * S + symbol.gather(-1, first)) * S + symbol.gather(-1, second)
        return term, torch.where(inner, rule, -1), torch.where(inner, symbol, -1)[..., :1]

    def _score(self, value: Tensor) -> Tensor:
        """Scores [*, B] of parses [*, B, M, 3]: rows of -1 count nothing."""
        B, dtype = self.term.shape[0], ops.accumulator(self.term)
        total: Tensor | float = 0.0
        for at, scores in zip(self._parts(value), (self.term, self.rule, self.root), strict=True):
            flat = scores.expand(B, *scores.shape[1:]).flatten(1)
            flat = flat if flat.shape[1] else flat.new_zeros(B, 1)
            picked = flat.expand(*at.shape[:-2], *flat.shape).gather(-1, at.clamp(min=0))
            total = total + torch.where(at >= 0, picked.to(dtype), 0).sum(-1)
        return total  # type: ignore[return-value]

    # ---- parses ----

    def _best(self) -> tuple[Tensor, Tensor]:
        return kernels.pcfg_best(*(t.detach() for t in self._scores()), self.lengths)

    @property
    def argmax(self) -> Tensor:
        """The best parse ``[B, 2N - 1, 3]``, -1 where there is none. Of equal parses always the same one."""
        return self._best()[1]

    @property
    def mode(self) -> Tensor:
        return self.argmax

    @property
    def max(self) -> Tensor:
        """The score of the best parse, [B]; -inf where there is none. Differentiable: the gradient is the parse."""
        value, tree = self._best()
        if torch.is_grad_enabled() and any(t.requires_grad for t in (self.term, self.rule, self.root)):
            value = torch.where(value.isfinite(), self._score(tree), value)
        return value

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Exact independent parses ``[*sample_shape, B, 2N - 1, 3]``; -1 where there is none. Not differentiable."""
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        size = (shape.numel(), self.term.shape[0], 2 * self.term.shape[1])
        uniform = torch.rand(size, dtype=torch.float64, device=self.term.device, generator=generator)
        tree = kernels.pcfg_sample(*(t.detach() for t in self._scores()), self.lengths, uniform)
        return tree.reshape(*shape, *tree.shape[1:])


@torch.distributions.register_kl(PCFG, PCFG)
def _kl(p: PCFG, q: PCFG) -> Tensor:
    return p.kl_divergence(q)
