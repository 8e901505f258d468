"""Reductions by index and by pointers, and their transposes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .... import _check as check
from ....kernels import codes as C
from ....sparse._scatter import broadcast_index
from ..._scatter import composite, coo, csr
from ..._scatter import scatter as core
from ..._scatter.groups import checked_out


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """``src`` expanded to the shape of ``other``: a vector lies along ``dim``, then 1s are added on the right."""
    return broadcast_index("broadcast", src, other, check.axis("broadcast", dim, other.dim()))


# ---- by index --------------------------------------------------------------------------------------------------------


def scatter_sum(src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sums ``[*, dim_size, *]`` of ``src [*, E, *]``; added to ``out`` if given."""
    return core.scatter_reduce("scatter_sum", C.SUM, src, index, dim, out, dim_size)


def scatter_mul(src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Products ``[*, dim_size, *]``, 1 for empty groups; multiplied into ``out`` if given. Exact gradient at zeros."""
    return core.scatter_reduce("scatter_mul", C.PROD, src, index, dim, out, dim_size)


def scatter_mean(src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Means ``[*, dim_size, *]``; ``(out + sum) / count`` in ``out`` if given. Integers round down."""
    return core.scatter_reduce("scatter_mean", C.MEAN, src, index, dim, out, dim_size)


def scatter_min(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minima and their positions along ``dim``, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    return core.scatter_extreme("scatter_min", C.MIN, src, index, dim, out, dim_size)


def scatter_max(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maxima and their positions along ``dim``, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    return core.scatter_extreme("scatter_max", C.MAX, src, index, dim, out, dim_size)


# ---- by sorted index -------------------------------------------------------------------------------------------------


def segment_sum_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Sums ``[*, dim_size, *]`` of ``src [*, E, *]`` by sorted ``index [*, E]``; added to ``out`` if given."""
    return coo.segment_coo_linear("segment_sum_coo", C.SUM, src, index, out, dim_size)


def segment_mean_coo(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None) -> Tensor:
    """Means ``[*, dim_size, *]``; ``(out + sum) / count`` in ``out`` if given. Integers truncate."""
    return coo.segment_coo_linear("segment_mean_coo", C.MEAN, src, index, out, dim_size)


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Minima and their positions, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    return coo.segment_coo_extreme("segment_min_coo", C.MIN, src, index, out, dim_size)


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maxima and their positions, both ``[*, dim_size, *]``; ``out`` is the starting value."""
    return coo.segment_coo_extreme("segment_max_coo", C.MAX, src, index, out, dim_size)


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """``src [*, N, *]`` read by ``index [*, E]`` in any order, as ``[*, E, *]``; written to ``out`` if given."""
    return coo.gather_coo("gather_coo", src, index, out, ascending=False)


# ---- by pointers -----------------------------------------------------------------------------------------------------


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Sums ``[*, N, *]`` of ``src [*, E, *]`` by ``indptr [*, N + 1]``; added to ``out`` if given."""
    op = "segment_sum_csr"
    total = csr.segment_csr(op, C.SUM, src, indptr, None)[0]
    if out is None:
        return total
    dim = indptr.dim() - 1
    if checked_out(op, out, src, dim) != total.shape[dim]:
        check.fail(ValueError, op, f"out of size {total.shape[dim]} along dim {dim}", out.shape[dim])
    return out.add_(total)


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Means ``[*, N, *]``; written over ``out`` if given. Integers truncate."""
    return csr.segment_csr("segment_mean_csr", C.MEAN, src, indptr, out)[0]


def segment_min_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Minima and their positions, both ``[*, N, *]``; the minima are written over ``out`` if given."""
    return csr.segment_csr("segment_min_csr", C.MIN, src, indptr, out)


def segment_max_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Maxima and their positions, both ``[*, N, *]``; the maxima are written over ``out`` if given."""
    return csr.segment_csr("segment_max_csr", C.MAX, src, indptr, out)


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """``src [*, N, *]`` copied to the elements of its range, as ``[*, indptr[-1], *]``; written to ``out`` if given."""
    return csr.gather_csr("gather_csr", src, indptr, out)


# ---- by name ---------------------------------------------------------------------------------------------------------

_SCATTER: dict[str, Callable] = {
    "sum": scatter_sum, "add": scatter_sum, "mul": scatter_mul, "mean": scatter_mean, "min": scatter_min, "max": scatter_max,
}  # fmt: skip
_COO: dict[str, Callable] = {
    "sum": segment_sum_coo, "add": segment_sum_coo, "mean": segment_mean_coo, "min": segment_min_coo, "max": segment_max_coo,
}
_CSR: dict[str, Callable] = {
    "sum": segment_sum_csr, "add": segment_sum_csr, "mean": segment_mean_csr, "min": segment_min_csr, "max": segment_max_csr,
}


def _values(result: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def scatter(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """The reduction named ``reduce``: sum, add, mul, mean, min or max; values only."""
    return _values(_SCATTER[check.choice("scatter", "reduce", reduce, _SCATTER)](src, index, dim, out, dim_size))


def segment_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None, reduce: str = "sum"
) -> Tensor:
    """The reduction named ``reduce``: sum, add, mean, min or max; values only."""
    return _values(_COO[check.choice("segment_coo", "reduce", reduce, _COO)](src, index, out, dim_size))


def segment_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """The reduction named ``reduce``: sum, add, mean, min or max; values only."""
    return _values(_CSR[check.choice("segment_csr", "reduce", reduce, _CSR)](src, indptr, out))


# ---- composites ------------------------------------------------------------------------------------------------------


def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None) -> Tensor:
    """Softmax ``[*, E, *]`` of a floating ``src [*, E, *]``; a group of only -inf gives NaN."""
    return composite.softmax("scatter_softmax", src, index, dim, dim_size)


def scatter_log_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None, eps: float = 1e-12) -> Tensor:
    """``src - max - log(sum(exp(src - max)) + eps)`` by group, ``[*, E, *]``; a group of only -inf gives NaN."""
    return composite.log_softmax("scatter_log_softmax", src, index, dim, eps, dim_size)


def scatter_std(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None, unbiased: bool = True
) -> Tensor:
    """``sqrt(sum((src - mean)^2) / n)`` by group, ``[*, dim_size, *]``; n is the count (one less if ``unbiased``), at least 1.

    The sums of squares are added to ``out`` if given. The gradient at zero deviation is 0.
    """
    composite.floating("scatter_std", src)
    return composite.std("scatter_std", src, index, dim, out, dim_size, unbiased, eps=0.0)


def scatter_logsumexp(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None, eps: float = 1e-12
) -> Tensor:
    """``max + log(sum(exp(src - max)) + eps)`` by group, ``[*, dim_size, *]``; written over ``out`` if given.

    Where that is infinite (an empty group, only -inf, any inf) the result is what ``out`` held, or 0.
    """
    result = composite.log_sum("scatter_logsumexp", src, index, dim, out, dim_size, eps)
    if out is None:
        return result.nan_to_num(nan=float("nan"), posinf=0.0, neginf=0.0)
    return out.copy_(torch.where(result.isinf(), out, result))
