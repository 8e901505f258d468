"""Geometric products of multivectors with weights of paths. Operator: sparse_bilinear.

The peer is the papers' formulation: a dense table of signs times weights for each channel, made in every call, and an einsum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from structops.so2 import CliffordAlgebra
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic


def cases(level: str) -> Iterator[Case]:
    for n, types, rows in at_level(
        level,
        smoke=((3, "grade", 10),),
        quick=((3, "grade", 2000),),
        default=((3, "grade", 2000), (5, "quaternion", 100)),
        full=((2, "grade", 8000), (3, "grade", 8000), (4, "quaternion", 2000), (5, "quaternion", 500)),
    ):
        C, dim = 32, 2**n
        size = 4 * rows * C * dim * 3
        for direction in (FWD, BOTH):
            passes = 1 if direction == FWD else 3
            traffic = Traffic(size * passes, size * passes, 2 * rows * C * dim * dim * passes)
            title = f"n={n}, {types} types, {rows} rows of {C} multivectors"
            build = partial(_build, direction, n, types, rows, C)
            yield Case("Clifford product", direction, f"{rows} rows", title, dim, build, traffic, targets={"dense": 5.0})


@lru_cache(maxsize=1)
def _table(n: int, device: str) -> Tensor:
    """[i, j, k]: blade i times blade k in blade j."""
    A = CliffordAlgebra((n,))
    eye = torch.eye(A.dim, device=device)
    return A.geometric_product(eye[:, None], eye[None]).transpose(1, 2).contiguous()


def _dense(A: CliffordAlgebra, types: str, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    kind = torch.tensor(A.types(types), device=x.device)
    T = int(kind.max()) + 1
    where = torch.tensor(A.paths(types), device=x.device).T
    channel = torch.arange(len(weight), device=x.device)[:, None]
    full = x.new_zeros(len(weight), T, T, T).index_put((channel, *where[:, None]), weight)
    table = full[:, kind][:, :, kind][:, :, :, kind] * _table(A.n, str(x.device)).to(x.dtype)
    return torch.einsum("bci,cijk,bck->bcj", x, table, y)


def _build(direction: str, n: int, types: str, rows: int, C: int, device: str) -> Prepared:
    A = CliffordAlgebra((n,))
    g = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=g).to(device)  # noqa: E731
    leaves = tuple(
        t.requires_grad_(direction == BOTH) for t in (draw(rows, C, A.dim), draw(rows, C, A.dim), draw(C, len(A.paths(types))))
    )
    out = draw(rows, C, A.dim)

    def reference():
        wide = tuple(t.detach().double().requires_grad_() for t in leaves)
        y = _dense(A, types, *wide)
        return (y.detach(), *torch.autograd.grad(y, wide, out.double()))[: None if direction == BOTH else 1]

    run = lambda f: runner(lambda: f(*leaves), direction, leaves, out)  # noqa: E731
    ours = Provider(OURS, run(lambda *a: A.weighted_product(*a, types)))
    return Prepared(ours, [Provider("dense", run(partial(_dense, A, types)))], reference)


def test_clifford(case, bench_case):
    bench_case(case)
