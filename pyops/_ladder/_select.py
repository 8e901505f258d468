"""select and select_bwd, each the derivative of the other."""

from __future__ import annotations

from .._dispatch import define
from . import _common as common


def _select_fake(src, idx):
    return src.new_empty(idx.shape)


def _select_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])
    ctx.rows = common.rows(inputs[0])


def _select_backward(ctx, g):
    return select_bwd(g.contiguous(), ctx.saved_tensors[0], ctx.rows), None


def _select_bwd_fake(grad, idx, rows):
    shape = list(grad.shape)
    shape[0 if grad.dim() < 3 else 1] = rows
    return grad.new_empty(shape)


def _select_bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _select_bwd_backward(ctx, g):
    return select(g.contiguous(), ctx.saved_tensors[0]), None, None


select = define("select", _select_fake, _select_setup, _select_backward, (0,))
select_bwd = define("select_bwd", _select_bwd_fake, _select_bwd_setup, _select_bwd_backward, (0,))
