"""The identity."""

from __future__ import annotations

import torch
from torch import Tensor


def eye(m: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Index ``[2, m]`` and ones ``[m]``."""
    return torch.arange(m, device=device).expand(2, m).contiguous(), torch.ones(m, dtype=dtype, device=device)
