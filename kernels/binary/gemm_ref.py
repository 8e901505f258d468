"""Reference of csrc/binary/gemm.h."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .bits_ref import to_bits, to_words

I32, F32, BF16, F16, BITS = range(5)
OUT = (torch.int32, torch.float32, torch.bfloat16, torch.float16, torch.int64)


def epilogue(
    dot: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    prelu: Tensor | None,
    shift: Tensor | None,
    threshold: Tensor | None,
    out: int,
) -> Tensor:
    """What follows the integers [.., N]."""
    if out == I32:
        return dot
    if threshold is not None:
        return to_words((dot >= threshold[0]) ^ threshold[1].bool())
    y = dot.float()
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual.float()
    if prelu is not None:
        y = y + prelu[0]
        y = torch.where(y > 0, y, y * prelu[1]) + prelu[2]
    if out == BITS:
        return to_words((y if shift is None else y + shift) >= 0)
    return y.to(OUT[out])


def bits_gemm(
    a: Tensor,
    b: Tensor,
    panels: Tensor | None,
    K: int,
    coef: list[int],
    col: list[int],
    row: int,
    base: int,
    halve: bool,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    prelu: Tensor | None,
    shift: Tensor | None,
    threshold: Tensor | None,
    out: int,
) -> Tensor:
    x = to_bits(a, K).double()
    dot = base + row * x.sum(-1, keepdim=True)
    for p, (c, d) in enumerate(zip(coef, col, strict=True)):
        w = to_bits(b[p], K).double()
        both = x @ w.transpose(-1, -2)
        ones = w.sum(-1).unsqueeze(-2)
        dot = dot + c * (x.sum(-1, keepdim=True) + ones - 2 * both) + d * ones
    dot = dot.to(torch.int64) >> int(halve)
    return epilogue(dot.int().contiguous(), scale, bias, residual, prelu, shift, threshold, out)


def bits_conv(
    x: Tensor,
    w: Tensor,
    panels: Tensor | None,
    taps: Tensor | None,
    channels: int,
    groups: int,
    window: list[int],
    pad: int,
    negate: bool,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    prelu: Tensor | None,
    shift: Tensor | None,
    threshold: Tensor | None,
    out: int,
) -> Tensor:
    kh, kw, sh, sw, top, left, dh, dw, OH, OW = window
    _, H, W, _ = x.shape
    image = (2 * to_bits(x, channels) - 1).double().permute(0, 3, 1, 2)
    filters = (2 * to_bits(w, kh * kw * (channels // groups)) - 1).double().unflatten(1, (kh, kw, -1)).permute(0, 3, 1, 2)
    # As many rows and columns as the last window reaches; one more than nothing, so that empty results have a shape.
    bottom, right = (OH - 1) * sh + (kh - 1) * dh + 1 - H - top, (OW - 1) * sw + (kw - 1) * dw + 1 - W - left
    padded = F.pad(image, (left, max(right, 0), top, max(bottom, 0)), value=(0.0, -1.0, 1.0)[pad])
    dot = F.conv2d(padded, filters, None, (sh, sw), 0, (dh, dw), groups)[:, :, :OH, :OW].permute(0, 2, 3, 1)
    dot = (-dot if negate else dot).int().contiguous()
    return epilogue(dot, scale, bias, residual, prelu, shift, threshold, out)
