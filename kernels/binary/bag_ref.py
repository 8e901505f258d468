"""Reference of csrc/binary/bag.h."""

from __future__ import annotations

import torch
from torch import Tensor

from .bits_ref import to_bits


def bits_bag(table: Tensor, index: Tensor, offsets: Tensor, K: int, zero: int, one: int, reduce: int) -> Tensor:
    rows = torch.where(to_bits(table, K)[index.long()].bool(), one, zero)
    out = torch.zeros(offsets.shape[0] - 1, K, device=table.device)
    for v, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if begin == end:
            continue
        bag = rows[begin:end]
        out[v] = bag.amax(0) if reduce == 2 else bag.sum(0)
        if reduce == 1:
            out[v] /= end - begin
    return out
