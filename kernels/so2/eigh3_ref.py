"""Reference of eigh3: torch.linalg.eigh in float64, then the signs of csrc/so2/eigh3.h."""

from __future__ import annotations

import torch
from torch import Tensor


def eigh3(a: Tensor) -> tuple[Tensor, Tensor]:
    bad = ~a.isfinite().flatten(1).all(1)
    s = a.double()
    s = torch.where(bad[:, None, None], 0, s / 2 + s.mT / 2)
    w, v = torch.linalg.eigh(s)
    top = v.gather(1, v.abs().argmax(1, keepdim=True))
    v = torch.where(top < 0, -v, v)
    last = torch.where(torch.linalg.det(v) < 0, -1.0, 1.0)
    v = torch.cat([v[:, :, :-1], v[:, :, -1:] * last[:, None, None]], 2)
    nan = float("nan")
    return w.masked_fill(bad[:, None], nan).to(a.dtype), v.masked_fill(bad[:, None, None], nan).to(a.dtype)
