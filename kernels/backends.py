"""Which backends exist on this machine, why the others do not, and which one every operator uses.

Resolution order: ``override(...)`` context > ``STRUCTOPS_BACKEND_<OP>`` and ``STRUCTOPS_BACKEND`` environment variables
(read once, at import) > automatic: on a CPU the compiled library, numba, the reference; on a GPU the compiled CUDA kernels, the
same kernels compiled at run time, Triton, the reference.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch

from . import binary, so2, sparse, tree
from .sparse.common_nvrtc import CSRC, HEADERS

LIB = Path(__file__).resolve().parent.parent / "pyops" / "lib"
BACKENDS = ("cpp", "nvrtc", "triton", "numba", "reference")

# Operator -> the one whose frequent case it is, and with which its backend is chosen.
_PART_OF = {"copy_reduce": "spmm"}

# Operator -> module stem under kernels/<family>/ that holds its reference and other backends.
_FAMILIES = {"sparse": sparse, "tree": tree, "so2": so2, "binary": binary}
OPS = {op: f"{name}.{stem}" for name, family in _FAMILIES.items() for op, stem in family.OPS.items()}

native = None  # the pybind11 module, where the compiled library loaded
_cpp_reason = ""


def load_library(folder: Path) -> None:
    """Load the compiled operators from ``folder``; on failure remember why."""
    global native, _cpp_reason
    library = folder / "_ops.so"
    if os.environ.get("STRUCTOPS_DISABLE_CPP") == "1":
        _cpp_reason = "switched off by STRUCTOPS_DISABLE_CPP=1"
    elif not library.is_file():
        _cpp_reason = "not built (reinstall with a C++ compiler and without STRUCTOPS_NO_BUILD)"
    else:
        try:
            torch.ops.load_library(str(library))
            native = importlib.import_module("structops.lib._native")
            torch.ops.structops.spmm.default  # noqa: B018  raises if the schemas did not register
        except (OSError, ImportError, AttributeError) as error:
            native, _cpp_reason = None, f"failed to load: {error}"


def cpp() -> tuple[bool, str]:
    """The compiled CPU library."""
    return (True, f"{native.isa()} of {native.detected_isa()}") if native else (False, _cpp_reason)


def cuda_kernels() -> bool:
    """Whether the library has them, whatever the device."""
    return native is not None and native.cuda_compiled()


def cuda() -> tuple[bool, str]:
    """The compiled CUDA kernels."""
    if not native:
        return False, f"no compiled library: {_cpp_reason}"
    if not cuda_kernels():
        return False, "built without nvcc (reinstall with nvcc on the PATH, or STRUCTOPS_CUDA=ON)"
    if not torch.cuda.is_available():
        return False, "compiled, but torch sees no CUDA device"
    return True, torch.cuda.get_device_name()


def _importable(name: str) -> tuple[bool, str]:
    if importlib.util.find_spec(name) is None:
        return False, f"{name} is not installed"
    return True, "importable"


def numba() -> tuple[bool, str]:
    """numba: CPU kernels without a compiler, and user-defined messages and reductions."""
    return _importable("numba")


def triton() -> tuple[bool, str]:
    """Triton: the GPU path without nvcc and without CuPy; on a CPU only in interpreter mode."""
    ok, reason = _importable("triton")
    if not ok:
        return ok, reason
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True, "interpreter mode"
    if torch.cuda.is_available():
        return True, "CUDA device"
    return False, "no CUDA device (TRITON_INTERPRET=1 runs it slowly on a CPU)"


def nvrtc() -> tuple[bool, str]:
    """The CUDA kernels of the sparse family, compiled at run time by CuPy and NVRTC: the GPU path without nvcc."""
    ok, reason = _importable("cupy")
    if not ok:
        return ok, reason
    if not torch.version.cuda or not torch.cuda.is_available():
        return False, "torch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return False, f"compute capability {major}.{minor}, and the kernels need 8.0"
    missing = [h for h in HEADERS if not (CSRC / h).is_file()]
    return (False, f"{CSRC / missing[0]} is missing") if missing else (True, "CUDA device")


def reference() -> tuple[bool, str]:
    """Plain torch: slow, obvious, always there."""
    return True, "always available"


def status() -> dict[str, tuple[bool, str]]:
    """Every backend as (available, reason)."""
    return {f.__name__: f() for f in (cpp, cuda, nvrtc, triton, numba, reference)}


def isa() -> str:
    """The CPU instruction set in use: baseline, avx2 or avx512."""
    return native.isa() if native else "none"


def set_isa(name: str) -> None:
    """Choose the CPU instruction set: baseline, avx2, avx512 or auto. ``STRUCTOPS_ISA`` does it at import."""
    if not native:
        raise RuntimeError(f"set_isa: no compiled library: {_cpp_reason}")
    native.set_isa(name)


@cache
def _implementation(op: str, backend: str) -> Callable | None:
    if backend == "cpp":
        return getattr(torch.ops.structops, op).default if native else None
    if backend != "reference" and not globals()[backend]()[0]:
        return None
    suffix = {"reference": "ref"}.get(backend, backend)
    name = f"structops.kernels.{OPS[op]}_{suffix}"
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return getattr(importlib.import_module(name), op, None)
    except ImportError as error:
        warnings.warn(f"structops: the {backend} backend is installed but does not import: {error}", stacklevel=2)
        return None


_override: dict[str, str] = {}
_generation = 0  # changes whenever a resolution may change, so that callers can cache


def overridden() -> bool:
    """Whether a backend was asked for, by ``override`` or by the environment."""
    return bool(_override)


def implementation(op: str, device: str = "cpu") -> Callable:
    """The function that runs ``op`` now on a kind of device: same signature on every backend."""
    own = _override.get(op) or _override.get(_PART_OF.get(op, op))
    chosen = own or _override.get("*")
    if chosen:
        fn = _implementation(op, chosen)
        # An operator that a backend does not have goes to the next in line only when the override was for all operators.
        if fn is None and own:
            raise RuntimeError(f"{op}: backend '{chosen}' is not available here: {_why(op, chosen)}")
        if fn is not None:
            return fn
    gpu: tuple[str, ...] = ("cpp" if cuda_kernels() else "nvrtc", "triton", "reference")
    if op in so2.TRITON_FIRST or op in sparse.TRITON_FIRST:
        gpu = ("triton", *(b for b in gpu if b != "triton"))
    for backend in ("cpp", "numba", "reference") if device == "cpu" else gpu:
        fn = _implementation(op, backend)
        if fn is not None:
            return fn
    raise AssertionError("the reference is always available")


def _why(op: str, backend: str) -> str:
    ok, reason = globals()[backend]()
    return f"{op} has no {backend} kernel" if ok else reason


def _check(op: str, backend: str) -> None:
    if op != "*" and op not in OPS:
        raise ValueError(f"backends: unknown operator '{op}'; known: {', '.join(OPS)}")
    if backend not in BACKENDS:
        raise ValueError(f"backends: unknown backend '{backend}' for {op}; known: {', '.join(BACKENDS)}")


@contextlib.contextmanager
def override(all_ops: str | None = None, **ops: str) -> Iterator[None]:
    """Use a backend inside the block: ``override("reference")`` for every operator, ``override(spmm="numba")`` for one."""
    global _generation
    wanted = dict(ops) if all_ops is None else {"*": all_ops, **ops}
    for op, backend in wanted.items():
        _check(op, backend)
    saved = dict(_override)
    _override.update(wanted)
    _generation += 1
    try:
        for op in ops:
            implementation(op)
        yield
    finally:
        _override.clear()
        _override.update(saved)
        _generation += 1


def _read_environment() -> None:
    for op in ("*", *OPS):
        name = "STRUCTOPS_BACKEND" if op == "*" else f"STRUCTOPS_BACKEND_{op.upper()}"
        backend = os.environ.get(name, "auto")
        if backend != "auto":
            _check(op, backend)
            _override[op] = backend


_read_environment()
