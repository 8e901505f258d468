"""``pyg_lib.ops``: reductions, products with a matrix per group, sorting."""

from typing import NoReturn

from ._products import (
    grouped_matmul,
    index_sort,
    sampled_add,
    sampled_div,
    sampled_mul,
    sampled_sub,
    segment_matmul,
    softmax_csr,
)
from ._reduce import broadcast as _broadcast  # noqa: F401
from ._reduce import (
    gather_coo,
    gather_csr,
    scatter,
    scatter_log_softmax,
    scatter_logsumexp,
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_mul,
    scatter_softmax,
    scatter_std,
    scatter_sum,
    segment_coo,
    segment_csr,
    segment_max_coo,
    segment_max_csr,
    segment_mean_coo,
    segment_mean_csr,
    segment_min_coo,
    segment_min_csr,
    segment_sum_coo,
    segment_sum_csr,
)
from .scatter_reduce import fused_scatter_reduce

scatter_add, segment_add_coo, segment_add_csr = scatter_sum, segment_sum_coo, segment_sum_csr

__all__ = [
    "fused_scatter_reduce", "gather_coo", "gather_csr", "grouped_matmul", "index_sort", "sampled_add", "sampled_div",
    "sampled_mul", "sampled_sub", "scatter", "scatter_add", "scatter_log_softmax", "scatter_logsumexp", "scatter_max",
    "scatter_mean", "scatter_min", "scatter_mul", "scatter_softmax", "scatter_std", "scatter_sum", "segment_add_coo",
    "segment_add_csr", "segment_coo", "segment_csr", "segment_matmul", "segment_max_coo", "segment_max_csr",
    "segment_mean_coo", "segment_mean_csr", "segment_min_coo", "segment_min_csr", "segment_sum_coo", "segment_sum_csr",
    "softmax_csr",
]  # fmt: skip

_ABSENT = (
    "edge_sample", "fps", "graclus_cluster", "grid_cluster", "knn", "nearest", "radius", "spline_basis", "spline_weighting",
)  # fmt: skip


class _Absent(NotImplementedError, AttributeError):
    """To ``hasattr`` the name is missing, so that PyG says what it needs; a caller reads why."""


def __getattr__(name: str) -> NoReturn:
    if name in _ABSENT:
        raise _Absent(f"pyg_lib.ops.{name}: not among the operators of structops.compat.pyg_lib; it needs pyg_lib itself")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
