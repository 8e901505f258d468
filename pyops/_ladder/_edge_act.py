"""edge_act and its backward. Higher orders go through the operators that it fuses."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels import codes as C
from ..kernels.sparse.edge_act_ref import activate
from . import _csr, _spmm
from ._composed import gradients


def _fake(x, y, edge, value, rowptr, *rest):
    return x.new_empty([rowptr.shape[0] - 1, x.shape[1]])


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:10])
    ctx.args = inputs[10:]


def _composed(s: tuple, act: int, slope: float):
    """The same by gathers and a segment sum."""
    rowptr, col, eid = s[:3]
    E, N = col.numel(), rowptr.numel() - 1
    row = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff(), output_size=E)

    def function(x, y, edge, value):
        z = x.index_select(0, col)
        z = z if y is None else z + y.index_select(0, row)
        z = z if edge is None else z + (edge if eid is None else edge.index_select(0, eid))
        m = activate(z, act, slope)
        m = m if value is None else m * value.index_select(0, col)
        return _spmm.aggregate((rowptr, None, None, None, None, None), None, m.contiguous(), C.COPY_E)

    return function


def _backward(ctx, g):
    tensors = ctx.saved_tensors
    operands, s, needs = tensors[:4], tensors[4:], ctx.needs_input_grad[:4]
    if torch.is_grad_enabled():
        return *gradients(_composed(s, *ctx.args), operands, needs, [g]), *(None,) * 8
    rowptr, col, eid, *back = _csr.with_reverse(s, operands[0].shape[0])
    found = edge_act_bwd(*operands, g.contiguous(), rowptr, col, eid, *back, *ctx.args)
    return *(d if n else None for d, n in zip(found, needs, strict=True)), *(None,) * 8


def _bwd_fake(x, y, edge, value, *rest):
    return tuple(x.new_empty([0]) if t is None else torch.empty_like(t) for t in (x, y, edge, value))


edge_act = define("edge_act", _fake, _setup, _backward, (0, 1, 2, 3))
edge_act_bwd = define("edge_act_bwd", _bwd_fake, None, None, ())
