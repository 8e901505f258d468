"""GPU segment_softmax and its gradient where the library was built without nvcc. The contract is csrc/sparse/softmax.h.

A program owns one row and one tile of features and reads the row in blocks [BK, BF]: three times forward, twice
backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import common_triton as ct
from .shapes import sizes


@triton.jit
def _locate(rowptr_ptr, N, F, tiles, BF: tl.constexpr):
    """(batch, first edge, last edge + 1, features) of this program."""
    pid = tl.program_id(0).to(tl.int64)
    f = (pid % tiles) * BF + tl.arange(0, BF)
    v = (pid // tiles) % N
    return (pid // tiles) // N, tl.load(rowptr_ptr + v).to(tl.int64), tl.load(rowptr_ptr + v + 1).to(tl.int64), f


@triton.jit
def _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID: tl.constexpr, BK: tl.constexpr):
    """Offsets and mask [BK, BF] of the edges from k0."""
    k = k0 + tl.arange(0, BK)
    j = k
    if HAS_EID:
        j = tl.load(eid_ptr + k, k < end, 0).to(tl.int64)
    return (b * E + j[:, None]) * F + f[None, :], (k < end)[:, None] & (f < F)[None, :]


@triton.jit
def softmax_fwd(
    src_ptr, rowptr_ptr, eid_ptr, out_ptr, N, E, F, tiles,
    LOG: tl.constexpr, HAS_EID: tl.constexpr, WIDE: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    b, begin, end, f = _locate(rowptr_ptr, N, F, tiles, BF)
    top = tl.full([BF], float("-inf"), WIDE)
    for k0 in range(begin, end, BK):
        at, inside = _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID, BK)
        s = tl.load(src_ptr + at, inside, float("-inf")).to(WIDE)
        top = tl.maximum(top, tl.max(tl.where(s == s, s, float("-inf")), 0))
    total = tl.zeros([BF], WIDE)
    for k0 in range(begin, end, BK):
        at, inside = _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID, BK)
        s = tl.load(src_ptr + at, inside, 0).to(WIDE)
        total += tl.sum(tl.where(inside, tl.exp(s - top[None, :]), 0.0), 0)
    for k0 in range(begin, end, BK):
        at, inside = _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID, BK)
        s = tl.load(src_ptr + at, inside, 0).to(WIDE) - top[None, :]
        if LOG:
            y = s - tl.log(total)[None, :]
        else:
            y = tl.exp(s) / total[None, :]
        tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), inside)


@triton.jit
def softmax_bwd(
    y_ptr, grad_ptr, rowptr_ptr, eid_ptr, out_ptr, N, E, F, tiles,
    LOG: tl.constexpr, HAS_EID: tl.constexpr, WIDE: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    b, begin, end, f = _locate(rowptr_ptr, N, F, tiles, BF)
    total = tl.zeros([BF], WIDE)
    for k0 in range(begin, end, BK):
        at, inside = _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID, BK)
        g = tl.load(grad_ptr + at, inside, 0).to(WIDE)
        if not LOG:
            g *= tl.load(y_ptr + at, inside, 0).to(WIDE)
        total += tl.sum(g, 0)
    for k0 in range(begin, end, BK):
        at, inside = _offsets(eid_ptr, k0, end, b, f, E, F, HAS_EID, BK)
        g = tl.load(grad_ptr + at, inside, 0).to(WIDE)
        y = tl.load(y_ptr + at, inside, 0).to(WIDE)
        if LOG:
            d = g - tl.exp(y) * total[None, :]
        else:
            d = y * (g - total[None, :])
        tl.store(out_ptr + at, d.to(out_ptr.dtype.element_ty), inside)


def _launch(op, kernel, tensors, rowptr, eid, log):
    first = tensors[0]
    ct.check_device(op, first)
    if not first.is_floating_point():
        raise NotImplementedError(f"{op}: the triton backend has floating dtypes only, got {first.dtype}")
    B, E, F = sizes(first)
    N = rowptr.numel() - 1
    out = torch.empty_like(first, memory_format=torch.contiguous_format)
    BK, BF = ct.tile(max(F, 1))
    tiles = triton.cdiv(F, BF)
    ct.launch(
        kernel, op, first, B * N * tiles if E else 0,
        *(t.contiguous() for t in tensors), rowptr, eid if eid is not None else rowptr, out, N, E, F, tiles,
        LOG=bool(log), HAS_EID=eid is not None, WIDE=tl.float64 if first.dtype == torch.float64 else tl.float32,
        BK=BK, BF=BF,
    )  # fmt: skip
    return out


def segment_softmax(src, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax."""
    return _launch("segment_softmax", softmax_fwd, [src], rowptr, eid, log)


def segment_softmax_bwd(out, grad, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax_bwd."""
    return _launch("segment_softmax_bwd", softmax_bwd, [out, grad], rowptr, eid, log)
