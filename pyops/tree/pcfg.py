"""Probabilistic context-free grammars with rule scores: sums, expected counts, best parses, max-marginals and samples."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import _autocast as autocast
from .. import _check as check
from . import _chart as charts
from . import _ops as ops
from . import _pcfg as kernels
from ._chart import NINF
from .span import _crossed

__all__ = ["PCFG", "PCFGCounts"]


class PCFGCounts(NamedTuple):
    """A number for each part of a grammar and for each span: expected counts and posteriors, or max-marginals."""

    term: Tensor  # [B, N, T]
    rule: Tensor  # [B, NT, S, S]
    root: Tensor  # [B, NT]
    span: Tensor  # [B, N + 1, N + 1, NT]: (left, right, nonterminal), spans of two words and more


class PCFG(Distribution):
    """A distribution over the parses of each sentence by a context-free grammar in Chomsky normal form with preterminals.

    Args:
        term: ``[B, N, T]``: the score of every word under every preterminal. float32, float64, bfloat16 or float16 (computed in
            float32).
        rule: ``[NT, S, S]``, one grammar for all sentences, or ``[B, NT, S, S]``: the scores of A -> B C. Of the S = NT + T symbols
            the first NT are nonterminals, for spans of two words and more, the others preterminals, for single words.
        root: ``[NT]`` or ``[B, NT]``: the score of a nonterminal over the whole sentence.
        span: ``[B, N + 1, N + 1, NT]``: the score of the nonterminal of a span (left, right) of two words and more, beyond that of
            its rule; None for zeros. -inf disallows a labelled span. Other entries are never read.
        lengths: words of each sentence, int32 or int64 ``[B]`` or a list, in 0..N; None for N.
        validate_args: False takes lengths and the indices in values for granted.

    Scores need not be normalised: p(parse) = exp(score - log_partition). -inf forbids exactly. A sentence of no words has one
    parse, of score 0; one of a single word has none. A parse is int64 ``[B, 2N - 1, 3]``: rows (left, right, symbol) in
    pre-order, posts 0 <= left < right <= n, then rows of -1.

    log_partition and log_prob are differentiable twice, counts, entropy, cross_entropy and kl_divergence once. Keeps the scores
    for backward. Deterministic. O(n^3 NT^2 + n^2 NT S^2) time, O(n^2 NT + NT S^2) memory for each sentence at work.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, or length, before any kernel runs.

    Source: Lari and Young 1990; Kim, Dyer and Rush 2019.

    >>> import torch, structops
    >>> grammar = structops.tree.PCFG(torch.zeros(1, 4, 1), torch.zeros(1, 2, 2), torch.zeros(1))
    >>> grammar.log_partition.exp().round()
    tensor([5.])
    """

    arg_constraints: dict = {}  # noqa: RUF012

    @autocast.promotes
    def __init__(
        self,
        term: Tensor,
        rule: Tensor,
        root: Tensor,
        lengths: Any = None,
        validate_args: bool | None = None,
        span: Tensor | None = None,
    ) -> None:
        op = "PCFG"
        given = {"term": term, "rule": rule, "root": root, **({} if span is None else {"span": span})}
        for name, t in given.items():
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
        if span is not None and tuple(span.shape) != (B, N + 1, N + 1, NT):
            check.fail(ValueError, op, f"span of shape {[B, N + 1, N + 1, NT]}", list(span.shape))
        check.same_device(op, **given)
        self.term = term
        self.rule = rule if rule.dim() == 4 else rule[None]
        self.root = root if root.dim() == 2 else root.expand(B, NT)
        self.span = span
        self.lengths = charts.checked_lengths(op, lengths, term, N, validate_args is not False)
        self._check_values = validate_args is not False and not torch.compiler.is_compiling()
        super().__init__(torch.Size([B]), torch.Size((max(2 * N - 1, 0), 3)), validate_args=False)

    def __repr__(self) -> str:
        B, N, T = self.term.shape
        return f"PCFG(batch: {B}, words: {N}, nonterminals: {self.root.shape[1]}, preterminals: {T}, {check.describe(self.term)})"

    def _scores(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        span = None if self.span is None else self.span.contiguous()
        return self.term.contiguous(), self.rule.contiguous(), self.root.contiguous(), span

    def _fixed(self) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.detach() for t in self._scores())

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
        """Expected counts of terms, rules and roots, of each sentence, and the posteriors of labelled spans. Differentiable."""
        return self._counts()[1]

    @property
    def log_count(self) -> Tensor:
        """Logarithm of the number of parses whose score is above -inf, [B]."""
        zero = (None if t is None else torch.where(t == NINF, NINF, 0.0).to(t.dtype) for t in self._fixed())
        return kernels.pcfg_logz(*zero, self.lengths)

    def _expected(self, counts: PCFGCounts, dtype: torch.dtype) -> Tensor:
        scores = [self.term, self.rule, self.root] + ([] if self.span is None else [self.span])
        return charts.expected(list(counts[: len(scores)]), scores, dtype)

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

    def log_prob(self, value: Tensor, partial: bool = False) -> Tensor:
        """Log-probability of parses ``[*, B, 2N - 1, 3]``, which are taken to be parses in pre-order, as [*, B].

        ``partial``: of the set of parses that hold all the spans of an annotation ``[*, B, M, 3]``, rows (left, right, symbol) in
        any order, symbol -1 for a span whose label nobody annotated, rows of -1 ignored: no row gives 0, a full parse its
        log-probability. -inf where the parse, or every parse that agrees, is forbidden. Differentiable twice.
        """
        op = "PCFG.log_prob"
        check.flags(op, partial=partial)
        value = charts.integers(op, "value", value, self.term)
        B, rows = self.term.shape[0], "M" if partial else str(self.event_shape[0])
        fits = value.dim() >= 3 and value.shape[-1] == 3 and value.shape[-3] == B
        if not fits or not (partial or value.shape[-2] == self.event_shape[0]):
            check.fail(ValueError, op, f"value of shape [*, {B}, {rows}, 3]", list(value.shape))
        if self._check_values:
            self._check_range(op, value, -1 if partial else 0)
        score = self._constrained(value).log_partition.reshape(value.shape[:-2]) if partial else self._score(value)
        forbidden = score == NINF
        return torch.where(forbidden, NINF, torch.where(forbidden, 0, score) - self.log_partition)

    def _check_range(self, op: str, value: Tensor, low: int) -> None:
        left, right, symbol = value.unbind(-1)
        there = left >= 0
        charts.within(op, "symbols", symbol, there, low, torch.full_like(symbol, self.rule.shape[-1] - 1))
        posts, both = value[..., :2], there[..., None].expand(*there.shape, 2)
        charts.within(op, "spans", posts, both, 0, self.lengths[:, None, None].expand_as(posts))
        if not ops.is_traced(value) and bool((there & (left >= right)).any()):
            check.fail(IndexError, op, "spans (left, right) with left < right", "others")

    def _constrained(self, value: Tensor) -> PCFG:
        """The grammar of the parses that hold the spans of an annotation [*, B, M, 3]; the batch is all leading dimensions."""
        (B, N, _), NT, S, M = self.term.shape, self.root.shape[1], self.rule.shape[-1], value.shape[-2]
        total, P = math.prod(value.shape[:-2]), N + 1
        left, right, symbol = value.reshape(total, M, 3).unbind(-1)
        at = torch.where(left >= 0, left * P + right, P * P)  # one cell more takes the rows that are ignored
        labelled = torch.where(symbol >= 0, at, P * P)
        empty = at.new_zeros(total, P * P + 1)
        given = empty.scatter(1, at, 1)[:, :-1].reshape(total, P, P)
        # Of labels that contradict each other the least and the largest differ: S, which is no symbol, agrees with nothing.
        least = (empty + S).scatter_reduce(1, labelled, symbol, "amin")[:, :-1]
        most = (empty - 1).scatter_reduce(1, labelled, symbol, "amax")[:, :-1]
        wanted = torch.where(most < 0, -1, torch.where(least == most, most, S)).reshape(total, P, P)[..., None]
        symbols = torch.arange(S, device=value.device)
        agrees = (wanted < 0) | (wanted == symbols)
        samples = total // max(B, 1)
        again = lambda t: t.expand(samples, *t.shape).flatten(0, 1)
        position = torch.arange(N, device=value.device)
        term = torch.where(agrees[:, position, position + 1, NT:], again(self.term), NINF)
        spans = self.term.new_zeros(1) if self.span is None else again(self.span)
        span = torch.where(agrees[..., :NT] & ~_crossed(given)[..., None], spans, NINF)
        rule = again(self.rule) if self.rule.shape[0] == B else self.rule[0]
        return PCFG(term, rule, again(self.root), again(self.lengths), False, span)

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of parses [*, B, M, 3] the flat positions in term [N, T], rule [NT, S, S], root [NT] and span [N + 1, N + 1, NT]:
        [*, B, M] but for the root, [*, B, 1]; -1 where a row has none."""
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
        span = torch.where(inner, (left * (self.term.shape[1] + 1) + right) * NT + symbol, -1)
        return term, torch.where(inner, rule, -1), torch.where(inner, symbol, -1)[..., :1], span

    def _score(self, value: Tensor) -> Tensor:
        """Scores [*, B] of parses [*, B, M, 3]: rows of -1 count nothing."""
        B, dtype = self.term.shape[0], ops.accumulator(self.term)
        total: Tensor | float = 0.0
        for at, scores in zip(self._parts(value), (self.term, self.rule, self.root, self.span), strict=True):
            if scores is None:
                continue
            flat = scores.expand(B, *scores.shape[1:]).flatten(1)
            flat = flat if flat.shape[1] else flat.new_zeros(B, 1)
            picked = flat.expand(*at.shape[:-2], *flat.shape).gather(-1, at.clamp(min=0))
            total = total + torch.where(at >= 0, picked.to(dtype), 0).sum(-1)
        return total  # type: ignore[return-value]

    # ---- parses ----

    @property
    def argmax(self) -> Tensor:
        """The best parse ``[B, 2N - 1, 3]``, -1 where there is none. Of equal parses always the same one."""
        return kernels.pcfg_best(*self._fixed(), self.lengths, 1)[1][:, 0]

    @property
    def mode(self) -> Tensor:
        return self.argmax

    @property
    def max(self) -> Tensor:
        """The score of the best parse, [B]; -inf where there is none. Differentiable: the gradient is the parse."""
        return self.kbest(1)[0][:, 0]

    def kbest(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores [B, k], descending, and parses [B, k, 2N - 1, 3] of the k best parses; -inf and -1 where there are fewer.

        The scores are differentiable. With k > 1 the k best derivations of every span and nonterminal are kept: 24 bytes each at
        most, for each sentence at work.
        """
        k = check.size("PCFG.kbest", "k", k)
        if not 1 <= k <= 1 << 20:
            check.fail(ValueError, "PCFG.kbest", "k in 1..2^20", k)
        value, tree = kernels.pcfg_best(*self._fixed(), self.lengths, k)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (self.term, self.rule, self.root, self.span)):
            again = self._score(tree.transpose(0, 1)).transpose(0, 1)
            value = torch.where(value.isfinite(), again, value)
        return value, tree

    def max_marginals(self) -> PCFGCounts:
        """The score of the best parse through every part: through every preterminal of a word, rule, root and labelled span; -inf
        where there is none. Not differentiable."""
        return PCFGCounts(*kernels.pcfg_max_marginals(*self._fixed(), self.lengths))

    def mbr(self) -> Tensor:
        """The parse with the largest sum of posteriors of its labelled spans and of its preterminals, among those that the grammar
        allows (no score of -inf): minimum Bayes risk. As argmax. Source: Goodman 1996, without that restriction."""
        term, rule, root, span = self._fixed()
        counts = kernels.pcfg_marginals(term, rule, root, span, self.lengths, None)[1:]
        allowed = lambda scores, value: torch.where(scores == NINF, NINF, value)
        by_span = counts[3] if span is None else allowed(span, counts[3])
        rules, roots = (allowed(t, torch.zeros_like(t)) for t in (rule, root))
        return kernels.pcfg_best(allowed(term, counts[0]), rules, roots, by_span, self.lengths, 1)[1][:, 0]

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Exact independent parses ``[*sample_shape, B, 2N - 1, 3]``; -1 where there is none. Not differentiable."""
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        size = (shape.numel(), self.term.shape[0], 2 * self.term.shape[1])
        uniform = torch.rand(size, dtype=torch.float64, device=self.term.device, generator=generator)
        tree = kernels.pcfg_sample(*self._fixed(), self.lengths, uniform)
        return tree.reshape(*shape, *tree.shape[1:])


@torch.distributions.register_kl(PCFG, PCFG)
def _kl(p: PCFG, q: PCFG) -> Tensor:
    return p.kl_divergence(q)
