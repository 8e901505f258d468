"""Arguments of every raw operator of the so2 family, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from structops import Graph
from structops.so2 import channelwise_instructions
from structops.so2._product import Spec


def so2_samples(leaf: Callable) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    # tensor products, spherical harmonics
    found |= harmonics_samples(leaf)
    found |= product_samples(leaf)

    # frames, Wigner matrices, SO(2) convolutions
    return found


def harmonics_samples(leaf: Callable) -> dict[str, list[tuple]]:
    return {
        "spherical_harmonics": [(leaf(5, 3), 3, 0, True), (leaf(5, 3), 2, 1, False)],
        "spherical_harmonics_bwd": [(leaf(5, 3), leaf(5, 16), 3, 0, True), (leaf(5, 3), leaf(5, 9), 2, 2, False)],
        "spherical_harmonics_jet": [(leaf(5, 3).detach(), 2, 0, True, 1), (leaf(5, 3).detach(), 2, 1, False, 2)],
    }


def product_samples(leaf: Callable) -> dict[str, list[tuple]]:
    """On a graph, its reversed half given, and alone; with weights and without."""
    graph = Graph(torch.tensor([[0, 2, 1, 1, 0], [1, 0, 1, 2, 1]]), num_nodes=4)
    s, alone = (*graph.structure[:3], *graph.reversed_structure), (None,) * 6
    out, paths = channelwise_instructions("3x0e+2x1o", "0e+1o", "0e+1o+1e")
    plans = []
    for weighted in (True, False):
        spec = Spec(
            "tp",
            "3x0e+2x1o",
            "0e+1o",
            out,
            [(*p[:4], weighted) for p in paths],
            (None,) * 3,
            "component",
            "element",
            "mul_ir",
            False,
        )
        plans.append(((spec.weighted or spec.plain).on(torch.device("cpu")), spec))
    (plan, spec), (plain, _) = plans
    x, y, w, g = spec.in1.dim, spec.in2.dim, spec.weight_numel, spec.out.dim
    return {
        "tp_conv": [
            (leaf(4, x), leaf(5, y), leaf(5, w), *s, *plan, False),
            (leaf(4, g), leaf(5, y), leaf(5, w), *s[3:], *s[:3], *plan, True),
            (leaf(5, x), leaf(5, y), None, *alone, *plain, False),
        ],
        "tp_conv_edge": [
            (leaf(4, x), leaf(4, g), leaf(5, y), leaf(5, w), *s, *plan, True, True),
            (leaf(5, x), leaf(5, g), leaf(5, y), None, *alone, *plain, True, False),
        ],
    }
