"""Reordering for small bandwidth."""

from __future__ import annotations

import torch
from torch import Tensor

from .permute import permute
from .tensor import SparseTensor


def reverse_cuthill_mckee(src: SparseTensor, is_symmetric: bool | None = None) -> tuple[SparseTensor, Tensor]:
    """``src`` permuted by SciPy's reverse Cuthill-McKee order, and the order; made symmetric first where it is not."""
    from scipy.sparse.csgraph import reverse_cuthill_mckee as order_of

    if not (src.is_symmetric() if is_symmetric is None else is_symmetric):
        src = src.to_symmetric()
    order = order_of(src.set_value(None).to_scipy("csr"), symmetric_mode=True)
    perm = torch.as_tensor(order.copy()).long().to(src.device())
    return permute(src, perm), perm
