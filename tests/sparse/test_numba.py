"""The numba backend: operators against the reference, gradients through the override, life without the library."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import pytest
import structops
import torch
from cases import BINARY, FLOATS, INTEGERS, MESSAGES, REDUCES, random_coo, small_integers, to_csr, values
from compare import assert_close, assert_same
from structops import backends
from structops.kernels import codes as C
from torch import Tensor

numba = pytest.importorskip("numba", reason="numba is not installed")

from structops.kernels.sparse import (  # noqa: E402
    common_numba,
    csr_numba,
    csr_ref,
    scatter_numba,
    scatter_ref,
    sddmm_numba,
    sddmm_ref,
    select_numba,
    select_ref,
    softmax_numba,
    softmax_ref,
    spmm_numba,
    spmm_ref,
)  # fmt: skip

# Operators with a numba kernel.
NUMBA_OPS = ("spmm", "sddmm", "segment_softmax", "segment_softmax_bwd", "scatter", "select", "select_bwd", "csr_build", "csr_from_coo", "csr_transpose", "index_range")
NUM_SRC, NUM_DST, EDGES, HUB = 7, 9, 40, 20
TOTAL = EDGES + HUB
LIMIT = 8.0  # magnitude of sums of messages: values are below 1.5, quotients below 3


def structure(index: torch.dtype = torch.int64, permuted: bool = True) -> tuple:
    rowptr, col, eid = to_csr(random_coo(NUM_SRC, NUM_DST, EDGES, hub=HUB), NUM_DST, index)
    return rowptr, col, eid if permuted else None


def call(fn, x, e, s, message, reduce, *, bcast=None, arg=0, fill=-7.0, skip_nan=False, unbiased=True):
    codes = C.MESSAGES[message], C.REDUCES[reduce], arg
    return fn(x, e, *s, None, None, None, bcast, *codes, fill, skip_nan, unbiased)


def wide(t: Tensor | None) -> Tensor | None:
    return t.double() if t is not None and t.is_floating_point() else t


def compare(x, e, s, message, reduce, what, **kwargs) -> None:
    """Values within rounding, winners exactly."""
    like = x if message != "copy_e" else e
    actual, arg = call(spmm_numba.spmm, x, e, s, message, reduce, **kwargs)
    expected, expected_arg = call(spmm_ref.spmm, wide(x), wide(e), s, message, reduce, **kwargs)
    if like.is_floating_point() and reduce in ("min", "max") and message not in ("copy_u", "copy_e"):
        # Rounded messages may tie where exact ones do not.
        expected, expected_arg = call(spmm_ref.spmm, x, e, s, message, reduce, **kwargs)
    largest = expected.abs().nan_to_num(0.0, 0.0, 0.0).max().item() if expected.numel() else 0.0
    assert_close(actual, expected, like.dtype, terms=TOTAL, magnitude=max(LIMIT, largest), what=what)
    assert_same(arg, expected_arg, what)


# ---- spmm ------------------------------------------------------------------------------------------------------------

SHAPES = {
    "vectors": ((NUM_SRC,), (TOTAL,)),
    "both": ((NUM_SRC, 5), (TOTAL, 5)),
    "e_scalar": ((NUM_SRC, 17), (TOTAL, 1)),
    "x_scalar": ((NUM_SRC, 1), (TOTAL, 3)),
    "batch_x": ((2, NUM_SRC, 3), (TOTAL, 3)),
    "batch_e": ((NUM_SRC, 3), (2, TOTAL, 3)),
    "batch": ((2, NUM_SRC, 3), (2, TOTAL, 1)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("message", MESSAGES)
def test_spmm_messages_and_reduces(message: str, shape: str) -> None:
    xs, es = SHAPES[shape]
    x, e = values(*xs, seed=1), values(*es, seed=2)
    for reduce, dtype in itertools.product(REDUCES, (torch.float32, torch.float64)):
        compare(x.to(dtype), e.to(dtype), structure(), message, reduce, (message, reduce, dtype, shape))


@pytest.mark.parametrize("index", INTEGERS)
@pytest.mark.parametrize("arg", (C.ARG_POSITION, C.ARG_EDGE, C.ARG_SOURCE))
def test_spmm_winners(arg: int, index: torch.dtype) -> None:
    """Ties everywhere: the first edge wins; NaN wins unless it is skipped; empty rows give E."""
    x, e = small_integers(NUM_SRC, 3, seed=1), small_integers(TOTAL, 3, seed=2)
    x[2, 0] = e[5, 1] = e[6, 1] = float("nan")
    x[:, 2] = float("nan")
    for message, reduce, skip, permuted in itertools.product(
        ("copy_u", "copy_e", "add", "mul"), ("min", "max"), (False, True), (False, True)
    ):
        what = (message, reduce, skip, permuted)
        compare(x, e, structure(index, permuted), message, reduce, what, arg=arg, skip_nan=skip)


@pytest.mark.parametrize("message", BINARY)
def test_spmm_tables(message: str) -> None:
    table = torch.tensor([[0, 1, 2, 3, 3, 0], [1, 1, 0, 0, 1, 0]], dtype=torch.int32)
    x, e = values(2, NUM_SRC, 4, seed=1), values(TOTAL, 2, seed=2)
    for reduce in REDUCES:
        arg = C.ARG_POSITION if reduce in ("min", "max") else 0
        compare(x, e, structure(), message, reduce, (message, reduce), bcast=table, arg=arg)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, *INTEGERS))
@pytest.mark.parametrize("message", ("copy_u", "copy_e"))
def test_spmm_other_dtypes(message: str, dtype: torch.dtype) -> None:
    x, e = small_integers(NUM_SRC, 6, dtype=dtype, seed=1), small_integers(TOTAL, 6, dtype=dtype, seed=2)
    for reduce in ("sum", "min", "max"):
        compare(x, e, structure(), message, reduce, (message, reduce, dtype))
    if dtype == torch.int64:
        e[:] = 2**62
        actual = call(spmm_numba.spmm, x, e, structure(), "copy_e", "sum", fill=0.0)[0]
        assert_same(actual, call(spmm_ref.spmm, x, e, structure(), "copy_e", "sum", fill=0.0)[0], "wraps")


def test_spmm_unbiased_and_infinities() -> None:
    x = values(NUM_SRC, 4, seed=3)
    for reduce, unbiased in itertools.product(("var", "std"), (True, False)):
        compare(x, None, structure(), "copy_u", reduce, (reduce, unbiased), unbiased=unbiased)
    x[:, 0], x[0, 1], x[1, 1], x[2, 2] = -float("inf"), -float("inf"), float("inf"), float("inf")
    compare(x, None, structure(), "copy_u", "logsumexp", "infinities")


def test_spmm_of_nothing() -> None:
    none = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), None
    empty_rows = torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), None
    for reduce in REDUCES:
        compare(torch.zeros(3, 2), None, none, "copy_u", reduce, (reduce, "no rows"))
        compare(torch.zeros(3, 2), None, empty_rows, "copy_u", reduce, (reduce, "no edges"))
        compare(torch.zeros(0, 3, 2), None, empty_rows, "copy_u", reduce, (reduce, "no batch"))
    assert call(spmm_numba.spmm, torch.zeros(7, 0), None, structure(), "copy_u", "max")[0].shape == (NUM_DST, 0)


def test_long_float32_sums_stay_accurate() -> None:
    """A running float32 sum of 2 million copies of 0.1 is off by more than 1e-3 of its value; ours is not."""
    n = 2_000_000
    src = torch.full((n,), 0.1)
    ptr = torch.tensor([0, n])
    for reduce in ("sum", "mean"):
        got = call(spmm_numba.spmm, None, src, (ptr, None, None), "copy_e", reduce)[0]
        assert abs(got.item() / (src.double().sum().item() / (n if reduce == "mean" else 1)) - 1) < 1e-5


def test_same_bits_on_any_number_of_threads() -> None:
    coo = random_coo(3000, 3000, 40000, seed=5, hub=9000)
    s = to_csr(coo, 3000)
    x, e = values(3000, 16, dtype=torch.float32), values(49000, 1, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                [
                    *(call(spmm_numba.spmm, x, e, s, "mul", r)[0] for r in ("sum", "max", "std", "logsumexp")),
                    softmax_numba.segment_softmax(e, s[0], s[2], False),
                    sddmm_numba.sddmm(x, x, *s, None, None, None, None, C.EDGE_MUL, C.U, C.V, 49000, 1, 16),
                    scatter_numba.scatter(e.expand(-1, 8), coo[1], 3000, C.SUM, False, 0.0, False)[0],
                    select_numba.select_bwd(e.expand(-1, 40), coo[1][:, None].expand(-1, 40), 3000),
                ]
            )
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                assert_same(b, a, "threads")
        expected = call(spmm_ref.spmm, x.double(), e.double(), s, "mul", "sum")[0]
        assert_close(found[0][0], expected, torch.float32, terms=9000, magnitude=2.0)
    finally:
        torch.set_num_threads(before)


def test_row_ranges_cover_every_row_once() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for ptr in ([0], [0, 0, 0], [0, 10**6, 10**6], list(range(0, 10**6, 1000)), [0, 5] + [10**6] * 50):
            ptr = torch.tensor(ptr).numpy()
            covered = [v for a, b in common_numba.rows(ptr, 64) for v in range(a, b)]
            assert covered == list(range(len(ptr) - 1))
        for n in (0, 1, 5, 100):
            assert [v for a, b in common_numba.equal(n, 10**9) for v in range(a, b)] == list(range(n))
    finally:
        torch.set_num_threads(before)


def test_errors_in_a_thread_reach_the_caller() -> None:
    def fn(begin: int, end: int) -> None:
        if begin == 3:
            raise ZeroDivisionError("planted")

    with pytest.raises(ZeroDivisionError, match="planted"):
        common_numba.run(fn, [(i, i + 1) for i in range(8)])


def test_calls_from_many_threads() -> None:
    s = to_csr(random_coo(500, 500, 20000), 500)
    x = values(500, 16)
    expected = call(spmm_numba.spmm, x, None, s, "copy_u", "sum")[0]
    wrong = []

    def work() -> None:
        for _ in range(5):
            if not torch.equal(call(spmm_numba.spmm, x, None, s, "copy_u", "sum")[0], expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


# ---- the other operators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ((TOTAL,), (TOTAL, 3), (2, TOTAL, 3)))
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_scatter(dtype: torch.dtype, shape: tuple) -> None:
    index = random_coo(NUM_SRC, NUM_DST, EDGES, hub=HUB)[1]
    src = small_integers(*shape, dtype=dtype)
    if dtype.is_floating_point:
        src.view(-1)[torch.arange(0, src.numel(), 11)] = float("nan")
    for reduce, arg, skip, kind in itertools.product(("sum", "mean", "min", "max", "prod"), (0, 1), (0, 1), INTEGERS):
        if reduce == "mean" and not dtype.is_floating_point:
            continue
        rest = index.to(kind), NUM_DST, C.REDUCES[reduce], bool(arg), -3.0, bool(skip)
        actual, winners = scatter_numba.scatter(src, *rest)
        expected, expected_winners = scatter_ref.scatter(wide(src), *rest)
        assert_close(actual, expected, dtype, terms=TOTAL, magnitude=3.0, what=(reduce, arg, skip))
        if not arg or reduce in ("min", "max"):
            assert_same(winners, expected_winners, (reduce, arg, skip))


@pytest.mark.parametrize("bad", (-1, 3))
def test_scatter_and_csr_out_of_range(bad: int) -> None:
    index = torch.tensor([0, bad, 1])
    with pytest.raises(RuntimeError, match="structops: scatter: index out of range"):
        scatter_numba.scatter(torch.ones(3), index, 3, C.SUM, False, 0.0, False)
    with pytest.raises(RuntimeError, match="structops: csr_build: index out of range"):
        csr_numba.csr_build(index, 3)
    with pytest.raises(RuntimeError, match="structops: csr_from_coo: index out of range"):
        csr_numba.csr_from_coo(index, index, 3, False)
    with pytest.raises(RuntimeError, match="structops: csr_transpose: index out of range"):
        csr_numba.csr_transpose(torch.tensor([0, 3]), index, None, 3)


@pytest.mark.parametrize("kind", INTEGERS)
def test_csr(kind: torch.dtype) -> None:
    for index in (random_coo(5, NUM_DST, 30)[1], torch.zeros(0, dtype=torch.int64), torch.arange(9), torch.tensor([4])):
        index = index.to(kind)
        for a, b in zip(csr_numba.csr_build(index, NUM_DST), csr_ref.csr_build(index, NUM_DST), strict=True):
            assert_same(a, b, "csr_build")
        for wide in (False, True):
            for a, b in zip(*(m.csr_from_coo(index, index.flip(0), NUM_DST, wide) for m in (csr_numba, csr_ref)), strict=True):
                assert_same(a, b, "csr_from_coo")
        ptr = torch.tensor([0, 0, index.numel() // 3, index.numel() // 3, index.numel(), index.numel()], dtype=kind)
        for eid in (None, torch.arange(index.numel()).flip(0).to(kind)):
            for a, b in zip(*(m.csr_transpose(ptr, index, eid, NUM_DST) for m in (csr_numba, csr_ref)), strict=True):
                assert_same(a, b, "csr_transpose")
        assert csr_numba.index_range(index) == csr_ref.index_range(index)
    assert csr_numba.index_range(torch.tensor([3, -2, 3], dtype=kind)) == (-2, 3, False)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_select(dtype: torch.dtype) -> None:
    for lead, F in (((), 0), ((), 1), ((), 3), ((2,), 33)):
        tail = (F,) if F else ()
        src, grad = (small_integers(*lead, n, *tail, dtype=dtype, seed=n) for n in (4, 60))
        for kind in INTEGERS:
            index = torch.randint(-1, 6, (*lead, 60, *tail), generator=torch.Generator().manual_seed(1)).to(kind)
            assert_same(select_numba.select(src, index), select_ref.select(src, index), (lead, F))
            expected = select_ref.select_bwd(grad, index, 4)
            assert_same(select_numba.select_bwd(grad, index, 4), expected, (lead, F))


@pytest.mark.parametrize("log", (False, True))
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(dtype: torch.dtype, log: bool) -> None:
    for shape, permuted in itertools.product(((TOTAL,), (TOTAL, 3), (2, TOTAL, 4)), (False, True)):
        rowptr, _, eid = structure(permuted=permuted)
        src, grad = 3 * values(*shape, dtype=dtype, seed=1), values(*shape, dtype=dtype, seed=2)
        special = src.clone().view(-1)
        special[::13] = -float("inf")
        special[3] = float("nan")
        for s in (src, special.view(shape)):
            actual = softmax_numba.segment_softmax(s, rowptr, eid, log)
            expected = softmax_ref.segment_softmax(s.double(), rowptr, eid, log)
            assert_close(actual, expected, dtype, terms=4, magnitude=8.0, what=(shape, permuted))
        y = softmax_ref.segment_softmax(src, rowptr, eid, log)
        actual = softmax_numba.segment_softmax_bwd(y, grad, rowptr, eid, log)
        expected = softmax_ref.segment_softmax_bwd(y.double(), grad.double(), rowptr, eid, log)
        assert_close(actual, expected, dtype, terms=TOTAL, magnitude=2.0, what=(shape, permuted))


@pytest.mark.parametrize("op", C.EDGE_OPS)
def test_sddmm(op: str) -> None:
    rowptr, col, eid = structure()
    count = (NUM_SRC, NUM_DST, TOTAL)
    layouts = ((6, 6, 6, 1), (6, 6, 2, 3), (32, 32, 1, 32), (1, 6, 6, 1), (6, 1, 3, 2), (1, 1, 2, 2))
    for lt, rt, (Fl, Fr, Fo, R) in itertools.product(range(3), range(3), layouts):
        for lb, rb in (((), ()), ((2,), (2,)), ((), (2,)), ((2,), ())):
            if op == "copy" and rb and not lb:
                continue
            lhs, rhs = values(*lb, count[lt], Fl, seed=1), values(*rb, count[rt], Fr, seed=2)
            args = rowptr, col, eid, None, None, None, None, C.EDGE_OPS[op], lt, rt, TOTAL, Fo, R
            for dtype in (torch.float32, torch.float64):
                actual = sddmm_numba.sddmm(lhs.to(dtype), rhs.to(dtype), *args)
                expected = sddmm_ref.sddmm(lhs, rhs, *args)
                assert_close(actual, expected, dtype, terms=R, magnitude=3.0, what=(op, lt, rt, Fl, Fr, Fo, R, lb, rb))
    table = torch.tensor([[0, 1, 2, 3, 3, 0], [1, 1, 0, 0, 1, 0]], dtype=torch.int32)
    args = rowptr, col, None, None, None, None, table, C.EDGE_OPS[op], C.U, C.V, TOTAL, 2, 3
    lhs, rhs = values(2, NUM_SRC, 4, seed=1), values(NUM_DST, 2, seed=2)
    assert_close(sddmm_numba.sddmm(lhs, rhs, *args), sddmm_ref.sddmm(lhs, rhs, *args), terms=3, magnitude=3.0)


def test_refusals() -> None:
    s = structure()
    x = torch.ones(NUM_SRC, 3)
    with pytest.raises(RuntimeError, match="features of x and e do not broadcast"):
        call(spmm_numba.spmm, x, torch.ones(TOTAL, 2), s, "add", "sum")
    with pytest.raises(RuntimeError, match="integer dtypes"):
        call(spmm_numba.spmm, x.long(), None, s, "copy_u", "mean")
    with pytest.raises(RuntimeError, match="missing"):
        call(spmm_numba.spmm, x, None, s, "add", "sum")
    with pytest.raises(RuntimeError, match="batch"):
        call(spmm_numba.spmm, torch.ones(2, NUM_SRC, 3), torch.ones(3, TOTAL, 3), s, "add", "sum")
    with pytest.raises(RuntimeError, match="runs on the CPU"):
        call(spmm_numba.spmm, x.to("meta"), None, s, "copy_u", "sum")


# ---- through the package ---------------------------------------------------------------------------------------------


def test_override_reaches_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in NUMBA_OPS:
        with backends.override(**{op: "numba"}):
            assert backends.implementation(op).__module__.endswith("_numba"), op
    calls = []
    kernel = spmm_numba.kernel
    monkeypatch.setattr(spmm_numba, "kernel", lambda *a: (calls.append(1), kernel(*a)))
    graph = structops.Graph(torch.tensor([[0, 1], [1, 0]]))
    with backends.override(spmm="numba"):
        structops.spmm(graph, torch.eye(2))
    assert calls


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("message", ("copy_u", "mul", "add"))
def test_gradients_through_the_override(message: str, reduce: str) -> None:
    graph = structops.Graph(random_coo(NUM_SRC, NUM_DST, EDGES), num_src=NUM_SRC, num_dst=NUM_DST)
    x, e = values(NUM_SRC, 3, seed=1).requires_grad_(), values(EDGES, 3, seed=2).requires_grad_()
    inputs = (x,) if message == "copy_u" else (x, e)
    weight = values(NUM_DST, 3, seed=3)
    weight = torch.where(graph.in_degrees()[:, None] > 0, weight, 0.0)  # logsumexp of nothing is -inf

    def gradients() -> list[Tensor]:
        y = structops.spmm(graph, x, None if len(inputs) == 1 else e, message, reduce, fill_value=0.0)
        first = torch.autograd.grad((y * weight).sum(), inputs, create_graph=True)
        second = sum((g * g).sum() for g in first)
        return [y, *first, *(torch.autograd.grad(second, inputs) if second.requires_grad else ())]

    with backends.override("reference"):
        expected = gradients()
    with backends.override("numba"):
        actual = gradients()
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        scale = max(1.0, b.abs().max().item())
        assert_close(a / scale, b / scale, terms=10 * EDGES, what=(message, reduce, i))


def test_gradcheck_of_the_other_operators() -> None:
    index = random_coo(NUM_SRC, NUM_DST, 20)[1]
    ptr = torch.tensor([0, 3, 3, 12, 20])
    src = values(20, 2, seed=4).requires_grad_()
    graph = structops.Graph(random_coo(NUM_SRC, NUM_DST, 20), num_src=NUM_SRC, num_dst=NUM_DST)
    x, y = values(NUM_SRC, 3, seed=1).requires_grad_(), values(NUM_DST, 3, seed=2).requires_grad_()
    with backends.override("numba"):
        for reduce in ("sum", "mean", "max", "prod", "std"):
            assert torch.autograd.gradcheck(lambda s, r=reduce: structops.scatter_reduce(s, index, NUM_DST, r), src)
            assert torch.autograd.gradcheck(lambda s, r=reduce: structops.segment_reduce(s, ptr, r), src)
        assert torch.autograd.gradcheck(lambda s: structops.segment_softmax(s, ptr), src)
        assert torch.autograd.gradgradcheck(lambda s: structops.segment_softmax(s, ptr), src)
        assert torch.autograd.gradcheck(lambda a, b: structops.sddmm(graph, a, b), (x, y))


def run(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_structops_imports_no_backend() -> None:
    code = "import sys, structops; print([m for m in ('numba', 'llvmlite', 'triton', 'cupy') if m in sys.modules])"
    assert run(code).strip() == "[]"
    assert run(code, STRUCTOPS_DISABLE_CPP="1").strip() == "[]"


def test_without_the_compiled_library() -> None:
    """numba is chosen by itself, and forward and backward work where torch.ops.structops does not exist."""
    code = f"OPS = {NUMBA_OPS}" + """
import torch, structops
from structops import backends
assert not hasattr(torch.ops.structops, "spmm") and not backends.cpp()[0]
assert all(backends.implementation(op).__module__.endswith("_numba") for op in OPS)
assert backends.implementation("attention").__module__.endswith("_ref")  # has no numba kernel
g = structops.Graph(torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]]), num_nodes=4)
x = torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True)
w = torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True)
for reduce in ("sum", "max"):
    structops.spmm(g, x, w, "mul", reduce).sum().backward()
structops.segment_reduce(x, torch.tensor([0, 1, 4]), "mean").sum().backward()
structops.scatter_reduce(x, torch.tensor([1, 0, 1, 3]), 5, "prod").sum().backward()
print(x.grad.flatten().tolist(), w.grad.flatten().tolist())
"""
    # spmm sum: [1, 2, 3 + 4, 0]; max: [0, 0, 3 + 4, 0]; mean: [1, 1/3, 1/3, 1/3]; prod: [3, 1, 1, 1]
    x_grad = [1 + 0 + 1 + 3, 2 + 0 + 1 / 3 + 1, 7 + 7 + 1 / 3 + 1, 0 + 0 + 1 / 3 + 1]
    w_grad = [1.0 + 0.0, 2.0 + 0.0, 3.0 + 3.0, 3.0 + 3.0]
    x_found, w_found = eval(run(code, STRUCTOPS_DISABLE_CPP="1").replace("] [", "], ["))
    assert x_found == pytest.approx(x_grad) and w_found == pytest.approx(w_grad)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_pool_survives_a_fork() -> None:
    code = """
import os, torch, structops
from structops.kernels.sparse import common_numba as nb
torch.set_num_threads(2)
def fill(a, b): out.extend(range(a, b))
for child in (False, True):
    if child and (pid := os.fork()):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        break
    out = []
    nb.run(fill, [(i, i + 1) for i in range(50)])
    assert sorted(out) == list(range(50))
    if child:
        os._exit(0)
"""
    run(code)
