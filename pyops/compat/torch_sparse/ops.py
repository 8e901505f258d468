"""The dispatcher names ``torch.ops.torch_sparse.*``, and those that TorchScript reaches the kernels by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...graph import Graph
from .. import _dispatcher as dispatcher
from . import _hetero_sampling, _index, _reduce, _sampling, _spspmm, metis
from ._spmm import product

_T, _O, _FOUR = "Tensor", "Tensor?", "(Tensor, Tensor, Tensor, Tensor)"
_DICTS = "(Dict(str, Tensor), Dict(str, Tensor), Dict(str, Tensor), Dict(str, Tensor))"
_TYPES = "str[] _0, (str, str, str)[] _1, Dict(str, Tensor) _2, Dict(str, Tensor) _3, Dict(str, Tensor) _4, Dict(str, int[]) _5"


def _schema(arguments: str, result: str) -> str:
    return "(" + ", ".join(f"{kind} _{i}" for i, kind in enumerate(arguments.split())) + f") -> {result}"


SCHEMAS = {
    "spmm_sum": _schema("Tensor? Tensor Tensor Tensor? Tensor? Tensor? Tensor", _T),
    "spmm_mean": _schema("Tensor? Tensor Tensor Tensor? Tensor? Tensor? Tensor? Tensor", _T),
    "spmm_min": _schema("Tensor Tensor Tensor? Tensor", "(Tensor, Tensor)"),
    "spmm_max": _schema("Tensor Tensor Tensor? Tensor", "(Tensor, Tensor)"),
    "ind2ptr": _schema("Tensor int", _T),
    "ptr2ind": _schema("Tensor int", _T),
    "non_diag_mask": _schema("Tensor Tensor int int int", _T),
    "partition": _schema("Tensor Tensor Tensor? int bool", _T),
    "partition2": _schema("Tensor Tensor Tensor? Tensor? int bool", _T),
    "mt_partition": _schema("Tensor Tensor Tensor? Tensor? int bool int", _T),
    "relabel": _schema("Tensor Tensor", "(Tensor, Tensor)"),
    "relabel_one_hop": _schema("Tensor Tensor Tensor? Tensor bool", "(Tensor, Tensor, Tensor?, Tensor)"),
    "random_walk": _schema("Tensor Tensor Tensor int", _T),
    "saint_subgraph": _schema("Tensor Tensor Tensor Tensor", "(Tensor, Tensor, Tensor)"),
    "sample_adj": _schema("Tensor Tensor Tensor int bool", _FOUR),
    "neighbor_sample": _schema("Tensor Tensor Tensor int[] bool bool", _FOUR),
    "hetero_neighbor_sample": f"({_TYPES}, int _6, bool _7, bool _8) -> {_DICTS}",
    "hgt_sample": f"(Dict(str, Tensor) _0, Dict(str, Tensor) _1, Dict(str, Tensor) _2, Dict(str, int[]) _3, int _4) -> {_DICTS}",
    "ego_k_hop_sample_adj": _schema("Tensor Tensor Tensor int int bool", "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"),
    "cuda_version": "() -> int",
}

_SCRIPT = {
    "sorted_by": "(Tensor first, Tensor second, int M, int N) -> Tensor",
    "by_column": "(Tensor col, int N) -> (Tensor, Tensor)",
    "reduce_rows": "(Tensor value, Tensor rowptr, str reduce) -> Tensor",
    "reduce_cols": "(Tensor value, Tensor col, int N, str reduce) -> Tensor",
    "to_rows": "(Tensor src, Tensor rowptr) -> Tensor",
    "spmm": "(Tensor rowptr, Tensor col, Tensor? value, int N, Tensor other, str reduce) -> Tensor",
    "spspmm": "(Tensor rowptr, Tensor col, Tensor? value, Tensor rowptr_b, Tensor col_b, Tensor? value_b, int N) "
    "-> (Tensor, Tensor, Tensor)",
}


_libraries: list[torch.library.Library] = []


def _spmm(rowptr: Tensor, col: Tensor, value: Tensor | None, N: int, other: Tensor, reduce: str) -> Tensor:
    return product("spmm", Graph.from_csr(rowptr, col, N), value, other, reduce)


def spmm_sum(row, rowptr: Tensor, col: Tensor, value: Tensor | None, colptr, csr2csc, mat: Tensor) -> Tensor:
    """Sums ``[*, M, K]``. ``row``, ``colptr`` and ``csr2csc`` follow from the others, and are not read."""
    return _spmm(rowptr, col, value, _rows(mat), mat, "sum")


def spmm_mean(row, rowptr: Tensor, col: Tensor, value: Tensor | None, rowcount, colptr, csr2csc, mat: Tensor) -> Tensor:
    """Means ``[*, M, K]`` over entries."""
    return _spmm(rowptr, col, value, _rows(mat), mat, "mean")


def spmm_min(rowptr: Tensor, col: Tensor, value: Tensor | None, mat: Tensor) -> tuple[Tensor, Tensor]:
    """Minima and the winning entries."""
    return product("spmm_min", Graph.from_csr(rowptr, col, _rows(mat)), value, mat, "min", True)


def spmm_max(rowptr: Tensor, col: Tensor, value: Tensor | None, mat: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima and the winning entries."""
    return product("spmm_max", Graph.from_csr(rowptr, col, _rows(mat)), value, mat, "max", True)


def _rows(mat: Tensor) -> int:
    return mat.shape[0] if mat.dim() < 2 else mat.shape[-2]


def register() -> None:
    """Register every name; those of torch_sparse only where the library itself has not."""
    if _libraries:
        return
    taken = any(dispatcher.is_registered(f"torch_sparse::{name}") for name in SCHEMAS)
    _libraries.append(dispatcher.define("structops_torch_sparse", _SCRIPT, _function))
    if not taken:
        _libraries.append(dispatcher.define("torch_sparse", SCHEMAS, _function))
        dispatcher.guard("torch_sparse", "torch_sparse", __name__.rpartition(".")[0])


_OTHERS = {
    **{f.__name__: f for f in (spmm_sum, spmm_mean, spmm_min, spmm_max)},
    "partition": metis.by_edges,
    **dict.fromkeys(("partition2", "mt_partition"), metis.by_nodes),
    "spmm": _spmm,
    "spspmm": _spspmm.sparse_product,
    "sorted_by": lambda first, second, M, N: _index.sorted_by(first, second, (M, N)),
    "cuda_version": dispatcher.cuda_version,
}


def _function(name: str) -> Callable:
    modules = (_index, _sampling, _hetero_sampling, _reduce)
    return _OTHERS.get(name) or next(getattr(m, name) for m in modules if hasattr(m, name))
