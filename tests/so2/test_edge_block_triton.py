"""The Triton kernels of edge_block, its gradient and so2_conv: against the references in Triton's interpreter, which must be chosen
before Triton is imported, and compiled for a GPU that need not be there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from compare import assert_close, assert_same
from so2_block_cases import problem
from structops import backends, so2
from structops.kernels.so2 import edge_block_ref as ref
from structops.kernels.so2 import so2_conv_ref
from structops.so2._conv_ops import so2_conv, weight_numel

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
    ((2, 2, 1, 2, 6, 10, "fused", True), torch.float64, "ieee", 1e-11),
    ((0, 0, 3, 2, 3, 5, "scale", True), torch.float64, "ieee", 1e-11),
    ((2, 1, 2, 0, 3, 5, "fused", True), torch.float64, "ieee", 1e-11),
    ((1, 1, 0, 2, 3, 5, "fused", True), torch.float64, "ieee", 1e-11),
]
ALL = 15
NAMES = ("x", "vec", "radial", "radial_weight", "radial_bias", "envelope", "weight1", "bias1", "weight2", "bias2")
OPS = ("edge_block", "edge_block_bwd", "so2_conv", "so2_conv_wgrad")


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of edges in problems this small."""
    if INTERPRETER:
        from structops.kernels.so2 import edge_block_bwd_triton

        monkeypatch.setattr(edge_block_bwd_triton, "SCRATCH", 0)


def set_mode(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    from structops.kernels.so2 import common_triton

    monkeypatch.setattr(common_triton, "MODE", mode)


@interpreted
@pytest.mark.parametrize("case,dtype,mode,tolerance", CASES, ids=str)
def test_values_and_gradients(case, dtype, mode, tolerance, poison: None, chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.kernels.so2 import edge_block_triton as kernels

    set_mode(monkeypatch, mode)
    p = problem(*case).to(dtype)
    exact, grad = p.to(torch.float64), torch.randn(p.x.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    options = (p.L, p.M, p.H, False)
    rows = kernels.edge_block(*p.leaves(), *p.structure(), *options, True)
    for a, b in zip(rows, ref.edge_block(*exact.leaves(), *p.structure(), *options, True), strict=True):
        assert a.shape == b.shape and a.dtype == dtype
        if b.numel() and p.x.shape[2]:
            assert (a.double() - b).abs().max() < tolerance * max(1.0, float(b.abs().max()))
    want = ref.edge_block_bwd(grad.double(), *exact.leaves(), *p.structure(), None, None, *options, ALL)
    for kept in ((None, None), rows[1:]):
        found = kernels.edge_block_bwd(grad, *p.leaves(), *p.structure(), *kept, *options, ALL)
        for a, b, name in zip(found, want, NAMES, strict=True):
            assert a.shape == b.shape and a.dtype == dtype, name
            if b.numel():
                # The reference differentiates through the frame: near a pole its float64 has that much error and no more.
                most = max(tolerance, 1e-9) if name == "vec" else tolerance
                assert (a.double() - b).abs().max() < most * max(1.0, float(b.abs().max())), (name, kept[0] is None)
    for a, twice in zip(found, kernels.edge_block_bwd(grad, *p.leaves(), *p.structure(), *kept, *options, ALL), strict=True):
        assert_same(a, twice)


@interpreted
def test_only_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.kernels.so2 import edge_block_triton as kernels
    from structops.kernels.sparse import common_triton

    launched: set[str] = set()
    launch = common_triton.launch
    monkeypatch.setattr(common_triton, "launch", lambda kernel, *args, **rest: (launched.add(kernel.fn.__name__), launch(kernel, *args, **rest))[1])
    p = problem(1, 0, 1, 1, N=2, E=4)
    tail = (*p.structure(), None, None, p.L, p.M, p.H, False)
    kept = (*p.structure(), *kernels.edge_block(*p.leaves(), *p.structure(), p.L, p.M, p.H, False, True)[1:], p.L, p.M, p.H, False)
    grad = torch.randn(p.x.shape, dtype=torch.float64)
    full = kernels.edge_block_bwd(grad, *p.leaves(), *tail, ALL)
    never = {0: "", 1: "conv_weight_grad", 2: "conv_weight_grad sum_rows", 4: "conv_weight_grad sum_rows gate_rows conv_rows", 8: "sum_rows"}
    for wanted in (0, 1, 2, 4, 6, 8, 9, ALL):
        for structure in (tail, kept):
            launched.clear()
            for got, all_, bit in zip(kernels.edge_block_bwd(grad, *p.leaves(), *structure, wanted), full, (1, 1, 2, 8, 8, 4, 8, 8, 8, 8), strict=True):
                if not wanted & bit:
                    assert got.numel() == 0
                elif structure is tail:
                    assert_same(got, all_)
                else:
                    assert (got - all_).abs().max() < 1e-12 * all_.abs().max()
            if structure is kept and wanted in never:
                assert not launched & set(never[wanted].split()), wanted
        assert launched or not wanted


@interpreted
def test_missing_operands_and_index_types(chunks: None) -> None:
    from structops.kernels.so2 import edge_block_triton as kernels

    p = problem(2, 1, 2, 2, N=4, E=12)
    leaves = p.leaves()
    leaves[4] = None  # radial_bias
    rowptr, col, _ = p.structure()
    grad, options = torch.randn(p.x.shape, dtype=torch.float64), (p.L, p.M, p.H, False, ALL)
    want = ref.edge_block_bwd(grad, *leaves, rowptr, col, None, None, None, *options)
    found = kernels.edge_block_bwd(grad, *leaves, rowptr.long(), col.long(), None, None, None, *options)
    narrow = kernels.edge_block_bwd(grad, *leaves, rowptr.int(), col.int(), None, None, None, *options)
    for a, b, c in zip(found, want, narrow, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-9 * max(1.0, float(b.abs().max())) if b.numel() else a.numel() == 0
        assert_same(a, c)


SHAPES = [(2, 1, 3, 2, 4, 20), (1, 1, 17, 33, 0, 70), (0, 0, 2, 2, 1, 3), (3, 2, 2, 1, 3, 0), (1, 1, 1, 2, 1, 600), (1, 0, 0, 2, 3, 4)]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_so2_conv(dtype: torch.dtype, poison: None) -> None:
    from structops.kernels.so2 import so2_conv_triton as kernels

    for L, M, Cin, Cout, extra, E in SHAPES:
        shape, n = (L, M, Cin, Cout, extra), len(so2.frame_order(L, M))
        g = torch.Generator().manual_seed(E)
        rand = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64).to(dtype)
        x, y, w = rand(E, n * Cin), rand(E, extra + n * Cout), rand(weight_numel(*shape))
        for bias in (None, rand(extra + (L + 1) * Cout)):
            want = so2_conv_ref.so2_conv(x.double(), w.double(), None if bias is None else bias.double(), *shape, False, False)
            got = kernels.so2_conv(x, w, bias, *shape, False, True)
            assert_close(got, want, dtype, terms=3 * (L + 1) * Cin + 1, magnitude=2, what=shape)
        want = so2_conv_ref.so2_conv(y.double(), w.double(), None, *shape, True, False)
        assert_close(kernels.so2_conv(y, w, None, *shape, True, False), want, dtype, terms=3 * (L + 1) * (Cout + extra), magnitude=2, what=shape)
        got = kernels.so2_conv_wgrad(x, y, *shape)
        assert_close(got, so2_conv_ref.so2_conv_wgrad(x.double(), y.double(), *shape), dtype, terms=2 * E + 1, magnitude=2, what=shape)
        assert_same(got, kernels.so2_conv_wgrad(x, y, *shape))


@interpreted
def test_so2_conv_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that products of bfloat16 operands have, and not those of exact ones. The interpreter cuts where a GPU rounds."""
    from structops.kernels.so2 import so2_conv_triton as kernels

    set_mode(monkeypatch, "bf16")
    shape = (2, 1, 3, 2, 4)
    x, y, w = torch.randn(20, 21), torch.randn(20, 18), torch.randn(weight_numel(*shape))
    low = lambda t: (t.view(torch.int32) & -(1 << 16)).view(torch.float32).double()
    for got, fn, args in (
        (kernels.so2_conv(x, w, None, *shape, False, False), so2_conv_ref.so2_conv, (x, w, None)),
        (kernels.so2_conv_wgrad(x, y, *shape), so2_conv_ref.so2_conv_wgrad, (x, y)),
    ):
        tail = (False, False) if len(args) == 3 else ()
        coarse, exact = (fn(*(None if t is None else f(t) for t in args), *shape, *tail) for f in (low, torch.Tensor.double))
        assert (got - coarse).abs().max() < 2e-5 < 1e-3 < (got - exact).abs().max()


@interpreted
def test_second_derivatives() -> None:
    """Those of the compiled operators, and each kernel runs."""
    shape = (1, 1, 2, 1, 1)
    rand = lambda *s: torch.randn(*s, dtype=torch.float64, generator=torch.Generator().manual_seed(len(s) + s[0]))
    p = problem(1, 1, 1, 1, N=3, E=6)

    def block(x, vec, w1, b1):
        return so2.edge_block(
            x, vec, p.graph, w1, b1, p.leaves()[8], p.b2, lmax=1, radial=p.radial, radial_weight=p.radial_weight,
            radial_bias=p.radial_bias, envelope=p.envelope,
        )  # fmt: skip

    conv = lambda x, w, b: so2_conv(x, w, b, *shape, False, False)
    for fn, args in ((conv, (rand(3, 8), rand(weight_numel(*shape)), rand(3))), (block, (p.x, p.vec, p.leaves()[6], p.b1))):
        found = []
        for backend in ("cpp", "triton"):
            with backends.override(**dict.fromkeys(OPS, backend)):
                leaves = [t.clone().requires_grad_() for t in args]
                first = torch.autograd.grad(fn(*leaves).sin().sum(), leaves, create_graph=True)
                found.append((*first, *torch.autograd.grad(sum(t.square().sum() for t in first), leaves)))
        for got, want in zip(*reversed(found), strict=True):
            assert (got - want).abs().max() < 1e-10 * want.abs().max()


@interpreted
def test_unknown_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.kernels.so2 import edge_block_triton, so2_conv_triton

    set_mode(monkeypatch, "fp8")
    p = problem(1, 1, 2, 2).to(torch.float32)
    with pytest.raises(ValueError, match="edge_block: expected STRUCTOPS_SO2_DOT"):
        edge_block_triton.edge_block(*p.leaves(), *p.structure(), 1, 1, 2, False, False)
    with pytest.raises(ValueError, match="so2_conv_wgrad: expected STRUCTOPS_SO2_DOT"):
        so2_conv_triton.so2_conv_wgrad(torch.ones(1, 4), torch.ones(1, 4), 1, 1, 1, 1, 0)


SHARED = 99 * 1024  # what a program may use on every GPU from sm_80 on


@pytest.mark.skipif(INTERPRETER, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    "arch,dtype,mode,product",
    [
        (80, torch.float32, "ieee", "fma.rn.f32"), (80, torch.float32, "tf32", "mma.sync.aligned.m16n8k8.row.col.f32.tf32"),
        (80, torch.float32, "bf16", "mma.sync.aligned.m16n8k16.row.col.f32.bf16"), (80, torch.float64, "ieee", "mma.sync"),
        (90, torch.float32, "tf32", "wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32"),
        (90, torch.float32, "bf16", "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16"),
    ],
    ids=str,
)  # fmt: skip
def test_compiles_for_a_gpu_that_need_not_be_there(arch: int, dtype: torch.dtype, mode: str, product: str) -> None:
    import triton
    from structops.kernels.so2 import common_triton, edge_block_bwd_triton, edge_block_triton, so2_conv_triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    side, step, options = common_triton.tiles(dtype, mode)
    integers = ("src", "dst", "j", "row", "rowptr", "node", "key", "end", "order")

    def build(kernel, stages: int | None = None, **constants) -> str:
        signature, fixed, aligned = {}, {}, {}
        for i, name in enumerate(kernel.arg_names):
            real = "*fp64" if dtype == torch.float64 else "*fp32"
            signature[name] = ("*i64" if name.removesuffix("_ptr") in integers else real) if name.endswith("_ptr") else "i32"
            if name in constants:
                signature[name], fixed[(i,)] = "constexpr", constants[name]
            else:
                aligned[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
        given = options if stages is None else {**options, "num_stages": stages}
        done = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=given if "MODE" in constants else {})
        assert done.metadata.shared <= SHARED, kernel.fn.__name__
        assert "atom." not in done.asm["ptx"] and "\tred." not in done.asm["ptx"]
        return done.asm["ptx"]

    rows, tile = {"MODE": mode, "BE": side, "BN": side, "BK": step}, {"BE": 8, "BC": 128}
    assert product in build(edge_block_triton.conv1, 2, L=1, M=1, R=10, ORDER=1, SCALED=True, **rows)
    assert product in build(edge_block_triton.conv2, L=1, ORDER=1, **rows)
    pair = {"PAIR": True, "TRANSPOSE": True, "HAS_BIAS": False, "SCALED": True, "HAS_DS": True}
    assert product in build(so2_conv_triton.conv_rows, **pair, **rows)
    single = {"PAIR": False, "TRANSPOSE": False, "HAS_BIAS": True, "SCALED": False, "HAS_DS": False}
    assert product in build(so2_conv_triton.conv_rows, **single, **rows)
    for two in (True, False):
        assert product in build(so2_conv_triton.conv_weight_grad, PAIR=two, MODE=mode, BE=step, BN=side, BK=side)
    if mode == "tf32":
        build(edge_block_triton.rotate_sum, l=2, KL=2, L=2, D_AT=10, HAS_ENV=True, BE=16, BC=64)
        for scale in ("none", "edge", "radial"):
            build(edge_block_bwd_triton.rotate, L=1, M=1, R=10, ROWS=4, SCALE=scale, RAW=True, **tile)
        build(edge_block_bwd_triton.gate_rows, L=2, M=1, ROWS=7, HAS_H=True, HAS_DH=True, **tile)
        build(edge_block_bwd_triton.gate_rows, L=2, M=1, ROWS=7, HAS_H=True, HAS_DH=False, **tile)
        build(edge_block_bwd_triton.pull_back, L=2, M=1, R=25, ROWS=7, HAS_ENV=True, BE=4, BC=128)
        for ordered in (True, False):
            build(edge_block_bwd_triton.sum_rows, HAS_ORDER=ordered, BE=8, BC=256)


@interpreted
def test_a_gpu_takes_triton_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "cuda_kernels", lambda: True)
    for op in OPS:
        assert backends.implementation(op, "cuda").__module__.endswith("_triton")
        assert "triton" not in getattr(backends.implementation(op, "cpu"), "__module__", "")
