"""opcheck arguments of several reductions at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import random_coo, to_csr, values
from structops._ladder import with_reverse
from structops.kernels import codes as C


def multi_reduce_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, M, E, F = 6, 7, 16, 3
    s = with_reverse((*to_csr(random_coo(M, N, E, seed=3), N), None, None, None), M)
    scale = values(2, N, seed=4)
    forward, backward = [], []
    for reduces, present, factor in (
        ([C.MEAN, C.MIN, C.MAX, C.STD], (1, 0, 0), scale),
        ([C.SUM, C.VAR], (1, 1, 1), None),
        ([C.MAX], (0, 1, 0), scale),
    ):
        operands = [leaf(rows, F) if p else None for rows, p in zip((M, E, N), present, strict=True)]
        args = (*operands, *s, factor, reduces, 1e-3, True)
        forward.append(args)
        plain = [None if t is None else t.detach() for t in operands]
        out, stat, arg = torch.ops.structops.multi_reduce(*plain, *args[3:])
        backward.append((*plain[:2], values(*out.shape, seed=5), stat, arg, *s, factor, reduces, 5 + 2 * present[2]))
    return {"multi_reduce": forward, "multi_reduce_bwd": backward}
