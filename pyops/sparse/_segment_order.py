"""Top-k, quantiles and medians of consecutive groups: positions from one kernel, values by ``select``."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..graph import checked_pointer

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _operands(op: str, src: Tensor, indptr: Tensor, integers: bool) -> tuple[Tensor, Tensor]:
    check.dense(op, "src", src, integers=integers)
    if src.dtype in check.NARROW:
        check.fail(TypeError, op, "src of a floating dtype, int32 or int64", src.dtype)
    if src.dim() not in (1, 2):
        check.fail(ValueError, op, "src of shape [L] or [L, F]", list(src.shape))
    return src.contiguous(), checked_pointer(op, "indptr", indptr, src, src.shape[0])


def segment_topk(
    src: Tensor, indptr: Tensor, k: int, largest: bool = True, *, fill_value: float | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements of every group ``src[indptr[g]:indptr[g + 1]]``, in order, feature by feature.

    Args:
        src: ``[L]`` or ``[L, F]``; float32, float64, bfloat16, float16, int32 or int64.
        indptr: int32 or int64 ``[G + 1]``, non-decreasing from 0 to L. Checked on every call.
        k: elements of every group; groups with fewer are padded.
        fill_value: the padding of the values (default 0).

    Returns:
        Values ``[G, k]`` or ``[G, k, F]`` and their int64 positions in ``src``, -1 where padded. Equal values (0 and -0 too) come
        in order of position: the first occurrence first. NaN is larger than every number, as in ``torch.topk``.

    Differentiable in ``src`` to any order, to the elements selected. Saved for backward: the positions. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or order, before any kernel runs.

    >>> import torch
    >>> from structops.sparse import segment_topk
    >>> segment_topk(torch.tensor([1., 5., 5., 2.]), torch.tensor([0, 3, 4]), 2)
    (tensor([[5., 5.],
            [2., 0.]]), tensor([[ 1,  2],
            [ 3, -1]]))
    """
    op = "segment_topk"
    src, indptr = _operands(op, src, indptr, True)
    k = check.size(op, "k", k)
    check.flags(op, largest=largest)
    fill = check.fill(op, fill_value, src.dtype, 0.0)
    G = indptr.shape[0] - 1
    check.fits(op, torch.int64, G, k, *src.shape[1:])
    at = ladder.segment_order(src.detach(), indptr, None, k, largest)
    values = ladder.select(src, at)
    if fill != 0:
        values = values.masked_fill(at < 0, fill)
    shape = (G, k, *src.shape[1:])
    return values.reshape(shape), at.to(torch.int64).reshape(shape)


def segment_quantile(
    src: Tensor, indptr: Tensor, q: float | Tensor, interpolation: str = "linear", *, fill_value: float | None = None
) -> Tensor:
    """Quantiles of every group ``src[indptr[g]:indptr[g + 1]]``, feature by feature.

    Args:
        src: ``[L]`` or ``[L, F]``; float32, float64, bfloat16 or float16.
        indptr: int32 or int64 ``[G + 1]``, non-decreasing from 0 to L. Checked on every call.
        q: a number in [0, 1], or a tensor ``[Q]`` of them.
        interpolation: between the elements of rank floor and ceil of ``q (n - 1)``: linear, lower, higher, midpoint or nearest
            (half to even), as ``torch.quantile``.
        fill_value: value of empty groups (default 0).

    Returns:
        ``[G]`` or ``[G, F]``; with Q quantiles ``[G, Q]`` or ``[G, Q, F]``. A group with a NaN gives NaN.

    Differentiable in ``src`` to any order, to the elements of the two ranks; of equal elements, to the earlier one for the lower
    rank. Saved for backward: the positions. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, order or q, before any kernel runs.

    >>> import torch
    >>> from structops.sparse import segment_quantile
    >>> segment_quantile(torch.tensor([1., 4., 2., 7.]), torch.tensor([0, 3, 4]), 0.75)
    tensor([3., 7.])
    """
    op = "segment_quantile"
    src, indptr = _operands(op, src, indptr, False)
    check.choice(op, "interpolation", interpolation, _INTERPOLATIONS)
    fill = check.fill(op, fill_value, src.dtype, 0.0)
    single = not isinstance(q, Tensor)
    if single and (isinstance(q, bool) or not isinstance(q, (int, float))):
        check.fail(TypeError, op, "q to be a number or a tensor", type(q).__name__)
    at = torch.as_tensor(q, dtype=torch.float64, device=src.device).detach()
    if at.dim() > 1:
        check.fail(ValueError, op, "q to be a number or of shape [Q]", list(at.shape))
    single = at.dim() == 0
    at = at.reshape(-1)
    if not torch.compiler.is_compiling() and not bool(((at >= 0) & (at <= 1)).all()):
        check.fail(ValueError, op, "q in [0, 1]", at.tolist())
    G, Q, tail = indptr.shape[0] - 1, at.shape[0], tuple(src.shape[1:])
    count = indptr.diff()
    exact = at * (count[:, None] - 1).clamp(min=0)  # [G, Q]
    if interpolation == "nearest":
        ranks = [exact.round()]
    else:
        ranks = [exact.floor()] * (interpolation != "higher") + [exact.ceil()] * (interpolation != "lower")
    rank = torch.cat(ranks, 1).to(indptr.dtype).contiguous()
    where = ladder.segment_order(src.detach(), indptr, rank, rank.shape[1], False)
    found = ladder.select(src, where).reshape(G, len(ranks), Q, *tail)
    if len(ranks) == 1:
        out = found[:, 0]
    else:
        low, high = found[:, 0], found[:, 1]
        share = torch.full_like(exact, 0.5) if interpolation == "midpoint" else exact - exact.floor()
        share = share.to(src.dtype).reshape(G, Q, *(1 for _ in tail))
        # Where both ranks are one element there is no difference to take: of infinities it would be NaN.
        same = (where.reshape(G, 2, Q, *tail)[:, 0] == where.reshape(G, 2, Q, *tail)[:, 1]) | (low == high)
        out = torch.where(same, low * (1 - share) + high * share, low + torch.where(same, 0, high - low) * share)
        out = torch.where(same & ~low.isfinite(), low, out)
    if fill != 0:
        out = out.masked_fill((count == 0).view(-1, *(1 for _ in out.shape[1:])), fill)
    return out[:, 0] if single else out


def segment_median(src: Tensor, indptr: Tensor, *, fill_value: float | None = None) -> Tensor:
    """The lower median of every group, as ``torch.median``: ``segment_quantile(src, indptr, 0.5, "lower")``.

    >>> import torch
    >>> from structops.sparse import segment_median
    >>> segment_median(torch.tensor([1., 4., 2., 7.]), torch.tensor([0, 2, 4]))
    tensor([1., 2.])
    """
    return segment_quantile(src, indptr, 0.5, "lower", fill_value=fill_value)
