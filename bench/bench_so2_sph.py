"""Spherical harmonics with their gradients. Operators: spherical_harmonics, spherical_harmonics_bwd, spherical_harmonics_jet.

The reference is the explicit polynomial of every harmonic in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.kernels.so2 import sph_ref
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load
from .structures import structure

VALUES, JET = "harmonics values", "harmonics with gradients"


def cases(level: str) -> Iterator[Case]:
    cells = at_level(level, smoke=4, quick=4, default=6, full=6)
    for lmax in at_level(level, smoke=(2,), quick=(3,), default=(2, 6), full=(1, 2, 3, 4, 5, 6, 8)):
        N, S = cells**3 * 4 * 78, (lmax + 1) ** 2
        for op, direction, planes in ((VALUES, FWD, 1), (VALUES, BOTH, 2), (JET, FWD, 4)):
            size = 4 * N * (3 + planes * S)
            title = f"lmax={lmax}, {N} edges of copper at 6 Å"
            targets = {"sphericart": 1.0} | ({"e3nn": 10.0} if op == VALUES and direction == BOTH else {})
            build = partial(_build, op, direction, lmax, cells)
            traffic = Traffic(size, size, 6 * N * S * planes)
            yield Case(op, direction, f"copper {N}", title, lmax, build, traffic, targets=targets)


@lru_cache(maxsize=1)
def _points(cells: int, device: str) -> Tensor:
    return structure("copper", cells).vectors.float().to(device)


@lru_cache(maxsize=1)
def _reference(op: str, direction: str, lmax: int, cells: int, device: str) -> tuple[Tensor, ...]:
    x = _points(cells, device).detach().double()
    if op == JET:
        return sph_ref.spherical_harmonics_jet(x, lmax, 0, True, 1)[:2]
    y = sph_ref.spherical_harmonics(x, lmax, 0, True)
    return (
        (y,) if direction == FWD else (y, sph_ref.spherical_harmonics_bwd(x, _grad(len(x), lmax, device).double(), lmax, 0, True))
    )


@lru_cache(maxsize=1)
def _grad(N: int, lmax: int, device: str) -> Tensor:
    return torch.randn(N, (lmax + 1) ** 2, generator=torch.Generator().manual_seed(lmax)).to(device)


def _build(op: str, direction: str, lmax: int, cells: int, device: str) -> Prepared:
    x = _points(cells, device).detach().requires_grad_(direction == BOTH)
    degrees = list(range(lmax + 1))
    run = lambda f: runner(f, direction, (x,), _grad(len(x), lmax, device))
    module, reason = load("sphericart.torch")
    order = [2, 0, 1]  # polar axis y
    reference = lambda: _reference(op, direction, lmax, cells, device)
    if op == JET:
        ours = Provider(OURS, lambda: structops.so2.spherical_harmonics_derivatives(lmax, x, True))
        theirs = None
        if module:
            calculator, turned = module.SphericalHarmonics(lmax), x[:, order].contiguous()

            def theirs():
                y, dy = calculator.compute_with_gradients(turned)
                return y, dy[:, [1, 2, 0]]

        return Prepared(ours, [Provider("sphericart", theirs, reason)], reference)
    ours = Provider(OURS, run(lambda: structops.so2.spherical_harmonics(degrees, x, True)))
    peers = [Provider("sphericart", module and run(partial(_sphericart, module.SphericalHarmonics(lmax), x)), reason)]
    e3nn, reason = load("e3nn")
    if e3nn:
        from e3nn import o3

        peers.append(Provider("e3nn", run(lambda: o3.spherical_harmonics(degrees, x, True))))
    else:
        peers.append(Provider("e3nn", None, reason))
    return Prepared(ours, peers, reference)


def _sphericart(calculator, x: Tensor) -> Tensor:
    return calculator(x[:, [2, 0, 1]])


def test_sph(case, bench_case):
    bench_case(case)
