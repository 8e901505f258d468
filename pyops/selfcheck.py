"""A quick check of every registered operator against its reference on fresh random input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import backends
from .kernels import codes as C

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass
class Result:
    op: str
    device: str
    cases: int
    error: float  # largest error, relative to the largest value of the case
    ok: bool
    note: str = ""


def tolerance(dtype: torch.dtype) -> float:
    """Allowed error relative to the largest value: a few roundings of the result, a few dozen of the accumulator."""
    if not dtype.is_floating_point:
        return 0.0
    return {torch.float64: 1e-12, torch.float32: 2e-5}.get(dtype, 2 * torch.finfo(dtype).eps)


def structure(generator: torch.Generator, N: int, M: int, E: int, itype: torch.dtype) -> tuple:
    """(rowptr, col, eid) with empty rows, a row of a third of the edges, parallel edges and shuffled edge numbers."""
    dst = torch.randint(0, N - 3, (E,), generator=generator)
    dst[: E // 3] = 5
    src = torch.randint(0, M, (E,), generator=generator)
    order = torch.argsort(dst, stable=True)
    rowptr = torch.zeros(N + 1, dtype=torch.int64)
    rowptr[1:] = torch.bincount(dst, minlength=N).cumsum(0)
    return rowptr.to(itype), src[order].to(itype), torch.randperm(E, generator=generator).to(itype)


def chart_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Arguments of the chart operators: every kind of chart, ragged lengths, some arcs and spans forbidden."""
    B, N = 22, 9
    lengths = torch.tensor([8, 0, 5, 1, 7, 3, *[8, 7] * 8])  # enough of like lengths to be parsed together
    for dtype, (kind, second) in itertools.product(DTYPES, ((0, False), (0, True), (1, False), (1, True), (2, False))):
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return (torch.randint(-8, 9, shape, generator=g) / 4).to(dtype)

        score = torch.where(torch.rand(B, N, N, generator=g) < 0.1, float("-inf"), draw(B, N, N))
        sib = draw(B, N, N, N) if second else None
        weight = draw(B, dtype=wide)
        if op == "chart_logz":
            yield score, sib, lengths, kind
        elif op == "chart_marginals":
            yield score, sib, lengths, None, kind
            yield score, sib, lengths, weight, kind
        elif op == "chart_hvp":
            yield score, sib, lengths, weight, draw(B, N, N), draw(B, N, N, N) if second else None, kind
        elif op == "chart_best":  # multiples of 1/4: sums are exact, and ties abound
            yield score, sib, lengths, kind, 1
        elif dtype == torch.float64:
            yield score, sib, lengths, torch.rand(3, B, 3 * N, dtype=torch.float64, generator=g), kind


def spanning_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Short sentences: the reference of the matrix-tree operators takes steps in N^5 and more."""
    B, N = 4, 5
    lengths = torch.tensor([4, 0, 1, 3])
    if op == "tree_check":
        yield torch.randint(0, N, (200, N), generator=g), torch.randint(0, N, (200,), generator=g)
        return
    for dtype, multiroot, scale in itertools.product(DTYPES, (True, False), (1, 100)):
        score, v = (torch.randn(2, B, N, N, generator=g, dtype=torch.float64) * 4 * scale).round().div(4).to(dtype)
        if op == "matrix_tree_hvp":  # no trees that certain: its result would be rounding alone
            score = score / scale
        score[0, 1, 2] = float("-inf")
        weight = torch.rand(B, generator=g, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        if op == "matrix_tree_marginals":
            yield score, lengths, None, multiroot
            yield score, lengths, weight, multiroot
        elif op == "matrix_tree_hvp":
            yield score, lengths, weight, v, multiroot
        elif op == "matrix_tree_sample":
            yield score, lengths, torch.randint(-(2**63), 2**63 - 1, (5, B), generator=g), multiroot
        elif op == "arborescence":  # no ties, so that the trees agree too
            yield torch.randn(B, N, N, generator=g).to(dtype), lengths, multiroot
        else:
            yield score, lengths, multiroot


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    if op.startswith("matrix_tree") or op in ("arborescence", "tree_check"):
        yield from spanning_cases(op, g)
        return
    if op.startswith("chart_"):
        yield from chart_cases(op, g)
        return
    if op.startswith("chain_"):
        yield from chain_cases(op, g)
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


def chain_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the chain operators: linear and segmental chains, with forbidden transitions and short sentences."""
    B, N = 4, 6
    lengths = torch.tensor([N, 1, 0, 4])
    for dtype, K, rank in itertools.product(DTYPES, (0, 3), (0, 2, 3, 4, 5)):
        for T in (3, 18):
            if (rank == 5 and K == 0) or (T > 3 and rank > 3):
                continue
            scores = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: B023, E731
            sizes = {0: (), 2: (T, T), 3: (B, T, T), 4: (B, N - 1, T, T), 5: (B, N - 1, K, T, T)}[rank]
            trans = scores(*sizes) if rank else None
            if trans is not None:
                trans = torch.where(torch.rand(sizes, generator=g) < 0.1, float("-inf"), trans)
            segment, duration = (scores(B, N, K, T), scores(K, T)) if K else (None, None)
            given = (scores(B, N, T), segment, duration, trans, scores(T), None)
            weight = scores(B).to(torch.float64 if dtype == torch.float64 else torch.float32)
            if op == "chain_logz":
                yield *given, lengths
            elif op == "chain_marginals":
                yield *given, lengths, weight
            elif op == "chain_hvp":
                yield *given, lengths, weight, *(None if t is None else scores(*t.shape) for t in given)
            elif op == "chain_best":
                yield *given, lengths, 3
            else:
                yield *given, lengths, torch.rand(2, B, 2 * N if K else N, generator=g, dtype=torch.float64)


def _error(got, want) -> tuple[float, float]:
    """(largest error relative to the largest value, allowed)."""
    if not isinstance(want, Tensor):
        return (0.0 if got == want else float("inf")), 0.0
    got = got.cpu()
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf"), 0.0
    if want.numel() == 0:
        return 0.0, 0.0
    a, b = got.double(), want.double()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, torch.zeros_like(a), (a - b).abs())
    scale = float(b[b.isfinite()].abs().max()) if bool(b.isfinite().any()) else 1.0
    return float(difference.max()) / max(scale, 1e-30), tolerance(want.dtype)


def check(op: str, device: str = "cpu", seed: int = 0) -> Result:
    """Run every case of ``op`` on ``device`` and compare with the reference."""
    generator = torch.Generator().manual_seed(seed)
    kernel = backends.implementation(op)
    worst, ok, count, note = 0.0, True, 0, ""
    with backends.override("reference"):
        reference = backends.implementation(op)
    for args in cases(op, generator):
        count += 1
        moved = [a.to(device) if isinstance(a, Tensor) else a for a in args]
        try:
            got, want = kernel(*moved), reference(*args)
        except (RuntimeError, NotImplementedError) as error:
            return Result(op, device, count, float("inf"), False, str(error).splitlines()[0])
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for g, w in pairs:
            found, allowed = _error(g, w)
            worst, ok = max(worst, found), ok and found <= allowed
    return Result(op, device, count, worst, ok, note)


def run(seed: int = 0) -> list[Result]:
    """Check every operator on the CPU, and on the GPU where its kernels can run."""
    devices = ["cpu", *(["cuda"] if backends.cuda()[0] else [])]
    with torch.no_grad():
        return [check(op, device, seed) for device in devices for op in backends.OPS]
