"""sddmm and its derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C
from . import _common as common
from . import _csr, _spmm


def _sddmm_fake(
    lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, bcast, op, lhs_target, rhs_target, num_edges, out_features, reduce_features
):  # fmt: skip
    return lhs.new_empty(common.out_shape(lhs, rhs if op != C.EDGE_COPY else None, num_edges, out_features))


def _sddmm_setup(ctx, inputs, output):
    lhs, rhs, *structure = inputs[:8]
    bcast, op = inputs[8], inputs[9]
    both = op in (C.EDGE_MUL, C.EDGE_DIV)
    ctx.save_for_backward(lhs if both else None, rhs if both else None, *structure, bcast)
    ctx.meta = (lhs.shape, None if rhs is None else rhs.shape)
    ctx.args = inputs[9:]


def _sddmm_backward(ctx, g):
    lhs, rhs, *structure, bcast = ctx.saved_tensors
    op, lhs_target, rhs_target, num_edges, Fo, R = ctx.args
    l_shape, r_shape = ctx.meta
    s = tuple(structure)
    wants_l = ctx.needs_input_grad[0]
    wants_r = ctx.needs_input_grad[1] and op != C.EDGE_COPY
    if (wants_l and lhs_target == C.U) or (wants_r and rhs_target == C.U):
        shape = l_shape if lhs_target == C.U else r_shape
        s = _csr.with_reverse(s, shape[0] if len(shape) < 3 else shape[1])
    F = Fo * R
    g = g.contiguous()
    if bcast is not None:  # operands as the table reads them; their gradients are added back at the end
        lhs = None if lhs is None else lhs.index_select(-1, bcast[0].long())
        rhs = None if rhs is None else rhs.index_select(-1, bcast[1].long())
    if op == C.EDGE_DIV:
        inverse = 1 / rhs
    table = None  # feature f reads other[f] and g[f // R]
    if R > 1 and Fo > 1:
        order = torch.arange(F, dtype=torch.int32, device=g.device)
        table = torch.stack([order, order // R])

    def toward(target: int, other: Tensor | None, other_target: int) -> Tensor:
        """sum over the edges at each row of ``target`` of g times ``other`` (1 if None), as [.., rows, F]."""
        way = common.reverse(s) if target == C.U else s
        if target == C.E:
            if other is None:
                return g
            if table is None:
                return sddmm(common.expand(g, F), other, *s, None, C.EDGE_MUL, C.E, other_target, num_edges, F, 1)
            return sddmm(g, other, *s, torch.stack([table[1], table[0]]), C.EDGE_MUL, C.E, other_target, num_edges, F, 1)
        if other is None:
            return _spmm.aggregate(way, None, g, C.COPY_E)
        if other_target == C.E:
            wide = g.index_select(-1, table[1].long()) if table is not None else g
            return _spmm.aggregate(way, None, (wide * other).contiguous(), C.COPY_E)
        if other_target == target:  # both operands at the same end: the sum of g, times the other
            wide = _spmm.aggregate(way, None, g, C.COPY_E)
            return (wide.index_select(-1, table[1].long()) if table is not None else wide) * other
        return _spmm.aggregate(way, other, g, C.MUL, bcast=table)

    def fold(d: Tensor, row: int, shape) -> Tensor:
        if bcast is not None:
            wide = d if common.features(d) == F else d.expand(*d.shape[:-1], F)
            d = wide.new_zeros(*wide.shape[:-1], shape[-1]).index_add(-1, bcast[row].long(), wide)
        return common.as_shape(d, shape)

    dl = dr = None
    if wants_l:
        other = {C.EDGE_MUL: rhs, C.EDGE_DIV: inverse if op == C.EDGE_DIV else None}.get(op)
        dl = fold(toward(lhs_target, other, rhs_target), 0, l_shape)
    if wants_r:
        other = lhs if op in (C.EDGE_MUL, C.EDGE_DIV) else None
        dr = toward(rhs_target, other, lhs_target)
        if op == C.EDGE_SUB:
            dr = -dr
        if op == C.EDGE_DIV:
            dr = -dr * inverse * inverse
        dr = fold(dr, 1, r_shape)
    return dl, dr, *(None,) * 13


sddmm = define("sddmm", _sddmm_fake, _sddmm_setup, _sddmm_backward, (0, 1))


def to_edges(s: tuple, t: Tensor, num_edges: int) -> Tensor:
    """Row values t [N, F] copied to the edges of each row."""
    return sddmm(t, None, *s, None, C.EDGE_COPY, C.V, C.V, num_edges, common.features(t), 1)


def edge_dot(s: tuple, x: Tensor, g: Tensor, e: Tensor, bcast) -> Tensor:
    """sum over the features that e broadcasts of x[u] * g[v], as [E, Fe]."""
    Fe, F = common.features(e), common.features(g)
    if F == 0:
        return torch.zeros_like(e)
    table = None
    if bcast is not None and not common.consecutive(bcast, Fe):
        order = torch.argsort(bcast[1], stable=True).to(torch.int32)
        table = torch.stack([order, order])
    return sddmm(x, g, *s, table, C.EDGE_MUL, C.U, C.V, common.rows(e), Fe, F // Fe)
