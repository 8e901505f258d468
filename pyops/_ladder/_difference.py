"""difference_rows and difference_edges: each other's derivatives, at other powers.

With t = |d|^a, or |d|^a sign(d), the derivative is a t' where t' has the power a - 1 and the other parity.
"""

from __future__ import annotations

from .._dispatch import define
from . import _block_spmm as block
from . import _common as common


def _scaled(h, factor: float, t):
    t = t if factor == 1 else factor * t
    return t if h is None else h * t


def _gradients(needs, x, y, weight, hv, hu, structure, num_edges, a, odd):
    """By each of x, y, weight, hv, hu that is needed, of the sum over edges and features of weight hv hu t."""
    s = tuple(structure)
    dx = dy = dw = dhv = dhu = None
    if needs[0] or needs[4]:
        s = block.both_ways(s, x.shape[0])
        back = common.reverse(s)
        # The reversed edges see -d: odd functions change sign there.
        if needs[0] and a != 0:
            dx = _scaled(hu, -a if odd else a, difference_rows(y, x, weight, hv, *back, a - 1, not odd))
        if needs[4]:
            dhu = _scaled(None, -1 if odd else 1, difference_rows(y, x, weight, hv, *back, a, odd))
    if needs[1] and a != 0:
        dy = _scaled(hv, a, difference_rows(x, y, weight, hu, *s, a - 1, not odd))
    if needs[2]:
        dw = difference_edges(x, y, hv, hu, *s, num_edges, a, odd)
    if needs[3]:
        dhv = difference_rows(x, y, weight, hu, *s, a, odd)
    return dx, dy, dw, dhv, dhu


def _rows_fake(x, y, weight, h, rowptr, col, eid, colptr, row_t, eid_t, power, odd):
    return x.new_empty([rowptr.shape[0] - 1, x.shape[1]])


def _rows_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:10])
    ctx.power, ctx.odd = inputs[10:]


def _rows_backward(ctx, g):
    x, y, weight, h, *structure = ctx.saved_tensors
    nx, ny, nw, nh, *_ = ctx.needs_input_grad
    num_edges = None if weight is None else weight.shape[0]
    needs = nx, ny, nw, False, nh
    dx, dy, dw, _, dh = _gradients(needs, x, y, weight, g.contiguous(), h, structure, num_edges, ctx.power, ctx.odd)
    return dx, dy, dw, dh, *(None,) * 8


def _edges_fake(x, y, hv, hu, rowptr, col, eid, colptr, row_t, eid_t, num_edges, power, odd):
    return x.new_empty([num_edges])


def _edges_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:10])
    ctx.power, ctx.odd = inputs[11:]


def _edges_backward(ctx, g):
    x, y, hv, hu, *structure = ctx.saved_tensors
    nx, ny, nv, nu, *_ = ctx.needs_input_grad
    needs = nx, ny, False, nv, nu
    dx, dy, _, dhv, dhu = _gradients(needs, x, y, g.contiguous(), hv, hu, structure, None, ctx.power, ctx.odd)
    return dx, dy, dhv, dhu, *(None,) * 9


difference_rows = define("difference_rows", _rows_fake, _rows_setup, _rows_backward, (0, 1, 2, 3))
difference_edges = define("difference_edges", _edges_fake, _edges_setup, _edges_backward, (0, 1, 2, 3))
