"""segment_softmax, its backward, and their derivatives."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from . import _sddmm, _spmm


def _softmax_fake(src, rowptr, eid, log):
    return torch.empty_like(src)


def _softmax_setup(ctx, inputs, output):
    ctx.save_for_backward(output, inputs[1], inputs[2])
    ctx.log = inputs[3]


def _softmax_backward(ctx, g):
    out, rowptr, eid = ctx.saved_tensors
    return segment_softmax_bwd(out, g.contiguous(), rowptr, eid, ctx.log), None, None, None


def _softmax_bwd_fake(out, grad, rowptr, eid, log):
    return torch.empty_like(out)


def _softmax_bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.log = inputs[4]


def _softmax_bwd_backward(ctx, h):
    """With y the softmax: D_j = y_j (g_j - <y, g>);  with y its logarithm: D_j = g_j - exp(y_j) sum(g)."""
    y, g, rowptr, eid = ctx.saved_tensors
    h = h.contiguous()
    s, n = (rowptr, None, eid, None, None, None), common.rows(y)
    total = lambda v: _sddmm.to_edges(s, _spmm.aggregate(s, None, v.contiguous(), C.COPY_E), n)
    dy = dg = None
    if ctx.log:
        p = y.exp()
        if ctx.needs_input_grad[0]:
            dy = -h * p * total(g)
        if ctx.needs_input_grad[1]:
            dg = h - total(h * p)
    else:
        if ctx.needs_input_grad[0]:
            dy = h * (g - total(y * g)) - g * total(h * y)
        if ctx.needs_input_grad[1]:
            dg = segment_softmax_bwd(y, h, rowptr, eid, False)
    return dy, dg, None, None, None


segment_softmax = define("segment_softmax", _softmax_fake, _softmax_setup, _softmax_backward, (0,))
segment_softmax_bwd = define("segment_softmax_bwd", _softmax_bwd_fake, _softmax_bwd_setup, _softmax_bwd_backward, (0, 1))
