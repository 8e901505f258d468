"""The dispatcher names ``torch.ops.torch_scatter.*``, and those of the composites for TorchScript."""

from __future__ import annotations

import torch

from .. import _dispatcher as dispatcher
from .._dispatcher import cuda_version
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


def taken() -> bool:
    """Whether another library has registered the names."""
    return not any(library.ns == NAMESPACE for library in _libraries) and dispatcher.is_registered(f"{NAMESPACE}::scatter_max")


def register() -> None:
    """Register every name; those of torch_scatter only where the library itself has not."""
    if _libraries:
        return
    _libraries.append(dispatcher.define("structops_torch_scatter", _COMPOSITES, _function))
    if not taken():
        _libraries.append(dispatcher.define(NAMESPACE, SCHEMAS, _function))
        dispatcher.guard(NAMESPACE, NAMESPACE, "structops.compat.torch_scatter")


def _function(name: str):
    if name == "cuda_version":
        return cuda_version
    modules = (scatter, segment_coo, segment_csr, composite)
    return next(getattr(module, name) for module in modules if hasattr(module, name))
