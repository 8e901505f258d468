"""Index arithmetic of sparse matrices: pointers, orders, bounds.

The functions work under TorchScript too, where those that use kernels go through the dispatcher.
"""

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder


def ind2ptr(ind: Tensor, M: int) -> Tensor:
    """Pointers ``[M + 1]`` of ascending rows ``ind [E]``, all in [0, M)."""
    if torch.jit.is_scripting():
        return torch.ops.torch_sparse.ind2ptr(ind, M)
    op = "ind2ptr"
    check.index(op, "ind", ind)
    if not in_range(op, "row", ind, check.size(op, "M", M)):
        check.fail(ValueError, op, "row to be ascending", "a decreasing pair")
    return ladder.csr_build(ind.contiguous(), M)[0]


def ptr2ind(ptr: Tensor, E: int) -> Tensor:
    """Rows ``[E]`` of pointers ``ptr [M + 1]``, which ascend from 0 to E."""
    if torch.jit.is_scripting():
        return torch.ops.torch_sparse.ptr2ind(ptr, E)
    op = "ptr2ind"
    check.index(op, "ptr", ptr)
    if ptr.dim() != 1 or ptr.numel() == 0:
        check.fail(ValueError, op, "ptr of shape [M + 1]", list(ptr.shape))
    low, high, ascending = ladder.index_range(ptr.contiguous())
    if not ascending or low != 0 or high != E:
        check.fail(ValueError, op, f"ptr to ascend from 0 to {E}", f"[{low}, {high}]" if ascending else "a decreasing pair")
    rows = torch.arange(ptr.numel() - 1, dtype=ptr.dtype, device=ptr.device)
    return torch.repeat_interleave(rows, ptr.diff(), output_size=E)


def in_range(op: str, name: str, index: Tensor, size: int) -> bool:
    """Whether ``index`` ascends; IndexError where it leaves [0, size)."""
    low, high, ascending = ladder.index_range(index.contiguous())
    if low < 0:
        check.fail(IndexError, op, f"{name} >= 0", low)
    if high >= size:
        check.fail(IndexError, op, f"{name} < {size}", high)
    return ascending


def extent(index: Tensor) -> int:
    """The smallest size that ``index`` fits."""
    if index.numel() == 0:
        return 0
    return int(index.max()) + 1


def sorted_by(first: Tensor, second: Tensor, sizes: tuple[int, int]) -> Tensor:
    """The stable order ``[E]`` by ``first``, then by ``second``; both within ``sizes``."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_sparse.sorted_by(first, second, sizes[0], sizes[1])
    order = ladder.csr_build(second.contiguous(), sizes[1])[1]
    return order[ladder.csr_build(first[order], sizes[0])[1]]


def is_sorted(row: Tensor, col: Tensor, strictly: bool = False) -> bool:
    """Whether the entries ascend by row, then by column; ``strictly``: without duplicates."""
    up, level = row[1:] > row[:-1], row[1:] == row[:-1]
    rising = col[1:] > col[:-1] if strictly else col[1:] >= col[:-1]
    return bool((up | (level & rising)).all())


def by_column(col: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Pointers ``[N + 1]`` and the stable order ``[E]`` of the columns."""
    if torch.jit.is_scripting():
        return torch.ops.structops_torch_sparse.by_column(col, N)
    in_range("csr2csc", "col", col, N)
    return ladder.csr_build(col.contiguous(), N)


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes ``order``."""
    out = torch.empty_like(order)
    out[order] = torch.arange(order.numel(), dtype=order.dtype, device=order.device)
    return out


def keys(row: Tensor, col: Tensor, sizes: tuple[int, int]) -> Tensor:
    """``row * N + col``, one number for each place of a matrix of these sizes."""
    if sizes[1] > 0 and sizes[0] > 9223372036854775807 // sizes[1]:
        raise ValueError(f"torch_sparse: expected a matrix of fewer than 2**63 places, got {sizes[0]} x {sizes[1]}")
    return row * sizes[1] + col


def diagonal(M: int, N: int, k: int) -> tuple[int, int]:
    """First row and length of the k-th diagonal."""
    start = max(-k, 0)
    return start, max(min(M - start, N - max(k, 0)), 0)


def non_diag_mask(row: Tensor, col: Tensor, M: int, N: int, k: int) -> Tensor:
    """Which entries of the matrix with a full k-th diagonal are ``row, col``: sorted, and without that diagonal."""
    start, length = diagonal(M, N, k)
    passed = (row - start + (col > row + k).to(row.dtype)).clamp(0, length)
    mask = torch.zeros(row.numel() + length, dtype=torch.bool, device=row.device)
    mask[passed + torch.arange(row.numel(), device=row.device)] = True
    return mask
