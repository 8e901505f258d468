"""The kernels that CuPy compiles at run time: every one through NVRTC, which needs no GPU; their launches on the CPU, where
tests/host_cuda stands in for the GPU, and on a GPU where there is one.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cases import FLOATS, INTEGERS, near_one, random_coo, small_integers, to_csr, values
from compare import assert_close, assert_same
from structops import backends
from structops.kernels import codes as C
from structops.kernels.sparse import common_nvrtc as rt
from structops.kernels.sparse import (
    scatter_nvrtc,
    scatter_ref,
    sddmm_nvrtc,
    sddmm_ref,
    softmax_nvrtc,
    softmax_ref,
    spmm_nvrtc,
    spmm_ref,
)
from torch import Tensor

PROGRAMS = {"spmm": spmm_nvrtc.PROGRAM, "sddmm": sddmm_nvrtc.PROGRAM, "softmax": softmax_nvrtc.PROGRAM}
HOST_CUDA = Path(__file__).resolve().parents[1] / "host_cuda"


def kernels(family: str, dtype: torch.dtype) -> list[str]:
    """Every kernel of a family that its launcher can ask for, as name expressions."""
    floating, lanes = dtype.is_floating_point, (1, rt.wide_lanes(dtype))
    if family == "sddmm":
        return [sddmm_nvrtc.kernel(dtype, *x) for x in itertools.product((False, True), lanes)]
    if family == "softmax":
        return [softmax_nvrtc.kernel(dtype, *x) for x in itertools.product((False, True), lanes)] if floating else []
    reduces = C.REDUCES.values() if floating else spmm_nvrtc.OF_INTEGERS
    rows = [spmm_nvrtc.row_kernel(dtype, *x) for x in itertools.product(reduces, (False, True) if floating else (False,), lanes)]
    return list(dict.fromkeys(rows + [spmm_nvrtc.merge_kernel(dtype, r) for r in reduces]))


def cuda_include() -> str | None:
    roots = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    with contextlib.suppress(ImportError):
        from cupy import _environment

        roots.append(_environment.get_cuda_path())
    return next((f"{r}/include" for r in roots if r and Path(r, "include", "cuda_bf16.h").is_file()), None)


# ---- compiled --------------------------------------------------------------------------------------------------------


def compile_by_nvrtc(source: str, names: list[str], arch: str) -> dict[str, str]:
    """Compiles to a cubin; name expression -> the symbol that it has there. Raises with the compiler's words."""
    nvrtc = pytest.importorskip("cupy", reason="cupy is not installed").cuda.nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"cupy finds no NVRTC: {error}")
    include = cuda_include()
    if include is None:
        pytest.skip("no headers of the CUDA toolkit")
    program = nvrtc.createProgram(source, "structops.cu", (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(program, (*rt.OPTIONS, f"--gpu-architecture={arch}", f"-I{include}"))
        except nvrtc.NVRTCError:
            raise RuntimeError(nvrtc.getProgramLog(program)) from None
        symbols = {name: nvrtc.getLoweredName(program, name) for name in names}
        cubin = nvrtc.getCUBIN(program)
        assert all(symbol.encode() in cubin for symbol in symbols.values())
        return symbols
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("family, dtype", [(f, t) for f in PROGRAMS for t in (*FLOATS, *INTEGERS) if kernels(f, t)], ids=str)
def test_compiles(family: str, dtype: torch.dtype, arch: str) -> None:
    names = kernels(family, dtype)
    assert len(set(compile_by_nvrtc(PROGRAMS[family].source(), names, arch).values())) == len(names)


def swapped(struct: type[ctypes.Structure], i: int) -> type[ctypes.Structure]:
    """The structure with two neighbours of one size in each other's place."""
    fields = list(struct._fields_)
    fields[i], fields[i + 1] = fields[i + 1], fields[i]
    return type(struct.__name__, (ctypes.Structure,), {"_fields_": tuple(fields)})


@pytest.mark.parametrize("family", PROGRAMS)
def test_a_wrong_layout_does_not_compile(family: str) -> None:
    program = PROGRAMS[family]
    for params in (swapped(program.params, 0), type(program.params.__name__, (program.params,), {"_fields_": (("more", ctypes.c_int64),)})):
        with pytest.raises(RuntimeError, match=f"{program.params.__name__} here and in Python"):
            compile_by_nvrtc(dataclasses.replace(program, params=params).source(), [], "sm_80")
    with pytest.raises(RuntimeError, match="here and in Python"):
        compile_by_nvrtc(dataclasses.replace(program, facts=(program.facts[0].replace("==", "!="),)).source(), [], "sm_80")


# ---- launched --------------------------------------------------------------------------------------------------------

HOST_DTYPES = (torch.float32, torch.bfloat16, torch.int64)


@functools.cache
def host_library(family: str, folder: Path) -> tuple[ctypes.CDLL, list[str]]:
    """The kernels of HOST_DTYPES for the CPU, and their places in the table of the library's ``run``."""
    compiler, include = shutil.which("g++") or shutil.which("c++"), cuda_include()
    if platform.machine() != "x86_64" or not compiler or not include:
        pytest.skip("no x86-64 C++ compiler, or no headers of the CUDA toolkit")
    program = PROGRAMS[family]
    names = [name for dtype in HOST_DTYPES for name in kernels(family, dtype)]
    (folder / f"{family}.cpp").write_text(
        program.source()
        + f"using Kernel = void (*)({program.params.__name__});\nstatic const Kernel table[] = {{{', '.join(names)}}};\n"
        + 'extern "C" __attribute__((visibility("default"))) void run(int i, unsigned x, unsigned y, int threads, void* params) {\n'
        + "  void* args[] = {params};\n  cudaLaunchKernel(table[i], dim3(x, y), dim3(threads), args, 0, cudaStream_t());\n}\n"
    )
    library = folder / f"{family}.so"
    command = [
        compiler, "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden", "-x", "c++",
        "-include", str(HOST_CUDA / "host_cuda.h"), *rt.OPTIONS, f"-I{HOST_CUDA}", "-isystem", include,
        str(folder / f"{family}.cpp"), str(HOST_CUDA / "host_cuda.cpp"), "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return ctypes.CDLL(str(library)), names


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory, poison) -> str:
    """Where launches go: to the kernels compiled for the CPU, or by CuPy to a GPU."""
    if request.param == "cuda":
        ok, reason = backends.nvrtc()
        if not ok:
            pytest.skip(reason)
        return "cuda"

    def launch(program, name, like, grid, threads, params) -> None:
        family = next(f for f, p in PROGRAMS.items() if p is program)
        library, names = host_library(family, folder)
        library.run(names.index(name), *grid, threads, ctypes.byref(params))

    folder = shared_folder(tmp_path_factory)
    monkeypatch.setattr(rt, "launch", launch)
    monkeypatch.setattr(rt, "check_operands", lambda *_: None)
    return "cpu"


_folder: list[Path] = []


def shared_folder(tmp_path_factory) -> Path:
    if not _folder:
        _folder.append(tmp_path_factory.mktemp("host_cuda"))
    return _folder[0]


def on(device: str, args: tuple) -> tuple:
    return tuple(a.to(device) if isinstance(a, Tensor) else a for a in args)


NUM_SRC, NUM_DST, EDGES = 11, 12, 80


def structure(index: torch.dtype = torch.int64, hub: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return to_csr(random_coo(NUM_SRC, NUM_DST, EDGES, hub=hub), NUM_DST, index)


def check_spmm(device, x, e, message, reduce, *, bcast=None, arg=0, skip_nan=False, unbiased=True, s=None, magnitude=4.0) -> None:
    s = s or structure()
    rest = *s, None, None, None, bcast, C.MESSAGES[message], C.REDUCES[reduce], arg, -0.25, skip_nan, unbiased
    if not (x if x is not None else e).is_floating_point():
        rest = *rest[:10], 3.0, *rest[11:]
    actual, winners = spmm_nvrtc.spmm(*on(device, (x, e, *rest)))
    again, _ = spmm_nvrtc.spmm(*on(device, (x, e, *rest)))
    what = (message, reduce, arg, skip_nan)
    assert_same(again, actual, (what, "two runs"))
    exact = reduce in ("min", "max")  # of the same rounded messages
    wide = (t.double() if t is not None and t.is_floating_point() and not exact else t for t in (x, e))
    expected, expected_winners = spmm_ref.spmm(*wide, *rest)
    actual = actual.cpu()
    if actual.is_floating_point():
        assert_close(actual, expected.double(), terms=s[0].diff().max().item(), magnitude=magnitude, what=what)
    else:
        assert_same(actual, expected, what)
    if arg:
        assert_same(winners.cpu(), expected_winners, what)


FEATURES = (1, 3, 8, 36, 130)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("reduce", C.REDUCES)
def test_spmm(device: str, reduce: str, dtype: torch.dtype) -> None:
    for n, message in enumerate(C.MESSAGES):
        for F in FEATURES[n % 2 :: 2]:
            x, e = values(NUM_SRC, F, dtype=dtype), values(EDGES, 1 if n % 3 == 2 else F, dtype=dtype, seed=1)
            if message == "copy_e":
                e = values(EDGES, F, dtype=dtype)
            check_spmm(device, x, e, message, reduce, arg=n % 4 if reduce in ("min", "max") else 0, unbiased=bool(n % 2))


@pytest.mark.parametrize("reduce", C.REDUCES)
def test_spmm_hubs_batches_and_tables(device: str, reduce: str) -> None:
    make = near_one if reduce == "prod" else values
    s = structure(torch.int32, hub=3000)  # cut into items, and merged
    total = s[1].numel()
    for F, batch in ((8, ()), (33, (2,))):
        check_spmm(device, make(*batch, NUM_SRC, F, dtype=torch.float32), None, "copy_u", reduce, s=s, arg=int(reduce in ("min", "max")))
        check_spmm(device, None, make(*batch, total, F, dtype=torch.float32), "copy_e", reduce, s=(s[0], None, s[2]), arg=2 * (reduce in ("min", "max")))
    table = torch.tensor([[0, 1, 2, 3, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 1]], dtype=torch.int32)
    check_spmm(device, values(NUM_SRC, 4, dtype=torch.float32), values(2, EDGES, 2, dtype=torch.float32, seed=2), "mul", reduce, bcast=table)
    check_spmm(device, values(2, NUM_SRC, 1, dtype=torch.float32), values(EDGES, 8, dtype=torch.float32, seed=2), "sub", reduce)
    check_spmm(device, values(NUM_SRC, dtype=torch.float32), values(EDGES, dtype=torch.float32, seed=2), "div", reduce)


@pytest.mark.parametrize("reduce", ["sum", "min", "max", "prod"])
def test_spmm_of_integers(device: str, reduce: str) -> None:
    for F, message in itertools.product((1, 6), ("copy_u", "copy_e")):
        x, e = small_integers(NUM_SRC, F, dtype=torch.int64), small_integers(EDGES, F, dtype=torch.int64)
        check_spmm(device, x, e, message, reduce, arg=2 * (reduce in ("min", "max")))
    with pytest.raises(NotImplementedError, match="integer dtypes"):
        check_spmm(device, x, e, "add", reduce)


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_spmm_winners_and_nan(device: str, reduce: str) -> None:
    x, e = (small_integers(n, 4, dtype=torch.float32) for n in (NUM_SRC, EDGES))
    e[3, 0] = e[20, 0] = e[1, 1] = float("nan")
    e[:, 2] = float("nan")
    for index, arg, skip in itertools.product((torch.int32, torch.int64), (1, 2, 3), (False, True)):
        for message in ("copy_e", "add"):
            check_spmm(device, x, e, message, reduce, arg=arg, skip_nan=skip, s=structure(index))


@pytest.mark.parametrize("dtype", HOST_DTYPES, ids=str)
@pytest.mark.parametrize("op", C.EDGE_OPS)
def test_sddmm(device: str, op: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point and op == "div":
        pytest.skip("integers are not divided")
    rows, make = {"u": NUM_SRC, "v": NUM_DST, "e": EDGES}, values if dtype.is_floating_point else small_integers
    for n, ((l, r), R) in enumerate(itertools.product(("uv", "vu", "eu", "ve"), (1, 5, 64))):
        Fo = (1, 2, 8)[n % 3]
        F, s = Fo * R, structure((torch.int32, torch.int64)[n % 2])
        lhs = make(*((2,) if n % 2 else ()), rows[l], F, dtype=dtype)
        rhs = make(rows[r], 1 if n % 5 == 1 else F, dtype=dtype, seed=1) if op != "copy" else None
        table = torch.stack([torch.arange(F).flip(0), torch.arange(F) % (rhs.shape[-1] if rhs is not None else F)]).int()
        args = *s, None, None, None, table if n % 4 == 3 else None, C.EDGE_OPS[op], C.TARGETS[l], C.TARGETS[r], EDGES, Fo, R
        actual = sddmm_nvrtc.sddmm(*on(device, (lhs, rhs, *args))).cpu()
        floating = dtype.is_floating_point
        expected = sddmm_ref.sddmm(*(t.double() if t is not None and floating else t for t in (lhs, rhs)), *args)
        if floating:
            assert_close(actual, expected, terms=R + 1, magnitude=4.0, what=(op, l, r, R))
        else:
            assert_same(actual, expected, (op, l, r, R))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("log", [False, True])
def test_softmax(device: str, log: bool, dtype: torch.dtype) -> None:
    for hub, F, batch in ((0, 1, ()), (0, 8, (2,)), (3000, 3, ()), (900, 36, ())):
        rowptr, _, eid = structure(torch.int32 if F == 3 else torch.int64, hub)
        eid = eid if F != 8 else None
        src, grad = (values(*batch, EDGES + hub, F, dtype=dtype, seed=i) for i in range(2))
        what, terms = (hub, F), EDGES + hub
        actual = softmax_nvrtc.segment_softmax(*on(device, (src, rowptr, eid)), log).cpu()
        assert_close(actual, softmax_ref.segment_softmax(src.double(), rowptr, eid, log), terms=8, what=what)
        actual = softmax_nvrtc.segment_softmax_bwd(*on(device, (src, grad, rowptr, eid)), log).cpu()
        expected = softmax_ref.segment_softmax_bwd(src.double(), grad.double(), rowptr, eid, log)
        assert_close(actual, expected, terms=terms, magnitude=16.0, what=(what, "backward"))


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max", "prod"])
def test_scatter(device: str, reduce: str) -> None:
    index = random_coo(NUM_SRC, NUM_DST, EDGES)[1]
    for dtype, kind, arg in itertools.product(HOST_DTYPES, INTEGERS, (False, True)):
        if (not dtype.is_floating_point and reduce == "mean") or (arg and reduce not in ("min", "max")):
            continue
        src = small_integers(EDGES, 4, dtype=dtype) if dtype != torch.bfloat16 else near_one(EDGES, 4, dtype=dtype)
        args = index.to(kind), NUM_DST, C.REDUCES[reduce], arg, 0.0, False
        actual, winners = scatter_nvrtc.scatter(*on(device, (src, *args)))
        expected, expected_winners = scatter_ref.scatter(src.double() if dtype.is_floating_point else src, *args)
        if dtype.is_floating_point:
            assert_close(actual.cpu(), expected, terms=EDGES, what=(reduce, dtype))
        else:
            assert_same(actual.cpu(), expected, (reduce, dtype))
        assert_same(winners.cpu(), expected_winners, (reduce, dtype))
    for wrong in (index - 1, index + 5):
        with pytest.raises(RuntimeError, match="index out of range"):
            scatter_nvrtc.scatter(*on(device, (src, wrong, NUM_DST, C.REDUCES[reduce], False, 0.0, False)))


def test_nothing(device: str) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for rows, F in ((0, 2), (2, 0), (2, 3)):
        s = torch.zeros(rows + 1, dtype=torch.int64), none, None
        check_spmm(device, torch.ones(3, F), None, "copy_u", "max", arg=1, s=s) if rows else None
        assert sddmm_nvrtc.sddmm(
            *on(device, (torch.ones(3, F), None, *s, None, None, None, None, C.EDGE_COPY, C.U, C.U, 0, F, 1))
        ).shape == (0, F)
        assert softmax_nvrtc.segment_softmax(*on(device, (torch.ones(0, F), s[0], None)), False).shape == (0, F)


# ---- chosen ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_gpu_without_nvcc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """A machine whose torch sees a GPU and whose library has no CUDA kernels, as far as choosing backends goes."""
    monkeypatch.setattr(backends, "cuda_kernels", lambda: False)
    monkeypatch.setattr(backends, "_importable", lambda name: (name == "cupy", "a test says so"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    backends._implementation.cache_clear()
    yield monkeypatch
    backends._implementation.cache_clear()


def test_the_order_on_gpus(a_gpu_without_nvcc: pytest.MonkeyPatch) -> None:
    for op, fn in (("spmm", spmm_nvrtc.spmm), ("copy_reduce", spmm_nvrtc.copy_reduce), ("sddmm", sddmm_nvrtc.sddmm),
                   ("segment_softmax_bwd", softmax_nvrtc.segment_softmax_bwd), ("scatter", scatter_nvrtc.scatter)):  # fmt: skip
        assert backends.implementation(op, "cuda") is fn, op
    assert backends.implementation("attention", "cuda").__module__.endswith("attention_ref")
    assert "nvrtc" not in backends.implementation("spmm", "cpu").__module__
    with backends.override(spmm="reference"):
        assert backends.implementation("spmm", "cuda") is spmm_ref.spmm


def test_what_it_needs(a_gpu_without_nvcc: pytest.MonkeyPatch) -> None:
    assert backends.nvrtc()[0]
    a_gpu_without_nvcc.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert backends.nvrtc() == (False, "compute capability 7.5, and the kernels need 8.0")
    a_gpu_without_nvcc.setattr(torch.cuda, "is_available", lambda: False)
    assert backends.nvrtc() == (False, "torch sees no CUDA device")
    a_gpu_without_nvcc.setattr(backends, "_importable", lambda name: (False, f"{name} is not installed"))
    assert backends.nvrtc() == (False, "cupy is not installed")


def test_it_runs_on_cuda_tensors_only() -> None:
    with pytest.raises(RuntimeError, match="nvrtc backend runs on CUDA tensors, got cpu"):
        spmm_nvrtc.spmm(torch.ones(NUM_SRC, 2), None, *structure(), None, None, None, None, C.COPY_U, C.SUM, 0, 0.0, False, True)
