"""segment_attention and its backward. Higher orders go through attention over the edges of complete bipartite graphs."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from ._attention import composed
from ._composed import gradients


def _fake(query, key, value, bias, qptr, kptr, offset, scale):
    lse = query.new_empty(query.shape[:2], dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)
    return query.new_empty([*query.shape[:2], value.shape[2]]), lse


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.scale = inputs[7]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)


def pairs(qptr, kptr, Nq: int) -> tuple:
    """rowptr and col of the pairs, queries as rows."""
    counts = qptr.diff()
    per_query = lambda v: torch.repeat_interleave(v, counts, output_size=Nq)
    degree = per_query(kptr.diff())
    rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    col = torch.arange(int(rowptr[-1]), device=qptr.device) + torch.repeat_interleave(per_query(kptr[:-1]) - rowptr[:-1], degree)
    return rowptr.to(col.dtype), col


def _backward(ctx, g, _):
    if g is None:
        return (None,) * 8
    query, key, value, bias, qptr, kptr, offset, out, lse = ctx.saved_tensors
    needs = ctx.needs_input_grad[:4]
    if torch.is_grad_enabled():
        edges = composed((*pairs(qptr, kptr, query.shape[0]), None), lse, (C.DOT, 0.0, ctx.scale, None, None))
        run = lambda query, key, value, bias: edges(key, query, value, bias, None)
        return *gradients(run, (query, key, value, bias), needs, [g]), *(None,) * 4
    found = segment_attention_bwd(query, key, value, bias, out, lse, g.contiguous(), qptr, kptr, offset, ctx.scale)
    return *(d if n else None for d, n in zip(found, needs, strict=True)), *(None,) * 4


def _bwd_fake(query, key, value, bias, *rest):
    return *(torch.empty_like(t) for t in (query, key, value)), query.new_empty([0]) if bias is None else torch.empty_like(bias)


segment_attention = define("segment_attention", _fake, _setup, _backward, (0, 1, 2, 3))
segment_attention_bwd = define("segment_attention_bwd", _bwd_fake, None, None, ())
