"""Geometric products of multivectors with weights of paths (symmetric_contraction); products of vector fields on the sphere
(sparse_bilinear).

The peers are the papers' formulations: a dense table of signs times weights for each channel, made in every call, and an einsum; an
einsum with the dense table of the coupling.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from structops.so2 import CliffordAlgebra, VectorSphericalProduct
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
    L, rows = at_level(level, smoke=(1, 4), quick=(2, 1000), default=(2, 1000), full=(4, 1000))
    dim = 3 * (L + 1) ** 2
    for direction, passes in ((FWD, 1), (BOTH, 3)):
        traffic = Traffic(4 * rows * 32 * dim * 3 * passes, 4 * rows * 32 * dim * 3 * passes, rows * 32 * dim * dim * passes)
        build = partial(_vector, direction, L, rows)
        title = f"lmax={L}, {rows} rows of 32 fields"
        yield Case("vector-spherical product", direction, f"{rows} rows", title, dim, build, traffic)


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
    draw = lambda *s: torch.randn(*s, generator=g).to(device)
    leaves = tuple(
        t.requires_grad_(direction == BOTH) for t in (draw(rows, C, A.dim), draw(rows, C, A.dim), draw(C, len(A.paths(types))))
    )
    out = draw(rows, C, A.dim)

    def reference():
        wide = tuple(t.detach().double().requires_grad_() for t in leaves)
        y = _dense(A, types, *wide)
        return (y.detach(), *torch.autograd.grad(y, wide, out.double()))[: None if direction == BOTH else 1]

    run = lambda f: runner(lambda: f(*leaves), direction, leaves, out)
    ours = Provider(OURS, run(lambda *a: A.weighted_product(*a, types)))
    return Prepared(ours, [Provider("dense", run(partial(_dense, A, types)))], reference)


def _vector(direction: str, L: int, rows: int, device: str) -> Prepared:
    product = VectorSphericalProduct(L, L, L)
    g = torch.Generator().manual_seed(0)
    dim = product.irreps_in1.dim
    x, y, out = (torch.randn(rows, 32, dim, generator=g).to(device) for _ in range(3))
    leaves = tuple(t.requires_grad_(direction == BOTH) for t in (x, y))
    eye = torch.eye(dim, dtype=torch.float64, device=device)
    table = product(eye[:, None, None], eye[None, :, None])[:, :, 0]
    dense = lambda x, y: torch.einsum("bci,ijk,bcj->bck", x, table.to(x.dtype), y)

    def reference():
        wide = tuple(t.detach().double().requires_grad_() for t in leaves)
        z = dense(*wide)
        return (z.detach(), *torch.autograd.grad(z, wide, out.double()))[: None if direction == BOTH else 1]

    run = lambda f: runner(lambda: f(*leaves), direction, leaves, out)
    return Prepared(Provider(OURS, run(product)), [Provider("dense", run(dense))], reference)


def test_clifford(case, bench_case):
    bench_case(case)
