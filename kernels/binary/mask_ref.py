"""Reference of topk_mask and mask_apply: the specification of csrc/binary/mask.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(on: Tensor) -> Tensor:
    """bool [n] -> bytes, least significant bit first."""
    padded = torch.cat([on.long(), on.new_zeros(-on.numel() % 8, dtype=torch.int64)]).reshape(-1, 8)
    return (padded << torch.arange(8, device=on.device)).sum(1).to(torch.uint8)


def unpack(bits: Tensor, n: int) -> Tensor:
    """bytes -> bool [n]."""
    return ((bits.long()[:, None] >> torch.arange(8, device=bits.device)) & 1).reshape(-1)[:n].bool()


def topk_mask(score, keep, magnitude):
    """Same signature and results as torch.ops.structops.topk_mask."""
    key = score.detach().reshape(-1).double()
    key = key.abs() if magnitude else key
    # NaN below -inf: two stable sorts, the second by whether there is a number.
    order = torch.sort(key.nan_to_num(0, float("inf"), float("-inf")), descending=True, stable=True).indices
    order = order[torch.sort(key[order].isnan().to(torch.uint8), stable=True).indices]
    on = torch.zeros(key.numel(), dtype=torch.bool, device=key.device)
    on[order[:keep]] = True
    return pack(on)


def mask_apply(x, bits):
    """Same signature and results as torch.ops.structops.mask_apply."""
    return torch.where(unpack(bits, x.numel()).reshape(x.shape), x, torch.zeros_like(x))
