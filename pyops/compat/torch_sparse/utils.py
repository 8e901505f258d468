"""Helpers that users of torch_sparse import."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

__all__ = ["Final", "index_sort", "is_scalar"]


def index_sort(inputs: Tensor, max_value: int | None = None) -> tuple[Tensor, Tensor]:
    """``inputs`` sorted, and the order, stable."""
    return torch.sort(inputs, stable=True)


def is_scalar(other: Any) -> bool:
    return isinstance(other, (int, float))
