"""edge_act and its backward. Higher orders go through the operators that it fuses."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from ..kernels.sparse.edge_act_ref import activate
from . import _csr, _spmm
from ._composed import gradients


def _fake(x, y, edge, value, scalar, direction, rowptr, *rest):
    shape = [rowptr.shape[0] - 1, x.shape[1]]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(shape), x.new_empty(shape if rest[-1] else [0], dtype=wide)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:12], output[1])
    ctx.args = inputs[12:14]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)


def _composed(s: tuple, act: int, slope: float):
    """The same by gathers and a segment sum."""
    rowptr, col, eid = s[:3]
    E, N = col.numel(), rowptr.numel() - 1
    row = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff(), output_size=E)

    def function(x, y, edge, value, scalar, direction):
        z = x.index_select(0, col)
        z = z if y is None else z + y.index_select(0, row)
        z = z if edge is None else z + (edge if eid is None else edge.index_select(0, eid))
        if scalar is not None:
            z = z + (scalar if eid is None else scalar.index_select(0, eid))[:, None] * direction
        m = activate(z, act, slope)
        m = m if value is None else m * value.index_select(0, col)
        return _spmm.aggregate((rowptr, None, None, None, None, None), None, m.contiguous(), C.COPY_E)

    return function


def _backward(ctx, g, _):
    if g is None:
        return (None,) * 15
    *tensors, slopes = ctx.saved_tensors
    operands, s, needs = tensors[:6], tuple(tensors[6:]), ctx.needs_input_grad[:6]
    if torch.is_grad_enabled():
        return *gradients(_composed(s, *ctx.args), operands, needs, [g]), *(None,) * 9
    rowptr, col, eid, *back = _csr.with_reverse(s, operands[0].shape[0])
    # The sums of slopes give the gradient of y without another walk over the edges.
    short = needs[1] and slopes.numel() > 0
    wants_y = needs[1] and not short
    *found, d_scalar, d_direction = edge_act_bwd(*operands, g.contiguous(), rowptr, col, eid, *back, *ctx.args, wants_y)
    if short:
        found[1] = (g * slopes).to(g.dtype)
    dtype = operands[0].dtype
    found += (None, None) if operands[4] is None else (d_scalar.to(dtype), d_direction.sum(0).to(dtype))
    return *(d if n else None for d, n in zip(found, needs, strict=True)), *(None,) * 9


def _bwd_fake(x, y, edge, value, scalar, direction, grad, *rest):
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = y if rest[-1] else None
    plain = (x.new_empty([0]) if t is None else torch.empty_like(t) for t in (x, y, edge, value))
    if scalar is None:
        return *plain, x.new_empty([0], dtype=wide), x.new_empty([0], dtype=wide)
    return *plain, torch.empty_like(scalar, dtype=wide), torch.empty_like(grad, dtype=wide)


edge_act = define("edge_act", _fake, _setup, _backward, (0, 1, 2, 3, 4, 5))
edge_act_bwd = define("edge_act_bwd", _bwd_fake, None, None, ())
