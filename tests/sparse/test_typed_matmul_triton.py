"""The Triton kernels of typed and edge-conditioned products: in Triton's interpreter, which must be chosen before Triton is imported,
and compiled for a GPU that need not be there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from cases import generator, random_coo, to_csr, values
from compare import assert_close
from structops import Graph
from structops.kernels.sparse import edge_matmul_ref, typed_matmul_ref
from structops.sparse import RelationPlan, TypePlan
from structops.sparse._typed_plan import NOTHING

pytest.importorskip("triton", reason="triton is not installed")

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETER, reason="runs in the process that test_in_the_interpreter starts")
compiled = pytest.mark.skipif(INTERPRETER, reason="the interpreter compiles nothing")
M, N, E, R = 9, 8, 90, 3
COO = random_coo(M, N, E, seed=4)
KIND = torch.randint(0, R - 1, (E,), generator=generator(2))


@compiled
def test_in_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def problems(wide: torch.dtype):
    """(scale, lists, rows of x, rows of out, whether a bias fits)."""
    plan = RelationPlan(Graph(COO, num_src=M, num_dst=N), KIND, R)
    yield plan.mean_scales(wide)[0], plan.lists, M, N, False
    yield None, plan.lists, M, N, False
    yield None, TypePlan(KIND, R, COO[0], M).lists, M, E, True
    yield None, (torch.tensor([0, 40, 40, E]), *NOTHING[1:]), E, E, True


@interpreted
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_typed(dtype: torch.dtype) -> None:
    from structops.kernels.sparse import typed_matmul_triton

    for n, (scale, lists, x_rows, rows, biased) in enumerate(problems(torch.float64 if dtype == torch.float64 else torch.float32)):
        K, O = ((5, 3), (33, 17), (16, 70), (3, 20))[n]
        x, w, g = values(x_rows, K, dtype=dtype), values(R, K, O, dtype=dtype, seed=1), values(rows, O, dtype=dtype, seed=2)
        bias = values(R, O, dtype=dtype, seed=3) if biased else None
        tail = (scale, None, *lists, *NOTHING)
        out = typed_matmul_triton.typed_matmul(x, w, bias, *tail, rows)
        want = typed_matmul_ref.typed_matmul(x.double(), w.double(), None if bias is None else bias.double(), *tail, rows)
        assert_close(out, want, dtype, terms=40 * K, magnitude=2.0, what=n)
        out = typed_matmul_triton.typed_matmul_wgrad(x, g, *tail, R)
        assert_close(
            out, typed_matmul_ref.typed_matmul_wgrad(x.double(), g.double(), *tail, R), dtype, terms=E, magnitude=4.0, what=n
        )


@interpreted
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_edge(dtype: torch.dtype) -> None:
    from structops.kernels.sparse import edge_matmul_triton as kernels

    rowptr, col, eid = to_csr(COO, N)
    for K, I, O, ids in ((2, 3, 5, eid), (5, 20, 17, None), (1, 40, 70, eid)):
        s = (rowptr, col, ids, None, None, None)
        x, h = values(M, I, dtype=dtype), values(E, K, dtype=dtype, seed=1)
        w, y = values(K, I, O, dtype=dtype, seed=2), values(N, O, dtype=dtype, seed=3)
        for name, args, terms in (
            ("edge_matmul", (x, h, w), 40 * K * I), ("edge_matmul_hgrad", (x, y, w), I * O), ("edge_matmul_wgrad", (x, h, y), E),
        ):  # fmt: skip
            want = getattr(edge_matmul_ref, name)(*(t.double() for t in args), *s)
            assert_close(getattr(kernels, name)(*args, *s), want, dtype, terms=terms, magnitude=4.0, what=(name, K, I, O))


@interpreted
def test_a_gpu_takes_triton_first() -> None:
    from structops import backends

    for op, stem in (("typed_matmul", "typed_matmul"), ("edge_matmul_wgrad", "edge_matmul")):
        assert backends.implementation(op, "cuda").__module__.endswith(f"{stem}_triton")
        assert "triton" not in getattr(backends.implementation(op, "cpu"), "__module__", "")


@interpreted
def test_zero_sizes() -> None:
    from structops.kernels.sparse import edge_matmul_triton, typed_matmul_triton

    lists = (None, None, torch.tensor([0, 0, 0]), *NOTHING[1:], *NOTHING)
    assert typed_matmul_triton.typed_matmul(torch.ones(0, 3), torch.ones(2, 3, 4), None, *lists, 0).shape == (0, 4)
    assert (typed_matmul_triton.typed_matmul_wgrad(torch.ones(0, 3), torch.ones(0, 4), *lists, 2) == 0).all()
    s = (torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), None, None, None, None)
    assert (edge_matmul_triton.edge_matmul(torch.ones(3, 2), torch.ones(0, 2), torch.ones(2, 2, 5), *s) == 0).all()
    assert edge_matmul_triton.edge_matmul_hgrad(torch.ones(3, 2), torch.ones(3, 5), torch.ones(2, 2, 5), *s).shape == (0, 2)
    assert (edge_matmul_triton.edge_matmul_wgrad(torch.ones(3, 2), torch.ones(0, 2), torch.ones(3, 5), *s) == 0).all()


def build(kernel, constants: dict, arch: int = 80) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    integers = ("ptr", "types", "first", "last", "low", "gptr", "gather", "scatter", "order", "rowptr", "col", "eid")
    signature, fixed = {}, {}
    for i, name in enumerate(kernel.arg_names):
        signature[name] = ("*i64" if name.removesuffix("_ptr") in integers else "*fp32") if name.endswith("_ptr") else "i32"
        if name in constants:
            signature[name], fixed[(i,)] = "constexpr", constants[name]
    return triton.compile(ASTSource(fn=kernel, signature=signature, constexprs=fixed), target=GPUTarget("cuda", arch, 32)).asm[
        "ptx"
    ]


@compiled
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("mode", ["ieee", "tf32"])
def test_compiles_for_a_gpu_that_need_not_be_there(mode: str, arch: int) -> None:
    import triton.language as tl
    from structops.kernels.sparse import edge_matmul_triton as edge
    from structops.kernels.sparse import typed_matmul_triton as typed

    flags = dict(HAS_BIAS=False, HAS_TYPES=True, HAS_GPTR=True, HAS_GATHER=True, HAS_SCATTER=True, HAS_SCALE=True, HAS_EID=True)
    tile = dict(WIDE=tl.float32, MODE=mode, BM=32, BN=32, BK=32, BV=16, BC=32, BO=32, BI=32, **flags)
    for kernel, add in ((typed.typed_fwd, True), (typed.typed_fwd, False), (typed.typed_wgrad, None), (edge.edge_fwd, None),
                        (edge.edge_hgrad, None), (edge.edge_wgrad, None)):  # fmt: skip
        ptx = build(kernel, {**tile, "ADD": add}, arch)
        assert "atom." not in ptx and "\tred." not in ptx and ("fma.rn.f32" if mode == "ieee" else "tf32") in ptx
