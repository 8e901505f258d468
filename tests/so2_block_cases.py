"""Random problems for the edge block, and directions that matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from structops import Graph, so2
from torch import Tensor

POLES = torch.tensor([[0.0, 1.5, 0.0], [0.0, -0.7, 0.0]], dtype=torch.float64)
NEAR = torch.tensor([[1e-4, 1.0, -2e-4], [3e-5, -1.0, 1e-5], [1e-9, 2.0, 0.0]], dtype=torch.float64)


def directions(E: int, seed: int = 0, poles: bool = True) -> Tensor:
    """[E, 3] float64: exact and near +-y first, then random vectors of all lengths."""
    g = torch.Generator().manual_seed(seed)
    vec = torch.randn(E, 3, generator=g, dtype=torch.float64)
    if poles:
        special = torch.cat([POLES, NEAR])[:E]
        vec[: special.shape[0]] = special
    return vec


@dataclass
class Problem:
    """Operands of the block; ``args`` are those of the raw operator up to bias2."""

    x: Tensor
    vec: Tensor
    graph: Graph
    edge_index: Tensor
    w1: list[Tensor]
    b1: Tensor
    w2: list[Tensor]
    b2: Tensor
    radial: Tensor | None
    radial_weight: Tensor | None
    radial_bias: Tensor | None
    envelope: Tensor | None
    L: int
    M: int
    H: int

    def call(self, **options) -> Tensor:
        return so2.edge_block(
            self.x, self.vec, self.graph, self.w1, self.b1, self.w2, self.b2, lmax=self.L, mmax=self.M, radial=self.radial,
            radial_weight=self.radial_weight, radial_bias=self.radial_bias, envelope=self.envelope, **options,
        )  # fmt: skip

    def leaves(self) -> list[Tensor | None]:
        flat = lambda w: torch.cat([m.reshape(-1) for m in w])
        return [
            self.x, self.vec, self.radial, self.radial_weight, self.radial_bias, self.envelope, flat(self.w1), self.b1, flat(self.w2),
            self.b2,
        ]  # fmt: skip

    def structure(self) -> tuple:
        return self.graph.rowptr, self.graph.col, self.graph.eid

    def to(self, dtype: torch.dtype) -> Problem:
        move = lambda t: None if t is None else [w.to(dtype) for w in t] if isinstance(t, list) else t.to(dtype)
        names = ("x", "vec", "w1", "b1", "w2", "b2", "radial", "radial_weight", "radial_bias", "envelope")
        return replace(self, **{n: move(getattr(self, n)) for n in names})


def problem(
    L: int, M: int, C: int, H: int, N: int = 5, E: int = 20, radial: str = "fused", envelope: bool = True, seed: int = 0
) -> Problem:
    """float64; weights scaled so that numbers stay near 1. radial: none, scale or fused."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
    edge_index = torch.randint(0, max(N - 1, 1), (2, E), generator=g) if N else torch.zeros(2, 0, dtype=torch.int64)
    shapes = so2.weight_shapes(L, M, 2 * C, H, L * H), so2.weight_shapes(L, M, H, C)
    w1, w2 = ([rand(*s) / s[1] ** 0.5 for s in each] for each in shapes)
    widths = sum((L + 1 - m) * 2 * C for m in range(M + 1))
    K = 6
    return Problem(
        rand(N, (L + 1) ** 2, C), directions(E, seed), Graph(edge_index, num_nodes=N), edge_index, w1, rand((2 * L + 1) * H) / 3, w2,
        rand((L + 1) * C) / 3,
        None if radial == "none" else rand(E, widths) if radial == "scale" else rand(E, K),
        rand(widths, K) / K**0.5 if radial == "fused" else None, rand(widths) if radial == "fused" else None,
        rand(E) if envelope else None, L, M, H,
    )  # fmt: skip
