"""GPU spmm where the library was built without nvcc: csrc/sparse/spmm.cuh, compiled at run time. The contract is spmm.h.

Launches as csrc/sparse/spmm_cuda.cu does.
"""

from __future__ import annotations

from ctypes import Structure, c_double, c_int, c_int64, c_uint, c_void_p

import torch

from .. import codes as C
from . import common_nvrtc as rt
from .copies import copy_reduce_by
from .shapes import shape, sizes


class SpmmParams(Structure):
    _fields_ = (
        ("x", c_void_p), ("e", c_void_p), ("out", c_void_p), ("arg", c_void_p),
        ("rowptr", rt.IndexRef), ("x_row", rt.IndexRef), ("e_row", rt.IndexRef), ("arg_map", rt.IndexRef),
        ("no_arg", c_int64), ("x_off", c_void_p), ("e_off", c_void_p),
        ("N", c_int64), ("E", c_int64), ("F", c_int64), ("x_batch", c_int64), ("e_batch", c_int64),
        ("x_stride", c_uint), ("e_stride", c_uint), ("chunk", c_int64), ("items", c_int64),
        ("planes", c_uint), ("tiles", c_uint), ("lanes", c_uint),
        ("message", c_int), ("x_packs", c_int), ("e_packs", c_int), ("flag", c_int), ("skip_nan", c_int), ("unbiased", c_int),
        ("fill", c_double), ("cut_row", c_void_p), ("states", c_void_p),
    )  # fmt: skip


THREADS, MERGE_THREADS = 128, 256
# Reduction -> its reducer and flag; reducer -> accumulators that its state takes.
REDUCERS = {
    C.SUM: ("SumOp", 0), C.MEAN: ("SumOp", 1), C.MIN: ("ExtremeOp", 0), C.MAX: ("ExtremeOp", 1), C.PROD: ("ProdOp", 0),
    C.VAR: ("MomentOp", 0), C.STD: ("MomentOp", 1), C.LOGSUMEXP: ("LseOp", 0),
}  # fmt: skip
STATES = {"SumOp": 1, "ProdOp": 1, "ExtremeOp": 2, "MomentOp": 3, "LseOp": 2}
OF_INTEGERS = (C.SUM, C.MIN, C.MAX, C.PROD)


def item_size(N: int, E: int) -> int:
    return min(max((N + E) // 32768, 64), 2048)


PROGRAM = rt.Program(
    "sparse/spmm.cuh",
    SpmmParams,
    (
        f"kSpmmThreads == {THREADS} && kMergeThreads == {MERGE_THREADS}",
        f"msg_copy_u == {C.COPY_U} && msg_copy_e == {C.COPY_E} && msg_add == {C.ADD} && msg_sub == {C.SUB}",
        f"msg_mul == {C.MUL} && msg_div == {C.DIV}",
        *(f"sizeof({r}<{t}>::State) == {n} * sizeof({t})" for r, n in STATES.items() for t in ("float", "double")),
        *(f"sizeof({r}<{t}>::State) == {STATES[r]} * sizeof({t})"
          for r in ("SumOp", "ProdOp", "ExtremeOp") for t in ("int32_t", "int64_t")),
        *(f"spmm_item_size({N}, {E}) == {item_size(N, E)}"
          for N, E in ((0, 0), (5, 2_097_151), (0, 2_195_456), (10**6, 9 * 10**6), (10**7, 10**9))),
    ),
)  # fmt: skip


def row_kernel(dtype: torch.dtype, reduce: int, binary: bool, V: int) -> str:
    reducer, accumulator = REDUCERS[reduce][0], rt.TYPES[rt.accumulator(dtype)]
    return f"spmm_rows<{rt.TYPES[dtype]}, {reducer}<{accumulator}>, {str(binary).lower()}, {V}>"


def merge_kernel(dtype: torch.dtype, reduce: int) -> str:
    return f"spmm_merge<{rt.TYPES[dtype]}, {REDUCERS[reduce][0]}<{rt.TYPES[rt.accumulator(dtype)]}>>"


def spmm(
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased
):  # fmt: skip
    """Same signature and results as torch.ops.structops.spmm."""
    op = "spmm"
    x = None if message == C.COPY_E else x.contiguous()
    e = None if message == C.COPY_U else e.contiguous()
    like = x if x is not None else e
    rt.check_operands(op, like, x, e, rowptr, col, eid, bcast)
    dtype, binary = like.dtype, x is not None and e is not None
    if not dtype.is_floating_point and (binary or reduce not in OF_INTEGERS):
        raise NotImplementedError(f"structops: {op}: integer dtypes take copy messages with sum, min, max, prod")
    (Bx, x_rows, Fx), (Be, e_rows, Fe) = sizes(like), sizes(e if e is not None else like)
    B = 0 if 0 in (Bx, Be) else max(Bx, Be)
    F = bcast.shape[1] if bcast is not None else Fe if Fx == 1 else Fx
    N = rowptr.numel() - 1
    given = col if col is not None else eid
    E = given.numel() if given is not None else e_rows
    out = like.new_empty(shape(max(t.dim() for t in (x, e) if t is not None), B, N, F))
    winners = rowptr.new_empty(out.shape if arg else (0,))
    if B == 0 or N == 0 or F == 0:
        return out, winners
    if E >= 2**32 - 4096 or max(F, Fx, Fe) >= 2**29 or rt.div_up(F, 32) * B >= 2**32:
        raise RuntimeError(
            f"structops: {op}: CUDA kernels take fewer than 2^32 - 4096 edges, 2^29 features and 2^32 tiles of 32 features"
        )

    size, V = dtype.itemsize, rt.wide_lanes(dtype)
    pack = V * size
    p = SpmmParams()
    p.x, p.x_stride, p.x_batch = like.data_ptr(), Fx * size, rt.batch_stride(Bx, x_rows, Fx)
    p.x_row = rt.index_ref(eid if x is None else col)
    if bcast is not None:
        p.x_off = bcast[int(x is None)].data_ptr()
    if binary:
        p.e, p.e_stride, p.e_batch = e.data_ptr(), Fe * size, rt.batch_stride(Be, e_rows, Fe)
        p.e_row = rt.index_ref(eid)
        if bcast is not None:
            p.e_off = bcast[1].data_ptr()
    p.out, p.arg = out.data_ptr(), winners.data_ptr() if arg else None
    p.rowptr = rt.index_ref(rowptr)
    p.arg_map = rt.index_ref(eid if arg == C.ARG_EDGE else col if arg == C.ARG_SOURCE else None)
    p.N, p.E, p.F, p.no_arg = N, E, F, -1 if arg == C.ARG_SOURCE else E
    p.message, p.flag, p.skip_nan, p.unbiased, p.fill = message, REDUCERS[reduce][1], skip_nan, unbiased, fill

    def packs(t, stride, batch):
        return stride % pack == 0 and batch % V == 0 and rt.aligned(t, pack)

    p.x_packs = packs(like, p.x_stride, p.x_batch)
    p.e_packs = binary and packs(e, p.e_stride, p.e_batch)
    x_ok = p.x_packs or p.x_stride == size
    e_ok = not binary or p.e_packs or p.e_stride == size or p.e_off
    wide = F % V == 0 and rt.aligned(out, pack) and x_ok and e_ok

    p.chunk = item_size(N, E)
    p.items = rt.div_up(N + E, p.chunk)
    cuts = p.chunk < E  # only then can a row be longer than an item
    if cuts:
        cut_row = torch.empty(p.items, dtype=torch.int64, device=like.device)
        accumulators = B * p.items * F * STATES[REDUCERS[reduce][0]]
        states = torch.empty(accumulators, dtype=rt.accumulator(dtype), device=like.device)
        p.cut_row, p.states = cut_row.data_ptr(), states.data_ptr()
    lanes_of = F // V if wide else F
    p.lanes = rt.lanes_for(lanes_of)
    p.tiles = rt.div_up(lanes_of, p.lanes)
    p.planes = p.tiles * B
    grid = rt.div_up(p.items, THREADS // 32), rt.grid_y(p.planes)
    rt.launch(PROGRAM, row_kernel(dtype, reduce, binary, V if wide else 1), like, grid, THREADS, p)
    if cuts:
        p.tiles = rt.div_up(F, 32)
        p.planes = p.tiles * B
        grid = rt.div_up(p.items, MERGE_THREADS), rt.grid_y(p.planes)
        rt.launch(PROGRAM, merge_kernel(dtype, reduce), like, grid, MERGE_THREADS, p)
    return out, winners


copy_reduce = copy_reduce_by(spmm)
