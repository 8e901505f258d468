"""What distributions over trees have in common, whatever the trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .. import _check as check
from . import _chart as charts
from . import _ops as ops
from ._chart import NINF, Chart
from ._labels import best_labels, sample_labels


class TreeDistribution(Distribution):
    """A globally normalised distribution over the trees of each sentence: p(tree) = exp(score(tree) - log_partition).

    A labelled tree has one more column than an unlabelled one, the label. Nothing is cached and the tensors given are never
    changed: every query computes from them, and is differentiable where it says so.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    _rows: tuple[int, ...]  # trailing shape of an unlabelled tree

    def __init__(self, chart: Chart, validate_args: bool | None) -> None:
        self._chart = chart
        # Not torch's global default: torch.compile switches that off for the whole process.
        self._check_values = validate_args is not False and not torch.compiler.is_compiling()
        event = self._tree_shape()
        super().__init__(torch.Size([chart.table.shape[0]]), torch.Size(event), validate_args=False)

    def __repr__(self) -> str:
        B, N = self._chart.table.shape[:2]
        return f"{type(self).__name__}(batch: {B}, positions: {N}, {check.describe(self._chart.table)})"

    # ---- what a kind of tree must say ----

    def _tree_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _parts(self, tree: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(row, column, valid) [*, B, M] of the cells of a tree [*, B, ..] without labels."""
        raise NotImplementedError

    def _constrained(self, value: Tensor) -> Chart:
        """The chart of the trees that agree with a partial annotation; the batch is all leading dimensions flattened."""
        raise NotImplementedError

    def _part_scores(self, tree: Tensor, dtype: torch.dtype) -> Tensor | float:
        """What a tree [*, B, ..] scores beyond its cells, [*, B]."""
        return 0.0

    def _like(self, chart: Chart) -> TreeDistribution:
        new = object.__new__(type(self))
        TreeDistribution.__init__(new, chart, self._check_values)
        return new

    # ---- sums ----

    @property
    def lengths(self) -> Tensor:
        """Words of each sentence, int64 [B]."""
        return self._chart.lengths

    @property
    def log_partition(self) -> Tensor:
        """Logarithm of the sum over trees of exp(score), [B]; -inf where every tree is forbidden. Differentiable twice."""
        return charts.log_partition(self._chart)

    @property
    def marginals(self) -> Tensor | tuple[Tensor, ...]:
        """Posterior probability of every cell, in the shape of the scores; with sibling or grandparent scores a tuple, those of
        siblings second and those of grandparents last, but not with factors of siblings. Differentiable."""
        post = charts.log_partition_and_marginals(self._chart)[1]
        return post[0] if len(post) == 1 or self._chart.sib_factors is not None else tuple(post)

    @property
    def log_count(self) -> Tensor:
        """Logarithm of the number of trees whose score is above -inf, [B]."""
        return charts.log_partition(self._uniform())

    def _uniform(self) -> Chart:
        zero = lambda t: None if t is None else torch.where(t.detach() == NINF, NINF, 0.0).to(t.dtype)
        chart = self._chart
        return chart._replace(table=zero(chart.table), sib=zero(chart.sib), grand=zero(chart.grand), sib_factors=None)

    def entropy(self) -> Tensor:
        """Entropy in nats, [B]; -inf where every tree is forbidden. Differentiable once."""
        logz, post = charts.log_partition_and_marginals(self._chart)
        return logz - charts.expected(post, charts.factors(self._chart), logz.dtype)

    def cross_entropy(self, other: TreeDistribution) -> Tensor:
        """Expectation under this distribution of ``-other.log_prob(tree)``, [B]; inf where other forbids what this allows.

        Differentiable once in the scores of both.
        """
        mine, theirs = self._comparable("cross_entropy", other)
        return charts.log_partition(theirs) - charts.expected_score(mine, theirs)[1]

    def kl_divergence(self, other: TreeDistribution) -> Tensor:
        """Kullback-Leibler divergence from this distribution to ``other``, [B]. Differentiable once in the scores of both."""
        mine, theirs = self._comparable("kl_divergence", other)
        if mine.sib_factors is not None or theirs.sib_factors is not None:
            return charts.log_partition(theirs) - charts.expected_score(mine, theirs)[1] - self.entropy()
        logz, post = charts.log_partition_and_marginals(mine)
        own = logz - charts.expected(post, charts.factors(mine), logz.dtype)
        other_z = charts.log_partition(theirs)
        return other_z - charts.expected(charts.shared(mine, post, theirs), charts.factors(theirs), logz.dtype) - own

    def _comparable(self, op: str, other: Any) -> tuple[Chart, Chart]:
        if type(other) is not type(self):
            check.fail(TypeError, op, f"a {type(self).__name__}", type(other).__name__)
        mine, theirs = self._chart, other._chart
        if mine.kind != theirs.kind:
            check.fail(ValueError, op, "two distributions of one root mode", "a multi-root and a single-root one")
        if mine.table.shape != theirs.table.shape:
            check.fail(ValueError, op, f"scores of shape {list(mine.table.shape)}", list(theirs.table.shape))
        check.same_device(op, self=mine.table, other=theirs.table)
        if self._check_values and not ops.is_traced(mine.lengths) and not torch.equal(mine.lengths, theirs.lengths):
            check.fail(ValueError, op, "two distributions over the same lengths", "others")
        for one, another in ((mine, theirs), (theirs, mine)):
            if one.sib_factors is not None and (another.sib is not None or another.grand is not None):
                check.fail(ValueError, op, "sib_factors in both distributions or in neither", "sib or grand in one")
        zero = lambda own, other: torch.zeros_like(other, dtype=mine.table.dtype) if own is None and other is not None else own
        mine = mine._replace(sib=zero(mine.sib, theirs.sib), grand=zero(mine.grand, theirs.grand))
        return mine, theirs

    # ---- the score of given trees ----

    def log_prob(self, value: Tensor, partial: bool = False) -> Tensor:
        """Log-probability of trees ``[*, B, ..]`` as [*, B].

        ``partial``: of the set of trees that agree with an annotation, -1 meaning not annotated: no annotation gives 0, a
        full one the log-probability of the tree. Without it, ``value`` is taken to be a tree. -inf where the tree, or every
        tree that agrees, is forbidden. Differentiable twice.
        """
        op = f"{type(self).__name__}.log_prob"
        check.flags(op, partial=partial)
        value = self._checked(op, value, partial)
        logz = self.log_partition
        if partial:
            total = charts.log_partition(self._constrained(value)).reshape(value.shape[: value.dim() - len(self.event_shape)])
        else:
            total = self._score(value)
        forbidden = total == NINF
        return torch.where(forbidden, NINF, torch.where(forbidden, 0, total) - logz)

    def _checked(self, op: str, value: Any, partial: bool) -> Tensor:
        value = charts.integers(op, "value", value, self._chart.table)
        B, event = self._chart.table.shape[0], self._tree_shape()
        if value.dim() <= len(event) or value.shape[value.dim() - len(event) - 1] != B or not self._fits(value, event):
            check.fail(ValueError, op, f"value of shape [*, {B}, {', '.join(map(str, event))}]", list(value.shape))
        if self._check_values:
            self._check_range(op, value, -1 if partial else 0)
        return value

    def _fits(self, value: Tensor, event: tuple[int, ...]) -> bool:
        return tuple(value.shape[value.dim() - len(event) :]) == event

    def _check_range(self, op: str, value: Tensor, low: int) -> None:
        raise NotImplementedError

    def _check_labels(self, op: str, label: Tensor | None, valid: Tensor, low: int) -> None:
        if label is None or ops.is_traced(label):
            return
        L = self._chart.table.shape[3]
        if bool((valid & ((label < low) | (label >= L))).any()):
            check.fail(IndexError, op, f"labels between {low} and {L - 1}", f"{int(label.min())} to {int(label.max())}")

    def _split(self, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """A tree and its labels."""
        if not self._chart.labelled:
            return value, None
        tree = value[..., :-1]
        return (tree if len(self._unlabelled_shape()) == 2 else tree.squeeze(-1)), value[..., -1]

    def _unlabelled_shape(self) -> tuple[int, ...]:
        shape = self._tree_shape()
        if not self._chart.labelled:
            return shape
        return (shape[0], shape[1] - 1) if shape[1] > 2 else (shape[0],)

    def _join(self, tree: Tensor, label: Tensor) -> Tensor:
        return torch.cat([tree if len(self._unlabelled_shape()) == 2 else tree[..., None], label[..., None]], -1)

    def _score(self, value: Tensor) -> Tensor:
        tree, label = self._split(value)
        row, column, valid = self._parts(tree)
        dtype = ops.accumulator(self._chart.table)
        total = charts.gather(self._chart.table, row, column, label, valid, dtype).sum(-1)
        return total + self._part_scores(tree, dtype)

    # ---- trees ----

    @property
    def argmax(self) -> Tensor:
        """The best tree, -1 past its end and where there is none. Of equal trees always the same one."""
        return self._labelled_best(1)[1][:, 0]

    @property
    def mode(self) -> Tensor:
        return self.argmax

    @property
    def max(self) -> Tensor:
        """The score of the best tree, [B]; -inf where there is none. Differentiable: the gradient is the tree."""
        return self.kbest(1)[0][:, 0]

    def max_marginals(self) -> Tensor:
        """The score of the best tree through every cell, in the shape of the scores; -inf where there is none.

        Not differentiable.
        """
        return charts.max_marginals(self._chart)

    def kbest(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores [B, k], descending, and trees [B, k, ..] of the k best trees; -inf and -1 where there are fewer.

        The scores are differentiable.
        """
        k = check.size(f"{type(self).__name__}.kbest", "k", k)
        if k == 0:
            check.fail(ValueError, f"{type(self).__name__}.kbest", "k >= 1", 0)
        value, tree = self._labelled_best(k)
        if torch.is_grad_enabled() and any(t.requires_grad for t in charts.inputs(self._chart)):
            real = value.isfinite()
            again = self._score(tree.transpose(0, 1)).transpose(0, 1)
            value = torch.where(real, again, value)
        return value, tree

    def _labelled_best(self, k: int) -> tuple[Tensor, Tensor]:
        value, tree = charts.best(self._chart, k)
        if not self._chart.labelled:
            return value, tree
        row, column, valid = (t.transpose(0, 1) for t in self._parts(tree.transpose(0, 1)))
        value, which, label = best_labels(self._chart.table.detach(), value, row, column, valid)
        index = which.reshape(*which.shape, *(1,) * (tree.dim() - 2)).expand(*which.shape, *tree.shape[2:])
        tree = torch.where((value == NINF).reshape(*value.shape, *(1,) * (tree.dim() - 2)), -1, tree.gather(1, index))
        return value, self._join(tree, label)

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """Exact independent trees ``[*sample_shape, B, ..]``; -1 where there is none. Not differentiable."""
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        tree = charts.sample(self._chart, shape.numel(), generator)
        if self._chart.labelled:
            row, column, valid = self._parts(tree)
            tree = self._join(tree, sample_labels(self._chart.table.detach(), row, column, valid, generator))
        return tree.reshape(*shape, *tree.shape[1:])

    def mbr(self) -> Tensor:
        """The tree with the largest sum of marginals (of arcs or spans, with their labels): minimum Bayes risk. As argmax."""
        chart = self._chart
        table = charts.log_partition_and_marginals(chart)[1][0].detach()
        allowed = torch.where(chart.table.detach() == NINF, NINF, table)
        return self._like(chart._replace(table=allowed, sib=None, grand=None, sib_factors=None)).argmax


@torch.distributions.register_kl(TreeDistribution, TreeDistribution)
def _kl(p: TreeDistribution, q: TreeDistribution) -> Tensor:
    return p.kl_divergence(q)
