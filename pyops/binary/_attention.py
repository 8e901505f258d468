"""Attention whose products run on bits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from . import _ops as ops
from ._bits import pack, pack_words, unpack_words
from ._linear import bit_matmul, clip_of, first_order, masked, saved_mask, sign_test
from ._weights import elastic

PROBABILITIES = ("softmax", "bool", "elastic")


class _BitProduct(torch.autograd.Function):
    """a [.., M, K] times sign(b) [.., N, K] transposed: a by its sign, or already in {0, size}. Saves bits."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, size: Tensor | None, clip: float | None, sign_zero: int) -> Tensor:
        values, last = ("pm1" if size is None else "01"), a.dim() - 1
        bits = pack(a, values=values, sign_zero=sign_zero), pack(b, sign_zero=sign_zero)
        ctx.save_for_backward(
            bits[0].words, bits[1].words, None if size is not None else saved_mask(a, last, clip), saved_mask(b, last, clip), size
        )
        ctx.K = a.shape[-1]
        out = bit_matmul(*bits).to(a.dtype)
        return out if size is None else out * size.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # type: ignore[override]
        with torch.no_grad():
            grads = _product_grads(ctx, g)
        return (*first_order(g, grads), None, None, None)


def _product_grads(ctx: Any, g: Tensor) -> tuple:
    a, b, a_mask, b_mask, size = ctx.saved_tensors
    last, ga, gb = g.dim() - 1, None, None
    if ctx.needs_input_grad[0]:
        ga = masked(g @ unpack_words(b, ctx.K, last, g.dtype, -1.0, 1.0), a_mask, last)
    if ctx.needs_input_grad[1]:
        low = -1.0 if size is None else 0.0
        scaled = g if size is None else g * size.to(g.dtype)
        gb = masked(scaled.transpose(-1, -2) @ unpack_words(a, ctx.K, last, g.dtype, low, 1.0), b_mask, last)
    return ga, gb


class _Threshold(torch.autograd.Function):
    """1 where a score is above 0 (``>=``: or is 0); the gradient passes where abs(score) < 1. Saves a bit a score."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, tie: bool) -> Tensor:
        ctx.save_for_backward(pack_words(scores, scores.dim() - 1, ops.ABS_LT, 1.0))
        return (scores >= 0 if tie else scores > 0).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # type: ignore[override]
        with torch.no_grad():
            grad = masked(g, ctx.saved_tensors[0], g.dim() - 1)
        return (*first_order(g, (grad,)), None)


def binary_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    probability: str = "softmax",
    scale: Tensor | float | None = None,
    value_scale: Tensor | float | None = None,
    alpha: Tensor | None = None,
    rank1: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    value_residual: Tensor | None = None,
    mask: Tensor | None = None,
    tie: str = ">",
    sign_zero: int = 1,
    clip: float | None = 1.0,
) -> Tensor:
    """Attention of signs: ``scores = sign(q) . sign(k)`` and, where probabilities are in {0, 1}, the context on bits too.

    Args:
        query: ``[.., M, D]``. key: ``[.., L, D]``. value: ``[.., L, O]``; equal leading dimensions, floating, packed inside.
        probability: ``softmax`` in floats, times sign(value); ``bool``: 1[score > 0] (``tie=">="``: >= 0), the gradient passed
            where abs(score) < 1 (Bi-Attention, arXiv:2203.06390); ``elastic``: {0, alpha} of the softmax (BiT, arXiv:2205.13016).
        scale: of the scores, a number or a tensor that broadcasts (the product of both scales, BiT); default ``1 / sqrt(D)``.
        value_scale: of sign(value), default 1. alpha: positive, one element, of ``elastic``; learned.
        rank1: ``(q_mean, q_rest, k_mean, k_rest)``, ``[.., M, r]`` and ``[.., L, r]``: adds to the unscaled scores
            ``q_mean k_rest' + q_rest k_mean' + q_rest k_rest'``, BiPFT's estimate of the residual.
        value_residual: ``[.., L, O]``, added to the value as it is (BiPFT): probabilities times it run in floats.
        mask: bool, broadcasts to the scores; False places have no probability.
        sign_zero: 1 or -1. clip: the gradient of a sign passes where abs <= clip; None: everywhere.

    Returns:
        ``[.., M, O]`` in the dtype of the query. Products of signs are exact integers. Differentiable once in all floating
        operands; what is kept of query, key and value is two bits a number, of bool and elastic probabilities a bit each besides
        what softmax and the learned scale keep. Deterministic on bits.

    >>> import torch, structops
    >>> q = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    >>> structops.binary.binary_attention(q, q, q, probability="bool")
    tensor([[ 1., -1.],
            [ 1.,  1.]])
    """
    op = "binary_attention"
    for name, t in (("query", query), ("key", key), ("value", value)):
        check.dense(op, name, t)
        if t.dim() < 2 or t.dim() != query.dim() or t.shape[:-2] != query.shape[:-2]:
            check.fail(ValueError, op, f"{name} [.., length, features] with the leading dimensions of query", list(t.shape))
        if t.dtype != query.dtype or t.device != query.device:
            check.fail(TypeError, op, f"{name} {query.dtype} on {query.device}, as query", check.describe(t))
    D, L = query.shape[-1], key.shape[-2]
    if key.shape[-1] != D or value.shape[-2] != L:
        check.fail(ValueError, op, f"key [.., L, {D}] and value [.., L, O]", f"{list(key.shape)} and {list(value.shape)}")
    check.choice(op, "probability", probability, PROBABILITIES)
    check.choice(op, "tie", tie, (">", ">="))
    limit = None if clip is None else clip_of(op, "clip", clip)
    sign_test(sign_zero)
    if sign_zero not in (1, -1):
        check.fail(ValueError, op, "sign_zero 1 or -1", sign_zero)
    scores = _BitProduct.apply(query, key, None, limit, sign_zero)
    if rank1 is not None:
        q_mean, q_rest, k_mean, k_rest = rank1
        left, right = torch.cat([q_mean, q_rest, q_rest], -1), torch.cat([k_rest, k_mean, k_rest], -1)
        scores = scores + left @ right.transpose(-1, -2)
    scores = scores * (1 / math.sqrt(max(D, 1)) if scale is None else scale)
    if mask is not None:
        check.tensor(op, "mask", mask)
        if mask.dtype != torch.bool:
            check.fail(TypeError, op, "mask of dtype bool", mask.dtype)
        scores = scores.masked_fill(~mask, -math.inf)
    across = value.transpose(-1, -2)  # [.., O, L], packed along L
    if probability == "softmax":
        p = scores.softmax(-1)
        context = p @ _signed(value, limit, sign_zero)
    else:
        if probability == "bool":
            p, size = _Threshold.apply(scores, tie == ">="), scores.new_ones(())
        else:
            if alpha is None:
                check.fail(ValueError, op, "alpha with probability 'elastic'", None)
            p = elastic(scores.softmax(-1), alpha, False)
            size = alpha.detach().reshape(()).clamp(min=1e-5)
        context = _BitProduct.apply(p, across, size, limit, sign_zero)
    if value_scale is not None:
        context = context * value_scale
    return context if value_residual is None else context + p @ value_residual


def _signed(value: Tensor, limit: float | None, sign_zero: int) -> Tensor:
    from ._signs import sign

    return sign(value, "identity", sign_zero=sign_zero) if limit is None else sign(value, clip=limit, sign_zero=sign_zero)
