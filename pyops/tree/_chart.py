"""A batch of charts as the operators take it: checks, labels, and the queries that every kind of tree shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check as check
from ..kernels import codes as C
from . import _factored as factored
from . import _grand as grands
from . import _ops as ops
from . import _spanning as spanning

NINF = float("-inf")


class Chart(NamedTuple):
    """``table``: [B, N, N] or, with labels, [B, N, N, L]; ``sib``, ``grand``: [B, N, N, N] or None; ``lengths``: int64 [B];
    ``sib_factors``: three [B, N, D] in place of sib, without grand, or None."""

    kind: int
    table: Tensor
    sib: Tensor | None
    lengths: Tensor
    grand: Tensor | None = None
    sib_factors: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def labelled(self) -> bool:
        return self.table.dim() == 4

    @property
    def N(self) -> int:
        return self.table.shape[1]


# ---- checks ----------------------------------------------------------------------------------------------------------


def prepare(
    op: str,
    kind: int,
    name: str,
    table: Any,
    lengths: Any,
    sib: Any = None,
    validate: bool = True,
    grand: Any = None,
    sib_factors: Any = None,
) -> Chart:
    """The checked chart; ``validate``: also the values of lengths, which costs a GPU one synchronisation."""
    check.dense(op, name, table)
    shape = table.shape
    if len(shape) not in (3, 4) or shape[1] != shape[2] or shape[1] < 1 or (len(shape) == 4 and shape[3] < 1):
        check.fail(ValueError, op, f"{name} of shape [B, N, N] or [B, N, N, L], N and L at least 1", list(shape))
    sib, grand = (_checked_cube(op, n, t, name, table) for n, t in (("sib", sib), ("grand", grand)))
    if sib_factors is not None:
        if sib is not None or grand is not None:
            check.fail(ValueError, op, "sib_factors without sib and grand", "both")
        sib_factors = _checked_factors(op, name, table, sib_factors)
    return Chart(kind, table, sib, checked_lengths(op, lengths, table, shape[1] - 1, validate), grand, sib_factors)


def _checked_cube(op: str, name: str, t: Any, like_name: str, like: Tensor) -> Tensor | None:
    if t is None:
        return None
    check.dense(op, name, t)
    if t.dtype != like.dtype:
        check.fail(TypeError, op, f"{name} of dtype {like.dtype}, as {like_name}", t.dtype)
    want = (like.shape[0], *(like.shape[1],) * 3)
    if tuple(t.shape) != want:
        check.fail(ValueError, op, f"{name} of shape {list(want)}", list(t.shape))
    check.same_device(op, **{like_name: like, name: t})
    return t.contiguous()


def _checked_factors(op: str, name: str, table: Tensor, given: Any) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        found = f"{len(given)} of them" if isinstance(given, (tuple, list)) else type(given).__name__
        check.fail(TypeError, op, "sib_factors as three tensors, of dependents, heads and siblings", found)
    for each, t in zip(("x", "y", "z"), given, strict=True):
        check.dense(op, f"sib_factors {each}", t)
        if t.dtype != table.dtype:
            check.fail(TypeError, op, f"sib_factors {each} of dtype {table.dtype}, as {name}", t.dtype)
        if t.dim() != 3 or t.shape[:2] != table.shape[:2] or t.shape[2] != given[0].shape[-1]:
            check.fail(ValueError, op, f"sib_factors {each} of shape {[*table.shape[:2], 'D']}, one D for all", list(t.shape))
        check.same_device(op, **{name: table, f"sib_factors {each}": t})
    return tuple(given)


def checked_lengths(op: str, lengths: Any, like: Tensor, most: int, validate: bool) -> Tensor:
    """int64 [B] on the device of ``like``, within 0..most; None means ``most`` for all."""
    B = like.shape[0]
    if lengths is None:
        return torch.full((B,), most, dtype=torch.int64, device=like.device)
    if isinstance(lengths, Sequence) and not isinstance(lengths, str):
        lengths = torch.as_tensor(lengths, device=like.device) if len(lengths) else like.new_empty(0, dtype=torch.int64)
    check.index(op, "lengths", lengths, like=like)
    if tuple(lengths.shape) != (B,):
        check.fail(ValueError, op, f"lengths of shape [{B}]", list(lengths.shape))
    lengths = lengths.long().contiguous()
    if torch.compiler.is_compiling() or not validate:
        return lengths.clamp(0, most)
    if B and not ops.is_traced(lengths):
        low, high = (int(v) for v in lengths.aminmax())
        if low < 0 or high > most:
            check.fail(ValueError, op, f"lengths within 0..{most}", low if low < 0 else high)
    return lengths


def integers(op: str, name: str, value: Any, like: Tensor) -> Tensor:
    """Trees or annotations as an int64 tensor."""
    check.index(op, name, value, like=like)
    return value.long()


def within(op: str, name: str, value: Tensor, valid: Tensor, low: int, high: Tensor) -> None:
    """IndexError where a ``valid`` entry of value is below ``low`` or above ``high``, which broadcasts."""
    if torch.compiler.is_compiling() or ops.is_traced(value):
        return
    wrong = valid & ((value < low) | (value > high))
    if bool(wrong.any()):
        check.fail(IndexError, op, f"{name} between {low} and the length of the sentence", int(value[wrong][0]))


def cells(kind: int, lengths: Tensor, N: int) -> Tensor:
    """bool [B, N, N]: the cells of score that are read."""
    position = torch.arange(N, device=lengths.device)
    inside = position <= lengths[:, None]
    both = inside[:, :, None] & inside[:, None, :]
    if kind == C.SPAN:
        return both & (position[:, None] < position)
    return both & (position[:, None] != position) & (position[:, None] > 0)


# ---- labels ----------------------------------------------------------------------------------------------------------


def _table(chart: Chart) -> Tensor:
    """The labelled scores in float32 or float64, 0 outside the sentences."""
    return torch.where(cells(chart.kind, chart.lengths, chart.N)[..., None], chart.table, 0).to(ops.accumulator(chart.table))


def _logsumexp(t: Tensor) -> Tensor:
    """Over the last dimension: exactly -inf, with the gradient 0, where all are -inf."""
    top = t.detach().amax(-1, keepdim=True)
    top = torch.where(top.isfinite(), top, 0)
    total = (t - top).exp().sum(-1)
    empty = total == 0
    return torch.where(empty, NINF, torch.where(empty, 1, total).log() + top.squeeze(-1))


def score(chart: Chart) -> Tensor:
    """The contiguous [B, N, N] that the sum over trees reads."""
    return (_logsumexp(_table(chart)) if chart.labelled else chart.table).contiguous()


def best_score(chart: Chart) -> Tensor:
    """The contiguous [B, N, N] that the best tree reads."""
    table = chart.table.detach()
    return (table.amax(-1) if chart.labelled else table).contiguous()


# ---- queries ---------------------------------------------------------------------------------------------------------


def _kernels(kind: int):
    return spanning if kind in C.SPANNING else ops


def _multiroot(chart: Chart) -> bool:
    return chart.kind == C.DEP_MULTI


def _wide_factors(chart: Chart) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(t.to(ops.accumulator(chart.table)).contiguous() for t in chart.sib_factors)  # type: ignore[return-value,union-attr]


def log_partition(chart: Chart) -> Tensor:
    total = score(chart)
    if chart.sib_factors is not None:
        wide = total.to(ops.accumulator(chart.table))
        return factored.log_partition(wide, _wide_factors(chart), chart.lengths, chart.kind)
    if chart.grand is not None:
        return grands.grand_logz(total, _as(chart.grand, total), _as(chart.sib, total), chart.lengths, _multiroot(chart))
    return _kernels(chart.kind).log_partition(total, _as(chart.sib, total), chart.lengths, chart.kind)


def log_partition_and_marginals(chart: Chart) -> tuple[Tensor, list[Tensor]]:
    """logz, and the posteriors of :func:`factors`, by one call. With factored siblings the second is the gradient of logz in
    the first factor, whose product with the factor is the expected score."""
    if chart.sib_factors is not None:
        return _factored_marginals(chart, _wide_factors(chart))
    table = total = None
    if chart.labelled:
        table = _table(chart)
        total = _logsumexp(table)
    dense = score(chart) if total is None else total.contiguous()
    more = (_as(chart.sib, dense), chart.lengths, None)
    if chart.grand is None:
        logz, post, *rest = _kernels(chart.kind).chart_marginals(dense, *more, chart.kind)
    else:
        logz, post, by_grand, *rest = grands.grand_marginals(dense, _as(chart.grand, dense), *more, _multiroot(chart))
        rest.append(by_grand)
    if total is not None:
        share = (table - torch.where(total == NINF, 0, total)[..., None]).exp()
        post = (post[..., None] * share).to(chart.table.dtype)
    return logz, [post, *(rest if chart.sib is not None else rest[1:])]


def _factored_marginals(chart: Chart, of: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
    table = _table(chart) if chart.labelled else chart.table
    total = _logsumexp(table) if chart.labelled else table.to(of[0].dtype)
    logz, post, post_x, *_ = factored.factored_marginals(total.contiguous(), *of, chart.lengths, None, chart.kind)
    if chart.labelled:
        post = post[..., None] * (table - torch.where(total == NINF, 0, total)[..., None]).exp()
    return logz, [post.to(chart.table.dtype), post_x]


def expected_score(chart: Chart, other: Chart) -> tuple[Tensor, Tensor]:
    """logz of ``chart``, and the expectation under it of the score that ``other`` gives."""
    if other.sib_factors is None:
        logz, post = log_partition_and_marginals(chart)
        return logz, expected(shared(chart, post, other), factors(other), logz.dtype)
    # sib + t sib', by factors of both side by side: its derivative at t = 0 is the expectation of sib'.
    x, y, z = _wide_factors(other)
    none = torch.zeros_like(x)
    both = (none, y, z)
    if chart.sib_factors is not None:
        a, b, c = _wide_factors(chart)
        both = (torch.cat([a, none], -1), torch.cat([b, y], -1), torch.cat([c, z], -1))
    logz, (post_arc, post_x) = _factored_marginals(chart, both)
    return logz, expected([post_arc, post_x[..., post_x.shape[-1] - x.shape[-1] :]], [other.table, x], logz.dtype)


def _as(t: Tensor | None, like: Tensor) -> Tensor | None:
    return None if t is None else t.to(like.dtype)


def factors(chart: Chart) -> list[Tensor]:
    """In the order of the marginals: score, sib, grand; or score and the first factor of sib."""
    if chart.sib_factors is not None:
        return [chart.table, chart.sib_factors[0]]
    return [t for t in (chart.table, chart.sib, chart.grand) if t is not None]


def shared(chart: Chart, marginals: list[Tensor], other: Chart) -> list[Tensor]:
    """Those of the marginals of a chart that belong to the factors of another, which has no more."""
    if chart.sib_factors is not None:
        return marginals[:1]
    pairs = ((chart.table, other.table), (chart.sib, other.sib), (chart.grand, other.grand))
    kept = [theirs is not None for mine, theirs in pairs if mine is not None]
    return [mu for mu, keep in zip(marginals, kept, strict=True) if keep]


def inputs(chart: Chart) -> list[Tensor]:
    """Every tensor of scores."""
    return [t for t in (chart.table, chart.sib, chart.grand, *(chart.sib_factors or ())) if t is not None]


def expected(marginals: list[Tensor], of: list[Tensor], dtype: torch.dtype) -> Tensor:
    """sum of marginals times factors, by sentence; 0 where the marginal is 0, whatever the factor."""
    total: Any = 0
    for mu, s in zip(marginals, of, strict=True):
        total = total + (mu.to(dtype) * torch.where(mu != 0, s, 0).to(dtype)).flatten(1).sum(1)
    return total


def gather(table: Tensor, row: Tensor, column: Tensor, extra: Tensor | None, valid: Tensor, dtype: torch.dtype) -> Tensor:
    """table[b, row, column(, extra)] where valid, else 0. row, column, extra, valid: [*, B, M] -> [*, B, M]."""
    N = table.shape[2]
    at = row * N + column
    if extra is not None:
        at = at * table.shape[3] + extra
    flat = table.flatten(1)
    if flat.shape[1] == 0:
        return torch.zeros_like(at, dtype=dtype)
    picked = flat.expand(*at.shape[:-2], *flat.shape).gather(-1, torch.where(valid, at, 0))
    return torch.where(valid, picked.to(dtype), 0)


def best(chart: Chart, k: int) -> tuple[Tensor, Tensor]:
    """([B, k], trees [B, k, ..]) by the best label of every cell."""
    if chart.sib_factors is not None:
        wide = tuple(t.detach() for t in _wide_factors(chart))
        return factored.best(best_score(chart).to(wide[0].dtype), wide, chart.lengths, chart.kind, k)
    sib = None if chart.sib is None else chart.sib.detach()
    if chart.grand is not None:
        return grands.grand_best(best_score(chart), chart.grand.detach(), sib, chart.lengths, _multiroot(chart), k)
    return _kernels(chart.kind).chart_best(best_score(chart), sib, chart.lengths, chart.kind, k)


def sample(chart: Chart, n: int, generator: torch.Generator | None) -> Tensor:
    """Trees [n, B, ..] without labels."""
    with torch.no_grad():
        total = score(chart)
    if chart.kind in C.SPANNING:
        return spanning.sample(total.detach(), n, chart.lengths, chart.kind, generator)
    sib = None if chart.sib is None else chart.sib.detach().to(total.dtype)
    shape = (n, total.shape[0], 3 * chart.N)
    uniform = torch.rand(shape, dtype=torch.float64, device=total.device, generator=generator)
    if chart.sib_factors is not None:
        wide = tuple(t.detach() for t in _wide_factors(chart))
        return factored.sample(total.detach().to(wide[0].dtype), wide, chart.lengths, uniform, chart.kind)
    if chart.grand is not None:
        grand = chart.grand.detach().to(total.dtype)
        return grands.grand_sample(total.detach(), grand, sib, chart.lengths, uniform, _multiroot(chart))
    return ops.chart_sample(total.detach(), sib, chart.lengths, uniform, chart.kind)


def max_marginals(chart: Chart) -> Tensor:
    top = best_score(chart)
    sib = chart.sib if chart.sib_factors is None else factored.siblings(*_wide_factors(chart)).to(top.dtype)
    sib = None if sib is None else sib.detach()
    if chart.kind in C.SPANNING:
        through = spanning.max_marginals(top, chart.lengths, chart.kind)
    elif chart.grand is None:
        through = ops.chart_max_marginals(top, sib, chart.lengths, chart.kind)
    else:
        through = grands.grand_max_marginals(top, chart.grand.detach(), sib, chart.lengths, _multiroot(chart))
    if not chart.labelled:
        return through
    table = _table(chart).detach()
    loss = table - torch.where(cells(chart.kind, chart.lengths, chart.N), top, 0).clamp(min=torch.finfo(top.dtype).min)[..., None]
    return torch.where(through[..., None] == NINF, NINF, through[..., None] + loss)
