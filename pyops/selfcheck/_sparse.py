"""Self-check cases of the sparse family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from .._ladder import with_reverse
from ..kernels import backends
from ..kernels import codes as C
from ..kernels.sparse import attention_ref
from . import _sparse_block_spmm, _sparse_poly, _sparse_rspmm, _sparse_segment_order, _sparse_typed_matmul
from ._common import DTYPES


def structure(generator: torch.Generator, N: int, M: int, E: int, itype: torch.dtype) -> tuple:
    """(rowptr, col, eid) with empty rows, a row of a third of the edges, parallel edges and shuffled edge numbers."""
    dst = torch.randint(0, N - 3, (E,), generator=generator)
    dst[: E // 3] = 5
    src = torch.randint(0, M, (E,), generator=generator)
    order = torch.argsort(dst, stable=True)
    rowptr = torch.zeros(N + 1, dtype=torch.int64)
    rowptr[1:] = torch.bincount(dst, minlength=N).cumsum(0)
    return rowptr.to(itype), src[order].to(itype), torch.randperm(E, generator=generator).to(itype)


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    if backends.OPS[op] == "sparse.attention":
        yield from attention_cases(op, g)
        return
    if backends.OPS[op] == "sparse.edge_act":
        yield from edge_act_cases(op, g)
        return
    if op in _sparse_block_spmm.OPS:
        yield from _sparse_block_spmm.cases(op, g)
    yield from _sparse_poly.cases(op, g)
    yield from _sparse_typed_matmul.cases(op, g)
    if op.startswith("relational_spmm"):
        yield from _sparse_rspmm.cases(op, g)
    if op == "segment_order":
        yield from _sparse_segment_order.cases(g)
        return
    rand = lambda dtype, *shape: (torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5).to(dtype)  # noqa: E731
    N, M, E = 20, 15, 400
    for dtype, itype in itertools.product(DTYPES, (torch.int32, torch.int64)):
        rowptr, col, eid = structure(g, N, M, E, itype)
        none = (None, None, None)
        if op == "spmm":
            for reduce in range(8):
                arg = C.ARG_EDGE if reduce in (C.MIN, C.MAX) else C.ARG_NONE
                near_one = 0.98 + 0.04 * rand(torch.float64, M, 19) if reduce == C.PROD else rand(torch.float64, M, 19)
                x, e = near_one.to(dtype), torch.ones(E, 1, dtype=dtype) if reduce == C.PROD else rand(dtype, E, 1)
                fill = C.EMPTY[reduce]
                yield x, None, rowptr, col, eid, *none, None, C.COPY_U, reduce, arg, fill, False, True
                yield x, e, rowptr, col, eid, *none, None, C.MUL, reduce, arg, fill, False, True
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
        elif op == "index_range":
            yield (index,)
            yield (index.sort().values,)


def attention_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    N, M, E, H = 20, 15, 400, 3
    for n, dtype in enumerate(DTYPES):
        rowptr, col, eid = structure(g, N, M, E, (torch.int32, torch.int64)[n % 2])
        back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
        rand = lambda *shape, dtype=dtype: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
        for score, K in ((C.ADDITIVE, 1), (C.GATV2, 19), (C.DOT, 33)):
            edge = rand(E, H, K) if score == C.GATV2 else rand(E, H)
            args = rand(M, H, K), rand(N, H, K), rand(M, H, 21), edge, rand(H, K) if score == C.GATV2 else None
            tail = score, 0.2, 0.25
            if op == "attention":
                yield *args, rowptr, col, eid, None, None, None, *tail
            else:
                out, lse = attention_ref.attention(*args, rowptr, col, eid, None, None, None, *tail)
                yield *args, out, lse, rand(N, H, 21), rowptr, col, eid, *back, *tail


def edge_act_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    N, M, E, F = 20, 15, 400, 83
    for (n, dtype), act in itertools.product(enumerate(DTYPES), C.EDGE_ACTS.values()):
        rowptr, col, eid = structure(g, N, M, E, (torch.int32, torch.int64)[n % 2])
        rand = lambda *shape, dtype=dtype: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
        args = rand(M, F), rand(N, F), rand(E, F) if act % 2 else None, rand(M, F) if act % 3 else None
        if op == "edge_act":
            yield *args, rowptr, col, eid, None, None, None, act, 0.3
        else:
            back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
            yield *args, rand(N, F), rowptr, col, eid, *back, act, 0.3
