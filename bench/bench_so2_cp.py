"""Products of all degrees by factors of low rank (CPTensorProduct) on the edges of a crystal. Operators: tp_conv, tp_conv_edge.

The peer is the paper's formulation in torch (arXiv:2507.01131): gather, project by the three factors at every edge, index_add.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.so2 import CPTensorProduct, spherical_harmonics
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .structures import structure


def cases(level: str) -> Iterator[Case]:
    s = structure("copper", cutoff=5.0)
    N, E = s.num_nodes, s.num_edges
    sizes = at_level(level, smoke=((1, 4),), quick=((2, 64),), default=((2, 64), (4, 32)), full=((2, 64), (4, 64), (6, 32)))
    for L, C in sizes:
        R, D = _product(L).rank, (L + 1) ** 2
        for direction, passes in ((FWD, 1), (BOTH, 3)):
            moved = 4 * passes * (2 * N * D * C + E * (D + C))
            flops = passes * (4 * N * D * R * C + 2 * E * R * (D + 2 * C))
            title = f"degrees to {L}, rank {R}, {s.title}, {C} channels"
            build = partial(_build, direction, L, C)
            traffic = Traffic(moved, moved, flops)
            yield Case("CPTensorProduct", direction, f"L={L}", title, C, build, traffic, targets={"einsum": 5.0})


@lru_cache(maxsize=8)
def _product(L: int) -> CPTensorProduct:
    return CPTensorProduct(L, L, L, sweeps=20)


def _build(direction: str, L: int, C: int, device: str) -> Prepared:
    product = _product(L)
    _, index, vectors, N = structure("copper", cutoff=5.0)
    E = index.shape[1]
    y = spherical_harmonics(range(L + 1), vectors.float(), True, "component").unsqueeze(-1)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=generator).to(device)
    graph, index = structops.Graph(index.to(device), num_nodes=N), index.to(device)
    leaves = tuple(t.requires_grad_(direction == BOTH) for t in (draw(N, product.dims[0], C), y.to(device), draw(E, C, 1)))
    out = draw(N, product.dims[2], C)
    wide = tuple(f.to(device) for f in product.factors)
    narrow = tuple(f.float() for f in wide)

    def einsum(factors: tuple[Tensor, ...], x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        A, B, back = factors
        z = torch.einsum("ir,eiu->eru", A, x[index[0]]) * torch.einsum("jr,ejv->erv", B, y) * w.mT
        messages = torch.einsum("kr,eru->eku", back, z)
        return x.new_zeros(N, *messages.shape[1:]).index_add(0, index[1], messages)

    run = lambda f, *leaves: runner(lambda: f(*leaves), direction, leaves, out.to(leaves[0].dtype))
    ours = Provider(OURS, run(lambda *a: product.conv(graph, *a), *leaves))
    reference = run(partial(einsum, wide), *(t.detach().double().requires_grad_(t.requires_grad) for t in leaves))
    return Prepared(ours, [Provider("einsum", run(partial(einsum, narrow), *leaves))], reference)


def test_cp(case, bench_case):
    bench_case(case)
