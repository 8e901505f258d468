"""Arguments of every raw operator of the so2 family, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from structops import Graph
from structops.so2 import SymmetricContractionPlan, channelwise_instructions
from structops.so2._bilinear import Table
from structops.so2._product import Spec


def so2_samples(leaf: Callable) -> dict[str, list[tuple]]:
    found: dict[str, list[tuple]] = {}
    # tensor products, spherical harmonics
    found |= harmonics_samples(leaf)
    found |= product_samples(leaf)
    table = Table([0, 1, 1, 2], [0, 1, 0, 1], [1, 0, 2, 2], [1.0, -2.0, 0.5, 3.0], (3, 2, 4)).on(torch.device("cpu"))
    found["sparse_bilinear"] = [
        (leaf(3, 3, 2), leaf(3, 2, 2), *table, 2, False, False),
        (leaf(1, 2, 2), leaf(3, 2, 4), *table, 0, True, False),
        (leaf(3, 4, 2), leaf(3, 3, 2), *table, 1, False, True),
    ]
    plan = SymmetricContractionPlan("0e+1o", "0e", 2)
    parts = lambda: (leaf(3, 2, 4), leaf(2, plan.num_paths, 2), leaf(3, 2, 1))
    rest = torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), *plan.on(torch.device("cpu"))
    none = (None,) * 3
    found["symmetric_contraction"] = [
        (*parts()[:2], None, *none, *none, *rest, 0, True, False, False, True),
        (*parts(), *none, *none, *rest, 0, True, True, True, False),
        (*parts(), *parts(), *none, *rest, 1, True, True, True, True),
    ]

    # frames, Wigner matrices, SO(2) convolutions
    found |= frame_samples(leaf)

    # eigen-decompositions
    found |= {
        "eigh_small": [(leaf(5, 3, 3),), (leaf(4, 2, 2),), (leaf(3, 5, 5),)],
        "eigh_small_bwd": [(leaf(5, 3), leaf(5, 3, 3), leaf(5, 3), leaf(5, 3, 3)), (leaf(4, 2), leaf(4, 2, 2), None, leaf(4, 2, 2))],
    }
    return found


def frame_samples(leaf: Callable) -> dict[str, list[tuple]]:
    L, M, E, C, H = 2, 1, 4, 2, 2
    n, S, R, width = 7, 9, 25, 20
    fixed = lambda *shape: leaf(*shape).detach()
    ptr, col, eid = torch.tensor([0, 2, 2, 4]), torch.tensor([1, 2, 0, 2]), torch.tensor([3, 0, 1, 2])
    full = (leaf(3, S, C), leaf(E, 3), leaf(E, 3), leaf(width, 3), leaf(width), leaf(E), leaf(184), leaf(10), leaf(68), leaf(6))
    bare = (leaf(3, S, C), leaf(E, 3), None, None, None, None, leaf(184), leaf(10), leaf(68), leaf(6))
    degrees = (L, M, H, False)
    return {
        "so2_wigner": [(leaf(E, 3), None, L, M), (leaf(E, 3), fixed(E), L, M)],
        "so2_rotate": [(leaf(E, S, C), leaf(E, R), L, M)],
        "so2_rotate_back": [(leaf(E, n, C), leaf(E, R), L, M)],
        "so2_rotate_outer": [(leaf(E, n, C), leaf(E, S, C), L, M)],
        "so3_turn": [(leaf(E, S, C), leaf(E, 3), L, -1), (leaf(E, R), leaf(E, 3), L, M)],
        "so3_torque": [(leaf(E, S, C), leaf(E, S, C), L, -1), (leaf(E, R), leaf(E, R), L, M)],
        "so2_conv": [
            (leaf(E, n * C), leaf(74), leaf(7), L, M, C, 2, 1, False, False), (leaf(E, 15), leaf(74), None, L, M, C, 2, 1, True, True),
        ],
        "so2_conv_wgrad": [(leaf(E, n * C), leaf(E, 15), L, M, C, 2, 1)],
        "edge_block": [(*full, ptr, col, eid, *degrees, True), (*bare, ptr.int(), col.int(), None, *degrees, False)],
        "edge_block_bwd": [
            (leaf(3, S, C), *full, ptr, col, eid, None, None, *degrees, 15), (leaf(3, S, C), *bare, ptr, col, None, None, None, *degrees, 1),
        ],
    }  # fmt: skip


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
