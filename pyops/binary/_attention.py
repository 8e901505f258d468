"""Attention whose products run on bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from . import _ops as ops
from ._bits import BitTensor, _product, pack, pack_words, unpack_words
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
    @autocast.disabled
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


# What is asked of a score: that it is on, without or with ties, and, both, that its gradient passes.
ABOVE, AT_LEAST, PASSES = (torch.gt, 0.0), (torch.ge, 0.0), ((torch.gt, -1.0), (torch.lt, 1.0))
Test = tuple[Callable, float]


def _cut(test: Test, scale: Any, D: int, like: Tensor) -> Tensor:
    """(threshold, flip) of bits_gemm: bits of what ``test`` says of ``dot * scale``, products in the dtype of ``like``.

    Over the dots -D..D they are false, then true, or the other way round.
    """
    compare, bound = test
    on = compare(torch.arange(-D, D + 1, device=like.device).to(like.dtype) * scale, bound).reshape(-1)
    falls = on[0] & ~on[-1]
    count = on.sum()
    return torch.stack([torch.where(falls, count - D, D + 1 - count), -falls.long()]).int()


@lru_cache(maxsize=256)
def _number_cut(test: Test, scale: float, D: int, dtype: torch.dtype) -> list[int]:
    return _cut(test, scale, D, torch.empty(0, dtype=dtype, device="cpu")).tolist()


def _score_bits(test: Test, q: Tensor, k: Tensor, scale: Any, sizes: tuple[int, int], like: Tensor) -> Tensor:
    """Words ``[G, M, words of L]`` of what ``test`` says of the scores of words q ``[G, M, ..]`` and k ``[G, L, ..]``."""
    D, L = sizes
    if isinstance(scale, Tensor) or torch.compiler.is_compiling():
        limit = _cut(test, scale, D, like)
    else:
        limit = torch.tensor(_number_cut(test, scale, D, like.dtype), dtype=torch.int32, device=like.device)
    limit = limit[:, None].expand(2, L).contiguous()  # the same for every key
    return ops.bits_gemm(q, k[None], None, D, [-2], [0], 0, D, False, None, None, None, None, None, limit, ops.OUT_BITS)


class _BoolAttention(torch.autograd.Function):
    """1[scale sign(q) sign(k)' > 0] sign(v): score, threshold and packing are one kernel. Saves the bits of its operands."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: Any,
        mask: Tensor | None,
        tie: bool,
        clip: float | None,
        sign_zero: int,
    ) -> Tensor:
        test, last, D, L = sign_test(sign_zero), query.dim() - 1, query.shape[-1], key.shape[-2]
        q, k, v = pack_words(query, last, test), pack_words(key, last, test), pack_words(value, last - 1, test)
        known = scale.detach() if isinstance(scale, Tensor) else scale
        on = _score_bits(AT_LEAST if tie else ABOVE, _flat(q), _flat(k), known, (D, L), query)
        on = on.reshape(*query.shape[:-1], ops.words_of(L))
        if mask is not None:
            on &= _mask_bits(mask, L)
        masks = (
            saved_mask(t, dim, clip) if needed else None
            for t, dim, needed in zip((query, key, value), (last, last, last - 1), ctx.needs_input_grad, strict=False)
        )
        ctx.save_for_backward(q, k, v, *masks, mask, scale if isinstance(scale, Tensor) else None)
        ctx.sizes, ctx.scale, ctx.tie = (D, L), None if isinstance(scale, Tensor) else scale, tie
        context = bit_matmul(BitTensor(on, L, values="01", validate=False), BitTensor(v, L, validate=False))
        return context.to(query.dtype)

    @staticmethod
    @autocast.disabled
    def backward(ctx: Any, g: Tensor):  # type: ignore[override]
        with torch.no_grad():
            grads = _bool_grads(ctx, g)
        return (*first_order(g, grads), None, None, None, None)


def _flat(words: Tensor) -> Tensor:
    """[groups, rows, W] of words [.., rows, W]."""
    return words.reshape(_product(words.shape[:-2]), *words.shape[-2:])


def _mask_bits(mask: Tensor, L: int) -> Tensor:
    rows = mask.expand(*mask.shape[:-1], L)
    return pack_words(rows, rows.dim() - 1, ops.GT)


def _mask_blocks(mask: Tensor, lead: tuple[int, ...]) -> Callable[[slice, slice], Tensor]:
    """Blocks of groups and rows of a mask that broadcasts, which is never expanded to all of them."""
    full = mask.reshape((1,) * (len(lead) + 2 - mask.dim()) + mask.shape)
    flat = _flat(full)
    group = torch.arange(flat.shape[0], device=mask.device).reshape(full.shape[:-2]).expand(lead).reshape(-1)
    return lambda at, of: flat[:, of if flat.shape[1] > 1 else slice(None)].index_select(0, group[at])


BLOCK = 1 << 20  # scores that a backward holds in floats at a time


def _bool_grads(ctx: Any, g: Tensor) -> tuple:
    """Of query, key, value and scale, by blocks of groups and rows, in their order; the scores are counted again."""
    q, k, v, q_mask, k_mask, v_mask, mask, scale = ctx.saved_tensors
    (D, L), last = ctx.sizes, g.dim() - 1
    by = ctx.scale if scale is None else scale.reshape(())
    lead, M = g.shape[:-2], g.shape[-2]
    wide = torch.float64 if g.dtype == torch.float64 else torch.float32
    signs = lambda words, K, dim: unpack_words(words, K, dim, g.dtype, -1.0, 1.0)
    gf, qf, kf = _flat(g), _flat(q), _flat(k)
    sq, sk, sv = signs(qf, D, 2), signs(kf, D, 2), signs(_flat(v), L, 1)
    G = gf.shape[0]
    bq, bk = sq * by, sk * by
    gq, gk, gv = torch.empty_like(sq), torch.zeros_like(sk, dtype=wide), torch.zeros_like(sv, dtype=wide)
    g_scale = torch.zeros((), dtype=wide, device=g.device)
    allowed = None if mask is None else _mask_blocks(mask, lead)
    groups = max(1, BLOCK // max(M * L, 1))
    rows = max(1, M if groups > 1 else BLOCK // max(L, 1))
    for a in range(0, G, groups):
        for m in range(0, M, rows):
            at, of = slice(a, a + groups), slice(m, m + rows)
            qs, ks = qf[at, of].contiguous(), kf[at]
            on, low, high = (_score_bits(t, qs, ks, by, (D, L), g) for t in (AT_LEAST if ctx.tie else ABOVE, *PASSES))
            passes = low & high
            if allowed is not None:
                here = _mask_bits(allowed(at, of), L)
                on, passes = on & here, passes & here
            gv[at] += unpack_words(on, L, 2, g.dtype, 0.0, 1.0).transpose(1, 2) @ gf[at, of]
            gs = masked(gf[at, of] @ sv[at].transpose(1, 2), passes, 2, owned=True)
            gq[at, of] = gs @ bk[at]
            gk[at] += gs.transpose(1, 2) @ bq[at, of]
            if ctx.needs_input_grad[3]:  # gs times the dots, summed over keys first
                g_scale += ((gs.to(wide) @ sk[at].to(wide)) * sq[at, of]).sum()
    back = lambda t, rest, bits, dim: masked(t.to(g.dtype).reshape(*lead, *rest), bits, dim)
    return (
        back(gq, (M, D), q_mask, last),
        back(gk, (L, D), k_mask, last),
        back(gv, (L, sv.shape[2]), v_mask, last - 1),
        g_scale.to(g.dtype).reshape(scale.shape) if scale is not None and ctx.needs_input_grad[3] else None,
    )


def _one_scale(scale: Any, query: Tensor) -> bool:
    """One number for all scores, which leaves them in the dtype and shape of the query."""
    if not isinstance(scale, Tensor):
        return True
    return scale.numel() == 1 and scale.dim() <= query.dim() and scale.dtype == query.dtype and scale.device == query.device


@autocast.promotes
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
        mask: bool, broadcasts to the scores; False places have no probability; a query without a place gets 0.
        sign_zero: 1 or -1. clip: the gradient of a sign passes where abs <= clip; None: everywhere.

    Returns:
        ``[.., M, O]`` in the dtype of the query. Products of signs are exact integers. Differentiable once in all floating
        operands; what is kept of query, key and value is two bits a number. ``bool`` with one number for a scale, without rank1
        and value_residual, makes no ``[M, L]`` floats: scores become bits where they are counted, nothing is kept of them, and
        backward counts them again, about a million at a time. Otherwise scores are floats, and of bool and elastic
        probabilities a bit each is kept besides what softmax and the learned scale keep. Deterministic on bits.

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
    # torch.compile refuses a Function to which one tensor is given twice.
    value = value.view_as(value) if value is query or value is key else value
    key = key.view_as(key) if key is query else key
    check.choice(op, "probability", probability, PROBABILITIES)
    check.choice(op, "tie", tie, (">", ">="))
    limit = None if clip is None else clip_of(op, "clip", clip)
    sign_test(sign_zero)
    if sign_zero not in (1, -1):
        check.fail(ValueError, op, "sign_zero 1 or -1", sign_zero)
    scale = 1 / math.sqrt(max(D, 1)) if scale is None else scale
    if mask is not None:
        check.tensor(op, "mask", mask)
        if mask.dtype != torch.bool:
            check.fail(TypeError, op, "mask of dtype bool", mask.dtype)
        sizes = (*query.shape[:-1], L)
        if mask.dim() > len(sizes) or any(m not in (1, n) for m, n in zip(mask.shape[::-1], sizes[::-1], strict=False)):
            check.fail(ValueError, op, f"mask that broadcasts to {list(sizes)}", list(mask.shape))
    if probability == "bool" and rank1 is None and value_residual is None and _one_scale(scale, query):
        context = _BoolAttention.apply(query, key, value, scale, mask, tie == ">=", limit, sign_zero)
        return context if value_scale is None else context * value_scale
    scores = _BitProduct.apply(query, key, None, limit, sign_zero)
    if rank1 is not None:
        q_mean, q_rest, k_mean, k_rest = rank1
        left, right = torch.cat([q_mean, q_rest, q_rest], -1), torch.cat([k_rest, k_mean, k_rest], -1)
        scores = scores + left @ right.transpose(-1, -2)
    scores = scores * scale
    across = value.transpose(-1, -2)  # [.., O, L], packed along L
    if probability == "softmax":
        p = _softmax(scores, mask)
        context = p @ _signed(value, limit, sign_zero)
    else:
        if probability == "bool":
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf)
            p, size = _Threshold.apply(scores, tie == ">="), scores.new_ones(())
        else:
            if alpha is None:
                check.fail(ValueError, op, "alpha with probability 'elastic'", None)
            p = elastic(_softmax(scores, mask), alpha, False)
            size = alpha.detach().reshape(()).clamp(min=1e-5)
        context = _BitProduct.apply(p, across, size, limit, sign_zero)
    if value_scale is not None:
        context = context * value_scale
    return context if value_residual is None else context + p @ value_residual


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """0, with the gradient 0, in rows without a place: their scores, all -inf otherwise, are left as they are."""
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask & mask.any(-1, keepdim=True), -math.inf).softmax(-1).masked_fill(~mask, 0)


def _signed(value: Tensor, limit: float | None, sign_zero: int) -> Tensor:
    from ._signs import sign

    return sign(value, "identity", sign_zero=sign_zero) if limit is None else sign(value, clip=limit, sign_zero=sign_zero)
