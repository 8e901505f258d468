"""Second-order dependency trees from the factors of sibling scores: log-partition with gradients of arcs and factors, against the
same through the scores themselves; and triaffine scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from . import treebank, wavefront
from .case import BOTH, OURS, Case, Prepared, Provider, at_level
from .models import Traffic
from .peers import load

S = 4


def cases(level: str) -> Iterator[Case]:
    equal = at_level(
        level,
        smoke=[(3, 6, 5)],
        quick=[(32, 40, 64)],
        default=[(128, 40, 64), (16, 100, 64)],
        full=[(B, n, D) for B, n in ((8, 40), (128, 40), (16, 100), (4, 200)) for D in (16, 64, 128)],
    )
    for B, n, D in equal:
        yield _case(f"B={B}, n={n}", torch.full((B,), n), D)
    title, real = treebank.lengths()
    batch = real[: at_level(level, smoke=8, quick=32, default=64, full=64)]
    yield _case(f"{title}, B={len(batch)}", batch, 64)
    B, n, d = at_level(level, smoke=(2, 5, 4), quick=(8, 40, 100), default=(32, 40, 100), full=(32, 40, 100))
    build = partial(_triaffine, B, n, d)
    flops = 2 * 3 * B * (n * d**3 + n * n * d * d + n**3 * d)
    size = S * (B * (3 * n * d + n**3) + d**3)
    traffic = Traffic(2 * size, 2 * size, flops)
    yield Case("tree triaffine scores", BOTH, "trees", f"B={B}, n={n}, d={d}", B, build, traffic, {}, items=B)


def _case(shape: str, lengths: Tensor, D: int) -> Case:
    words = lengths.tolist()
    size = sum(2 * S * ((n + 1) ** 2 + 3 * (n + 1) * D) for n in words)
    flops = sum(3 * 2 * D * (n**3) // 3 + 4 * 5 * n**3 // 6 for n in words)
    build = partial(_build, tuple(words), D)
    traffic, op = Traffic(size, size, flops), "tree log-partition, factored siblings"
    return Case(op, BOTH, "trees", f"{shape}, D={D}", len(words), build, traffic, {}, items=len(words))


def _dense(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    pairs = (x[:, :, None] * y[:, None]).flatten(1, 2)
    return torch.bmm(pairs, z.transpose(1, 2)).reshape(*x.shape[:2], x.shape[1], x.shape[1])


@lru_cache(maxsize=1)
def _inputs(words: tuple[int, ...], D: int, device: str) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(5)
    B, N = len(words), max(words) + 1
    arc = torch.randn(B, N, N, generator=g)
    x, y, z = (torch.randn(B, N, D, generator=g) * D ** (-1 / 6) for _ in range(3))
    return tuple(t.to(device) for t in (arc, x, y, z, torch.tensor(words), torch.rand(B, generator=g)))


def _build(words: tuple[int, ...], D: int, device: str) -> Prepared:
    *scores, lengths, grad = _inputs(words, D, device)

    def run(partition: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> Callable:
        leaves = [t.detach().to(dtype).requires_grad_() for t in scores]

        def both() -> tuple[Tensor, ...]:
            out = partition(*leaves)
            return (out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype)))

        return both

    tree = structops.tree.dependency_log_partition
    ours = run(lambda a, x, y, z: tree(a, lengths, sib_factors=(x, y, z)))
    dense = run(lambda a, x, y, z: tree(a, lengths, _dense(x, y, z)))
    reference = run(lambda a, x, y, z: wavefront.dependency(a, lengths, _dense(x, y, z)), torch.float64)
    structs, reason = load("supar.structs")
    supar = None
    if structs is not None:
        supar = run(lambda a, x, y, z: structs.Dependency2oCRF((a, _dense(x, y, z)), lengths).log_partition)
    peers = [Provider("structops, dense siblings", dense), Provider("supar", supar, reason)]
    return Prepared(Provider(OURS, ours), peers, reference, tolerance=2e-4)


def _triaffine(B: int, n: int, d: int, device: str) -> Prepared:
    g = torch.Generator().manual_seed(6)
    x, y, z = (torch.randn(B, n, d, generator=g).to(device) for _ in range(3))
    w = (torch.randn(d + 1, d + 1, d, generator=g) / d).to(device)
    grad = torch.randn(B, n, n, n, generator=g).to(device)

    def run(f: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> Callable:
        leaves = [t.to(dtype).requires_grad_() for t in (x, y, z, w)]

        def both() -> tuple[Tensor, ...]:
            out = f(*leaves)
            return (out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype)))

        return both

    one = lambda t: torch.cat([t, torch.ones_like(t[..., :1])], -1)

    def einsum(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:  # supar's order of contraction
        return torch.einsum("bxi,bzij,byj->bxyz", one(x), torch.einsum("bzk,ijk->bzij", z, w), one(y))

    ours = run(lambda x, y, z, w: structops.tree.triaffine(x, y, z, w, True, True))
    peers = [Provider("torch einsum, as supar", run(einsum))]
    return Prepared(Provider(OURS, ours), peers, run(einsum, torch.float64), tolerance=2e-4)


def test_factored(case, bench_case):
    bench_case(case)
