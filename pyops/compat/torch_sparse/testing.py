"""What tests written for torch_sparse import."""

from __future__ import annotations

from typing import Any

import torch

reductions = ["sum", "add", "mean", "min", "max"]
dtypes = [torch.half, torch.float, torch.double, torch.int, torch.long, torch.bfloat16]
grad_dtypes = [torch.half, torch.float, torch.double, torch.bfloat16]
devices = [torch.device("cpu")] + ([torch.device("cuda:0")] if torch.cuda.is_available() else [])


def tensor(x: Any, dtype: torch.dtype, device: torch.device):
    return None if x is None else torch.tensor(x, dtype=dtype, device=device)
