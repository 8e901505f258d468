"""multi_reduce and its backward. Higher orders go through the reductions one by one."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from . import _csr, _spmm
from ._composed import gradients


def _stats(reduces) -> int:
    return 1 + (C.STD in reduces) if C.VAR in reduces or C.STD in reduces else 0


def _fake(x, edge, y, rowptr, col, eid, colptr, row_t, eid_t, scale, reduces, eps, keep):
    like = x if x is not None else edge
    N, F = rowptr.shape[0] - 1, like.shape[1]
    accumulator = torch.float64 if like.dtype == torch.float64 else torch.float32
    extremes = (C.MIN in reduces) + (C.MAX in reduces)
    return (
        like.new_empty([N, (1 if scale is None else scale.shape[0]) * len(reduces), F]),
        like.new_empty([_stats(reduces) if keep else 0, N, F], dtype=accumulator),
        rowptr.new_empty([extremes if keep else 0, N, F]),
    )


def _setup(ctx, inputs, output):
    _, stat, arg = output
    ctx.save_for_backward(*inputs[:10], stat, arg)
    ctx.args = inputs[10:12]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(stat, arg)
        ctx.set_materialize_grads(False)


def _composed(s: tuple, scale, reduces, eps: float):
    """The same by one spmm for every reduction."""
    degree = s[0].diff()[:, None]

    def function(x, edge, y):
        message = C.COPY_U if edge is None else C.COPY_E if x is None else C.ADD
        found = {}
        for code in reduces:
            how = C.VAR if code == C.STD else code
            arg = C.ARG_POSITION if how in (C.MIN, C.MAX) else C.ARG_NONE
            value = _spmm.spmm(x, edge, *s, None, message, how, arg, 0.0, False, False)[0]
            if y is not None and how != C.VAR:
                value = value + y * (degree if how == C.SUM else degree > 0).to(y.dtype)
            found[code] = (value + eps).sqrt() if code == C.STD else value
        together = torch.stack([found[code] for code in reduces], 1)
        if scale is None:
            return together
        return (scale.T.to(together.dtype)[:, :, None, None] * together[:, None]).flatten(1, 2)

    return function


def _backward(ctx, g, *_):
    if g is None:
        return (None,) * 13
    x, edge, y, *s, scale, stat, arg = ctx.saved_tensors
    reduces, eps = ctx.args
    needs = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():
        return *gradients(_composed(tuple(s), scale, reduces, eps), (x, edge, y), needs, [g]), *(None,) * 10
    if needs[0]:
        s = _csr.with_reverse(tuple(s), x.shape[0])
    wanted = sum(bit for bit, need in zip((1, 4, 2), needs, strict=True) if need)
    d_x, d_y, d_edge = multi_reduce_bwd(x, edge, g.contiguous(), stat, arg, *s, scale, reduces, wanted)
    return *(d if n else None for d, n in zip((d_x, d_edge, d_y), needs, strict=True)), *(None,) * 10


def _bwd_fake(x, edge, grad, stat, arg, rowptr, col, eid, colptr, row_t, eid_t, scale, reduces, wanted):
    like = x if x is not None else edge
    rows = ((x, 1), (grad, 2), (edge, 4))
    return tuple(like.new_empty([t.shape[0], like.shape[1]] if t is not None and wanted & bit else [0]) for t, bit in rows)


multi_reduce = define("multi_reduce", _fake, _setup, _backward, (0, 1, 2))
multi_reduce_bwd = define("multi_reduce_bwd", _bwd_fake, None, None, ())
