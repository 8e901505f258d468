"""The Triton kernels: against the reference in Triton's interpreter, and compiled for a GPU that need not be there.

The interpreter must be chosen before Triton is imported, so those tests run in a process of their own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch
from cases import random_coo, to_csr, values
from compare import assert_close, assert_same
from structops import backends
from structops.kernels import codes as C
from structops.kernels.sparse import softmax_ref, spmm_ref
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETER, reason="runs in the process that test_in_the_interpreter starts")
compiled = pytest.mark.skipif(INTERPRETER, reason="the interpreter compiles nothing")

NUM_SRC, NUM_DST, HUB = 3, 4, 38  # more edges in the hub than a block of a program holds, an empty row, parallel edges
TOTAL = 4 + HUB


def structure(index: torch.dtype = torch.int64, permuted: bool = True) -> tuple:
    rowptr, col, eid = to_csr(random_coo(NUM_SRC, NUM_DST, 4, hub=HUB), NUM_DST, index)
    return rowptr, col, eid if permuted else None


def compare(x, e, message, reduce, *, bcast=None, arg=0, skip_nan=False, s=None) -> None:
    from structops.kernels.sparse import spmm_triton

    s = s or structure()
    rest = *s, None, None, None, bcast, C.MESSAGES[message], C.REDUCES[reduce], arg, -0.3, skip_nan, True
    actual, winners = spmm_triton.spmm(x, e, *rest)
    exact = reduce in ("min", "max")  # of the same rounded messages
    x, e = (t if exact or t is None else t.double() for t in (x, e))
    expected, expected_winners = spmm_ref.spmm(x, e, *rest)
    what = (message, reduce, arg, skip_nan)
    if actual.dtype == torch.bfloat16:  # the interpreter cuts the low bits that a GPU rounds
        assert ((actual.double() - expected.double()).abs() <= 2**-7 * expected.double().abs() + 1e-4).all(), what
    else:
        assert_close(actual, expected, terms=TOTAL, magnitude=3.0, what=what)
    if arg:
        assert_same(winners, expected_winners, what)


def test_in_the_interpreter() -> None:
    if INTERPRETER:
        pytest.skip("already in the interpreter")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-8000:]


# ---- in the interpreter ----------------------------------------------------------------------------------------------

SHAPES = {
    "vectors": ((NUM_SRC,), (TOTAL,)),
    "both": ((NUM_SRC, 3), (TOTAL, 3)),
    "e_scalar": ((2, NUM_SRC, 3), (TOTAL, 1)),
    "x_scalar": ((NUM_SRC, 1), (2, TOTAL, 3)),
}


@interpreted
@pytest.mark.parametrize("message", C.MESSAGES)
def test_spmm(message: str) -> None:
    for shape, reduce in itertools.product(SHAPES, ("sum", "mean", "min", "max")):
        xs, es = SHAPES[shape]
        compare(values(*xs, seed=1), values(*es, seed=2), message, reduce, arg=int(reduce in ("min", "max")))


@interpreted
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_spmm_dtypes(dtype: torch.dtype) -> None:
    x, e = values(NUM_SRC, 3, dtype=dtype, seed=1), values(TOTAL, 1, dtype=dtype, seed=2)
    for message, reduce in (("mul", "sum"), ("copy_u", "mean"), ("div", "max")):
        compare(x, e, message, reduce, s=structure(torch.int32))


@interpreted
@pytest.mark.parametrize("reduce", ("min", "max"))
def test_spmm_winners_and_nan(reduce: str) -> None:
    e = torch.randint(-2, 3, (TOTAL, 4), generator=torch.Generator().manual_seed(3)).double()
    x = torch.randint(-2, 3, (NUM_SRC, 4), generator=torch.Generator().manual_seed(4)).double()
    e[3, 0] = e[20, 0] = e[1, 1] = float("nan")
    e[:, 2] = float("nan")
    e[:, 3] = float("inf") if reduce == "min" else -float("inf")
    for index, (arg, skip, permuted) in itertools.product(
        (torch.int32, torch.int64), ((1, False, True), (2, True, True), (3, False, False), (2, False, False))
    ):
        for message in ("copy_e", "add"):
            compare(x, e, message, reduce, arg=arg, skip_nan=skip, s=structure(index, permuted))


@interpreted
def test_spmm_tables_and_tiles() -> None:
    table = torch.tensor([[0, 1, 2, 3, 3, 0], [1, 1, 0, 0, 1, 0]], dtype=torch.int32)
    compare(values(NUM_SRC, 4, seed=1), values(2, TOTAL, 2, seed=2), "sub", "sum", bcast=table)
    compare(values(NUM_SRC, 4, seed=1), values(TOTAL, 2, seed=2), "mul", "max", bcast=table, arg=1)
    compare(values(NUM_SRC, 130, seed=1), values(TOTAL, 1, seed=2), "mul", "sum")


@interpreted
def test_spmm_of_nothing() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    for rows in (0, 2):
        s = torch.zeros(rows + 1, dtype=torch.int64), nothing, None
        for reduce in ("sum", "max"):
            compare(torch.ones(3, 2), None, "copy_u", reduce, arg=int(reduce == "max"), s=s)
            compare(torch.ones(3, 0), None, "copy_u", reduce, s=s)


@interpreted
@pytest.mark.parametrize("log", (False, True))
def test_softmax(log: bool) -> None:
    from structops.kernels.sparse import softmax_triton

    for shape, permuted in (((TOTAL,), True), ((TOTAL, 3), False), ((2, TOTAL, 2), True)):
        rowptr, _, eid = structure(permuted=permuted)
        for dtype in (torch.float64, torch.float32, torch.float16):
            src, grad = 3 * values(*shape, dtype=dtype, seed=1), values(*shape, dtype=dtype, seed=2)
            special = src.clone()
            special.view(-1)[::13] = -float("inf")
            special.view(-1)[3] = float("nan")
            for s in (src, special) if dtype == torch.float64 else (src,):
                actual = softmax_triton.segment_softmax(s, rowptr, eid, log)
                expected = softmax_ref.segment_softmax(s.double(), rowptr, eid, log)
                assert_close(actual, expected, dtype, terms=4, magnitude=8.0, what=(shape, permuted))
            y = softmax_ref.segment_softmax(src, rowptr, eid, log)
            actual = softmax_triton.segment_softmax_bwd(y, grad, rowptr, eid, log)
            expected = softmax_ref.segment_softmax_bwd(y.double(), grad.double(), rowptr, eid, log)
            assert_close(actual, expected, dtype, terms=TOTAL, magnitude=2.0, what=(shape, permuted))


@interpreted
def test_through_the_override() -> None:
    import structops

    coo = random_coo(NUM_SRC, NUM_DST, 4, hub=HUB)
    graph = structops.Graph(coo, num_src=NUM_SRC, num_dst=NUM_DST)
    x, e = values(NUM_SRC, 3, seed=1).requires_grad_(), values(TOTAL, 1, seed=2).requires_grad_()
    ptr = torch.tensor([0, 5, 5, TOTAL])

    def gradients() -> list[Tensor]:
        y = structops.spmm(graph, x, e).square().sum() + structops.spmm(graph, x, e, "add", "max").square().sum()
        y = y + structops.segment_softmax(e, ptr).square().sum()
        return [y, *torch.autograd.grad(y, (x, e))]

    expected = gradients()
    with backends.override(spmm="triton", segment_softmax="triton", segment_softmax_bwd="triton"):
        actual = gradients()
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, terms=10 * TOTAL, magnitude=10.0)


@interpreted
def test_refusals() -> None:
    from structops.kernels.sparse import softmax_triton, spmm_triton

    def call(x: Tensor, e: Tensor | None, message: str, reduce: str):
        codes = C.MESSAGES[message], C.REDUCES[reduce], 0, 0.0, False, True
        return spmm_triton.spmm(x, e, *structure(), None, None, None, None, *codes)

    x = torch.ones(NUM_SRC, 3)
    for reduce in ("prod", "var", "std", "logsumexp"):
        with pytest.raises(NotImplementedError, match=f"no reduce {reduce}"):
            call(x, None, "copy_u", reduce)
    with pytest.raises(NotImplementedError, match="floating dtypes"):
        call(x.long(), None, "copy_u", "sum")
    with pytest.raises(NotImplementedError, match="3 and 2 features"):
        call(x, torch.ones(TOTAL, 2), "mul", "sum")
    with pytest.raises(NotImplementedError, match="floating dtypes"):
        softmax_triton.segment_softmax(x.long(), *structure()[::2], False)


@interpreted
def test_a_planted_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(C.MESSAGES, "sub", C.ADD)
    with pytest.raises(AssertionError, match="wrong"):
        from structops.kernels.sparse import spmm_triton

        x, e, s = values(NUM_SRC, 3, seed=1), values(TOTAL, 3, seed=2), structure()
        rest = *s, None, None, None, None
        wrong = spmm_triton.spmm(x, e, *rest, C.MESSAGES["sub"], C.SUM, 0, 0.0, False, True)[0]
        assert_close(wrong, spmm_ref.spmm(x, e, *rest, C.SUB, C.SUM, 0, 0.0, False, True)[0])


# ---- compiled --------------------------------------------------------------------------------------------------------


def build(kernel, pointers: dict[str, str], constants: dict, ones: tuple[str, ...] = ()) -> dict:
    """The kernel's assembly for sm_80; arguments named in ``ones`` are specialised to 1, as Triton does at launch."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, fixed = {}, {}
    for i, name in enumerate(kernel.arg_names):
        signature[name] = pointers.get(name, "i32")
        if name in constants or name in ones:
            signature[name], fixed[(i,)] = "constexpr", constants.get(name, 1)
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm


@compiled
@pytest.mark.parametrize(
    "message, reduce, arg, dtype, ones",
    (
        ("copy_u", "sum", 0, "fp32", ()),
        ("mul", "mean", 0, "bf16", ("N", "F", "Fe", "tiles", "edges", "e_batch")),
        ("div", "min", 2, "fp64", ("Fx", "edges", "N")),
        ("sub", "max", 3, "fp16", ("x_batch",)),
        ("copy_e", "max", 1, "fp32", ("Fx", "Fe")),
    ),
)
def test_spmm_compiles_for_cuda(message: str, reduce: str, arg: int, dtype: str, ones: tuple) -> None:
    import triton.language as tl
    from structops.kernels.sparse import spmm_triton

    wide = "fp64" if dtype == "fp64" else "fp32"
    pointers = {f"{n}_ptr": "*i32" for n in ("rowptr", "col", "eid", "x_off", "e_off", "arg")}
    pointers |= {f"{n}_ptr": f"*{dtype}" for n in ("x", "e", "out")} | {"fill_ptr": f"*{wide}"}
    constants = dict(
        MESSAGE=C.MESSAGES[message], REDUCE=C.REDUCES[reduce], ARG=arg, SKIP_NAN=arg == 2, HAS_COL=message != "copy_e",
        HAS_EID=True, TABLE=message == "sub", X_ONE="Fx" in ones, E_ONE="Fe" in ones, BK=16, BF=64,
        WIDE=tl.float64 if wide == "fp64" else tl.float32,
    )  # fmt: skip
    ptx = build(spmm_triton.spmm_fwd, pointers, constants, ones)["ptx"]
    assert ".target sm_80" in ptx and "ld.global" in ptx and "atom." not in ptx


@compiled
@pytest.mark.parametrize("log", (False, True))
@pytest.mark.parametrize("kernel", ("softmax_fwd", "softmax_bwd"))
def test_softmax_compiles_for_cuda(kernel: str, log: bool) -> None:
    import triton.language as tl
    from structops.kernels.sparse import softmax_triton

    pointers = {f"{n}_ptr": "*bf16" for n in ("src", "y", "grad", "out")} | {"rowptr_ptr": "*i64", "eid_ptr": "*i64"}
    constants = dict(LOG=log, HAS_EID=not log, WIDE=tl.float32, BK=32, BF=8)
    ptx = build(getattr(softmax_triton, kernel), pointers, constants, ("N", "tiles") if log else ())["ptx"]
    assert ".target sm_80" in ptx and "atom." not in ptx


@compiled
def test_cpu_tensors_are_refused() -> None:
    from structops.kernels.sparse import softmax_triton

    with pytest.raises(RuntimeError, match="runs on CUDA tensors, got cpu"):
        softmax_triton.segment_softmax(torch.ones(3), torch.tensor([0, 3]), None, False)


@pytest.mark.gpu
@compiled
def test_on_a_gpu() -> None:
    from structops.kernels.sparse import softmax_triton, spmm_triton

    x, e = values(NUM_SRC, 70, seed=1), values(TOTAL, 1, seed=2)
    s = structure()
    for message, reduce in itertools.product(C.MESSAGES, ("sum", "mean", "min", "max")):
        codes = C.MESSAGES[message], C.REDUCES[reduce], int(reduce in ("min", "max"))
        rest = None, None, None, None, *codes, 0.0, False, True
        got = spmm_triton.spmm(x.cuda(), e.cuda(), *(t.cuda() for t in s), *rest)
        want = spmm_ref.spmm(x, e, *s, *rest)
        assert_close(got[0].cpu(), want[0], terms=TOTAL, magnitude=3.0, what=(message, reduce))
        assert_same(got[1].cpu(), want[1], (message, reduce))
    got = softmax_triton.segment_softmax(e.cuda(), s[0].cuda(), s[2].cuda(), False)
    assert_close(got.cpu(), softmax_ref.segment_softmax(e, s[0], s[2], False), terms=TOTAL, magnitude=3.0)
