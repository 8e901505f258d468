"""Functions with the dispatcher's signatures that raise ImportError; nothing here uses them."""

from torch import Tensor


def cuda_version_placeholder() -> int:
    return -1


def scatter_placeholder(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None) -> Tensor:
    raise ImportError("torch_scatter: no compiled operator")


def scatter_arg_placeholder(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    raise ImportError("torch_scatter: no compiled operator")


def segment_csr_placeholder(src: Tensor, indptr: Tensor, out: Tensor | None) -> Tensor:
    raise ImportError("torch_scatter: no compiled operator")


def segment_csr_arg_placeholder(src: Tensor, indptr: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
    raise ImportError("torch_scatter: no compiled operator")


def gather_csr_placeholder(src: Tensor, indptr: Tensor, out: Tensor | None) -> Tensor:
    raise ImportError("torch_scatter: no compiled operator")


def segment_coo_placeholder(src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None) -> Tensor:
    raise ImportError("torch_scatter: no compiled operator")


def segment_coo_arg_placeholder(
    src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None
) -> tuple[Tensor, Tensor]:
    raise ImportError("torch_scatter: no compiled operator")


def gather_coo_placeholder(src: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    raise ImportError("torch_scatter: no compiled operator")
