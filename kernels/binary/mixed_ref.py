"""Reference of csrc/binary/mixed.h."""

from __future__ import annotations

import torch
from torch import Tensor

from .bits_ref import to_bits


def bits_w1a8(x: Tensor, w: Tensor, panels: Tensor | None, coef: list[int], base: int) -> Tensor:
    v = x.double()
    out = base * v.sum(1, keepdim=True).expand(-1, w.shape[1])
    for c, plane in zip(coef, w, strict=True):
        out = out + c * (v @ to_bits(plane, x.shape[1]).double().t())
    return out.to(torch.int32)


def bits_w1a16(x: Tensor, w: Tensor, panels: Tensor | None, coef: list[float], base: float) -> Tensor:
    v = x.double()
    out = base * v.sum(1, keepdim=True).expand(-1, w.shape[1]) if base else v.new_zeros(x.shape[0], w.shape[1])
    for c, plane in zip(coef, w, strict=True):
        out = out + c * (v @ (2 * to_bits(plane, x.shape[1]) - 1).double().t())
    return out.float()
