"""Self-check cases of the so2 family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    # tensor products, spherical harmonics
    if op.startswith("spherical_harmonics"):
        return harmonics_cases(op, g)
    if op.startswith("tp_conv"):
        return product_cases(op, g)

    # frames, Wigner matrices, SO(2) convolutions
    raise KeyError(op)


def harmonics_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Random points, the poles, and a zero vector."""
    for dtype, (lmax, norm), normalize in itertools.product(DTYPES, ((0, 0), (1, 2), (3, 1), (6, 0)), (True, False)):
        x = torch.randn(37, 3, generator=g, dtype=torch.float64)
        x[0], x[1], x[2] = 0, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, -2.0, 0.0])
        if not normalize:
            x = x / 2
        x = x.to(dtype)
        if op == "spherical_harmonics":
            yield x, lmax, norm, normalize
        elif op == "spherical_harmonics_bwd":
            yield x[1:], torch.randn(36, (lmax + 1) ** 2, generator=g).to(dtype), lmax, norm, normalize
        elif lmax < 6:
            yield from ((x[1:], lmax, norm, normalize, order) for order in (1, 2))


def product_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Both layouts, channels with and without tails, edges in and out of order, with and without a graph and weights."""
    from ..graph import Graph
    from ..so2._product import Spec
    from ..so2.tensor_product import channelwise_instructions

    N, E = 6, 39
    index = torch.stack([torch.randint(0, N, (E,), generator=g), torch.randint(0, N - 1, (E,), generator=g)])
    graph = Graph(index, num_nodes=N)
    s, alone = (*graph.structure[:3], *graph.reversed_structure), (None,) * 6
    for dtype, layout, muls in itertools.product(DTYPES, ("mul_ir", "ir_mul"), ((150, 1), (3, 33))):
        irreps = [(muls[0], 0, 1), (muls[1], 1, -1), (muls[0], 2, 1)]
        out, paths = channelwise_instructions(irreps, "0e+1o+2e+3o", "0e+1o+2e")
        weighted = muls[1] == 1
        paths = [(*p[:4], weighted) for p in paths]
        spec = Spec("tp", irreps, "0e+1o+2e+3o", out, paths, (None,) * 3, "component", "element", layout, False)
        plan = (spec.weighted or spec.plain).on(torch.device("cpu"))
        draw = lambda *shape: (torch.randn(*shape, generator=g) / 4).to(dtype)  # noqa: B023, E731
        for structure, rows, receivers in ((s, N, N), (alone, E, E)):
            y, w = draw(E, spec.in2.dim), draw(E, spec.weight_numel) if weighted else None
            x, out_row = draw(rows, spec.in1.dim), draw(receivers, spec.out.dim)
            if op == "tp_conv":
                yield x, y, w, *structure, *plan, False
                yield out_row, y, w, *(*structure[3:], *structure[:3]), *plan, True
            else:
                yield x, out_row, y, w, *structure, *plan, True, weighted
