"""opcheck arguments of edge activations."""

from __future__ import annotations

from collections.abc import Callable

from cases import random_coo, to_csr, values
from structops._ladder import with_reverse
from structops.kernels import codes as C


def edge_act_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, M, E, F = 6, 7, 16, 3
    rowptr, col, eid = to_csr(random_coo(M, N, E, seed=3), N)
    back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
    forward, backward = [], []
    for act, present in ((C.EDGE_ACTS["silu"], (1, 1, 1)), (C.EDGE_ACTS["elu"], (1, 0, 0)), (C.EDGE_ACTS["tanh"], (0, 1, 0))):
        shapes = (M, F), *((n, F) if p else None for n, p in zip((N, E, M), present, strict=True))
        operands = [None if s is None else leaf(*s) for s in shapes]
        operands += [leaf(E), leaf(F)] if present[0] else [None, None]
        forward.append((*operands, rowptr, col, eid, None, None, None, act, 0.5, bool(present[0])))
        plain = [None if t is None else t.detach() for t in operands]
        backward.append((*plain, values(N, F, seed=5), rowptr, col, eid, *back, act, 0.5, bool(present[1])))
    return {"edge_act": forward, "edge_act_bwd": backward}
