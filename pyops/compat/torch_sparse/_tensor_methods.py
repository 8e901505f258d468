"""What ``SparseTensor`` offers outside TorchScript. The package adds its functions of a matrix (``t``, ``narrow``, ...)."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ... import _check as check


class TensorMethods:
    if TYPE_CHECKING:  # what SparseTensor itself defines

        def __init__(self, *args: Any, **kwargs: Any): ...

        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def eye(cls, M: int, N: int | None = None, has_value: bool = True, dtype=None, device=None, fill_cache: bool = False):
        """The matrix [M, N] with ones on the diagonal."""
        N = M if N is None else N
        row = torch.arange(min(M, N), device=device)
        value = torch.ones(row.numel(), dtype=dtype, device=device) if has_value else None
        rowptr = torch.arange(M + 1, device=device).clamp_(max=row.numel())
        out = cls(row, rowptr, row, value, (M, N), True, True)
        return out.fill_cache_() if fill_cache else out

    def clone(self):
        """A copy of every tensor."""
        return self.from_storage(self.storage.clone())

    def sparse_resize(self, sparse_sizes: tuple[int, int]):
        """The same entries in a matrix of other sizes. IndexError where an entry would lie outside."""
        return self.from_storage(self.storage.sparse_resize(sparse_sizes))

    def sparse_reshape(self, num_rows: int, num_cols: int):
        """The entries at the same places of the flattened matrix; -1 stands for the size that fits."""
        return self.from_storage(self.storage.sparse_reshape(num_rows, num_cols))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorMethods) or self.sizes() != other.sizes() or self.has_value() != other.has_value():
            return False
        pairs = zip(self.csr(), other.csr(), strict=True)
        return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)

    __hash__ = object.__hash__

    # ---- shape and structure

    def density(self) -> float:
        """Share of the places that hold an entry."""
        places = self.sparse_size(0) * self.sparse_size(1)
        return self.nnz() / places if places else 0.0

    def sparsity(self) -> float:
        return 1 - self.density()

    def avg_row_length(self) -> float:
        return self.nnz() / self.sparse_size(0)

    def avg_col_length(self) -> float:
        return self.nnz() / self.sparse_size(1)

    def _offset(self) -> Tensor:
        return (self.storage.row() - self.storage.col()).abs_()

    def bandwidth(self) -> int:
        """The largest distance of an entry from the diagonal."""
        return int(self._offset().max()) if self.nnz() else 0

    def avg_bandwidth(self) -> float:
        return float(self._offset().float().mean())

    def bandwidth_proportion(self, bandwidth: int) -> float:
        """Share of the entries within ``bandwidth`` of the diagonal."""
        return float((self._offset() <= bandwidth).float().mean())

    def is_quadratic(self) -> bool:
        return self.sparse_size(0) == self.sparse_size(1)

    def is_symmetric(self) -> bool:
        """Whether structure and values equal those of the transpose."""
        if not self.is_quadratic():
            return False
        pairs = zip(self.csr(), self.csc(), strict=True)
        return all(a is None or torch.equal(a, b) for a, b in pairs)

    def to_symmetric(self, reduce: str = "sum"):
        """Entries joined with those of the transpose, coalesced by ``reduce``."""
        row, col, value = self.coo()
        N = max(self.sparse_sizes())
        both = self.__class__(
            row=torch.cat([row, col]), col=torch.cat([col, row]), value=None if value is None else torch.cat([value, value]),
            sparse_sizes=(N, N),
        )  # fmt: skip
        return both.coalesce(reduce)

    # ---- autograd, devices and dtypes

    def detach_(self):
        if self.has_value():
            self.storage.value().detach_()
        return self

    def detach(self):
        value = self.storage.value()
        return self.set_value(None if value is None else value.detach(), "coo")

    def requires_grad_(self, requires_grad: bool = True, dtype: torch.dtype | None = None):
        """Ask for gradients of the values, which become ones of ``dtype`` where there are none."""
        if requires_grad and not self.has_value():
            self.fill_value_(1.0, dtype)
        if self.has_value():
            self.storage.value().requires_grad_(requires_grad)
        return self

    def is_floating_point(self) -> bool:
        return not self.has_value() or self.storage.value().is_floating_point()

    def to_device(self, device: torch.device | str, non_blocking: bool = False):
        device = torch.device(device)
        return self if device == self.device() else self.from_storage(self.storage.to_device(device, non_blocking))

    def device_as(self, tensor: Tensor, non_blocking: bool = False):
        return self.to_device(tensor.device, non_blocking)

    def to(self, *args, **kwargs):
        """As ``Tensor.to``: a device, a dtype or a tensor; the dtype is that of the values."""
        device, dtype, non_blocking = torch._C._nn._parse_to(*args, **kwargs)[:3]
        out = self if dtype is None else self.type(dtype, non_blocking)
        return out if device is None else out.to_device(device, non_blocking)

    def cpu(self):
        return self.to_device(torch.device("cpu"))

    def cuda(self, device: int | str | torch.device | None = None, non_blocking: bool = False):
        device = torch.device("cuda" if device is None else device)
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        return self.to_device(device, non_blocking)

    def pin_memory(self):
        return self.from_storage(self.storage.pin_memory())

    def is_pinned(self) -> bool:
        return self.storage.is_pinned()

    def share_memory_(self):
        self.storage.share_memory_()
        return self

    def is_shared(self) -> bool:
        return self.storage.is_shared()

    # ---- indexing and printing

    def __getitem__(self, index: Any):
        """By integers (the dimension is kept, of size 1), slices without steps, masks and index vectors, one a dimension."""
        items = list(index) if isinstance(index, tuple) else [index]
        ellipses = [i for i, item in enumerate(items) if item is Ellipsis]
        if len(ellipses) > 1 or len(items) - len(ellipses) > self.dim():
            check.fail(IndexError, "SparseTensor", f"at most {self.dim()} indices and one ellipsis", len(items))
        if ellipses:
            items[ellipses[0] : ellipses[0] + 1] = [slice(None)] * (self.dim() - len(items) + 1)
        out = self
        for dim, item in enumerate(items):
            out = _picked(out, dim, item)
        return out

    def __repr__(self) -> str:
        row, col, value = self.coo()
        parts = {"row": row, "col": col, **({} if value is None else {"val": value})}
        lines = [f"{name}={indent(repr(t), ' ' * 6).lstrip()}" for name, t in parts.items()]
        joined = ",\n".join([*lines, f"size={tuple(self.sizes())}, nnz={self.nnz()}, density={100 * self.density():.02f}%"])
        name = self.__class__.__name__
        return f"{name}({indent(joined, ' ' * (len(name) + 1)).lstrip()})"

    # ---- casts, last: their names hide Python's types

    def type(self, dtype: torch.dtype, non_blocking: bool = False):
        """Values of another dtype."""
        value = self.storage.value()
        if value is None or value.dtype == dtype:
            return self
        return self.from_storage(self.storage.type(dtype, non_blocking))

    def type_as(self, tensor: Tensor, non_blocking: bool = False):
        return self.type(tensor.dtype, non_blocking)


def _cast(dtype: torch.dtype):
    def cast(self):
        return self.type(dtype)

    cast.__doc__ = f"Values of {dtype}."
    return cast


for _name, _dtype in {
    "bfloat16": torch.bfloat16, "bool": torch.bool, "byte": torch.uint8, "char": torch.int8, "half": torch.half,
    "float": torch.float, "double": torch.double, "short": torch.short, "int": torch.int, "long": torch.long,
}.items():  # fmt: skip
    setattr(TensorMethods, _name, _cast(_dtype))


def _picked(src, dim: int, item: Any):
    if isinstance(item, (list, tuple)):
        item = torch.tensor(item, dtype=None if len(item) else torch.int64, device=src.device())
    elif isinstance(item, np.ndarray):
        item = torch.from_numpy(item).to(src.device())
    if isinstance(item, slice):
        if item.step not in (None, 1):
            check.fail(ValueError, "SparseTensor", "slices without a step", item.step)
        start, stop, _ = item.indices(src.size(dim))
        return src.narrow(dim, start, max(stop - start, 0))
    if isinstance(item, Tensor) and item.dtype == torch.bool:
        return src.masked_select(dim, item)
    if isinstance(item, Tensor) and item.dim() > 0:
        return src.index_select(dim, item)
    return src.select(dim, check.axis("SparseTensor", item, src.size(dim)))
