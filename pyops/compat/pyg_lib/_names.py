"""The dispatcher names ``torch.ops.pyg.*``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import _dispatcher as dispatcher
from .._metis import metis
from . import ops, sampler
from .ops import _products

NAMESPACE = "pyg"
_SCATTER = "(Tensor src, Tensor index, int dim=-1, Tensor? out=None, int? dim_size=None)"
_COO = "(Tensor src, Tensor index, Tensor? out=None, int? dim_size=None)"
_CSR = "(Tensor src, Tensor indptr, Tensor? out=None)"
_ONE, _TWO = "Tensor", "(Tensor, Tensor)"
_DICT = "Dict(str, Tensor)"
_FLAGS = (
    "bool csc=False, bool replace=False, bool directed=True, bool disjoint=False, str temporal_strategy='uniform', "
    "bool return_edge_id=True"
)

SCHEMAS = {
    "cuda_version": "() -> int",
    "grouped_matmul": "(Tensor[] input, Tensor[] other) -> Tensor[]",
    "segment_matmul": "(Tensor input, Tensor ptr, Tensor other) -> Tensor",
    "sampled_op": "(Tensor left, Tensor right, Tensor? left_index, Tensor? right_index, str op) -> Tensor",
    "index_sort": "(Tensor indices, int? max=None) -> (Tensor, Tensor)",
    "softmax_csr": "(Tensor src, Tensor ptr, int dim=0) -> Tensor",
    "softmax_csr_backward": "(Tensor out, Tensor out_grad, Tensor ptr, int dim=0) -> Tensor",
    **{f"scatter_{r}": f"{_SCATTER} -> {_ONE}" for r in ("sum", "mul", "mean")},
    **{f"scatter_{r}": f"{_SCATTER} -> {_TWO}" for r in ("min", "max")},
    **{f"segment_{r}_coo": f"{_COO} -> {_ONE}" for r in ("sum", "mean")},
    **{f"segment_{r}_coo": f"{_COO} -> {_TWO}" for r in ("min", "max")},
    **{f"segment_{r}_csr": f"{_CSR} -> {_ONE}" for r in ("sum", "mean")},
    **{f"segment_{r}_csr": f"{_CSR} -> {_TWO}" for r in ("min", "max")},
    "gather_coo": f"(Tensor src, Tensor index, Tensor? out=None) -> {_ONE}",
    "gather_csr": f"{_CSR} -> {_ONE}",
    "neighbor_sample": (
        "(Tensor rowptr, Tensor col, Tensor seed, int[] num_neighbors, Tensor? node_time=None, Tensor? edge_time=None, "
        f"Tensor? seed_time=None, Tensor? edge_weight=None, {_FLAGS}) -> (Tensor, Tensor, Tensor, Tensor?, int[], int[])"
    ),
    "hetero_neighbor_sample": (
        f"(str[] node_types, (str, str, str)[] edge_types, {_DICT} rowptr_dict, {_DICT} col_dict, {_DICT} seed_dict, "
        f"Dict(str, int[]) num_neighbors_dict, {_DICT}? node_time_dict=None, {_DICT}? edge_time_dict=None, "
        f"{_DICT}? seed_time_dict=None, {_DICT}? edge_weight_dict=None, {_FLAGS}) -> "
        f"({_DICT}, {_DICT}, {_DICT}, {_DICT}?, Dict(str, int[]), Dict(str, int[]))"
    ),
    "subgraph": "(Tensor rowptr, Tensor col, Tensor nodes, bool return_edge_id) -> (Tensor, Tensor, Tensor?)",
    "metis": (
        "(Tensor rowptr, Tensor col, int num_partitions, Tensor? node_weight=None, Tensor? edge_weight=None, "
        "bool recursive=False) -> Tensor"
    ),
    "random_walk": "(Tensor rowptr, Tensor col, Tensor seed, int walk_length, float p, float q) -> Tensor",
}

_libraries: list[torch.library.Library] = []


def taken() -> bool:
    """Whether another library has registered the names."""
    return not _libraries and dispatcher.is_registered(f"{NAMESPACE}::segment_matmul")


def register() -> None:
    """Register every name, unless pyg_lib itself has."""
    if _libraries or taken():
        return
    _libraries.append(dispatcher.define(NAMESPACE, SCHEMAS, _function))
    dispatcher.guard("pyg_lib", NAMESPACE, "structops.compat.pyg_lib")


def _function(name: str) -> Callable:
    found: dict[str, Callable] = {
        "cuda_version": dispatcher.cuda_version,
        "index_sort": lambda indices, max=None: ops.index_sort(indices),
        "segment_matmul": lambda input, ptr, other: ops.segment_matmul(input, ptr, other),
        "metis": lambda *args: metis("metis", *args),
        "sampled_op": _products.sampled_op,
        "softmax_csr_backward": _products.softmax_csr_backward,
        "hetero_neighbor_sample": sampler.hetero_neighbor_sample_by_name,
    }
    if name in found:
        return found[name]
    return getattr(sampler, name) if hasattr(sampler, name) else getattr(ops, name)
