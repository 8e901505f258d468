"""Max-marginals of chains: the recurrences of csrc/tree/chain.h over (max, +) in both directions, a position at a time."""

from __future__ import annotations

import torch
from torch import Tensor

NINF = float("-inf")


@torch.no_grad()
def max_marginals(scores: tuple[Tensor | None, ...], lengths: Tensor, K: int) -> Tensor:
    """[B, N, K, T]: at (i, d - 1, t) the score of the best path with the segment of d positions from i with tag t, or -inf.
    float32, or float64 for float64. O(N) steps, and [B, N, K, T] numbers twice."""
    emit = scores[0]
    assert emit is not None
    B, N, T = emit.shape
    dtype = torch.promote_types(emit.dtype, torch.float32)
    emit, segment, duration, trans, start, end = (None if t is None else t.to(dtype) for t in scores)
    assert emit is not None
    position = torch.arange(N, device=emit.device)
    seg = torch.full((B, N, K, T), NINF, dtype=dtype, device=emit.device)
    total: Tensor | None = None
    for d in range(1, min(K, N) + 1):
        total = emit if total is None else total[:, :-1] + emit[:, d - 1 :]  # [B, N - d + 1, T], of i..i + d - 1
        own = total
        if segment is not None:
            own = own + segment[:, : N - d + 1, d - 1]
        if duration is not None:
            own = own + duration[d - 1]
        inside = (position[: N - d + 1] + d <= lengths[:, None])[..., None]
        seg[:, : N - d + 1, d - 1] = torch.where(inside, own, NINF)

    def step(i: int) -> Tensor:  # the transitions into position i, [1 or B, T, T] or [B, K, T, T]
        assert trans is not None
        return trans[None] if trans.dim() == 2 else trans if trans.dim() == 3 else trans[:, i - 1]

    whole = trans is not None and trans.dim() == 5  # the transition knows the length of the segment that it leads to
    before = torch.full((B, N + K, T), NINF, dtype=dtype, device=emit.device)  # [:, j]: the best of positions 0..j - 1
    inner = torch.empty_like(seg)  # with the segment
    for i in range(N):
        if i == 0:
            into = seg.new_zeros(1, K, T) if start is None else start.expand(1, K, T)
            if whole:
                into = torch.where(torch.arange(K, device=emit.device)[:, None] > 0, NINF, into)
        elif trans is None:
            into = before[:, i].amax(-1)[:, None, None]
        else:
            into = (before[:, i].reshape(B, *(1,) * whole, T, 1) + step(i)).amax(-2)
            into = into if whole else into[:, None]
        inner[:, i] = into + seg[:, i]
        before[:, i + 1 : i + 1 + K] = torch.maximum(before[:, i + 1 : i + 1 + K], inner[:, i])
    last = seg.new_zeros(T) if end is None else end
    after = torch.full((B, N + K + 1, T), NINF, dtype=dtype, device=emit.device)  # [:, j]: the best of positions j.., after a tag
    for j in range(N, 0, -1):
        rest = after[:, j]
        if j < N:
            out = seg[:, j] + after[:, j + 1 : j + 1 + K]
            if trans is None:
                rest = out.amax((1, 2))[:, None].expand(B, T)
            elif whole:
                rest = (step(j) + out[:, :, None]).amax((1, 3))
            else:
                rest = (step(j) + out.amax(1)[:, None]).amax(-1)
        ends, within = (where[:, None] for where in (lengths == j, lengths > j))
        after[:, j] = torch.where(ends, last, torch.where(within, rest, NINF))
    beyond = after[:, 1:].unfold(1, K, 1)[:, :N].transpose(2, 3)  # [B, N, K, T]: after the segment of d positions from i
    inside = position[:, None] + torch.arange(1, K + 1, device=emit.device) <= lengths[:, None, None]
    return torch.where(inside[..., None], inner + beyond, NINF)
