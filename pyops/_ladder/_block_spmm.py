"""block_spmm, block_sddmm and block_matmul: each other's derivatives, so every order follows."""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define
from . import _common as common
from . import _csr


def identity(rowptr: Tensor) -> tuple:
    """The structure of one self-loop at every row of ``rowptr``, its own reverse."""
    ptr = torch.arange(rowptr.shape[0], dtype=rowptr.dtype, device=rowptr.device)
    return ptr, None, None, ptr, None, None


def both_ways(s: tuple, num_src: int) -> tuple:
    """The structure with its reversed half."""
    rowptr, col, eid, colptr, _, _ = s
    if col is not None or colptr is not None:
        return _csr.with_reverse(s, num_src)
    ptr = torch.arange(num_src + 1, dtype=rowptr.dtype, device=rowptr.device)
    rows = torch.repeat_interleave(ptr[: rowptr.shape[0] - 1], rowptr.diff(), output_size=num_src)
    return rowptr, col, eid, ptr, rows, eid


def _spmm_fake(x, blocks, diag, rowptr, col, eid, colptr, row_t, eid_t, alpha, transpose, batch_first):
    N, p = rowptr.shape[0] - 1, blocks.shape[2 if transpose else 1]
    return x.new_empty([x.shape[0], N, p] if batch_first else [N, p, x.shape[2]])


def _spmm_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:9])
    ctx.options = inputs[9:]


def _spmm_backward(ctx, g):
    x, blocks, diag, *structure = ctx.saved_tensors
    s, g = tuple(structure), g.contiguous()
    alpha, transpose, batch_first = ctx.options
    dx = dblocks = ddiag = None
    if ctx.needs_input_grad[0]:
        s = both_ways(s, x.shape[batch_first])
        dx = block_spmm(g, blocks, diag, *common.reverse(s), alpha, not transpose, batch_first)
    if ctx.needs_input_grad[1]:
        dblocks = block_sddmm(g, x, *s, blocks.shape[0], alpha, transpose, batch_first)
    if ctx.needs_input_grad[2]:
        ddiag = block_sddmm(g, x, *identity(s[0]), g.shape[batch_first], 1.0, transpose, batch_first)
    return dx, dblocks, ddiag, *(None,) * 9


def _sddmm_fake(lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, num_edges, alpha, transpose, batch_first):
    p, q = lhs.shape[1 + batch_first], rhs.shape[1 + batch_first]
    return lhs.new_empty([num_edges, q, p] if transpose else [num_edges, p, q])


def _sddmm_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:8])
    ctx.options = inputs[9:]


def _sddmm_backward(ctx, g):
    lhs, rhs, *structure = ctx.saved_tensors
    s, g = tuple(structure), g.contiguous()
    alpha, transpose, batch_first = ctx.options
    dl = dr = None
    if ctx.needs_input_grad[1]:
        s = both_ways(s, rhs.shape[batch_first])
        dr = block_spmm(lhs, g, None, *common.reverse(s), alpha, not transpose, batch_first)
    if ctx.needs_input_grad[0]:
        dl = block_spmm(rhs, g, None, *s, alpha, transpose, batch_first)
    return dl, dr, *(None,) * 10


def _matmul_fake(a, b, pair, pair_a, pair_b, transpose_a, transpose_b):
    return a.new_empty([a.shape[0], a.shape[2 if transpose_a else 1], b.shape[1 if transpose_b else 2]])


def _matmul_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.flags = inputs[3:]


def _matmul_backward(ctx, g):
    """out_k = A_s(k) B_t(k) gives dA_k = G_s(k) B_ts(k)^T and dB_k = A_st(k)^T G_t(k): s and t are involutions that commute."""
    a, b, pair = ctx.saved_tensors
    pa, pb, ta, tb = ctx.flags
    g, both = g.contiguous(), pa != pb
    da = db = None
    if ctx.needs_input_grad[0]:
        da = block_matmul(b, g, pair, both, pa, tb, True) if ta else block_matmul(g, b, pair, pa, both, False, not tb)
    if ctx.needs_input_grad[1]:
        db = block_matmul(g, a, pair, pb, both, True, ta) if tb else block_matmul(a, g, pair, both, pb, not ta, False)
    return da, db, *(None,) * 5


block_spmm = define("block_spmm", _spmm_fake, _spmm_setup, _spmm_backward, (0, 1, 2))
block_sddmm = define("block_sddmm", _sddmm_fake, _sddmm_setup, _sddmm_backward, (0, 1))
block_matmul = define("block_matmul", _matmul_fake, _matmul_setup, _matmul_backward, (0, 1))
