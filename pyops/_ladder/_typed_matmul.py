"""Typed and edge-conditioned products. Both are linear in every operand, so their derivatives are the same few operators."""

from __future__ import annotations

from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from . import _csr, _spmm

LISTS = 7  # ptr, types, blocks, block_rows, gptr, gather, scatter


def exchange(lists: tuple) -> tuple:
    """The lists of both directions with the directions exchanged: of the derivative by x."""
    there, back = lists[2 : 2 + LISTS], lists[2 + LISTS :]
    if back[0] is None:  # every row of x is read once: gather and scatter change places
        ptr, types, blocks, block_rows, gptr, gather, scatter = there
        back = (ptr, types, blocks, block_rows, gptr, scatter, gather)
        return lists[0], lists[0], *back, *there
    return lists[1], lists[0], *back, *there


def _transposed(w: Tensor) -> Tensor:
    return w.transpose(1, 2).contiguous()


def _typed_fake(x, weight, *rest):
    return x.new_empty([rest[-1], weight.shape[2]])


def _typed_setup(ctx, inputs, output):
    x, weight, _bias, *rest = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None, *rest[:-1])
    ctx.x_rows, ctx.types = x.shape[0], weight.shape[0]


def _typed_backward(ctx, g):
    x, weight, *lists = ctx.saved_tensors
    g = g.contiguous()
    dx = dw = db = None
    if ctx.needs_input_grad[0]:
        dx = typed_matmul(g, _transposed(weight), None, *exchange(tuple(lists)), ctx.x_rows)
    if ctx.needs_input_grad[1]:
        dw = typed_matmul_wgrad(x, g, *lists, ctx.types)
    if ctx.needs_input_grad[2]:
        ptr, scatter = lists[2], lists[8]
        s = (ptr, None, scatter, None, None, None)
        db = _spmm.aggregate(s, None, g, C.COPY_E)
    return dx, dw, db, *(None,) * (3 + 2 * LISTS)


def _wgrad_fake(x, grad, *rest):
    return x.new_empty([rest[-1], x.shape[1], grad.shape[1]])


def _wgrad_setup(ctx, inputs, output):
    x, grad, *rest = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, grad if ctx.needs_input_grad[0] else None, *rest[:-1])
    ctx.x_rows, ctx.rows = x.shape[0], grad.shape[0]


def _wgrad_backward(ctx, g):
    x, grad, *lists = ctx.saved_tensors
    g = g.contiguous()
    dx = dy = None
    if ctx.needs_input_grad[0]:
        dx = typed_matmul(grad, _transposed(g), None, *exchange(tuple(lists)), ctx.x_rows)
    if ctx.needs_input_grad[1]:
        dy = typed_matmul(x, g, None, *lists, ctx.rows)
    return dx, dy, *(None,) * (3 + 2 * LISTS)


typed_matmul = define("typed_matmul", _typed_fake, _typed_setup, _typed_backward, (0, 1, 2))
typed_matmul_wgrad = define("typed_matmul_wgrad", _wgrad_fake, _wgrad_setup, _wgrad_backward, (0, 1))


# ---- a matrix per edge: T(h, x, w, y), see csrc/sparse/edge_matmul.h -------------------------------------------------


def _gradients(needs, x, h, w, y, structure):
    """By each of x, h, w, y that is needed, of T."""
    s = tuple(structure)
    dx = None
    if needs[0]:
        dx = edge_matmul(y, h, _transposed(w), *common.reverse(_csr.with_reverse(s, x.shape[0])))
    dh = edge_matmul_hgrad(x, y, w, *s) if needs[1] else None
    dw = edge_matmul_wgrad(x, h, y, *s) if needs[2] else None
    dy = edge_matmul(x, h, w, *s) if needs[3] else None
    return dx, dh, dw, dy


def _edge_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _edge_fake(x, h, weight, rowptr, *rest):
    return x.new_empty([rowptr.shape[0] - 1, weight.shape[2]])


def _edge_backward(ctx, g):
    x, h, w, *s = ctx.saved_tensors
    nx, nh, nw, *_ = ctx.needs_input_grad
    dx, dh, dw, _ = _gradients((nx, nh, nw, False), x, h, w, g.contiguous(), s)
    return dx, dh, dw, *(None,) * 6


def _hgrad_fake(x, y, weight, rowptr, col, *rest):
    return x.new_empty([col.shape[0], weight.shape[0]])


def _hgrad_backward(ctx, g):
    x, y, w, *s = ctx.saved_tensors
    nx, ny, nw, *_ = ctx.needs_input_grad
    dx, _, dw, dy = _gradients((nx, False, nw, ny), x, g.contiguous(), w, y, s)
    return dx, dy, dw, *(None,) * 6


def _edge_wgrad_fake(x, h, y, *rest):
    return x.new_empty([h.shape[1], x.shape[1], y.shape[1]])


def _edge_wgrad_backward(ctx, g):
    x, h, y, *s = ctx.saved_tensors
    nx, nh, ny, *_ = ctx.needs_input_grad
    dx, dh, _, dy = _gradients((nx, nh, False, ny), x, h, g.contiguous(), y, s)
    return dx, dh, dy, *(None,) * 6


edge_matmul = define("edge_matmul", _edge_fake, _edge_setup, _edge_backward, (0, 1, 2))
edge_matmul_hgrad = define("edge_matmul_hgrad", _hgrad_fake, _edge_setup, _hgrad_backward, (0, 1, 2))
edge_matmul_wgrad = define("edge_matmul_wgrad", _edge_wgrad_fake, _edge_setup, _edge_wgrad_backward, (0, 1, 2))
