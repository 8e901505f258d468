"""The dispatcher names ``torch.ops.torch_scatter.*``, and those of the composites for TorchScript."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import torch

from ...kernels import backends
from . import composite, scatter, segment_coo, segment_csr

NAMESPACE = "torch_scatter"
_SCATTER = "(Tensor _0, Tensor _1, int _2, Tensor? _3, int? _4)"
_COO = "(Tensor _0, Tensor _1, Tensor? _2, int? _3)"
_CSR = "(Tensor _0, Tensor _1, Tensor? _2)"
_ONE, _TWO = "Tensor _0", "(Tensor _0, Tensor _1)"

SCHEMAS = {
    "cuda_version": "() -> int _0",
    **{f"scatter_{r}": f"{_SCATTER} -> {_ONE}" for r in ("sum", "mul", "mean")},
    **{f"scatter_{r}": f"{_SCATTER} -> {_TWO}" for r in ("min", "max")},
    **{f"segment_{r}_coo": f"{_COO} -> {_ONE}" for r in ("sum", "mean")},
    **{f"segment_{r}_coo": f"{_COO} -> {_TWO}" for r in ("min", "max")},
    **{f"segment_{r}_csr": f"{_CSR} -> {_ONE}" for r in ("sum", "mean")},
    **{f"segment_{r}_csr": f"{_CSR} -> {_TWO}" for r in ("min", "max")},
    "gather_coo": f"{_CSR} -> {_ONE}",
    "gather_csr": f"{_CSR} -> {_ONE}",
}

_COMPOSITES = {
    "scatter_softmax": "(Tensor src, Tensor index, int dim, int? dim_size) -> Tensor",
    "scatter_log_softmax": "(Tensor src, Tensor index, int dim, float eps, int? dim_size) -> Tensor",
    "scatter_logsumexp": "(Tensor src, Tensor index, int dim, Tensor? out, int? dim_size, float eps) -> Tensor",
    "scatter_std": "(Tensor src, Tensor index, int dim, Tensor? out, int? dim_size, bool unbiased) -> Tensor",
}

_libraries: list[torch.library.Library] = []


def cuda_version() -> int:
    """The CUDA version (12060 for 12.6) the kernels serve, -1 without CUDA kernels."""
    if torch.version.cuda is None or not (backends.native and backends.native.cuda_compiled()):
        return -1
    major, minor = torch.version.cuda.split(".")[:2]
    return int(major) * 1000 + int(minor) * 10


def taken() -> bool:
    """Whether another library has registered the names."""
    return not _owned() and bool(torch._C._jit_get_schemas_for_operator(f"{NAMESPACE}::scatter_max"))


def register() -> None:
    """Register every name; those of torch_scatter only where the library itself has not."""
    if _libraries:
        return
    _define("structops_torch_scatter", _COMPOSITES)
    if not taken():
        _define(NAMESPACE, SCHEMAS)
        sys.meta_path.insert(0, _Guard())


def _owned() -> bool:
    return any(library.ns == NAMESPACE for library in _libraries)


def _define(namespace: str, schemas: dict[str, str]) -> None:
    library = torch.library.Library(namespace, "FRAGMENT")
    _libraries.append(library)
    for name, schema in schemas.items():
        library.define(name + schema)
        library.impl(name, _function(name), "CompositeImplicitAutograd")


def _function(name: str):
    if name == "cuda_version":
        return cuda_version
    modules = (scatter, segment_coo, segment_csr, composite)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


class _Guard(importlib.machinery.PathFinder):
    """Turns the crash of loading torch_scatter's own libraries on top of these names into an ImportError."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != NAMESPACE or importlib.machinery.PathFinder.find_spec(fullname, path) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise ImportError(
            "torch_scatter: structops.compat.torch_scatter has registered torch.ops.torch_scatter.*; call its "
            "install() to import it under this name, or import torch_scatter before structops.compat.torch_scatter"
        )
