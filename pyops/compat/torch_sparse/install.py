"""Presenting this package as ``torch_sparse``."""

from .._install import installers

install, uninstall = installers(
    "torch_sparse",
    __name__.rpartition(".")[0],
    (
        "add", "bandwidth", "cat", "coalesce", "convert", "diag", "eye", "index_select", "masked_select", "matmul", "metis", "mul",
        "narrow", "permute", "reduce", "rw", "saint", "sample", "select", "spadd", "spmm", "spspmm", "storage", "tensor", "testing",
        "transpose", "typing", "utils",
    ),
)  # fmt: skip
