"""Derivatives of the tensor-product operators.

The form T(x, y, w, g) of csrc/so2/tp.h is linear in each argument. tp_conv is its gradient in g (in x: transposed, on the reversed
edges), tp_conv_edge those in y and w. The gradients of these are T again with one argument replaced by a cotangent: every order of
derivative is a few calls of the same two operators.
"""

from __future__ import annotations

import torch

from .._dispatch import define


def reverse(s: tuple) -> tuple:
    rowptr, col, eid, colptr, row_t, eid_t = s
    return colptr, row_t, eid_t, rowptr, col, eid


def _add(a, b):
    return b if a is None else a if b is None else a + b


def _dense(t):
    return None if t is None else t.contiguous()


# ---- tp_conv ---------------------------------------------------------------------------------------------------------


def _conv_fake(x, y, w, rowptr, col, eid, colptr, row_t, eid_t, plan, cg, sizes, transpose):
    return x.new_empty(y.shape[0] if rowptr is None else rowptr.shape[0] - 1, sizes[5] if transpose else sizes[7])


def _conv_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:11])
    ctx.sizes, ctx.transpose = inputs[11:]


def _conv_backward(ctx, g):
    x, y, w, *s, plan, cg = ctx.saved_tensors
    wants, rest = ctx.needs_input_grad, (plan, cg, ctx.sizes)
    g = g.contiguous()
    dx = dy = dw = None
    if wants[0]:
        dx = tp_conv(g, y, w, *reverse(s), *rest, not ctx.transpose)
    want_w = w is not None and wants[2]
    if wants[1] or want_w:
        sides = (g, x, y, w, *reverse(s)) if ctx.transpose else (x, g, y, w, *s)
        dy, dw = tp_conv_edge(*sides, *rest, wants[1], want_w)
    return dx, dy if wants[1] else None, dw if want_w else None, *(None,) * 10


tp_conv = define("tp_conv", _conv_fake, _conv_setup, _conv_backward, (0, 1, 2))


# ---- tp_conv_edge ----------------------------------------------------------------------------------------------------


def _edge_fake(x, g, y, w, rowptr, col, eid, colptr, row_t, eid_t, plan, cg, sizes, want_y, want_w):
    E = y.shape[0]
    return x.new_empty((E, sizes[6]) if want_y else (0,)), x.new_empty((E, sizes[8]) if want_w else (0,))


def _edge_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:12])
    ctx.sizes, ctx.want_y, ctx.want_w = inputs[12:]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.set_materialize_grads(False)


def _edge_backward(ctx, vy, vw):
    x, g, y, w, *s, plan, cg = ctx.saved_tensors
    wants, rest = ctx.needs_input_grad, (plan, cg, ctx.sizes)
    vy, vw = _dense(vy) if ctx.want_y else None, _dense(vw) if ctx.want_w else None
    dx = dg = dy = dw = None
    for given, y_, w_ in ((vy, vy, w), (vw, y, vw)):
        if given is None:
            continue
        if wants[0]:
            dx = _add(dx, tp_conv(g, y_, w_, *reverse(s), *rest, True))
        if wants[1]:
            dg = _add(dg, tp_conv(x, y_, w_, *s, *rest, False))
    want_y, want_w = wants[2] and vw is not None, w is not None and wants[3] and vy is not None
    if want_y or want_w:
        # The gradient in y does not read y, nor that in w read w.
        dy, dw = tp_conv_edge(x, g, vy if vy is not None else y, vw if vw is not None else w, *s, *rest, want_y, want_w)
    return dx, dg, dy if want_y else None, dw if want_w else None, *(None,) * 11


tp_conv_edge = define("tp_conv_edge", _edge_fake, _edge_setup, _edge_backward, (0, 1, 2, 3))
