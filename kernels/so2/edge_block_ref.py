"""Reference of the edge-wise eSCN block: the specification of csrc/so2/edge_block.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .so2_conv_ref import so2_conv
from .wigner_ref import dense, order, so2_wigner


def gate(pre: Tensor, L: int, M: int, H: int) -> Tensor:
    """[E, L H + n H] to [E, n H]: silu for l = 0, sigmoid gates for the others."""
    gates = pre[:, : L * H].reshape(pre.shape[0], L, H)
    rows = pre[:, L * H :].reshape(pre.shape[0], len(order(L, M)), H)
    scale = torch.cat([rows[:, :1], gates], 1).sigmoid()
    return (rows * scale[:, [l for l, _ in order(L, M)]]).flatten(1)


def scales(radial, weight, bias, L: int, M: int, C: int) -> Tensor | None:
    """[E, n 2C]: the radial scale of every number of the edge frame."""
    if radial is None:
        return None
    s = radial if weight is None else radial @ weight.T + (0 if bias is None else bias)
    parts, at = [], 0
    for m in range(M + 1):
        width = (L + 1 - m) * 2 * C
        parts += [s[:, at : at + width]] * (2 if m else 1)
        at += width
    return torch.cat(parts, 1)


def edges(rowptr: Tensor, col: Tensor, eid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(source, destination, number) of every edge in CSR order."""
    dst = torch.repeat_interleave(
        torch.arange(rowptr.numel() - 1, device=col.device), rowptr.diff().long(), output_size=col.numel()
    )
    return col.long(), dst, torch.arange(col.numel(), device=col.device) if eid is None else eid.long()


def edge_block(x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2, rowptr, col, eid, lmax, mmax,
               hidden, three, keep):  # fmt: skip
    """Same signature and results as torch.ops.structops.edge_block."""
    L, M, C = lmax, mmax, x.shape[2]
    src, dst, j = edges(rowptr, col, eid)
    D = dense(so2_wigner(vec[j], None, L, M), L, M)
    z = (D @ torch.cat([x[src], x[dst]], 2)).flatten(1)
    s = scales(radial if radial is None else radial[j], radial_weight, radial_bias, L, M, C)
    z = z if s is None else z * s
    pre = so2_conv(z, weight1, bias1, L, M, 2 * C, hidden, L * hidden, False, False)
    mid = so2_conv(gate(pre, L, M, hidden), weight2, bias2, L, M, hidden, C, 0, False, False)
    message = D.mT @ mid.reshape(mid.shape[0], D.shape[1], C)
    message = message if envelope is None else message * envelope[j][:, None, None]
    out = torch.zeros_like(x).index_add(0, dst, message)
    return (out, pre, mid) if keep else (out, x.new_empty(0, 0), x.new_empty(0, 0))


def edge_block_bwd(grad, x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2, rowptr, col, eid,
                   pre, mid, lmax, mmax, hidden, three, wanted):  # fmt: skip
    """Same signature and results as torch.ops.structops.edge_block_bwd, by differentiating the forward in its fixed frames."""
    leaves = (x, vec, radial, radial_weight, radial_bias, envelope, weight1, bias1, weight2, bias2)
    bits = (0, 0, 1, 3, 3, 2, 3, 3, 3, 3)
    with torch.enable_grad():
        inputs = [None if t is None else t.detach().clone().requires_grad_() for t in leaves]
        out = edge_block(*inputs, rowptr, col, eid, lmax, mmax, hidden, three, False)[0]
        given = [t for t in inputs if t is not None]
        found = iter(torch.autograd.grad(out, given, grad, allow_unused=True))
    results = []
    for t, bit in zip(inputs, bits, strict=True):
        g = None if t is None else next(found)
        if t is None or not wanted >> bit & 1:
            results.append(x.new_empty(0))
        else:
            results.append(torch.zeros_like(t) if g is None else g)
    return tuple(t.detach() for t in results)
