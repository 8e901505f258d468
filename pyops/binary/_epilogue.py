"""What follows the integers of a binary layer: checked once, handed to the kernels, or done in torch where they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from . import _ops as ops
from ._bits import column

Out = torch.dtype | str | None


@dataclass
class Epilogue:
    """Checked arguments; ``out`` is a code of the kernels, ``wide`` asks for float64 in torch."""

    scale: Tensor | None
    bias: Tensor | None
    residual: Tensor | None  # shaped as the result, channels last
    prelu: Tensor | None  # [3, N]: gamma, slope, zeta
    shift: Tensor | None
    threshold: Tensor | None
    out: int
    wide: bool = False

    def args(self) -> tuple:
        return self.scale, self.bias, self.residual, self.prelu, self.shift, self.threshold, self.out


def threshold_of(op: str, t: Any, N: int, device: torch.device) -> Tensor:
    check.tensor(op, "threshold", t)
    if t.dtype != torch.int32:
        check.fail(TypeError, op, "threshold of dtype int32 (of fold_batch_norm)", t.dtype)
    if tuple(t.shape) != (2, N):
        check.fail(ValueError, op, f"threshold [2, {N}]", list(t.shape))
    if t.device != device:
        check.fail(ValueError, op, f"threshold on {device}", t.device)
    return t.contiguous()


def prelu_of(op: str, prelu: Any, N: int, device: torch.device) -> Tensor:
    """A slope, or (gamma, slope, zeta) of RPReLU with None for what is 0, as [3, N]."""
    parts = prelu if isinstance(prelu, (tuple, list)) else (None, prelu, None)
    if len(parts) != 3 or parts[1] is None:
        check.fail(ValueError, op, "prelu to be a slope or (gamma, slope, zeta)", f"{len(parts)} parts")
    rows = []
    for name, part in zip(("gamma", "slope", "zeta"), parts, strict=True):
        if isinstance(part, Tensor) and part.numel() == 1 and N != 1:
            part = part.reshape(1).expand(N)
        rows.append(torch.zeros(N, device=device) if part is None else column(op, f"prelu {name}", part, N, torch.float32, device))
    return torch.stack(rows)


def epilogue(
    op: str, N: int, sizes: tuple[int, ...], device: torch.device, default: torch.dtype,
    scale: Any, bias: Any, residual: Any, prelu: Any, shift: Any, threshold: Any, out: Out,
) -> Epilogue:  # fmt: skip
    """``sizes``: of the result, channels last; ``residual`` arrives in that order."""
    real = [n for n, t in (("scale", scale), ("bias", bias), ("residual", residual), ("prelu", prelu)) if t is not None]
    if out is None:
        out = "bits" if threshold is not None or shift is not None else default
    if out != "bits" and out not in ops.OUT_CODES and out != torch.float64:
        check.fail(ValueError, op, "out to be 'bits', torch.int32, float32, bfloat16, float16 or float64", repr(out))
    if threshold is not None and (real or shift is not None):
        check.fail(ValueError, op, "threshold alone: it is all that follows the integers", f"also {(*real, 'shift')[0]}")
    if (threshold is not None or shift is not None) and out != "bits":
        check.fail(ValueError, op, "out='bits' with a threshold or a shift", repr(out))
    if out is torch.int32 and real:
        check.fail(ValueError, op, "out=torch.int32 without scale, bias, residual and prelu", real[0])
    wide = out == torch.float64
    work = torch.float64 if wide else torch.float32
    param = lambda name, t: None if t is None else column(op, name, t, N, work, device)
    if residual is not None:
        check.dense(op, "residual", residual)
        if tuple(residual.shape) != sizes:
            check.fail(ValueError, op, "residual shaped as the result", list(residual.shape))
        if residual.device != device:
            check.fail(ValueError, op, f"residual on {device}", residual.device)
        keep = residual.dtype in ops.OUT_CODES or wide
        residual = (residual.detach() if keep else residual.detach().to(work)).contiguous()
    return Epilogue(
        param("scale", scale), param("bias", bias), residual,
        None if prelu is None else prelu_of(op, prelu, N, device).to(work),
        param("shift", shift), None if threshold is None else threshold_of(op, threshold, N, device),
        ops.OUT_I32 if wide else ops.OUT_BITS if isinstance(out, str) else ops.OUT_CODES[out], wide,
    )  # fmt: skip


def finish_wide(e: Epilogue, dot: Tensor) -> Tensor:
    """The real epilogue in float64."""
    y = dot.double()
    if e.scale is not None:
        y = y * e.scale
    if e.bias is not None:
        y = y + e.bias
    if e.residual is not None:
        y = y + e.residual
    if e.prelu is not None:
        y = y + e.prelu[0]
        y = torch.where(y > 0, y, y * e.prelu[1]) + e.prelu[2]
    return y


def kernel_args(e: Epilogue) -> tuple:
    return (None, None, None, None, None, None, ops.OUT_I32) if e.wide else e.args()
