"""The Triton kernels of edge_block against the reference, in Triton's interpreter, which must be chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from so2_block_cases import problem
from structops.kernels.so2 import edge_block_ref as ref

pytest.importorskip("triton", reason="triton is not installed")

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETER, reason="runs in the process that test_in_the_interpreter starts")


@pytest.mark.skipif(INTERPRETER, reason="this is that process")
def test_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


CASES = [  # small: the interpreter is slow
    ((2, 1, 2, 3, 2, 6, "fused", True), torch.float32, "ieee", 1e-5),
    ((2, 1, 2, 3, 2, 6, "fused", True), torch.float32, "tf32", 1e-2),
    ((2, 1, 2, 3, 2, 6, "fused", True), torch.float32, "bf16", 4e-2),
    ((1, 1, 17, 18, 1, 18, "none", False), torch.float64, "ieee", 1e-11),
    ((3, 2, 1, 2, 2, 3, "scale", True), torch.float64, "ieee", 1e-11),
    ((2, 1, 2, 2, 3, 0, "none", True), torch.float32, "ieee", 1e-5),
]


@interpreted
@pytest.mark.parametrize("case,dtype,mode,tolerance", CASES, ids=str)
def test_forward(case, dtype, mode, tolerance, monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.kernels.so2 import edge_block_triton

    monkeypatch.setattr(edge_block_triton, "MODE", mode)
    p = problem(*case).to(dtype)
    tail = (*p.structure(), p.L, p.M, p.H, False, True)
    want = ref.edge_block(*p.to(torch.float64).leaves(), *tail)
    got = edge_block_triton.edge_block(*p.leaves(), *tail)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == dtype
        if b.numel():
            assert (a.double() - b).abs().max() < tolerance * max(1.0, float(b.abs().max()))


@interpreted
def test_unknown_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.kernels.so2 import edge_block_triton

    monkeypatch.setattr(edge_block_triton, "MODE", "fp8")
    p = problem(1, 1, 2, 2).to(torch.float32)
    with pytest.raises(ValueError, match="STRUCTOPS_SO2_DOT"):
        edge_block_triton.edge_block(*p.leaves(), *p.structure(), 1, 1, 2, False, False)


@pytest.mark.skipif(INTERPRETER, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("arch,mode,product", [(80, "ieee", "fma.rn.f32"), (80, "tf32", "tf32"), (90, "bf16", "bf16")])
def test_compiles_for_a_gpu_that_need_not_be_there(arch: int, mode: str, product: str) -> None:
    import triton
    from structops.kernels.so2 import edge_block_triton as kernels
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def build(kernel, **constants) -> str:
        signature, fixed = {}, {}
        for i, name in enumerate(kernel.arg_names):
            integer = name in ("src_ptr", "dst_ptr", "j_ptr", "row_ptr", "rowptr_ptr")
            signature[name] = ("*i64" if integer else "*fp32") if name.endswith("_ptr") else "i32"
            if name in constants:
                signature[name], fixed[(i,)] = "constexpr", constants[name]
        return triton.compile(ASTSource(fn=kernel, signature=signature, constexprs=fixed), target=GPUTarget("cuda", arch, 32)).asm[
            "ptx"
        ]

    tile = {"MODE": mode, "BE": 16 if mode == "ieee" else 64, "BN": 16, "BK": 16}
    first = build(kernels.conv1, L=2, M=2, R=35, ORDER=1, SCALED=True, **tile)
    second = build(kernels.conv2, L=2, ORDER=0, **tile)
    assert product in first and product in second
    last = build(kernels.rotate_sum, l=2, KL=2, L=2, D_AT=10, HAS_ENV=True, BE=16, BC=64)
    assert not any("atom." in text or "\tred." in text for text in (first, second, last))


def test_a_gpu_takes_triton_first() -> None:
    from structops import backends

    if not INTERPRETER:
        pytest.skip("Triton is available here only in the interpreter")
    assert backends.implementation("edge_block", "cuda").__module__.endswith("edge_block_triton")
    assert "triton" not in getattr(backends.implementation("edge_block", "cpu"), "__module__", "")
