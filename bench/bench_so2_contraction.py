"""Polynomials of node features: symmetric_contraction as in MACE, and gaunt_product (sparse_bilinear).

The peer is the formulation in torch: dense coupling tables, contracted one copy after the other for MACE (arXiv:2206.07697),
one einsum for Gaunt coefficients. The double backward is that of training on forces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
from structops.kernels.so2.bilinear_ref import terms
from structops.so2 import SymmetricContractionPlan, gaunt_product, symmetric_contraction
from structops.so2._symmetric import coupled, monomials
from structops.so2.gaunt import gaunt_table
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic

CONTRACTION, SECOND, GAUNT = "symmetric_contraction", "symmetric_contraction_twice", "gaunt_product"
FEATURES = "0e+1o+2e+3o"
ELEMENTS = 3


def cases(level: str) -> Iterator[Case]:
    N, C = at_level(level, smoke=(30, 16), quick=(300, 128), default=(1000, 128), full=(1000, 128))
    for out in at_level(level, smoke=("0e",), quick=("0e+1o",), default=("0e", "0e+1o"), full=("0e", "0e+1o", "0e+1o+2e")):
        plan = _plan(out)
        for op, direction in ((CONTRACTION, FWD), (CONTRACTION, BOTH), (SECOND, FWD)):
            passes = 8 if op == SECOND else 1 if direction == FWD else 3
            rows = 4 * N * C * (16 + plan.irreps_out.dim)
            traffic = Traffic(passes * rows, passes * rows, passes * 3 * N * C * plan.num_terms)
            title = f"{FEATURES} to {out}, correlation 3, {N} nodes, {C} channels"
            build = partial(_build, op, direction, out, N, C)
            yield Case(f"{op} {out}", direction, f"{N} nodes", title, C, build, traffic, targets={"dense einsum": 5.0})
    for l in at_level(level, smoke=(1,), quick=(3,), default=(2, 4), full=(1, 2, 3, 4, 6)):
        table = gaunt_table(l, l, l)
        for direction, passes in ((FWD, 1), (BOTH, 3)):
            size = passes * 4 * N * C * sum(table.dims)
            title = f"degrees to {l}, {table.terms} coefficients, {N} rows, {C} channels"
            traffic = Traffic(size, size, passes * 3 * N * C * table.terms)
            build = partial(_build_gaunt, direction, l, N, C)
            yield Case(GAUNT, direction, f"L={l}", title, C, build, traffic, targets={"dense einsum": 5.0})


@lru_cache(maxsize=4)
def _plan(out: str) -> SymmetricContractionPlan:
    return SymmetricContractionPlan(FEATURES, out, 3)


class Dense:
    """[paths, 2 L + 1, D, ..] for each degree and output; symmetrised, which changes no result."""

    def __init__(self, plan: SymmetricContractionPlan, dtype: torch.dtype, device: str):
        D, self.outs = plan.irreps_in.dim, []
        for n, term in enumerate(plan.irreps_out):
            tables = {}
            for block in (b for b in plan.blocks if b.out == n):
                spread = torch.zeros(block.stop - block.start, term.dim, *(D,) * block.degree, dtype=torch.float64)
                paths = torch.stack([torch.from_numpy(p) for p in coupled(plan.irreps_in, block.degree, term)])
                for a, m in enumerate(monomials(D, block.degree)):
                    spread[(slice(None), slice(None), *m)] = paths[:, :, a]
                tables[block.degree] = (spread.to(device, dtype), slice(block.start, block.stop))
            self.outs.append(tables)

    def __call__(self, x: Tensor, w: Tensor, element: Tensor) -> Tensor:
        w, outs = w[element], []
        for tables in self.outs:
            U, part = tables[3]
            t = torch.einsum("pkabd,npc,ncd->nckab", U, w[:, part], x)
            U, part = tables[2]
            t = torch.einsum("nckab,ncb->ncka", t + torch.einsum("pkab,npc->nckab", U, w[:, part]), x)
            U, part = tables[1]
            outs.append(torch.einsum("ncka,nca->nck", t + torch.einsum("pka,npc->ncka", U, w[:, part]), x))
        return torch.cat(outs, 2)


@lru_cache(maxsize=1)
def _inputs(out: str, N: int, C: int, device: str) -> tuple[Tensor, ...]:
    """(element, x, w, g, vx)."""
    plan, g = _plan(out), torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=g).to(device)
    element = torch.randint(0, ELEMENTS, (N,), generator=g).to(device)
    x, w = draw(N, C, plan.irreps_in.dim), draw(ELEMENTS, plan.num_paths, C)
    return element, x, w, draw(N, C, plan.irreps_out.dim), draw(*x.shape)


def _second(f: Callable, x: Tensor, w: Tensor, g: Tensor, vx: Tensor) -> tuple[Tensor, ...]:
    (gx,) = torch.autograd.grad(f(x, w), x, g, create_graph=True)
    return torch.autograd.grad(gx, (x, w, g), vx)


@lru_cache(maxsize=1)
def _reference(op: str, direction: str, out: str, N: int, C: int, device: str) -> tuple[Tensor, ...]:
    element, *tensors = _inputs(out, N, C, device)
    x, w, g, vx = (t.double().requires_grad_() for t in tensors)
    dense = Dense(_plan(out), torch.float64, device)
    f = lambda x, w: dense(x, w, element)
    return _second(f, x, w, g, vx) if op == SECOND else runner(lambda: f(x, w), direction, (x, w), g.detach())()


def _build(op: str, direction: str, out: str, N: int, C: int, device: str) -> Prepared:
    plan, (element, *tensors) = _plan(out), _inputs(out, N, C, device)
    x, w, g, vx = (t.detach().requires_grad_(op == SECOND or direction == BOTH) for t in tensors)
    dense = Dense(plan, torch.float32, device)
    ours = lambda x, w: symmetric_contraction(x, w, element, plan)
    theirs = lambda x, w: dense(x, w, element)
    if op == SECOND:
        make = lambda f: lambda: _second(f, x, w, g, vx.detach())
    else:
        make = lambda f: runner(lambda: f(x, w), direction, (x, w), g.detach())
    reference = lambda: _reference(op, direction, out, N, C, device)
    return Prepared(Provider(OURS, make(ours)), [Provider("dense einsum", make(theirs))], reference)


def _build_gaunt(direction: str, l: int, N: int, C: int, device: str) -> Prepared:
    D, generator = (l + 1) ** 2, torch.Generator().manual_seed(l)
    tensors = [torch.randn(N, D, C, generator=generator).to(device) for _ in range(3)]
    x, y, g = (t.requires_grad_(direction == BOTH and n < 2) for n, t in enumerate(tensors))
    table = torch.zeros(D, D, D, dtype=torch.float64)
    for k, i, j, c in terms(*gaunt_table(l, l, l).on(torch.device("cpu")), 2):
        table[i, j, k] = c
    table = table.to(device)
    narrow = table.float()
    run = lambda f, *leaves: runner(lambda: f(*leaves[:2]), direction, leaves[:2], leaves[2].detach())
    dense = lambda t: lambda x, y: torch.einsum("nic,njc,ijk->nkc", x, y, t)
    wide = [t.detach().double().requires_grad_(direction == BOTH) for t in (x, y, g)]
    peers = [Provider("dense einsum", run(dense(narrow), x, y, g))]
    for method in ("grid", "fourier"):
        peers.append(Provider(method, run(lambda x, y, m=method: gaunt_product(x, y, l, m), x, y, g)))
    return Prepared(Provider(OURS, run(lambda x, y: gaunt_product(x, y, l), x, y, g)), peers, run(dense(table), *wide))


def test_contraction(case, bench_case):
    bench_case(case)
