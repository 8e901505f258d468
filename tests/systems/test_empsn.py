"""E(n)-equivariant simplicial message passing (of TopNets): vertices, edges and triangles of a Rips complex, geometric invariants.

The complex is lifted in Python.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from agreement import agree, randn
from molecules import molecule, rotation
from structops import Graph, sddmm, segment_reduce, spmm

SYSTEM = "EMPSN: E(n)-equivariant message passing on simplicial complexes, of TopNets"
OPERATORS = ("structops.sddmm", "structops.spmm", "structops.segment_reduce")
RADIUS, D, H = 1.9, 4, 5


def lift(positions):
    """Simplices of 1, 2 and 3 vertices, pairwise within the radius, and of every adjacency its (sender, receiver)."""
    near = torch.cdist(positions, positions) < RADIUS
    cells = [
        [s for s in itertools.combinations(range(len(positions)), k) if all(near[p] for p in itertools.combinations(s, 2))]
        for k in (1, 2, 3)
    ]
    place = [{s: i for i, s in enumerate(level)} for level in cells]
    within = lambda low, high: [
        (place[low][f], i) for i, s in enumerate(cells[high]) for f in itertools.combinations(s, low + 1)
    ]
    beside = lambda low: [
        (place[low][a], place[low][b])
        for s in cells[low + 1]
        for a, b in itertools.permutations(itertools.combinations(s, low + 1), 2)
    ]
    pairs = {"0_0": beside(0), "0_1": within(0, 1), "1_1": beside(1), "1_2": within(1, 2)}
    return [torch.tensor(c) for c in cells], {k: torch.tensor(v).T for k, v in pairs.items()}


def size(r, cell):
    """0, the length, or the area of simplices ``[n, vertices]``."""
    p = r[cell]
    if cell.shape[1] == 1:
        return p[:, 0, 0] * 0
    if cell.shape[1] == 2:
        return (p[:, 1] - p[:, 0]).norm(dim=1)
    return torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]).norm(dim=1) / 2


def invariants(r, sender, receiver):
    """Distance of the centres, and both sizes ``[n, 3]``."""
    centre = r[sender].mean(1) - r[receiver].mean(1)
    return torch.stack([centre.square().sum(1), size(r, sender), size(r, receiver)], 1)


KINDS = {"0_0": (0, 0), "0_1": (0, 1), "1_1": (1, 1), "1_2": (1, 2)}


def layer(x0, x1, x2, r, *w, cells, pairs, collect):
    """m = MLP([x_s, x_r, inv]) gated by its own sigmoid, summed by adjacency; x_r + MLP([x_r, sums]); sums over each dimension."""
    x, sums = [x0, x1, x2], [[], [], []]
    for (kind, (a, b)), p in zip(KINDS.items(), (w[5 * i : 5 * i + 5] for i in range(4)), strict=True):
        s, t = pairs[kind]
        inv = invariants(r, cells[a][s], cells[b][t])
        sums[b].append(collect(pairs[kind], x[a], x[b], inv, *p))
    return torch.cat([x[n] + torch.cat([x[n], *sums[n]], 1) @ w[20 + n] for n in range(3)])


def split(index, source, target, inv, w_s, w_t, w_inv, w_out, gate):
    """The first layer on simplices, not on pairs; gates and sums in one product."""
    graph = Graph(index, num_src=len(source), num_dst=len(target))
    m = torch.nn.functional.silu(sddmm(graph, source @ w_s, target @ w_t, "add") + inv @ w_inv) @ w_out
    return spmm(graph, None, m * torch.sigmoid(m @ gate))


def loop(index, source, target, inv, w_s, w_t, w_inv, w_out, gate):
    rows = [torch.zeros(H, dtype=source.dtype) for _ in range(len(target))]
    for k, (s, t) in enumerate(index.T.tolist()):
        m = torch.nn.functional.silu(torch.cat([source[s], target[t], inv[k]]) @ torch.cat([w_s, w_t, w_inv])) @ w_out
        rows[t] = rows[t] + m * torch.sigmoid(m @ gate)
    return torch.stack(rows)


def parameters():
    shapes = [(D, H), (D, H), (3, H), (H, H), (H, 1)] * 4 + [(D + H, D), (D + 2 * H, D), (D + H, D)]
    return [randn(*s, seed=20 + i) / 2 for i, s in enumerate(shapes)]


def operands(name: str = "CH3OH"):
    _, positions, _ = molecule(name)
    cells, pairs = lift(positions)
    return positions, cells, pairs, [randn(len(c), D, seed=i) for i, c in enumerate(cells)]


def test_layer() -> None:
    """Gradients to features, positions (lengths and areas) and weights."""
    positions, cells, pairs, x = operands()
    assert len(cells[2]) > 2 and all(p.numel() for p in pairs.values())
    run = lambda collect: lambda *t: layer(*t, cells=cells, pairs=pairs, collect=collect)
    agree(run(split), run(loop), *x, positions, *parameters())


@pytest.mark.parametrize("inversion", [False, True])
def test_rigid_motions_and_order(inversion: bool) -> None:
    """Features are invariant; pooled by dimension, so are they to the order of atoms."""
    positions, cells, pairs, x = operands()
    f = lambda x, r, cells, pairs: layer(*x, r, *parameters(), cells=cells, pairs=pairs, collect=split)
    R = rotation(1) * (-1 if inversion else 1)
    want = f(x, positions, cells, pairs)
    torch.testing.assert_close(f(x, positions @ R.T + 1.0, cells, pairs), want)
    same = [torch.ones(len(c), D, dtype=torch.float64) for c in cells]
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    ptr = torch.tensor([0, *(len(c) for c in cells)]).cumsum(0)
    moved, others = lift(positions[order])
    pooled = [segment_reduce(f(same, *t), ptr) for t in ((positions, cells, pairs), (positions[order], moved, others))]
    torch.testing.assert_close(*pooled)
