"""Reference of sparse_bilinear: term by term, float64."""

from __future__ import annotations

import torch
from torch import Tensor


def terms(lists: Tensor, coef: Tensor, sizes: list[int], role: int):
    """(result, component of a, component of b, coefficient) of every term of a role, in its order."""
    R, pairs, at = sizes[role], sizes[4 + role], sizes[7 + role]
    data = lists.tolist()[at:]
    row_ptr, pair, b = data[: R + 1], data[R + 1 : R + 1 + 2 * pairs], data[R + 1 + 2 * pairs :]
    t = 0
    for r in range(R):
        for p in range(row_ptr[r], row_ptr[r + 1]):
            while t < pair[2 * p + 1]:
                yield r, pair[2 * p], b[t], float(coef[role, t])
                t += 1


def sparse_bilinear(a, b, lists, coef, sizes, role, components_last, total) -> Tensor:
    xs, ys = (t.double().transpose(1, 2) if components_last else t.double() for t in (a, b))
    rows = ys.shape[0] if xs.shape[0] == 1 else xs.shape[0]
    out = torch.zeros(rows, sizes[role], xs.shape[2], dtype=torch.float64, device=a.device)
    for r, i, j, c in terms(lists, coef, sizes, role):
        out[:, r] += c * xs[:, i] * ys[:, j]
    if total:
        out = out.sum(0, keepdim=True)
    return (out.transpose(1, 2) if components_last else out).to(a.dtype).contiguous()
