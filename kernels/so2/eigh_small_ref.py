"""Reference of eigh_small: torch.linalg.eigh in float64, then the signs of csrc/so2/eigh_small.h; and of its derivative."""

from __future__ import annotations

import torch
from torch import Tensor


def eigh_small(a: Tensor) -> tuple[Tensor, Tensor]:
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


def gradient(w: Tensor, v: Tensor, gw: Tensor | None, gv: Tensor | None) -> Tensor:
    """v (diag(gw) + P) v', P[i, j] = (G - G')[i, j] / 2 (w[j] - w[i]), G = v' gv; differentiable."""
    middle = torch.diag_embed(torch.zeros_like(w) if gw is None else gw)
    if gv is not None:
        G = v.mT @ gv
        diagonal = torch.eye(w.shape[1], dtype=torch.bool, device=w.device)
        gap = (w[:, None, :] - w[:, :, None]).masked_fill(diagonal, 1)
        middle = middle + (G - G.mT) / (2 * gap)
    return v @ middle @ v.mT


def eigh_small_bwd(w: Tensor, v: Tensor, gw: Tensor | None, gv: Tensor | None) -> Tensor:
    return gradient(*(None if t is None else t.double() for t in (w, v, gw, gv))).to(v.dtype)
