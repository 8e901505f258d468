"""Fast feed-forward networks and masks: operators fff_descend, fff_leaf, fff_leaf_bwd, topk_mask, mask_apply.

Peers: the dense layer of the same width, the Python loop and the gathered copy of the published code; torch's sort.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic

B = structops.binary
NETWORK, MASK = "fff hard", "edge_popup"


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(3, 6, 20)],
        quick=[(8, 768, 256)],
        default=[(8, 768, 256), (10, 768, 256), (10, 768, 1)],
        full=[(d, 768, b) for d in (8, 10, 11) for b in (1, 64, 256, 1024)],
    )
    for depth, I, rows in grid:
        for direction in (FWD, BOTH) if depth <= 8 else (FWD,):
            yield _network(depth, I, rows, direction)
    for n in at_level(level, smoke=[500], quick=[], default=[1 << 22], full=[1 << 20, 1 << 24]):
        build = partial(_mask, n)
        yield Case(MASK, BOTH, "dense", f"{n} weights, half kept", n, build, Traffic(16 * n, 24 * n, 0), {"torch.sort": 3.0})


def _network(depth: int, I: int, rows: int, direction: str) -> Case:
    H = 8
    leaves = min(rows, 2**depth)
    moved = 4 * (2 * rows * I + 2 * leaves * I * H + min(rows * depth, 2**depth) * I)
    flops = 2 * rows * I * (depth + 2 * H) * (3 if direction == BOTH else 1)
    targets = {"dense of the same width": 10.0} if direction == FWD else {}
    title = f"depth {depth}, {I} -> {2**depth} leaves of {H} -> {I}, {rows} rows"
    return Case(
        NETWORK, direction, "dense", title, rows, partial(_fff, depth, I, H, rows, direction), Traffic(moved, moved, flops), targets
    )


@lru_cache(maxsize=1)
def _operands(depth: int, I: int, H: int, rows: int, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    n, L = 2**depth - 1, 2**depth
    shapes = ((rows, I), (n, I), (n,), (L, I, H), (L, H), (L, H, I), (L, I))
    return [(torch.randn(*s, generator=g) / math.sqrt(s[-1] if len(s) < 3 else s[1])).to(device) for s in shapes]


def _loop(x, nodes, bias, w1, b1, w2, b2) -> Tensor:
    """The published inference: row by row."""
    depth, out = (nodes.shape[0] + 1).bit_length() - 1, []
    for row in x:
        node = 0
        for _ in range(depth):
            node = 2 * node + 1 + int(row @ nodes[node] + bias[node] >= 0)
        leaf = node - (2**depth - 1)
        out.append(torch.relu(row @ w1[leaf] + b1[leaf]) @ w2[leaf] + b2[leaf])
    return torch.stack(out)


def _gathered(x, nodes, bias, w1, b1, w2, b2) -> Tensor:
    """The published batched form: every row gets a copy of its leaf."""
    depth, node = (nodes.shape[0] + 1).bit_length() - 1, torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    for _ in range(depth):
        node = 2 * node + 1 + ((x * nodes[node]).sum(1) + bias[node] >= 0)
    leaf = node - (2**depth - 1)
    hidden = torch.relu(torch.einsum("bi,bih->bh", x, w1[leaf]) + b1[leaf])
    return torch.einsum("bh,bho->bo", hidden, w2[leaf]) + b2[leaf]


def _fff(depth: int, I: int, H: int, rows: int, direction: str, device: str) -> Prepared:
    operands = _operands(depth, I, H, rows, device)
    x, nodes, bias, *leaves = operands
    mine, theirs = ([t.detach().requires_grad_(direction == BOTH) for t in (x, *leaves)] for _ in range(2))
    grad = torch.ones_like(x)
    do = lambda f, ts: runner(lambda: f(ts[0], nodes, bias, *ts[1:]), direction, tuple(ts), grad)
    ours = Provider(OURS, do(B.fff_hard, mine))
    peers = [Provider("gathered leaves", do(_gathered, theirs))]
    if direction == FWD:
        w1, w2 = leaves[0].permute(1, 0, 2).reshape(I, -1).contiguous(), leaves[2].reshape(-1, I).contiguous()
        dense = runner(lambda: torch.relu(x @ w1) @ w2, direction)

        def timed_only():
            """The dense layer computes another function: it is timed, and its result is not compared."""
            dense()
            return ()

        peers += [Provider("dense of the same width", timed_only), Provider("Python loop", do(_loop, theirs))]
    wide = [t.detach().double().requires_grad_(direction == BOTH) for t in (x, *leaves)]
    reference = runner(lambda: _gathered(wide[0], nodes.double(), bias.double(), *wide[1:]), direction, tuple(wide), grad.double())
    return Prepared(ours, peers, reference)


def _popup(weight: Tensor, score: Tensor) -> Tensor:
    """The published code: a full sort of the scores."""
    mask = torch.ones(score.numel(), device=score.device, dtype=score.dtype)
    mask[score.detach().abs().reshape(-1).sort().indices[: score.numel() - score.numel() // 2]] = 0
    through = score + (mask.reshape(score.shape) - score).detach()
    return weight * through


@lru_cache(maxsize=1)
def _scores(n: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    # Distinct scores: a sort that is not stable breaks ties otherwise.
    score = (torch.randperm(n, generator=g) + 1).double() / n
    return tuple(t.to(device) for t in (torch.randn(n, generator=g), score, torch.randn(n, generator=g)))


def _mask(n: int, device: str) -> Prepared:
    weight, score, grad = _scores(n, device)
    run = lambda f, dtype: (
        lambda w, s: runner(lambda: f(w, s), BOTH, (s,), grad.to(dtype))
    )(weight.to(dtype), score.to(dtype).detach().requires_grad_())
    ours = Provider(OURS, run(lambda w, s: B.edge_popup(w, s, n // 2), torch.float32))
    return Prepared(ours, [Provider("torch.sort", run(_popup, torch.float32))], run(_popup, torch.float64))


def test_layers(case, bench_case):
    bench_case(case)
