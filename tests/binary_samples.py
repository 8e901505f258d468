"""Arguments of every raw operator of the binary family, for opcheck. None of them has a derivative."""

from __future__ import annotations

import torch
from structops.selfcheck import cases

OPS = ("bits_pack", "bits_unpack", "bits_count", "bits_panels", "bits_gemm", "bits_conv", "bits_w1a8", "bits_w1a16", "bits_bag")


def binary_samples() -> dict[str, list[tuple]]:
    """A few of the self-check's cases, spread over them."""
    found = {}
    for op in OPS:
        every = list(cases(op, torch.Generator().manual_seed(0)))
        found[op] = every[:: max(1, len(every) // 5)]
    return found
