"""Reference of poly_filter and its gradients: the specification of csrc/sparse/poly.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _matrix(weight: Tensor | None, rowptr: Tensor, col: Tensor, eid: Tensor | None, dtype: torch.dtype) -> Tensor:
    """P, dense."""
    N = rowptr.numel() - 1
    rows = torch.repeat_interleave(torch.arange(N, device=col.device), rowptr.diff().long())
    if weight is None:
        values = torch.ones(col.numel(), dtype=dtype, device=col.device)
    else:
        values = (weight if eid is None else weight[eid.long()]).to(dtype)
    return torch.zeros(N, N, dtype=dtype, device=col.device).index_put((rows, col.long()), values, accumulate=True)


def _filter(
    x: Tensor, matrix: Tensor, alpha: Tensor, recur: Tensor, dot: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    a, b, c = recur
    out, dots, before, h = torch.zeros_like(x), [], torch.zeros_like(x), x
    for k in range(alpha.shape[0]):
        if k > 0:
            h, before = a[k - 1] * (matrix @ h) + b[k - 1] * h + c[k - 1] * before, h
        q = torch.sigmoid(h @ gate[:-1] + gate[-1])[:, None] if gate is not None else 1
        out = out + alpha[k] * (q * h)
        if dot is not None:
            dots.append((dot * h).sum(0))
    return out, torch.stack(dots) if dots else x.new_empty(0, x.shape[1])


def poly_filter(x, weight, rowptr, col, eid, colptr, row_t, eid_t, alpha, recur, dot, gate):
    """Same signature and results as torch.ops.structops.poly_filter."""
    dtype = alpha.dtype
    matrix = _matrix(weight, rowptr, col, eid, dtype)
    out, dots = _filter(x.to(dtype), matrix, alpha, recur, None if dot is None else dot.to(dtype), gate)
    return out.to(x.dtype), dots


def poly_filter_bwd(grad, x, weight, rowptr, col, eid, colptr, row_t, eid_t, alpha, recur, gate, wants_weight):
    """Same signature and results as torch.ops.structops.poly_filter_bwd, by differentiating the reference."""
    dtype, C = alpha.dtype, x.shape[1]
    wide = lambda t: t.expand(*t.shape[:-1], C)  # a gradient per channel, whatever the coefficients' shape
    with torch.enable_grad():
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, wide(alpha), wide(recur))]
        w = weight.detach().to(dtype).requires_grad_() if wants_weight else weight
        s = None if gate is None else gate.detach().requires_grad_()
        out, _ = _filter(leaves[0], _matrix(w, rowptr, col, eid, dtype), leaves[1], leaves[2], None, s)
        wanted = [*leaves, *([w] if wants_weight else []), *([s] if s is not None else [])]
        found = torch.autograd.grad(out, wanted, grad.to(dtype), allow_unused=True)
    found = [torch.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True)]
    dx, d_alpha, d_recur = found[:3]
    d_weight = found[3].to(x.dtype) if wants_weight else x.new_empty(0)
    d_gate = found[-1] if s is not None else alpha.new_empty(0)
    return dx.to(x.dtype), d_alpha, d_recur, d_weight, d_gate
