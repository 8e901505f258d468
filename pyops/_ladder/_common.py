"""Shapes, structures and broadcasts, as the derivatives handle them."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(t: Tensor) -> int:
    return t.shape[0] if t.dim() < 3 else t.shape[1]


def features(t: Tensor) -> int:
    return 1 if t.dim() == 1 else t.shape[-1]


def column(t: Tensor, like: Tensor) -> Tensor:
    """A vector over rows, shaped to multiply ``like`` ([rows], [rows, F] or [B, rows, F])."""
    return t if like.dim() == 1 else t[:, None]


def reverse(s: tuple) -> tuple:
    rowptr, col, eid, colptr, row_t, eid_t = s
    return colptr, row_t, eid_t, rowptr, col, eid


def consecutive(bcast: Tensor, Fe: int) -> bool:
    """Whether e broadcasts over runs of neighbouring features, as heads do: then no table is needed."""
    if type(bcast) is not Tensor or bcast.device.type != "cpu" or torch.compiler.is_compiling():
        return False  # values are not to be read while tracing, nor fetched from a GPU
    if torch._C._functorch.maybe_current_level() is not None or torch._C._len_torch_dispatch_stack() > 0:
        return False
    F = bcast.shape[1]
    return F % Fe == 0 and bcast[1].tolist() == [f // (F // Fe) for f in range(F)]


def reduce_features(t: Tensor, e: Tensor, bcast) -> Tensor:
    """t [.., F] summed over the features that e [.., Fe] broadcasts."""
    if bcast is None:
        return t.sum(-1, keepdim=True) if features(e) == 1 and features(t) != 1 else t
    out = t.new_zeros(*t.shape[:-1], features(e))
    return out.index_add(-1, bcast[1].long(), t)


def expand(x: Tensor, F: int) -> Tensor:
    return x if features(x) == F else x.expand(*x.shape[:-1], F).contiguous()


def out_shape(x, e, N: int, F: int) -> list[int]:
    rank = max(t.dim() for t in (x, e) if t is not None)
    if rank == 1:
        return [N]
    if rank == 2:
        return [N, F]
    return [max(t.shape[0] if t.dim() == 3 else 1 for t in (x, e) if t is not None), N, F]


def bcast_row(bcast: Tensor, row: int) -> Tensor:
    return bcast[row].long()


def wide_e(e: Tensor, F: int, bcast) -> Tensor:
    if bcast is not None:
        return e.index_select(-1, bcast[1].long())
    return expand(e, F) if e.dim() > 1 else e


def as_shape(t: Tensor, shape) -> Tensor:
    """``t`` summed over a broadcast batch and broadcast features, in ``shape``."""
    if t.dim() == 3 and (len(shape) < 3 or shape[0] == 1) and t.shape[0] != 1:
        t = t.sum(0, keepdim=True)
    F = 1 if len(shape) == 1 else shape[-1]
    if F == 1 and t.dim() > 1 and t.shape[-1] != 1:
        t = t.sum(-1, keepdim=True)
    return t.reshape(shape)


def three(t: Tensor) -> Tensor:
    return t[None, :, None] if t.dim() == 1 else t[None] if t.dim() == 2 else t


def beside(t: Tensor) -> Tensor:
    """[rows], [rows, F] or [B, rows, F] as [rows, features], those of the batches side by side."""
    return t[:, None] if t.dim() == 1 else t if t.dim() == 2 else t.transpose(0, 1).flatten(1).contiguous()


def masked(k: Tensor, edges: int) -> Tensor:
    return torch.where(k < edges, k, -1)


def lookup(index: Tensor, k: Tensor, outside: int) -> Tensor:
    """index[k], ``outside`` where k is the sentinel len(index)."""
    if index.numel() == 0:
        return torch.full_like(k, outside)
    inside = k < index.numel()
    return torch.where(inside, index[torch.where(inside, k, 0).long()], outside).to(k.dtype)


def flat_index(rows: Tensor, operand: Tensor, feature: Tensor) -> Tensor:
    """Positions in operand.reshape(-1) of (batch, rows, feature) [B, N, F]; -1 where rows < 0."""
    B, n, F = operand.shape
    batch = torch.arange(rows.shape[0], device=rows.device)[:, None, None] * (n * F if B > 1 else 0)
    flat = batch + rows.long() * F + feature
    return torch.where(rows < 0, -1, flat).reshape(-1, 1)
