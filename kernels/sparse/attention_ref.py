"""Reference of attention. The contract is csrc/sparse/attention.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import codes as C


def by_head(t: Tensor, blocks: Sequence[int]) -> Tensor:
    """``[rows, H, D]`` with the features of a head side by side, from rows in ``blocks`` (HeadBlocks there); a copy."""
    if not blocks:
        return t
    rows, H, _ = t.shape
    sizes = [H * width * repeat for width, repeat in zip(blocks[::2], blocks[1::2], strict=True)]
    parts = t.flatten(1).split(sizes, 1)
    return torch.cat(
        [p.reshape(rows, repeat, H, width).transpose(1, 2).reshape(rows, H, repeat * width)
         for p, width, repeat in zip(parts, blocks[::2], blocks[1::2], strict=True)], 2
    )  # fmt: skip


def from_heads(t: Tensor, blocks: Sequence[int]) -> Tensor:
    """The inverse of :func:`by_head`."""
    if not blocks:
        return t
    rows, H, D = t.shape
    parts = t.split([width * repeat for width, repeat in zip(blocks[::2], blocks[1::2], strict=True)], 2)
    return torch.cat(
        [p.reshape(rows, H, repeat, width).transpose(1, 2).flatten(1)
         for p, width, repeat in zip(parts, blocks[::2], blocks[1::2], strict=True)], 1
    ).reshape(rows, H, D)  # fmt: skip


def _edges(rowptr: Tensor, col: Tensor, eid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Row, source and edge number of every position."""
    E = col.numel()
    row = torch.repeat_interleave(torch.arange(rowptr.numel() - 1, device=col.device), rowptr.diff().long(), output_size=E)
    return row, col.long(), torch.arange(E, device=col.device) if eid is None else eid.long()


def scores(key, query, edge, att, row, src, number, score: int, slope: float, scale: float) -> Tensor:
    """[E, H], in the order of the structure."""
    k, q = key[src], query[row]
    if score == C.DOT:
        s = scale * (k * q).sum(2)
        return s if edge is None else s + edge.reshape(len(number), -1)[number]
    z = k + q
    if edge is not None:
        z = z + edge.reshape(len(number), *key.shape[1:])[number]
    z = torch.where(z > 0, z, slope * z)
    return z[:, :, 0] if score == C.ADDITIVE else (att * z).sum(2)


def _forward(key, query, value, edge, att, rowptr, col, eid, score, slope, scale, key_blocks, value_blocks):
    key, query, value = by_head(key, key_blocks), by_head(query, key_blocks), by_head(value, value_blocks)
    row, src, number = _edges(rowptr, col, eid)
    s = scores(key, query, edge, att, row, src, number, score, slope, scale)
    N, H = query.shape[:2]
    wide = row[:, None].expand(-1, H)
    top = s.new_full((N, H), float("-inf")).scatter_reduce(0, wide, s.detach(), "amax", include_self=True)
    shift = torch.where(top == float("-inf"), 0, top)
    total = s.new_zeros(N, H).index_add(0, row, (s - shift[row]).exp())
    empty = total == 0
    lse = torch.where(empty, float("-inf"), shift + torch.where(empty, 1, total).log())
    p = (s - torch.where(empty, 0, lse)[row]).exp()
    out = value.new_zeros(N, *value.shape[1:]).index_add(0, row, p[..., None] * value[src])
    return from_heads(out, value_blocks), lse


def attention(
    key, query, value, edge, att, rowptr, col, eid, colptr, row_t, eid_t, score, slope, scale, key_blocks=(), value_blocks=()
):  # fmt: skip
    dtype, acc = key.dtype, torch.float64 if key.dtype == torch.float64 else torch.float32
    wide = [None if t is None else t.to(acc) for t in (key, query, value, edge, att)]
    out, lse = _forward(*wide, rowptr, col, eid, score, slope, scale, key_blocks, value_blocks)
    return out.to(dtype), lse


def attention_bwd(
    key, query, value, edge, att, out, lse, grad, rowptr, col, eid, colptr, row_t, eid_t, score, slope, scale,
    key_blocks=(), value_blocks=(),
):  # fmt: skip
    dtype, acc = key.dtype, torch.float64 if key.dtype == torch.float64 else torch.float32
    leaves = [None if t is None else t.detach().to(acc).requires_grad_() for t in (key, query, value, edge, att)]
    with torch.enable_grad():
        result, _ = _forward(*leaves, rowptr, col, eid, score, slope, scale, key_blocks, value_blocks)
        found = torch.autograd.grad(result, [t for t in leaves if t is not None], grad.to(acc), allow_unused=True)
    grads = iter(found)
    full = []
    for t in leaves:
        g = None if t is None else next(grads)
        full.append(key.new_zeros(0) if t is None else (torch.zeros_like(t) if g is None else g).to(dtype))
    return tuple(full)
