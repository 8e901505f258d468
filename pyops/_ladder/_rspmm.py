"""relational_spmm, its backward, and their derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from ..kernels import codes as C
from ..kernels.sparse.rspmm_ref import combine
from . import _composed, _csr
from ._spmm import spmm

_SPMM = {
    C.REL_SUM: C.SUM, C.REL_MEAN: C.MEAN, C.REL_LEAST: C.MIN, C.REL_LARGEST: C.MAX, C.REL_LSE: C.LOGSUMEXP,
}  # fmt: skip


def with_reverse(rowptr: Tensor, col: Tensor, eid: Tensor | None, kind: Tensor, num_src: int) -> tuple[Tensor, ...]:
    """(colptr, row_t, eid_t, type_t) of the reversed edges."""
    colptr, row_t, position = _csr.with_reverse((rowptr, col, None, None, None, None), num_src)[3:]
    return colptr, row_t, (position if eid is None else eid[position]), kind[position]


def _shape(x: Tensor, rowptr: Tensor, planes: int) -> list:
    shape = [*x.shape[:-2], rowptr.shape[0] - 1, x.shape[-1]]
    return [planes, *shape] if planes > 1 else shape


def _fake(x, rel, weight, mask, rowptr, col, eid, kind, colptr, row_t, eid_t, type_t, mul, reduce, fill):
    extreme = reduce in (C.REL_LEAST, C.REL_LARGEST)
    pna = reduce == C.REL_PNA
    arg = rowptr.new_empty(_shape(x, rowptr, 2 if pna else 1) if pna or extreme else [0])
    rest = x.new_empty(_shape(x, rowptr, 1) if pna else [0])
    return x.new_empty(_shape(x, rowptr, 4 if pna else 1)), arg, rest


def _setup(ctx, inputs, output):
    *tensors, mul, reduce, fill = inputs
    out, arg, rest = output
    keep = reduce in (C.REL_LSE, C.REL_PNA)
    winners = reduce in (C.REL_LEAST, C.REL_LARGEST, C.REL_PNA)
    ctx.save_for_backward(*tensors, out if keep else None, arg if winners else None, rest if reduce == C.REL_PNA else None)
    ctx.args = (mul, reduce, fill)
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(arg, rest)
        ctx.set_materialize_grads(False)


def _backward(ctx, g, *_):
    if g is None:
        return (None,) * 15
    x, rel, weight, mask, rowptr, col, eid, kind, colptr, row_t, eid_t, type_t, out, arg, rest = ctx.saved_tensors
    mul, reduce, _fill = ctx.args
    wanted = sum(1 << i for i in range(3) if ctx.needs_input_grad[i])
    if colptr is None:
        colptr, row_t, eid_t, type_t = with_reverse(rowptr, col, eid, kind, x.shape[-2])
    structure = (rowptr, col, eid, kind, colptr, row_t, eid_t, type_t)
    found = relational_spmm_bwd(g.contiguous(), x, rel, weight, mask, out, arg, rest, *structure, mul, reduce, wanted)
    grads = [d if wanted >> i & 1 and t is not None and not (i == 1 and mul == C.REL_COPY) else None
             for i, (d, t) in enumerate(zip(found, (x, rel, weight), strict=True))]  # fmt: skip
    return *grads, *(None,) * 12


def composed(x, rel, weight, mask, rowptr, col, eid, kind, mul: int, reduce: int) -> Tensor:
    """The operator from gathers and spmm, with E x F messages; edges that the mask drops are taken out first."""
    if mask is not None:
        kept = mask if eid is None else mask[eid.long()]
        rowptr = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])[rowptr.long()].to(rowptr.dtype)
        col, kind = col[kept], kind[kept]
        eid = eid[kept] if eid is not None else kept.nonzero()[:, 0]
    m = combine(mul, None if rel is None or mul == C.REL_COPY else rel.index_select(-2, kind), x.index_select(-2, col))
    if weight is not None:
        m = m * (weight if eid is None else weight[eid.long()])[:, None]
    m = m.contiguous()

    def aggregate(code: int) -> Tensor:
        arg = C.ARG_EDGE if code in (C.MIN, C.MAX) else C.ARG_NONE
        return spmm(None, m, rowptr, None, None, None, None, None, None, C.COPY_E, code, arg, C.EMPTY[code], False, False)[0]

    if reduce == C.REL_PNA:
        return torch.stack([aggregate(code) for code in (C.MEAN, C.VAR, C.MAX, C.MIN)])
    return aggregate(_SPMM[reduce])


def _bwd_fake(grad, x, rel, weight, mask, out, arg, rest, *others):
    wanted = others[-1]
    mul = others[-3]
    shaped = lambda t, bit: x.new_empty(t.shape if t is not None and wanted & bit else [0])
    return shaped(x, 1), shaped(rel if mul != C.REL_COPY else None, 2), shaped(weight, 4)


def _bwd_setup(ctx, inputs, output):
    grad, x, rel, weight, mask, _out, _arg, _mean_rest, rowptr, col, eid, kind, *_rest, mul, reduce, wanted = inputs
    ctx.save_for_backward(grad, x, rel, weight, mask, rowptr, col, eid, kind)
    ctx.args = (mul, reduce, wanted)


def _bwd_backward(ctx, *hs):
    """Through the composition, of which the raw backward is the gradient."""
    grad, x, rel, weight, mask, rowptr, col, eid, kind = ctx.saved_tensors
    mul, reduce, wanted = ctx.args
    present = [wanted >> i & 1 and t is not None and not (i == 1 and mul == C.REL_COPY) for i, t in enumerate((x, rel, weight))]

    def first(grad, x, rel, weight):
        call = lambda *t: composed(*t, mask, rowptr, col, eid, kind, mul, reduce)
        found = _composed.gradients(call, (x, rel, weight), present, [grad])
        return [torch.zeros_like(t) if d is None else d for d, t, p in zip(found, (x, rel, weight), present, strict=True) if p]

    needs = [bool(n) and t is not None for n, t in zip(ctx.needs_input_grad[:4], (grad, x, rel, weight), strict=True)]
    hs = [h for h, p in zip(hs, present, strict=True) if p]
    if torch.is_grad_enabled():
        found = _composed.gradients(first, (grad, x, rel, weight), needs, hs)
    else:
        found = [None if d is None else d.detach() for d in _composed.gradients(first, (grad, x, rel, weight), needs, hs)]
    return *found, *(None,) * 15


relational_spmm = define("relational_spmm", _fake, _setup, _backward, (0, 1, 2))
relational_spmm_bwd = define("relational_spmm_bwd", _bwd_fake, _bwd_setup, _bwd_backward, (0, 1, 2, 3))
