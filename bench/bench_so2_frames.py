"""Eigen-decomposition of small matrices, frames of point clouds, the EGNN step. Operators: eigh_small, eigh_small_bwd.

Peers: torch.linalg.eigh; frame averaging as published, a Python loop over clouds; the EGNN layer as published, with concatenated
inputs of the edge network and unsorted sums. Eigenvectors enter by their squares and frames by absolute values: signs are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.so2 import egnn_step, eigh_small, frame_average, frames
from torch import Tensor
from torch.nn.functional import silu

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .structures import structure

EIGH, FRAMES, EGNN = "eigh_small", "frame_average", "egnn_step"


def cases(level: str) -> Iterator[Case]:
    count = at_level(level, smoke=300, quick=20_000, default=20_000, full=200_000)
    for n in at_level(level, smoke=(2, 5), quick=(3, 5), default=(2, 3, 5, 8), full=(2, 3, 4, 5, 6, 7, 8)):
        size = 4 * count * (2 * n * n + n)
        for direction in (FWD, BOTH):
            traffic = Traffic(size, size, count * 60 * n * n)
            build = partial(_eigh, direction, n, count)
            yield Case(EIGH, direction, f"{count} matrices", f"{n} x {n}", n, build, traffic, targets={"torch": 5.0})
    clouds = at_level(level, smoke=20, quick=500, default=500, full=5000)
    size = 4 * clouds * 20 * 3 * 18
    build = partial(_frames, clouds)
    title = f"{clouds} clouds of 10 to 30 points, 8 frames"
    yield Case(FRAMES, FWD, f"{clouds} clouds", title, 3, build, Traffic(size, size, size), targets={"loop": 5.0})
    cells, H = at_level(level, smoke=4, quick=4, default=4, full=6), at_level(level, smoke=8, quick=64, default=64, full=128)
    atoms = structure("copper", cells)
    E, N = atoms.num_edges, atoms.num_nodes
    for direction in (FWD, BOTH):
        low, flops = 4 * (4 * N * H + 4 * H * H), 2 * E * H * 2 * H
        traffic = Traffic(low, low + 8 * E * H * 4, flops * (1 if direction == FWD else 3))
        title = f"H={H}, {atoms.title}"
        yield Case(EGNN, direction, f"copper {N}", title, H, partial(_egnn, direction, cells, H), traffic)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _squares(function, a: Tensor) -> Tensor:
    w, v = function(a)
    return torch.cat([w, (v * v).flatten(1)], 1)


@lru_cache(maxsize=1)
def _matrices(n: int, count: int) -> Tensor:
    """Eigenvalues at least 1/2 apart: what follows from eigenvectors is then as exact as the dtype."""
    q = torch.linalg.qr(_draw(count, n, n).double()).Q
    w = torch.arange(1.0, n + 1) + torch.rand(count, n, generator=torch.Generator().manual_seed(1)) / 2
    return (q @ torch.diag_embed(w.double()) @ q.mT).float()


def _eigh(direction: str, n: int, count: int, device: str) -> Prepared:
    a = _matrices(n, count).to(device).requires_grad_(direction == BOTH)
    g = _draw(count, n + n * n, seed=2).to(device)

    def reference():
        wide = a.detach().double().requires_grad_()
        out = _squares(torch.linalg.eigh, wide)
        d = torch.autograd.grad(out, wide, g.double())[0]
        return (out.detach(), (d + d.mT) / 2)[: 2 if direction == BOTH else 1]

    def symmetric(function, a):
        return _squares(function, (a + a.mT) / 2)  # torch's gradient is not symmetric

    ours = Provider(OURS, runner(lambda: _squares(eigh_small, a), direction, (a,), g))
    peer = Provider("torch", runner(lambda: symmetric(torch.linalg.eigh, a), direction, (a,), g))
    return Prepared(ours, [peer], reference)


def _loop(pos: Tensor, ptr: list[int], w: Tensor) -> tuple[Tensor, ...]:
    """Frames, a map that is not equivariant, and its average: cloud by cloud."""
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=pos.dtype, device=pos.device)] * 3)
    values, out = [], []
    for a, b in zip(ptr, ptr[1:], strict=False):
        x = pos[a:b] - pos[a:b].mean(0)
        vals, U = torch.linalg.eigh(x.T @ x)
        R = U * signs[:, None]
        values.append(vals)
        out.append((torch.tanh(x @ R @ w) @ w.T @ R.mT).mean(0))
    return torch.stack(values), torch.cat(out)


def _frames(clouds: int, device: str) -> Prepared:
    sizes = torch.randint(10, 31, (clouds,), generator=torch.Generator().manual_seed(0))
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    scale = torch.tensor([1.0, 2.0, 4.0])
    pos, w, bounds = (_draw(int(ptr[-1]), 3) * scale).to(device), _draw(3, 3, seed=1).to(device), ptr.tolist()
    ptr = ptr.to(device)

    def run():
        f = frames(pos, ptr)
        return f.eigenvalues, frame_average(f, torch.tanh(f.pos @ w) @ w.T, "vector")

    ours = Provider(OURS, run)
    return Prepared(ours, [Provider("loop", lambda: _loop(pos, bounds, w))], lambda: _loop(pos.double(), bounds, w.double()))


def _egnn(direction: str, cells: int, H: int, device: str) -> Prepared:
    atoms = structure("copper", cells)
    index, N = atoms.edge_index.to(device), atoms.num_nodes
    graph = structops.Graph(index, num_nodes=N)
    src, dst = index[:, torch.randperm(index.shape[1], generator=torch.Generator().manual_seed(0))]
    x, h = (_draw(N, 3) / 2).to(device), _draw(N, H, seed=1).to(device)
    w1, w2, wx = (_draw(*s, seed=k).to(device) / s[0] ** 0.5 for k, s in enumerate(((2 * H + 1, H), (H, H), (H, 1)), 2))
    leaves = tuple(t.requires_grad_(direction == BOTH) for t in (x, h, w1, w2, wx))
    g = _draw(N, 3 + H, seed=9).to(device)

    def ours(x, h, w1, w2, wx, recompute=True):
        return torch.cat(
            egnn_step(
                graph,
                x,
                h @ w1[H : 2 * H],
                h @ w1[:H],
                w1[2 * H],
                message=lambda z: silu(z @ w2),
                coordinate=lambda m: m @ wx,
                recompute=recompute,
            ),
            1,
        )

    def published(x, h, w1, w2, wx):
        d = x[dst] - x[src]
        m = silu(silu(torch.cat([h[dst], h[src], d.square().sum(1, keepdim=True)], 1) @ w1) @ w2)
        count = torch.bincount(dst, minlength=N).clamp(min=1)[:, None]
        move = torch.zeros_like(x).index_add(0, dst, d * (m @ wx)) / count
        return torch.cat([x + move, torch.zeros_like(h).index_add(0, dst, m)], 1)

    def reference():
        wide = tuple(t.detach().double().requires_grad_() for t in leaves)
        out = published(*wide)
        return (out.detach(), *torch.autograd.grad(out, wide, g.double()))[: None if direction == BOTH else 1]

    run = lambda f: runner(lambda: f(*leaves), direction, leaves, g)
    peers = [Provider("torch", run(published))]
    if direction == BOTH:
        peers.append(Provider("recompute=False", run(partial(ours, recompute=False))))
    return Prepared(Provider(OURS, run(ours)), peers, reference)


def test_frames(case, bench_case):
    bench_case(case)
