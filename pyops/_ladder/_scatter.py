"""scatter and its derivative."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from ._select import select_bwd


def _scatter_fake(src, index, dim_size, reduce, return_arg, fill, skip_nan):
    shape = list(src.shape)
    shape[0 if src.dim() < 3 else 1] = dim_size
    return src.new_empty(shape), index.new_empty(shape if return_arg else [0], dtype=torch.int64)


def _scatter_setup(ctx, inputs, output):
    src, index, dim_size, reduce, return_arg, *_ = inputs
    extreme = reduce in (C.MIN, C.MAX)
    ctx.save_for_backward(index, output[1] if extreme else None)
    ctx.args = (dim_size, reduce, return_arg, src.shape[0 if src.dim() < 3 else 1])
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)


def _scatter_backward(ctx, g, _):
    if g is None:
        return (None,) * 7
    index, winners = ctx.saved_tensors
    dim_size, reduce, return_arg, edges = ctx.args
    if reduce in (C.MIN, C.MAX):
        if not return_arg:
            raise NotImplementedError("scatter: the gradient of min and max needs return_arg = True")
        return select_bwd(g.contiguous(), winners, edges), *(None,) * 6
    if reduce == C.PROD:
        raise NotImplementedError("scatter: prod is differentiated through csr_build and spmm, see structops.scatter_reduce")
    if reduce == C.MEAN:
        count = scatter(torch.ones(edges, dtype=torch.int64, device=g.device), index, dim_size, C.SUM, False, 0.0, False)[0]
        g = g / common.column(count.clamp(min=1).to(g.dtype), g)
    return g.index_select(0 if g.dim() < 3 else 1, index), *(None,) * 6


scatter = define("scatter", _scatter_fake, _scatter_setup, _scatter_backward, (0,))
