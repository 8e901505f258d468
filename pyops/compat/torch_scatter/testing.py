"""The constants and the helper that torch_scatter's test-suite imports."""

from typing import Any

import torch

reductions = ["sum", "add", "mean", "min", "max"]
dtypes = [torch.half, torch.bfloat16, torch.float, torch.double, torch.int, torch.long]
grad_dtypes = [torch.float, torch.double]
devices = [torch.device("cpu")] + ([torch.device("cuda:0")] if torch.cuda.is_available() else [])


def tensor(x: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    """``x`` as a tensor; None stays None."""
    return torch.tensor(x, device=device).to(dtype) if x is not None else None
