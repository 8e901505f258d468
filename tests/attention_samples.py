"""opcheck arguments of attention over edges."""

from __future__ import annotations

from collections.abc import Callable

from cases import random_coo, to_csr, values
from structops._ladder import with_reverse
from structops.kernels import codes as C
from structops.kernels.sparse import attention_ref


def attention_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, M, E, H = 6, 7, 16, 2
    rowptr, col, eid = to_csr(random_coo(M, N, E, seed=3), N)
    back = with_reverse((rowptr, col, eid, None, None, None), M)[3:]
    none = (None, None, None)
    forward, backward = [], []
    for score, K, edge, att in (
        (C.ADDITIVE, 1, (E, H), None), (C.GATV2, 3, (E, H, 3), (H, 3)), (C.DOT, 5, None, None),
    ):  # fmt: skip
        shapes = (M, H, K), (N, H, K), (M, H, 4), edge, att
        operands = [None if s is None else leaf(*s) for s in shapes]
        tail = score, 0.2, 0.5
        forward.append((*operands, rowptr, col, eid, *none, *tail))
        plain = [None if t is None else t.detach() for t in operands]
        out, lse = attention_ref.attention(*plain, rowptr, col, eid, *none, *tail)
        backward.append((*plain, out, lse, values(N, H, 4, seed=5), rowptr, col, eid, *back, *tail))
    return {"attention": forward, "attention_bwd": backward}
