"""CPU select and its transpose without a compiler. The contract is csrc/sparse/select.h."""

from __future__ import annotations

import numpy as np

from . import common_numba as nb
from .common_numba import jit
from .shapes import sizes

U = np.uint64
_PANEL = 16  # features of one task of the transpose


@jit
def gather(src, idx, out, N, M, F, r0, r1):
    """Rows [r0, r1) of the B * N rows of out."""
    F = U(F)
    zero = out.dtype.type(0)
    for r in range(U(r0), U(r1)):
        base = r // U(N) * U(M) * F
        for f in range(F):
            i = idx[r * F + f]
            out[r * F + f] = src[base + U(i) * F + f] if 0 <= i < M else zero


@jit
def scatter_add(grad, idx, out, N, M, F, width, t0, t1):
    """Tasks [t0, t1), each ``width`` feature columns of one batch, in order of n. out arrives as zeros."""
    F, panels = U(F), (F + width - 1) // width
    for task in range(t0, t1):
        b = U(task // panels)
        f0 = U(task % panels * width)
        f1 = min(f0 + U(width), F)
        for n in range(U(N)):
            row = (b * U(N) + n) * F
            for f in range(f0, f1):
                i = idx[row + f]
                if 0 <= i < M:
                    out[(b * U(M) + U(i)) * F + f] += grad[row + f]


def _operands(op, data, idx):
    B, rows, F = sizes(data)
    Bi, N, Fi = sizes(idx)
    if data.dim() != idx.dim() or Bi != B or Fi != F:
        nb.fail(op, "shapes of data and idx do not match")
    return nb.flat(op, data), nb.index(op, idx, idx), B, rows, N, F


def select(src, idx):
    """Same signature and results as torch.ops.structops.select."""
    data, index, B, M, N, F = _operands("select", src, idx)
    out = np.empty(nb.cells(B, N, F), data.dtype)
    if out.size:
        nb.run(lambda r0, r1: gather(data, index, out, N, M, F, r0, r1), nb.equal(B * N, out.size))
    return nb.result(out, src.dim(), B, N, F, src.dtype)


def select_bwd(grad, idx, rows):
    """Same signature and results as torch.ops.structops.select_bwd."""
    op = "select_bwd"
    data, index, B, given, N, F = _operands(op, grad, idx)
    if rows < 0 or given != N:
        nb.fail(op, "rows must not be negative" if rows < 0 else "shapes of data and idx do not match")
    out = np.zeros(nb.cells(B, rows, F), data.dtype)
    if out.size and data.size:
        tasks = B * ((F + _PANEL - 1) // _PANEL)
        fixed = (data, index, out, N, rows, F, _PANEL)
        nb.run(lambda t0, t1: scatter_add(*fixed, t0, t1), nb.equal(tasks, data.size + out.size))
    return nb.result(out, grad.dim(), B, rows, F, grad.dtype)
