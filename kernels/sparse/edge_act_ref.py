"""Reference of edge activations. The contract is csrc/sparse/edge_act.h."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import codes as C

NAMES = tuple(C.EDGE_ACTS)


def activate(z: Tensor, act: int, slope: float) -> Tensor:
    name = NAMES[act]
    if name == "identity":
        return z
    if name == "leaky_relu":
        return F.leaky_relu(z, slope)
    if name == "elu":
        return F.elu(z, slope)
    if name == "gelu_tanh":
        return F.gelu(z, approximate="tanh")
    return getattr(F, name)(z) if name not in ("sigmoid", "tanh") else getattr(torch, name)(z)


def _forward(x, y, edge, value, scalar, direction, rowptr, col, eid, act, slope):
    N, E = rowptr.numel() - 1, col.numel()
    row = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff().long(), output_size=E)
    z = x[col.long()]
    z = z if y is None else z + y[row]
    z = z if edge is None else z + (edge if eid is None else edge[eid.long()])
    if scalar is not None:
        z = z + (scalar if eid is None else scalar[eid.long()])[:, None] * direction
    m = activate(z, act, slope)
    m = m if value is None else m * value[col.long()]
    return m.new_zeros(N, x.shape[1]).index_add(0, row, m)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def edge_act(x, y, edge, value, scalar, direction, rowptr, col, eid, colptr, row_t, eid_t, act, slope, keep):
    wide = _wide(x.dtype)
    operands = [None if t is None else t.detach().to(wide) for t in (x, y, edge, value, scalar, direction)]
    if not keep:
        return _forward(*operands, rowptr, col, eid, act, slope).to(x.dtype), x.new_zeros(0, dtype=wide)
    with torch.enable_grad():
        shift = operands[0].new_zeros(rowptr.numel() - 1, x.shape[1], requires_grad=True)
        y = shift if operands[1] is None else operands[1] + shift
        out = _forward(operands[0], y, *operands[2:], rowptr, col, eid, act, slope)
        (slopes,) = torch.autograd.grad(out.sum(), shift)
    return out.detach().to(x.dtype), slopes


def edge_act_bwd(x, y, edge, value, scalar, direction, grad, rowptr, col, eid, colptr, row_t, eid_t, act, slope, wants_y):
    wide, N = _wide(x.dtype), rowptr.numel() - 1
    operands = x, y, edge, value, scalar, None if direction is None else direction.expand(col.numel(), -1)
    leaves = [None if t is None else t.detach().to(wide).requires_grad_() for t in operands]
    with torch.enable_grad():
        out = _forward(*leaves[:5], _in_order(leaves[5], eid), rowptr, col, eid, act, slope)
        found = iter(torch.autograd.grad(out, [t for t in leaves if t is not None], grad.to(wide)))
    grads = [x.new_zeros(0) if t is None else next(found) for t in leaves]
    if not wants_y:
        grads[1] = x.new_zeros(0)
    if scalar is not None:  # of direction: a sum for each row
        row = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff().long(), output_size=col.numel())
        grads[5] = grads[5].new_zeros(N, x.shape[1]).index_add(0, row, _in_order(grads[5], eid))
    return *(d.to(x.dtype) for d in grads[:4]), *(d.to(wide) for d in grads[4:])


def _in_order(t, eid):
    return t if t is None or eid is None else t[eid.long()]
