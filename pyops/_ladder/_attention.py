"""attention and its backward. Higher orders go through the operators that it fuses."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from ..kernels.sparse.attention_ref import by_head, from_heads
from . import _csr, _softmax, _spmm
from ._composed import gradients


def _acc(t):
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _fake(key, query, value, edge, att, rowptr, *rest):
    N, H = query.shape[:2]
    return key.new_empty([N, H, value.shape[2]]), key.new_empty([N, H], dtype=_acc(key))


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:11], *output)
    ctx.args = inputs[11:]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)


def composed(s: tuple, lse, args: tuple):
    """The same by gathers, segment_softmax and a segment sum."""
    score, slope, scale, key_blocks, value_blocks = args
    rowptr, col, eid = s[:3]
    E, N = col.numel(), rowptr.numel() - 1
    row = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff(), output_size=E)
    alive = (lse > float("-inf")).index_select(0, row)

    def function(key, query, value, edge, att):
        k, q = by_head(key, key_blocks).index_select(0, col), by_head(query, key_blocks).index_select(0, row)
        value = by_head(value, value_blocks)
        if edge is not None:
            edge = edge.reshape(E, *(k.shape[1:] if score == C.GATV2 else (k.shape[1], 1)))
            edge = edge if eid is None else edge.index_select(0, eid)
        if score == C.DOT:
            logit = scale * (k * q).sum(2)
            logit = logit if edge is None else logit + edge[..., 0]
        else:
            z = k + q if edge is None else k + q + edge
            z = torch.where(z > 0, z, slope * z)
            logit = z[..., 0] if score == C.ADDITIVE else (z * att).sum(2)
        # Rows whose scores are all -inf give 0, not the NaN of a softmax.
        p = _softmax.segment_softmax(torch.where(alive, logit, 0).contiguous(), rowptr, None, False)
        weighted = torch.where(alive, p, 0)[..., None] * value.index_select(0, col)
        plain = (rowptr, None, None, None, None, None)
        total = _spmm.aggregate(plain, None, weighted.flatten(1).contiguous(), C.COPY_E)
        return from_heads(total.reshape(N, *value.shape[1:]), value_blocks)

    return function


def _backward(ctx, g, _):
    if g is None:
        return (None,) * 16
    *tensors, out, lse = ctx.saved_tensors
    operands, s = tensors[:5], tuple(tensors[5:])
    needs = ctx.needs_input_grad[:5]
    if torch.is_grad_enabled():
        return *gradients(composed(s, lse, ctx.args), operands, needs, [g]), *(None,) * 11
    rowptr, col, eid, *back = _csr.with_reverse(s, operands[0].shape[0])
    found = attention_bwd(*operands, out, lse, g.contiguous(), rowptr, col, eid, *back, *ctx.args)
    return *(d.reshape(t.shape) if n else None for d, t, n in zip(found, operands, needs, strict=True)), *(None,) * 11


def _bwd_fake(key, query, value, edge, att, *rest):
    # Behind out, lse, grad and the six tensors of the structure; the lists of blocks may be left out.
    score, H, K = rest[9], key.shape[1], key.shape[2]
    edge_shape = [0] if edge is None else [edge.shape[0], H, K] if score == C.GATV2 else [edge.shape[0], H]
    d_att = key.new_empty([0] if att is None else [H, K])
    return torch.empty_like(key), torch.empty_like(query), torch.empty_like(value), key.new_empty(edge_shape), d_att


attention = define("attention", _fake, _setup, _backward, (0, 1, 2, 3, 4))
attention_bwd = define("attention_bwd", _bwd_fake, None, None, ())
