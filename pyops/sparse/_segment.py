"""Reductions, softmax and gather over consecutive groups."""

from __future__ import annotations

from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..graph import checked_indptr, checked_pointer
from ..kernels import codes as C
from ._groups import QUICK, as_rows, from_rows, is_plain, reduce_groups, widen


def segment_reduce(
    src: Tensor,
    indptr: Tensor,
    reduce: str = "sum",
    dim: int = 0,
    *,
    fill_value: float | None = None,
    return_arg: bool = False,
    unbiased: bool = True,
    skip_nan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce consecutive groups along ``dim``: group n is ``src[indptr[n]:indptr[n + 1]]``.

    Args:
        src: ``[*, E, *]`` with E at ``dim``; float32, float64, bfloat16, float16 (accumulated in float32, float64 for float64)
            or an integer type (sum, mean, min, max, prod; mean rounds down; sums wrap).
        indptr: int32 or int64 ``[N + 1]``, non-decreasing from 0 to E. Checked on every call.
        reduce: sum, mean, min, max, prod, var, std or logsumexp.
        fill_value: value of empty groups (default 0; 1 for prod, -inf for logsumexp).
        return_arg: for min and max also return int64 positions along ``dim``, E for empty groups. The first extreme wins ties.
        unbiased: var and std divide by ``max(n - 1, 1)`` rather than n.
        skip_nan: min and max ignore NaN (a group of only NaN is empty) instead of propagating it.

    Returns:
        ``[*, N, *]``, and the positions with ``return_arg``.

    Differentiable in ``src`` to any order (prod: to second order at zeros; std: 0 at zero deviation; min and max: to the winner).
    Deterministic, independent of the number of threads. Saved for backward: nothing of size E but ``src`` itself where the
    reduction is not linear, and the winners ``[*, N, *]`` of min and max.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, order or device, before any kernel runs.

    Convention of ``torch_scatter.segment_csr``.

    >>> import torch, structops
    >>> structops.segment_reduce(torch.tensor([1., 2., 3., 4.]), torch.tensor([0, 3, 3, 4]), "max", return_arg=True)
    (tensor([3., 0., 4.]), tensor([2, 4, 3]))
    """
    op = "segment_reduce"
    if (
        type(reduce) is str
        and reduce in QUICK
        and is_plain(src, indptr, dim, fill_value, return_arg, unbiased, skip_nan)
        and ladder.covers(indptr, src.shape[0])
    ):
        return ladder.segment_rows(src, indptr, QUICK[reduce])
    check.dense(op, "src", src, integers=True)
    dim = check.axis(op, dim, src.dim())
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    indptr = checked_pointer(op, "indptr", indptr, src, src.shape[dim])
    return reduce_groups(op, src, dim, (indptr, None), code, fill_value, return_arg, unbiased, skip_nan)


def segment_softmax(src: Tensor, indptr: Tensor, dim: int = 0, *, log: bool = False) -> Tensor:
    """Softmax (``log``: its logarithm) over the groups ``src[indptr[n]:indptr[n + 1]]`` along ``dim``, feature by feature.

    Args and errors as in :func:`segment_reduce`; floating dtypes. A group of only -inf gives NaN, as ``torch.softmax``.
    Differentiable to any order; saves the result. Deterministic.

    >>> import torch, structops
    >>> structops.segment_softmax(torch.zeros(4), torch.tensor([0, 1, 3, 4]))
    tensor([1.0000, 0.5000, 0.5000, 1.0000])
    """
    op = "segment_softmax"
    check.flags(op, log=log)
    check.dense(op, "src", src)
    dim = check.axis(op, dim, src.dim())
    indptr = checked_pointer(op, "indptr", indptr, src, src.shape[dim])
    return ladder.segment_softmax(as_rows(src, dim), indptr, None, log).reshape(src.shape)


def segment_gather(src: Tensor, indptr: Tensor, dim: int = 0) -> Tensor:
    """Copy group values to the group's elements: the transpose of a segment sum.

    Args:
        src: ``[*, N, *]`` with N at ``dim``, any supported dtype.
        indptr: int32 or int64 ``[N + 1]``, non-decreasing from 0.

    Returns:
        ``[*, E, *]``, E = ``indptr[-1]``. Differentiable to any order.

    >>> import torch, structops
    >>> structops.segment_gather(torch.tensor([5., 6., 7.]), torch.tensor([0, 2, 2, 3]))
    tensor([5., 5., 7.])
    """
    op = "segment_gather"
    check.dense(op, "src", src, integers=True)
    check.index(op, "indptr", indptr, like=src)
    dim = check.axis(op, dim, src.dim())
    if indptr.dim() != 1 or indptr.numel() != src.shape[dim] + 1:
        check.fail(ValueError, op, f"indptr of shape [{src.shape[dim] + 1}]", list(indptr.shape))
    indptr = indptr.contiguous()
    edges = int(indptr[-1])
    checked_indptr(op, "indptr", indptr, edges)
    check.fits(op, src.dtype, *src.shape[:dim], edges, *src.shape[dim + 1 :])
    flat = as_rows(widen(src), dim)
    F = 1 if flat.dim() == 1 else flat.shape[-1]
    out = ladder.sddmm(flat, None, indptr, None, None, None, None, None, None, C.EDGE_COPY, C.V, C.V, edges, F, 1)
    return from_rows(out, src, dim, edges).to(src.dtype)
