"""Arguments of the raw operators of relational_spmm, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import random_coo
from structops.kernels import codes as C
from structops.sparse import RelationalGraph


def rspmm_samples(leaf: Callable) -> dict[str, list[tuple]]:
    N, R, E = 7, 3, 16
    graph = RelationalGraph(random_coo(N, N, E, seed=3), torch.arange(E) % R, N, R)
    graph.reversed_structure  # noqa: B018
    s, mask = graph.structure, torch.arange(E) % 4 > 0
    forward = [
        (leaf(N, 4), leaf(R, 4), leaf(E), None, *s, C.REL_MUL, C.REL_SUM, 0.0),
        (leaf(2, N, 4), leaf(2, R, 4), None, mask, *s, C.REL_ROTATE, C.REL_MEAN, 0.0),
        (leaf(N, 3), leaf(R, 3), leaf(E), mask, *s, C.REL_ADD, C.REL_LARGEST, 0.5),
        (leaf(N, 3), None, leaf(E), None, *s[:4], *(None,) * 4, C.REL_COPY, C.REL_LSE, 0.0),
        (leaf(2, N, 3), leaf(2, R, 3), leaf(E), None, *s, C.REL_MUL, C.REL_PNA, 0.0),
    ]
    backward = []
    for args in forward:
        x, rel, weight, mask_, *_, mul, reduce, _ = args
        out, arg, rest = torch.ops.structops.relational_spmm(*(t.detach() if isinstance(t, torch.Tensor) else t for t in args))
        # Its own derivative is a composition, which is not for tracing: tests/sparse/test_rspmm.py has the second order.
        fixed = [t if t is None else t.detach() for t in (leaf(*out.shape), x, rel, weight)]
        backward.append((*fixed, mask_, out, arg, rest, *s, mul, reduce, 7))
    return {"relational_spmm": forward, "relational_spmm_bwd": backward}
