"""GPU sddmm where the library was built without nvcc: csrc/sparse/sddmm.cuh, compiled at run time. The contract is sddmm.h.

Launches as csrc/sparse/sddmm_cuda.cu does.
"""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_uint, c_void_p

import torch

from .. import codes as C
from . import common_nvrtc as rt
from .shapes import shape, sizes


class SddmmParams(Structure):
    _fields_ = (
        ("lhs", c_void_p), ("rhs", c_void_p), ("out", c_void_p),
        ("rowptr", rt.IndexRef), ("col", rt.IndexRef), ("eid", rt.IndexRef), ("l_off", c_void_p), ("r_off", c_void_p),
        ("N", c_int64), ("E", c_int64), ("lhs_batch", c_int64), ("rhs_batch", c_int64),
        ("B", c_uint), ("Fo", c_uint), ("R", c_uint), ("lhs_stride", c_uint), ("rhs_stride", c_uint),
        ("op", c_int), ("lhs_target", c_int), ("rhs_target", c_int), ("l_one", c_int), ("r_one", c_int), ("lanes", c_int),
        ("batches", c_int),
    )  # fmt: skip


THREADS = 256


def batches(E: int, features: int) -> int:
    return min(max(min(128 // max(features, 1), E // (32 * 16384)), 1), 8)


PROGRAM = rt.Program(
    "sparse/sddmm.cuh",
    SddmmParams,
    (
        f"kSddmmThreads == {THREADS}",
        f"edge_copy == {C.EDGE_COPY} && edge_add == {C.EDGE_ADD} && edge_sub == {C.EDGE_SUB} && edge_mul == {C.EDGE_MUL}",
        f"edge_div == {C.EDGE_DIV} && target_u == {C.U} && target_v == {C.V} && target_e == {C.E}",
        *(f"sddmm_batches({E}, {F}) == {batches(E, F)}" for E, F in ((10, 1), (10**7, 0), (10**7, 1), (10**7, 10), (10**7, 200))),
    ),
)


def kernel(dtype: torch.dtype, reduces: bool, V: int) -> str:
    return f"{'sddmm_dot' if reduces else 'sddmm_map'}<{rt.TYPES[dtype]}, {V}>"


def sddmm(
    lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, bcast, op, lhs_target, rhs_target, num_edges, out_features, reduce_features
):  # fmt: skip
    """Same signature and results as torch.ops.structops.sddmm."""
    name, copy = "sddmm", op == C.EDGE_COPY
    lhs = lhs.contiguous()
    rhs = lhs if copy else rhs.contiguous()
    rt.check_operands(name, lhs, rhs, rowptr, col, eid, bcast)
    (Bl, l_rows, Fl), (Br, r_rows, Fr) = sizes(lhs), sizes(rhs)
    B = Br if Bl == 1 else Bl
    E, Fo, R = num_edges, out_features, reduce_features
    N = rowptr.numel() - 1
    out = lhs.new_empty(shape(max(lhs.dim(), rhs.dim()), B, E, Fo))
    if B == 0 or E == 0 or Fo == 0:
        return out
    if max(E, N, B) >= 2**32 or max(Fo * R, Fl, Fr) >= 2**29:
        raise RuntimeError(f"structops: {name}: CUDA kernels take fewer than 2^32 edges and rows, and 2^29 features")

    dtype = lhs.dtype
    size, V = dtype.itemsize, rt.wide_lanes(dtype)
    p = SddmmParams()
    p.lhs, p.rhs, p.out = lhs.data_ptr(), rhs.data_ptr(), out.data_ptr()
    p.rowptr, p.col, p.eid = rt.index_ref(rowptr), rt.index_ref(col), rt.index_ref(eid)
    if bcast is not None:
        p.l_off, p.r_off = bcast[0].data_ptr(), bcast[1].data_ptr()
    p.N, p.E, p.B, p.Fo, p.R = N, E, B, Fo, R
    p.lhs_batch, p.rhs_batch = rt.batch_stride(Bl, l_rows, Fl), rt.batch_stride(Br, r_rows, Fr)
    p.lhs_stride, p.rhs_stride = Fl * size, Fr * size
    p.op, p.lhs_target, p.rhs_target = op, lhs_target, lhs_target if copy else rhs_target
    p.l_one, p.r_one = Fl == 1, Fr == 1

    def packs(t, F, batch):
        return bcast is None and F % V == 0 and batch % V == 0 and rt.aligned(t, V * size)

    l, r = packs(lhs, Fl, p.lhs_batch), packs(rhs, Fr, p.rhs_batch)
    if R == 1:
        broadcast = bcast is None
        wide = Fo % V == 0 and rt.aligned(out, V * size) and (l or (p.l_one and broadcast)) and (r or (p.r_one and broadcast))
    else:
        wide = op == C.EDGE_MUL and l and r and R % V == 0 and not p.l_one and not p.r_one
        p.lanes = rt.lanes_for(rt.div_up(R, 2 * V if wide else 2))  # two loads of each operand a lane
    p.batches = batches(E, Fo * R)
    grid = rt.div_up(E, p.batches * THREADS), rt.grid_y(B)
    rt.launch(PROGRAM, kernel(dtype, R != 1, V if wide else 1), lhs, grid, THREADS, p)
    return out
