"""Masks of the largest scores, and the networks that train scores over fixed weights: edge-popup, biprop, weight recycling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import define


def _topk_fake(score, keep, magnitude):
    return score.new_empty((score.numel() + 7) // 8, dtype=torch.uint8)


def _apply_fake(x, bits):
    return torch.empty_like(x)


def _apply_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _apply_backward(ctx, g):
    (bits,) = ctx.saved_tensors
    return mask_apply(g.contiguous(), bits), None


_topk_mask = define("topk_mask", _topk_fake, None, None, ())
mask_apply = define("mask_apply", _apply_fake, _apply_setup, _apply_backward, (0,))


def kept(op: str, score: Tensor, keep: Any) -> int:
    """A count, or a share of the scores of which the complement is rounded down (as edge-popup counts)."""
    n = score.numel()
    if isinstance(keep, float):
        if not 0 <= keep <= 1:
            check.fail(ValueError, op, "keep within [0, 1] or a count", keep)
        return n - int((1 - keep) * n)
    keep = check.size(op, "keep", keep)
    if keep > n:
        check.fail(ValueError, op, f"keep of at most {n}", keep)
    return keep


def topk_mask(score: Tensor, keep: int | float, magnitude: bool = True) -> Tensor:
    """The mask of the ``keep`` largest scores (of magnitudes) as bits: uint8 ``[ceil(numel / 8)]``, least significant first.

    Args:
        score: any shape; float32, float64, bfloat16 or float16.
        keep: a count, or a share from 0.0 to 1.0: ``numel - int((1 - share) * numel)``.

    Exactly ``keep`` bits are set: the first of equal scores are kept and NaN comes last. Found by radix selection, not by sorting.
    Not differentiable. Deterministic.

    >>> import torch, structops
    >>> structops.binary.topk_mask(torch.tensor([3.0, -5.0, 1.0, 3.0]), 2)
    tensor([3], dtype=torch.uint8)
    """
    op = "topk_mask"
    check.dense(op, "score", score)
    check.flags(op, magnitude=magnitude)
    return _topk_mask(score.detach().contiguous(), kept(op, score, keep), magnitude)


def masked(x: Tensor, bits: Tensor) -> Tensor:
    """``x`` where its bit of :func:`topk_mask` is set, else 0. Differentiable to any order; saves the bits.

    >>> import torch, structops
    >>> structops.binary.masked(torch.ones(3), torch.tensor([5], dtype=torch.uint8))
    tensor([1., 0., 1.])
    """
    op = "masked"
    check.dense(op, "x", x)
    check.tensor(op, "bits", bits)
    check.same_device(op, x=x, bits=bits)
    if bits.dtype != torch.uint8 or tuple(bits.shape) != ((x.numel() + 7) // 8,):
        check.fail(ValueError, op, f"bits uint8 [{(x.numel() + 7) // 8}]", check.describe(bits))
    return mask_apply(x.contiguous(), bits.contiguous())


class _Popup(torch.autograd.Function):
    """weight * mask(score), the score's gradient passed straight through the mask: g times the weight (biprop: its size)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, value: Tensor, bits: Tensor, sized: bool) -> Tensor:
        ctx.save_for_backward(weight, bits)
        ctx.sized = sized
        ctx.dtype = score.dtype
        return mask_apply.below(value, bits)

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # type: ignore[override]
        weight, bits = ctx.saved_tensors
        g = g.contiguous()
        d_weight = mask_apply(g, bits) if ctx.needs_input_grad[0] and not ctx.sized else None
        d_score = (g * (weight.abs() if ctx.sized else weight)).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return d_weight, d_score, None, None, None


def _pair(op: str, weight: Any, score: Any) -> None:
    check.dense(op, "weight", weight)
    check.dense(op, "score", score)
    check.same_device(op, weight=weight, score=score)
    if weight.shape != score.shape:
        check.fail(ValueError, op, f"score of shape {list(weight.shape)}", list(score.shape))


def edge_popup(weight: Tensor, score: Tensor, keep: int | float) -> Tensor:
    """Edge-popup (arXiv:1911.13299): the weights whose scores are largest in magnitude, 0 elsewhere.

    The gradient of the score is ``g * weight`` everywhere, that of the weight ``g`` where it is kept. Saves the weight and one bit.

    >>> import torch, structops
    >>> structops.binary.edge_popup(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, -0.9, 0.5]), 2)
    tensor([0., 2., 3.])
    """
    _pair("edge_popup", weight, score)
    weight = weight.contiguous()
    return _Popup.apply(weight, score, weight.detach(), topk_mask(score, keep), False)


def biprop(weight: Tensor, score: Tensor, keep: int | float, *, sign_zero: int = 1) -> Tensor:
    """Biprop (arXiv:2103.09377): ``alpha * sign(weight)`` where the score is kept, alpha the mean size of the kept weights.

    The gradient of the score is ``g * |weight|``; the weight is fixed. Saves the weight and one bit.

    >>> import torch, structops
    >>> structops.binary.biprop(torch.tensor([-1.0, 2.0, -4.0]), torch.tensor([0.1, 0.9, 0.5]), 2)
    tensor([ 0.,  3., -3.])
    """
    from ._signs import sign

    op = "biprop"
    _pair(op, weight, score)
    weight = weight.detach().contiguous()
    bits, n = topk_mask(score, keep), kept(op, score, keep)
    with torch.no_grad():
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        alpha = mask_apply(wide.abs().contiguous(), bits).sum() / max(n, 1)
        value = (sign(wide, sign_zero=sign_zero) * alpha).to(weight.dtype)
    return _Popup.apply(weight, score, value, bits, True)


def recycle_weights(weight: Tensor, score: Tensor, rate: float) -> Tensor:
    """Iterative weight recycling (arXiv:2303.15953): a copy in which the ``rate`` lowest scores take the weights of the highest.

    Scores count by magnitude; ``int(rate * numel)`` weights, at most half: the lowest takes the highest's, and so on in order.
    Equal scores are ordered by position. Not differentiable.

    >>> import torch, structops
    >>> structops.binary.recycle_weights(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.9, 0.1, 0.5, 0.4]), 0.25)
    tensor([1., 1., 3., 4.])
    """
    op = "recycle_weights"
    _pair(op, weight, score)
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 0.5:
        check.fail(ValueError, op, "rate within [0, 0.5]", rate)
    size = score.detach().reshape(-1).abs()
    n = int(rate * size.numel())
    # Candidates by radix selection; only they are sorted.
    high = _members(_topk_mask(size.contiguous(), n, False), size)
    rest = size.numel() - n
    low = ~_members(_topk_mask(size.contiguous(), rest, False), size)
    at_high, at_low = high.nonzero()[:, 0], low.nonzero()[:, 0]
    at_high = at_high[torch.sort(size[at_high], descending=True, stable=True).indices]
    at_low = at_low[torch.sort(size[at_low], stable=True).indices]
    out = weight.detach().clone().reshape(-1)
    out[at_low] = out[at_high]
    return out.reshape(weight.shape)


def _members(bits: Tensor, like: Tensor) -> Tensor:
    return mask_apply(torch.ones_like(like), bits) > 0
