"""poly_filter and its derivatives.

Coefficients are constant over nodes and commute with the matrix: where only x, the coefficients alpha and the operand of the
dots are differentiated, every derivative of every order is poly_filter again, on the reversed edges or not. The gradients of the
recurrence, of edge weights and of a gate have a kernel of their own; beyond the first order they go through spmm.
"""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from . import _csr, _spmm
from ._composed import gradients


def _acc(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake(x, weight, rowptr, col, eid, colptr, row_t, eid_t, alpha, recur, dot, gate):
    rows = alpha.shape[0] if dot is not None else 0
    return torch.empty_like(x), x.new_empty([rows, x.shape[1]], dtype=_acc(x))


def _setup(ctx, inputs, output):
    # The gradient of x alone does not read x.
    keep = any(ctx.needs_input_grad[i] for i in (1, 8, 9, 10, 11)) or inputs[11] is not None
    ctx.save_for_backward(inputs[0] if keep else None, *inputs[1:])


def _fit(t, like):
    """Gradients per channel, summed where one coefficient serves every channel."""
    return t.sum(-1, keepdim=True) if like.shape[-1] == 1 and t.shape[-1] != 1 else t


def composed(x, weight, s: tuple, alpha, recur, dot, gate):
    """The same from spmm and torch functions."""
    h, before, dots = x.to(alpha.dtype), None, []
    w = None if weight is None else weight.to(alpha.dtype)[:, None]
    message = C.COPY_U if w is None else C.MUL
    out = torch.zeros_like(h)
    for k in range(alpha.shape[0]):
        if k > 0:
            step = recur[0, k - 1] * _spmm.aggregate(s, h, w, message) + recur[1, k - 1] * h
            h, before = (step if before is None else step + recur[2, k - 1] * before), h
        q = torch.sigmoid(h @ gate[:-1] + gate[-1])[:, None] if gate is not None else 1
        out = out + alpha[k] * (q * h)
        if dot is not None:
            dots.append((dot * h).sum(0))
    return out.to(x.dtype), torch.stack(dots) if dots else x.new_empty(0, x.shape[1], dtype=alpha.dtype)


def _backward(ctx, g, g_dots):
    x, weight, *structure, alpha, recur, dot, gate = ctx.saved_tensors
    s = _csr.with_reverse(tuple(structure), structure[0].shape[0] - 1)
    needs = ctx.needs_input_grad
    n_x, n_weight, n_alpha, n_recur, n_dot, n_gate = (needs[i] for i in (0, 1, 8, 9, 10, 11))
    reverse, empty = common.reverse(s), (None,) * 6
    dx = d_weight = d_alpha = d_recur = d_dot = d_gate = None
    if not (n_weight or n_recur or gate is not None):
        if g is not None and (n_x or n_alpha):
            dx, dots = poly_filter(g.contiguous(), weight, *reverse, alpha, recur, x if n_alpha else None, None)
            d_alpha = _fit(dots, alpha) if n_alpha else None
        if dot is not None and g_dots is not None:
            g_dots = g_dots.contiguous()
            if n_x:
                more = poly_filter(dot, weight, *reverse, g_dots, recur, None, None)[0]
                dx = more if dx is None else dx + more
            if n_dot:
                d_dot = poly_filter(x, weight, *s, g_dots, recur, None, None)[0]
        return dx if n_x else None, None, *empty, d_alpha, None, d_dot, None
    if torch.is_grad_enabled() or (dot is not None and g_dots is not None):
        inputs, wanted = (x, weight, alpha, recur, dot, gate), (n_x, n_weight, n_alpha, n_recur, n_dot, n_gate)
        grads = (g, g_dots if dot is not None else None)
        fn = lambda x, weight, alpha, recur, dot, gate: composed(x, weight, s, alpha, recur, dot, gate)
        dx, d_weight, d_alpha, d_recur, d_dot, d_gate = gradients(fn, inputs, wanted, grads)
        return dx, d_weight, *empty, d_alpha, d_recur, d_dot, d_gate
    if g is None:
        return (None,) * 12
    dx, d_alpha, d_recur, d_weight, d_gate = poly_filter_bwd(g.contiguous(), x, weight, *s, alpha, recur, gate, n_weight)
    return (
        dx if n_x else None, d_weight if n_weight else None, *empty, _fit(d_alpha, alpha) if n_alpha else None,
        _fit(d_recur, recur) if n_recur else None, None, d_gate if n_gate else None,
    )  # fmt: skip


def _bwd_fake(grad, x, weight, rowptr, col, eid, colptr, row_t, eid_t, alpha, recur, gate, wants_weight):
    dtype, K, channels = _acc(x), alpha.shape[0] - 1, x.shape[1]
    return (
        torch.empty_like(x), x.new_empty([K + 1, channels], dtype=dtype), x.new_empty([3, K, channels], dtype=dtype),
        x.new_empty([col.shape[0] if wants_weight else 0]), x.new_empty([channels + 1 if gate is not None else 0], dtype=dtype),
    )  # fmt: skip


poly_filter = define("poly_filter", _fake, _setup, _backward, (0, 1, 8, 9, 10, 11))
poly_filter_bwd = define("poly_filter_bwd", _bwd_fake, None, None, ())
