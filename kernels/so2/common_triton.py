"""What the Triton kernels of the so2 family share: the precision of products, and where the rows of an edge frame lie.

The products take their operands as they are (``ieee``), in TF32 (``tf32``) or in bfloat16 (``bf16``), and add in float32; float64
stays float64. ``MODE`` chooses: the environment variable STRUCTOPS_SO2_DOT, or None for torch's ``allow_tf32``.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

MODES = ("ieee", "tf32", "bf16")
MODE: str | None = os.environ.get("STRUCTOPS_SO2_DOT") or None


@triton.jit
def dot(a, w, acc, MODE: tl.constexpr):
    if MODE == "bf16":
        acc = tl.dot(a.to(tl.bfloat16), w.to(tl.bfloat16), acc)
    elif MODE == "bf16 cut":  # the interpreter has no bfloat16 products, and cuts bits where a GPU rounds
        acc = tl.dot(a.to(tl.bfloat16).to(tl.float32), w.to(tl.bfloat16).to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, w, acc, input_precision=MODE)
    return acc


def mode(op: str, dtype: torch.dtype) -> str:
    if dtype == torch.float64:
        return "ieee"
    if MODE is not None and MODE not in MODES:
        raise ValueError(f"{op}: expected STRUCTOPS_SO2_DOT to be one of {', '.join(MODES)}, got {MODE!r}")
    if MODE == "bf16" and os.environ.get("TRITON_INTERPRET") == "1":
        return "bf16 cut"
    return MODE or ("tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee")


def tiles(dtype: torch.dtype, products: str) -> tuple[int, int, dict[str, int]]:
    """(longest side of a tile, step along the sum, launch options): what fits the registers and 100 KB of shared memory."""
    if dtype == torch.float64:
        return 32, 16, {}
    return (64, 16, {"num_warps": 8, "num_stages": 2}) if products == "ieee" else (64, 32, {})


@triton.jit
def packed_at(l: tl.constexpr, M: tl.constexpr):
    """Where degree l begins in a packed Wigner matrix."""
    FULL: tl.constexpr = l if l < M + 1 else M + 1  # degrees below l that keep all their rows
    return FULL * (2 * FULL - 1) * (2 * FULL + 1) // 3 + (2 * M + 1) * (l * l - FULL * FULL)


@triton.jit
def frame_row(l: tl.constexpr, m: tl.constexpr, L: tl.constexpr):
    """The row of (l, m) in m-primary order."""
    A: tl.constexpr = m if m > 0 else -m
    FIRST: tl.constexpr = (L + 1) + 2 * (A - 1) * (L + 1) - A * (A - 1) if A > 0 else 0  # the row of (|m|, |m|)
    MINUS: tl.constexpr = L + 1 - A if m < 0 else 0
    return FIRST + MINUS + l - A


@triton.jit
def scale_row(l: tl.constexpr, m: tl.constexpr, L: tl.constexpr):
    """The same among radial scales, which +m and -m share."""
    A: tl.constexpr = m if m > 0 else -m
    return A * (L + 1) - A * (A - 1) // 2 + l - A
