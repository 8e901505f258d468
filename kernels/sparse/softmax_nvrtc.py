"""GPU segment_softmax and its gradient where the library was built without nvcc: csrc/sparse/softmax.cuh, compiled at run time.

The contract is softmax.h. Launches as csrc/sparse/softmax_cuda.cu does.
"""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_uint, c_void_p

import torch
from torch import Tensor

from . import common_nvrtc as rt
from .shapes import sizes


class SoftmaxParams(Structure):
    _fields_ = (
        ("src", c_void_p), ("grad", c_void_p), ("out", c_void_p), ("rowptr", rt.IndexRef), ("eid", rt.IndexRef),
        ("N", c_int64), ("E", c_int64), ("F", c_int64), ("planes", c_uint), ("tiles", c_uint),
        ("lanes", c_int), ("slots", c_int), ("log", c_int),
    )  # fmt: skip


THREADS = 128


def slots(N: int, E: int, lanes: int) -> int:
    n = 1
    while n * lanes < 32 and 2 * n * N <= E:
        n *= 2
    return n


PROGRAM = rt.Program(
    "sparse/softmax.cuh",
    SoftmaxParams,
    (
        f"kSoftmaxThreads == {THREADS}",
        *(f"softmax_slots({N}, {E}, {lanes}) == {slots(N, E, lanes)}"
          for N, E, lanes in ((10, 5, 1), (10, 20, 1), (10, 79, 2), (10, 10**4, 4), (10, 10**4, 32))),
    ),
)  # fmt: skip


def kernel(dtype: torch.dtype, backward: bool, V: int) -> str:
    return f"softmax_rows<{rt.TYPES[dtype]}, {str(backward).lower()}, {V}>"


def _run(op: str, src: Tensor, grad: Tensor | None, rowptr: Tensor, eid: Tensor | None, log: bool) -> Tensor:
    src = src.contiguous()
    grad = None if grad is None else grad.contiguous()
    rt.check_operands(op, src, grad, rowptr, eid)
    if not src.is_floating_point():
        raise NotImplementedError(f"structops: {op}: floating dtypes only, got {src.dtype}")
    B, E, F = sizes(src)
    N = rowptr.numel() - 1
    out = torch.empty_like(src)
    if B == 0 or N == 0 or E == 0 or F == 0:
        return out
    if E >= 2**32 - 4096 or N >= 2**32 or F >= 2**29 or rt.div_up(F, 32) * B >= 2**32:
        raise RuntimeError(f"structops: {op}: CUDA kernels take fewer than 2^32 - 4096 edges, 2^32 rows and 2^29 features")

    V = rt.wide_lanes(src.dtype)
    pack = V * src.dtype.itemsize
    wide = F % V == 0 and all(rt.aligned(t, pack) for t in (src, out, grad) if t is not None)
    packs = F // V if wide else F
    p = SoftmaxParams()
    p.src, p.grad, p.out = src.data_ptr(), rt.pointer(grad), out.data_ptr()
    p.rowptr, p.eid = rt.index_ref(rowptr), rt.index_ref(eid)
    p.N, p.E, p.F, p.log = N, E, F, log
    p.lanes = rt.lanes_for(packs)
    p.tiles = rt.div_up(packs, p.lanes)
    p.planes = p.tiles * B
    p.slots = slots(N, E, p.lanes)
    grid = rt.div_up(N, THREADS // (p.lanes * p.slots)), rt.grid_y(p.planes)
    rt.launch(PROGRAM, kernel(src.dtype, grad is not None, V if wide else 1), src, grid, THREADS, p)
    return out


def segment_softmax(src, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax."""
    return _run("segment_softmax", src, None, rowptr, eid, log)


def segment_softmax_bwd(out, grad, rowptr, eid, log):
    """Same signature and results as torch.ops.structops.segment_softmax_bwd."""
    return _run("segment_softmax_bwd", out, grad, rowptr, eid, log)
