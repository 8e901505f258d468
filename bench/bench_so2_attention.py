"""Attention over irreps on the edges of real structures. Operators: attention, attention_bwd.

Keys and values are rows of nodes (Equiformer, with dot products) or of edges (SE(3)-Transformer). The peer gathers, takes products
of every edge, and sums, as the published layers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import structops
import torch
from structops.so2 import Irreps, irreps_attention
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import I, S, Traffic
from .structures import available, structure

HEADS = 4


def cases(level: str) -> Iterator[Case]:
    problems = at_level(
        level,
        smoke=[("copper", 4, "8x0e+4x1e")],
        quick=[("copper", 4, "128x0e+64x1e+32x2e")],
        default=[("copper", 4, "128x0e+64x1e+32x2e"), ("g2", 1, "128x0e+64x1e+32x2e")],
        full=[(kind, size, "128x0e+64x1e+32x2e") for kind, size in (("copper", 6), ("water", 5), ("g2", 1))],
    )
    for kind, size, irreps in (p for p in problems if available(p[0])):
        atoms, D = structure(kind, size), Irreps(irreps).dim
        for per_edge in (False, True):
            for direction in (FWD, BOTH):
                rows = atoms.num_edges if per_edge else atoms.num_nodes
                passes = 1 if direction == FWD else 3
                low = passes * (S * D * (2 * rows + 2 * atoms.num_nodes) + I * atoms.num_edges)
                traffic = Traffic(low, low + passes * 2 * S * D * (atoms.num_edges - rows), passes * 4 * atoms.num_edges * D)
                of = "edges" if per_edge else "nodes"
                build = partial(_build, direction, kind, size, irreps, per_edge)
                yield Case(f"irreps_attention, rows of {of}", direction, f"{kind} {atoms.num_nodes}",
                           f"{irreps}, {HEADS} heads, {atoms.title}", D, build, traffic)  # fmt: skip


def _heads(t: Tensor, irreps: Irreps) -> Tensor:
    """[rows, dim] as [rows, heads, dim / heads]."""
    parts = [t[:, s].reshape(t.shape[0], HEADS, -1) for s in irreps.slices()]
    return torch.cat(parts, 2)


def _composed(q: Tensor, k: Tensor, v: Tensor, index: Tensor, irreps: Irreps, per_edge: bool) -> Tensor:
    src, dst = index
    q, k, v = (_heads(t, irreps) for t in (q, k, v))
    ke, ve = (k, v) if per_edge else (k[src], v[src])
    score = (q[dst] * ke).sum(2) / ke.shape[2] ** 0.5
    top = score.new_full((q.shape[0], HEADS), -torch.inf).index_reduce(0, dst, score.detach(), "amax")
    weight = (score - top[dst]).exp()
    weight = weight / weight.new_zeros(q.shape[0], HEADS).index_add(0, dst, weight)[dst]
    out = v.new_zeros(q.shape[0], *v.shape[1:]).index_add(0, dst, weight[:, :, None] * ve)
    sizes = [t.mul * t.dim // HEADS for t in irreps]
    return torch.cat([p.flatten(1) for p in out.split(sizes, 2)], 1)


def _build(direction: str, kind: str, size: int, irreps: str, per_edge: bool, device: str) -> Prepared:
    _, index, _, N = structure(kind, size)
    index, D, parsed = index.to(device), Irreps(irreps).dim, Irreps(irreps)
    graph, rows = structops.Graph(index, num_nodes=N), index.shape[1] if per_edge else N
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(n, D, generator=generator).to(device)
    leaves, grad = tuple(draw(n).requires_grad_(direction == BOTH) for n in (N, rows, rows)), draw(N)
    do = lambda forward, *of: runner(lambda: forward(*of), direction, of, grad.to(of[0].dtype))
    composed = partial(_composed, index=index, irreps=parsed, per_edge=per_edge)
    ours = lambda q, k, v: irreps_attention(graph, q, k, v, irreps, heads=HEADS, per_edge=per_edge)
    wide = tuple(t.detach().double().requires_grad_(t.requires_grad) for t in leaves)
    return Prepared(Provider(OURS, do(ours, *leaves)), [Provider("torch composed", do(composed, *leaves))], do(composed, *wide))


def test_so2_attention(case, bench_case):
    bench_case(case)
