"""spmm and its derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from . import _csr, _spmm_grad


def aggregate(s: tuple, x, e, message: int, reduce: int = C.SUM, bcast=None, unbiased: bool = True) -> Tensor:
    return spmm(x, e, *s, bcast, message, reduce, C.ARG_NONE, C.EMPTY[reduce], False, unbiased)[0]


def _spmm_fake(x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased):
    x = None if message == C.COPY_E else x
    e = None if message == C.COPY_U else e
    like = x if x is not None else e
    F = bcast.shape[1] if bcast is not None else max(common.features(t) for t in (x, e) if t is not None)
    shape = common.out_shape(x, e, rowptr.shape[0] - 1, F)
    return like.new_empty(shape), rowptr.new_empty(shape if arg else [0])


def _spmm_setup(ctx, inputs, output):
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, _fill, _skip_nan, unbiased = inputs
    out, winners = output
    keep_out = reduce in (C.STD, C.LOGSUMEXP)
    keep_in = reduce not in (C.SUM, C.MEAN) or message in (C.MUL, C.DIV)
    extreme = reduce in (C.MIN, C.MAX)
    if extreme and message in (C.COPY_U, C.COPY_E):
        keep_in = False
    ctx.save_for_backward(
        x if keep_in and message != C.COPY_E else None, e if keep_in and message != C.COPY_U else None,
        rowptr, col, eid, colptr, row_t, eid_t, bcast, out if keep_out else None, winners if extreme else None,
    )  # fmt: skip
    ctx.shapes = tuple(None if t is None else t.shape for t in (x, e))
    ctx.args = (message, reduce, arg, unbiased)
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(winners)
        ctx.set_materialize_grads(False)


def _spmm_backward(ctx, g, _):
    if g is None:
        return (None,) * 15
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, out, winners = ctx.saved_tensors
    message, reduce, arg, unbiased = ctx.args
    if message == C.COPY_U and reduce == C.SUM and colptr is not None:
        dx = aggregate((colptr, row_t, eid_t, rowptr, col, eid), g.contiguous(), None, C.COPY_U)
        return dx, *(None,) * 14
    wants_x = ctx.needs_input_grad[0] and message != C.COPY_E
    wants_e = ctx.needs_input_grad[1] and message != C.COPY_U
    x_shape, e_shape = ctx.shapes
    s = (rowptr, col, eid, colptr, row_t, eid_t)
    if wants_x and reduce not in (C.MIN, C.MAX):
        s = _csr.with_reverse(s, x_shape[0] if len(x_shape) < 3 else x_shape[1])
    job = _spmm_grad.Cotangent(s, x, e, x_shape, e_shape, bcast, message, unbiased, wants_x, wants_e)
    dx, de = job.run(g.contiguous(), reduce, arg, out, winners)
    return dx, de, *(None,) * 13


def _copy_reduce_fake(x, rowptr, index, reduce):
    return x.new_empty(common.out_shape(x, None, rowptr.shape[0] - 1, common.features(x)))


spmm = define("spmm", _spmm_fake, _spmm_setup, _spmm_backward, (0, 1))
copy_reduce = define("copy_reduce", _copy_reduce_fake, None, None, ())
