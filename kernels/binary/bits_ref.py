"""Reference of csrc/binary/bits.h."""

from __future__ import annotations

import torch
from torch import Tensor

PANEL = 64
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.int64)


def to_words(bits: Tensor) -> Tensor:
    """Bits [.., K] as int64 words [.., ceil(K / 64)]."""
    K = bits.shape[-1]
    padded = torch.nn.functional.pad(bits.to(torch.int64), (0, -K % 64)).unflatten(-1, (-1, 64))
    return (padded << torch.arange(64, device=bits.device)).sum(-1)


def to_bits(words: Tensor, K: int) -> Tensor:
    """Words [.., ceil(K / 64)] as bits 0 and 1 [.., K]."""
    return ((words[..., None] >> torch.arange(64, device=words.device)) & 1).flatten(-2)[..., :K]


def bits_pack(x: Tensor, shift: Tensor | None, test: int, limit: float, invert: bool) -> Tensor:
    columns = x.dim() == 3
    v = x.transpose(1, 2) if columns else x
    if shift is not None:
        v = v.float() + shift.float() if v.dtype.itemsize < 4 else v + shift
    bits = (v >= 0, v > 0, v.abs() <= limit, v.abs() < limit)[test]
    return to_words(bits ^ invert)


def bits_unpack(words: Tensor, K: int, dtype: int, zero: float, one: float) -> Tensor:
    bits = to_bits(words, K).bool()
    pair = [torch.tensor(v, dtype=torch.float64, device=words.device).to(DTYPES[dtype]) for v in (one, zero)]
    out = torch.where(bits, pair[0], pair[1])
    return out.transpose(1, 2).contiguous() if words.dim() == 3 else out


def bits_count(a: Tensor, b: Tensor | None, op: int) -> Tensor:
    words = (a, None if b is None else a ^ b, None if b is None else a & b)[op]
    return to_bits(words, 64 * words.shape[-1]).sum(-1).int()


def bits_panels(words: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(words, (0, 0, 0, -words.shape[1] % PANEL))
    halves = torch.stack([padded & 0xFFFFFFFF, (padded >> 32) & 0xFFFFFFFF], -1).flatten(-2)
    signed = torch.where(halves >= 2**31, halves - 2**32, halves).int()
    return signed.unflatten(1, (-1, PANEL)).transpose(2, 3).contiguous()
