"""Self-check cases of the sparse family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from ..kernels import backends
from ..kernels import codes as C
from . import (
    _sparse_attention,
    _sparse_block_spmm,
    _sparse_edge_act,
    _sparse_multi_reduce,
    _sparse_poly,
    _sparse_rspmm,
    _sparse_segment_attention,
    _sparse_segment_order,
    _sparse_typed_matmul,
)
from ._common import DTYPES, structure

# Stem of an operator -> module of its cases, where they are not below.
MODULES = {
    "attention": _sparse_attention,
    "block_spmm": _sparse_block_spmm,
    "difference": _sparse_block_spmm,
    "edge_act": _sparse_edge_act,
    "edge_matmul": _sparse_typed_matmul,
    "multi_reduce": _sparse_multi_reduce,
    "poly": _sparse_poly,
    "rspmm": _sparse_rspmm,
    "segment_attention": _sparse_segment_attention,
    "segment_order": _sparse_segment_order,
    "typed_matmul": _sparse_typed_matmul,
}


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    stem = backends.OPS[op].partition(".")[2]
    if stem in MODULES:
        yield from MODULES[stem].cases(op, g)
        return
    rand = lambda dtype, *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5).to(dtype)
    N, M, E = 20, 15, 400
    for dtype, itype in itertools.product(DTYPES, (torch.int32, torch.int64)):
        rowptr, col, eid = structure(g, N, M, E, itype)
        none = (None, None, None)
        if op == "spmm":
            for reduce in range(8):
                arg = {C.MIN: C.ARG_SOURCE, C.MAX: C.ARG_EDGE}.get(reduce, C.ARG_NONE)
                near_one = 0.98 + 0.04 * rand(torch.float64, M, 19) if reduce == C.PROD else rand(torch.float64, M, 19)
                x, e = near_one.to(dtype), torch.ones(E, 1, dtype=dtype) if reduce == C.PROD else rand(dtype, E, 1)
                fill = C.EMPTY[reduce]
                yield x, None, rowptr, col, eid, *none, None, C.COPY_U, reduce, arg, fill, False, True
                yield x, e, rowptr, col, eid, *none, None, C.MUL, reduce, arg, fill, False, True
        elif op == "copy_reduce":
            for reduce, F in itertools.product((C.SUM, C.MEAN, C.MIN, C.MAX, C.LOGSUMEXP), (8, 19)):
                yield rand(dtype, M, F), rowptr, col, reduce
                yield rand(dtype, E, F), rowptr, None, reduce
        elif op == "sddmm":
            lhs, rhs = rand(dtype, M, 24), rand(dtype, N, 24)
            yield lhs, rhs, rowptr, col, eid, *none, None, C.EDGE_MUL, C.U, C.V, E, 1, 24
            yield lhs, rhs, rowptr, col, eid, *none, None, C.EDGE_MUL, C.U, C.V, E, 3, 8
            yield lhs, rhs, rowptr, col, eid, *none, None, C.EDGE_SUB, C.U, C.V, E, 24, 1
        elif op == "segment_softmax":
            for F, log in itertools.product((1, 4, 7), (False, True)):
                yield rand(dtype, E, F), rowptr, eid, log
        elif op == "segment_softmax_bwd":
            for F, log in itertools.product((1, 4, 7), (False, True)):
                score = rand(torch.float32, E, F)
                out = (score.log_softmax(0) if log else score.softmax(0)).to(dtype)
                yield out, rand(dtype, E, F), rowptr, eid, log
        elif op == "scatter":
            index = torch.randint(0, N - 2, (E,), generator=g).to(itype)
            for F, reduce in itertools.product((1, 8, 21), (C.SUM, C.MEAN, C.MIN, C.MAX)):
                yield rand(dtype, E, F), index, N, reduce, reduce in (C.MIN, C.MAX), 0.0, False
        elif op == "select":
            yield rand(dtype, M, 9), torch.randint(0, M + 1, (N, 9), generator=g).to(itype)
        elif op == "select_bwd":
            yield rand(dtype, N, 9), torch.randint(0, M + 1, (N, 9), generator=g).to(itype), M
    for itype in (torch.int32, torch.int64):
        index = torch.randint(0, N, (E,), generator=g).to(itype)
        if op == "csr_build":
            yield index, N
        elif op == "csr_from_coo":
            yield index, index.flip(0), N, False
            yield index, index.flip(0), N, True
        elif op == "csr_transpose":
            sources, at = index % M, torch.arange(E).to(itype)
            ptr = torch.cat([at.new_zeros(1), torch.bincount(index, minlength=N).cumsum(0).to(itype)])
            yield ptr, sources, None, M
            yield ptr, sources, at.flip(0), M
        elif op == "index_range":
            yield (index,)
            yield (index.sort().values,)

