"""What the operators that compile csrc/sparse/*.cuh at run time share: parameters, compilation by CuPy and NVRTC, launches.

The numbers that a launch is made of are said in the .cuh, and again here and beside each operator. Every program that is
compiled asserts that the layout of the parameters and these numbers are those of its header.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# Beside kernels/ in the package and in a checkout.
CSRC = Path(__file__).resolve().parents[2] / "csrc"
HEADERS = ("core/cuda/device.cuh", "sparse/spmm.cuh", "sparse/sddmm.cuh", "sparse/softmax.cuh")

# The types of device.cuh.
TYPES = {
    torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16", torch.float16: "f16", torch.int32: "int32_t",
    torch.int64: "int64_t",
}  # fmt: skip
_WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return _WIDE.get(dtype, dtype)


def wide_lanes(dtype: torch.dtype) -> int:
    return 2 if dtype.itemsize == 8 else 4


class IndexRef(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("wide", ctypes.c_int))


def pointer(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def index_ref(t: Tensor | None) -> IndexRef:
    return IndexRef(pointer(t), int(t is not None and t.dtype == torch.int64))


def batch_stride(B: int, rows: int, F: int) -> int:
    """Elements between the batches of an operand, 0 where it is the same for all."""
    return rows * F if B > 1 else 0


def aligned(t: Tensor, size: int) -> bool:
    return t.data_ptr() % size == 0


def div_up(a: int, b: int) -> int:
    return -(-a // b)


def lanes_for(packs: int) -> int:
    """Lanes of a row of that many packs: a power of two, at most a warp."""
    return min(1 << max(packs - 1, 0).bit_length(), 32)


def grid_y(n: int) -> int:
    return min(n, 65535)


@dataclass(frozen=True)
class Program:
    """A header, the structure that its kernels take by value, and what must hold in it: C++ constant expressions."""

    header: str
    params: type[ctypes.Structure]
    facts: tuple[str, ...]

    def source(self) -> str:
        name = self.params.__name__
        facts = [*self.facts, *_layout(IndexRef), *_layout(self.params)]
        facts += [f"wide_lanes<{TYPES[t]}> == {wide_lanes(t)}" for t in TYPES]
        # CuPy keeps binaries by the text that it is given, and does not look into headers.
        digest = hashlib.sha256(b"".join((CSRC / h).read_bytes() for h in HEADERS)).hexdigest()
        asserts = "\n".join(f'static_assert({fact}, "{name} here and in Python");' for fact in facts)
        return f'// {digest}\n#include "{self.header}"\n{_OFFSET}using namespace structops::cuda;\n{asserts}\n'


# NVRTC has no __builtin_offsetof, and no other constant expression of it than this.
_OFFSET = """
#ifdef __CUDACC_RTC__
#define STRUCTOPS_OFFSET(type, field) __INTADDR__(&((type*)0)->field)
#else
#define STRUCTOPS_OFFSET(type, field) __builtin_offsetof(type, field)
#endif
"""


def _layout(struct: type[ctypes.Structure]) -> list[str]:
    name = struct.__name__
    facts = [f"sizeof({name}) == {ctypes.sizeof(struct)}"]
    for entry in struct._fields_:
        field, kind = entry[:2]
        facts.append(f"STRUCTOPS_OFFSET({name}, {field}) == {getattr(struct, field).offset}")
        facts.append(f"sizeof({name}::{field}) == {ctypes.sizeof(kind)}")
    return facts


OPTIONS = ("-std=c++17", f"-I{CSRC}")


@functools.cache
def _kernel(program: Program, name: str, device: int) -> Callable:
    """Compiles for the current device; CuPy keeps the binary on disk."""
    import cupy

    module = cupy.RawModule(code=program.source(), options=OPTIONS, name_expressions=(name,))
    try:
        return module.get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        raise RuntimeError(f"structops: {name} does not compile by NVRTC: {error}") from error


def check_operands(op: str, like: Tensor, *tensors: Tensor | None) -> None:
    if like.device.type != "cuda":
        raise RuntimeError(f"structops: {op}: the nvrtc backend runs on CUDA tensors, got {like.device}")
    for t in tensors:
        if t is not None and t.device != like.device:
            raise RuntimeError(f"structops: {op}: operands on {like.device} and on {t.device}")
        if t is not None and not t.is_contiguous():
            raise RuntimeError(f"structops: {op}: indices and tables must be contiguous")


def launch(program: Program, name: str, like: Tensor, grid: tuple[int, int], threads: int, params: ctypes.Structure) -> None:
    """Runs a kernel on the current stream of the device of ``like``. Its tensors are torch's: nothing is copied."""
    import cupy
    import numpy as np

    device = like.device.index
    by_value = np.frombuffer(bytearray(params), dtype=np.dtype(type(params)))
    with torch.cuda.device(device), cupy.cuda.Device(device):
        kernel = _kernel(program, name, device)
        stream = torch.cuda.current_stream()
        if hasattr(stream, "__cuda_stream__") and hasattr(cupy.cuda.Stream, "from_external"):
            external = cupy.cuda.Stream.from_external(stream)
        else:
            external = cupy.cuda.ExternalStream(stream.cuda_stream)
        with external:
            kernel(grid, (threads,), (by_value,))
