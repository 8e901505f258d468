"""Labels of the parts of given trees: the best ones, the k best ones, random ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ._chart import NINF


def _label_scores(table: Tensor, row: Tensor, column: Tensor, valid: Tensor) -> Tensor:
    """[*, B, M, L] scores of the labels of each part; 0 at label 0 and -inf at the others where a part is not valid."""
    B, L = table.shape[0], table.shape[3]
    batch = torch.arange(B, device=table.device)[:, None]
    zero = torch.zeros_like(row)
    picked = table[batch, torch.where(valid, row, zero), torch.where(valid, column, zero)]
    nothing = torch.full((L,), NINF, dtype=table.dtype, device=table.device)
    nothing[0] = 0
    return torch.where(valid[..., None], picked, nothing)


def best_labels(table: Tensor, value: Tensor, row: Tensor, column: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The K best labelled trees given the K best trees under their best labels.

    Every one of the K best labelled trees has a bracketing that is among the K best, since each better bracketing also holds
    a better labelled tree. value: [B, K]; row, column, valid: [B, K, M]. Returns values [B, K], which of the K trees [B, K]
    and labels [B, K, M], -1 where there is no part.
    """
    B, K, M = row.shape
    scores = _label_scores(table, *(t.transpose(0, 1) for t in (row, column, valid))).transpose(0, 1).to(value.dtype)
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    width = min(K, ordered.shape[-1])
    loss, order = ordered[..., :width] - ordered[..., :1].clamp(min=torch.finfo(value.dtype).min), order[..., :width]
    total = value[..., None]  # [B, K, J]: J labellings of every tree
    rank = torch.zeros(B, K, 1, 0, dtype=torch.int64, device=row.device)
    for m in range(M):
        every = (total[..., :, None] + loss[:, :, m, None, :]).flatten(2)
        total, at = every.sort(dim=-1, descending=True, stable=True)
        total, at = total[..., :K], at[..., :K]
        before = rank.gather(2, (at // width)[..., None].expand(*at.shape, m))
        rank = torch.cat([before, (at % width)[..., None]], -1)
    J = total.shape[2]
    total, at = total.flatten(1).sort(dim=-1, descending=True, stable=True)
    total, at = total[:, :K], at[:, :K]
    rank = rank.flatten(1, 2).gather(1, at[..., None].expand(B, at.shape[1], M))
    which = at // J
    inner = which[..., None].expand(B, K, M)
    label = order.gather(1, inner[..., None].expand(B, K, M, width)).gather(-1, rank[..., None]).squeeze(-1)
    there = valid.gather(1, inner) & (total > NINF)[..., None]
    return total, which, torch.where(there, label, -1)


def sample_labels(table: Tensor, row: Tensor, column: Tensor, valid: Tensor, generator: torch.Generator | None) -> Tensor:
    """Labels [*, B, M] of parts [*, B, M], each from the softmax of its scores; -1 where there is no part."""
    weight = _label_scores(table, row, column, valid).double().softmax(-1)
    reached = weight.cumsum(-1)
    u = torch.rand(row.shape, dtype=torch.float64, device=row.device, generator=generator)[..., None]
    label = ((reached >= u * reached[..., -1:]) & (weight > 0)).int().argmax(-1)
    return torch.where(valid, label, -1)
