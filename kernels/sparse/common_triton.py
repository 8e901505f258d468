"""What the Triton kernels share: shapes, tiles and launches."""

from __future__ import annotations

import os

import torch
import triton
from torch import Tensor


def tile(F: int) -> tuple[int, int]:
    """(edges, features) of the block that a program holds, about 1024 elements of at most 32 edges."""
    features = min(triton.next_power_of_2(F), 128)
    return min(32, 1024 // features), features


def check_device(op: str, t: Tensor) -> None:
    if t.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(f"structops: {op}: the triton backend runs on CUDA tensors, got {t.device}")


def launch(kernel, op: str, like: Tensor, programs: int, *args, **constants) -> None:
    """One program for every (batch, row, feature tile)."""
    if programs == 0:
        return
    if programs >= 2**31:
        raise RuntimeError(f"structops: {op}: {programs} programs do not fit the grid of Triton")
    if like.device.type == "cuda":
        with torch.cuda.device(like.device):
            kernel[(programs,)](*args, **constants)
    else:
        kernel[(programs,)](*args, **constants)
