"""Attention within ragged segments, as large as molecules or as texts, against padding, nested tensors and a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from structops.sparse import segment_attention
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic

# Name -> (segments, mean length, longest).
BATCHES = {"synthetic molecules": (2000, 23, 60), "synthetic texts": (64, 200, 1000)}


def _lengths(name: str, small: bool) -> Tensor:
    """Log-normal sizes of the segments."""
    count, mean, longest = BATCHES[name]
    g = torch.Generator().manual_seed(4)
    drawn = torch.randn(count // 10 if small else count, generator=g).mul(0.5).exp() * mean
    return drawn.long().clamp(1, longest)


def cases(level: str) -> Iterator[Case]:
    H, D = (2, 8) if level == "smoke" else (4, 32)
    names = at_level(level, smoke=list(BATCHES), quick=list(BATCHES)[:1], default=list(BATCHES), full=list(BATCHES))
    for name in names:
        n = _lengths(name, level == "smoke")
        rows, pairs = int(n.sum()), int(n.square().sum())
        for direction in (FWD, BOTH):
            passes = 1 if direction == FWD else 3
            moved = 4 * rows * H * D * 4 * passes
            traffic = Traffic(moved, moved, pairs * H * D * (4 if direction == FWD else 18))
            build = partial(_build, name, H, D, direction, level == "smoke")
            yield Case("segment attention", direction, name, f"{len(n)} segments, {rows} rows, {H}x{D}", H * D, build, traffic)


def _loop(sizes: list[int]) -> Callable:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = (t.transpose(0, 1)[None].split(sizes, 2) for t in (q, k, v))
        return torch.cat([sdpa(*one) for one in zip(*heads, strict=True)], 2)[0].transpose(0, 1)

    return run


def _padded(n: Tensor) -> Callable:
    inside = torch.arange(int(n.max()), device=n.device) < n[:, None]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pad = lambda t: t.new_zeros(*inside.shape, *t.shape[1:]).masked_scatter(inside[..., None, None], t).transpose(1, 2)
        return sdpa(pad(q), pad(k), pad(v), inside[:, None, None]).transpose(1, 2)[inside]

    return run


def _build(name: str, H: int, D: int, direction: str, small: bool, device: str) -> Prepared:
    n = _lengths(name, small).to(device)
    indptr = torch.cat([n.new_zeros(1), n.cumsum(0)])
    rows = int(indptr[-1])
    leaves = tuple(
        data.features(rows, H * D, seed=i, device=device).view(rows, H, D).requires_grad_(direction == BOTH) for i in range(3)
    )
    grad = data.gradient(rows, H * D, device=device).view(rows, H, D)
    do = lambda forward: runner(lambda: forward(*leaves), direction, leaves, grad)

    def nested(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        jagged = (torch.nested.nested_tensor_from_jagged(t, indptr).transpose(1, 2) for t in (q, k, v))
        return sdpa(*jagged).transpose(1, 2).values()

    peers = [
        Provider("torch padded", do(_padded(n))),
        Provider("torch nested", do(nested)),
        Provider("torch loop", do(_loop(n.tolist()))),
    ]

    def reference():
        wide = [t.detach().double().requires_grad_() for t in leaves]
        out = _loop(n.tolist())(*wide)
        return (out.detach(), *torch.autograd.grad(out, wide, grad.double())) if direction == BOTH else (out.detach(),)

    return Prepared(Provider(OURS, do(lambda q, k, v: segment_attention(q, k, v, indptr))), peers, reference)


def test_segment_attention(case, bench_case):
    bench_case(case)
