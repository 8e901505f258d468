"""Bags of packed embeddings, block-sparse linear layers, attention on bits: bits_bag, block_spmm, bits_gemm.

Peers: torch's own operators on +-1 floats, dense and BSR layers, and the composition of torch calls that each of ours replaces.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.binary import _ops as ops
from torch import Tensor
from torch.nn import functional as F

from .bench_binary_linear import FLOAT, signs
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic

B = structops.binary
BAG, LEARNED, BLOCKS, ATTENTION = "embedding bag of bits", "embedding bag, training", "block-sparse linear", "bool attention"
UNPACKED, GATHERED, DENSE, BSR = "gather, unpack, reduce", "gather, batched product, reduce", "torch dense", "torch BSR"
COMPOSED, SIMULATED = "float composition", "float simulation"


def cases(level: str) -> Iterator[Case]:
    for N, D, bags, size in at_level(
        level,
        smoke=[(50, 70, 5, 3)],
        quick=[(100_000, 128, 4096, 20)],
        default=[(100_000, 128, 4096, 20), (1_000_000, 64, 8192, 8), (50_000, 512, 2048, 50)],
        full=[(N, D, 4096, size) for N in (10_000, 1_000_000) for D in (64, 128, 512, 1024) for size in (4, 20, 300)],
    ):
        E = bags * size
        moved = E * (8 * ops.words_of(D) + 8) + 4 * bags * D
        title = f"{bags} bags of {size} of {N} rows of {D}"
        yield Case(BAG, FWD, "random", title, D, partial(_bag, N, D, bags, size), Traffic(moved, moved, E * D), {FLOAT: 2.0})
        low, high = 4 * (3 * N * D + 2 * bags * D) + 16 * E, 4 * (3 * N * D + 2 * E * D + 2 * bags * D) + 16 * E
        yield Case(LEARNED, BOTH, "random", title, D, partial(_learned, N, D, bags, size), Traffic(low, high, 2 * E * D))
    for rows, width, block in at_level(
        level,
        smoke=[(3, 24, 4)],
        quick=[(256, 1024, 32)],
        default=[(256, 2048, 16), (256, 2048, 64)],
        full=[(rows, 4096, block) for rows in (1, 64, 512) for block in (8, 16, 32, 64)],
    ):
        E = int((width // block) ** 2 * DENSITY)
        for direction in (FWD, BOTH):
            times = 1 if direction == FWD else 3
            moved = 4 * (2 * rows * width + E * block * block) * times
            title = f"{rows} x {width} -> {width}, {DENSITY:.0%} of blocks of {block}"
            build = partial(_blocks, rows, width, block, direction)
            work = Traffic(moved, moved, 2 * times * rows * E * block**2)
            yield Case(BLOCKS, direction, "random", title, block, build, work, {DENSE: 3.0})
    for heads, T, D in at_level(
        level,
        smoke=[(2, 20, 9)],
        quick=[(4, 512, 64)],
        default=[(12, 512, 64), (12, 2048, 64)],
        full=[(12, 4096, 64), (96, 128, 64)],
    ):
        for direction in (FWD, BOTH):
            moved, products = 16 * heads * T * D, 2 if direction == FWD else 7
            build = partial(_attention, heads, T, D, direction)
            title = f"{heads} heads, {T} x {T} of {D}"
            work = Traffic(moved, moved, 2 * products * heads * T * T * D)
            yield Case(ATTENTION, direction, "random", title, T, build, work, {COMPOSED: 10.0 if direction == FWD else 1.5})


DENSITY = 0.1


@lru_cache(maxsize=1)
def _table(N: int, D: int, E: int, device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(N + D)
    return signs(torch.randn(N, D, generator=g)).to(device), torch.randint(0, N, (E,), generator=g).to(device)


def _bag(N: int, D: int, bags: int, size: int, device: str) -> Prepared:
    table, index = _table(N, D, bags * size, device)
    offsets = torch.arange(0, bags * size, size, device=device)
    ends = torch.arange(0, bags * size + 1, size, device=device)
    bits = B.pack(table)
    do = lambda f: runner(f, FWD)
    peers = [
        Provider(FLOAT, do(lambda: F.embedding_bag(index, table, offsets, mode="sum"))),
        Provider(UNPACKED, do(lambda: structops.segment_reduce(B.binary_embedding(index, bits), ends))),
    ]
    ours = Provider(OURS, do(lambda: B.binary_embedding_bag(index, offsets, bits, "sum")))
    return Prepared(ours, peers, do(lambda: F.embedding_bag(index, table.double(), offsets, mode="sum")), tolerance=0)


def _learned(N: int, D: int, bags: int, size: int, device: str) -> Prepared:
    table, index = _table(N, D, bags * size, device)
    offsets = torch.arange(0, bags * size, size, device=device)
    latent, grad = table * torch.rand(N, 1, device=device) * 2, torch.rand(bags, D, device=device)

    def run(f, dtype: torch.dtype = torch.float32):
        leaf = latent.to(dtype, copy=True).requires_grad_()
        return runner(lambda: f(leaf), BOTH, (leaf,), grad.to(dtype))

    simulated = lambda w: F.embedding_bag(index, _through(w), offsets, mode="sum")
    ours = Provider(OURS, run(lambda w: B.binary_embedding_bag(index, offsets, w, "sum")))
    return Prepared(ours, [Provider(SIMULATED, run(simulated))], run(simulated, torch.float64))


def _through(t: Tensor) -> Tensor:
    """Signs, with the gradient of a clamp."""
    return (signs(t).to(t.dtype) - t.clamp(-1, 1)).detach() + t.clamp(-1, 1)


def _gathered(x: Tensor, graph: structops.Graph, blocks: Tensor) -> Tensor:
    a, b = blocks.shape[1:]
    parts = x.reshape(-1, graph.num_src, b).transpose(0, 1)[graph.col.long()] @ blocks.transpose(1, 2)
    y = structops.segment_reduce(parts.contiguous(), graph.rowptr)
    return y.transpose(0, 1).reshape(-1, graph.num_dst * a)


def _blocks(rows: int, width: int, block: int, direction: str, device: str) -> Prepared:
    g, n = torch.Generator().manual_seed(block), width // block
    mask = torch.zeros(n * n)
    mask[torch.randperm(n * n, generator=g)[: max(1, int(n * n * DENSITY))]] = 1
    graph = B.mask_graph(mask.reshape(n, n).to(device))
    x, blocks, grad = (
        torch.randn(*s, generator=g).to(device) for s in ((rows, width), (graph.num_edges, block, block), (rows, width))
    )
    dense = torch.zeros(n, n, block, block, device=device)
    dense[mask.reshape(n, n).bool().to(device)] = blocks
    dense = dense.transpose(1, 2).reshape(width, width).contiguous()

    def run(f, second: Tensor, dtype: torch.dtype = torch.float32):
        leaves = tuple(t.detach().to(dtype, copy=True).requires_grad_(direction == BOTH) for t in (x, second))
        return runner(lambda: f(*leaves), direction, leaves, grad.to(dtype))

    def whole(x: Tensor, blocks: Tensor) -> Tensor:
        w = blocks.new_zeros(n * n, block, block).index_copy(0, mask.nonzero()[:, 0].to(device), blocks)
        return F.linear(x, w.reshape(n, n, block, block).transpose(1, 2).reshape(width, width))

    ours = Provider(OURS, run(lambda x, w: B.block_sparse_linear(x, graph, w), blocks))
    dense_run = run(F.linear, dense)
    # The dense layer also has a gradient where the mask is 0: that result is timed and not compared.
    peers = [Provider(DENSE, lambda: dense_run()[:2]), Provider(GATHERED, run(lambda x, w: _gathered(x, graph, w), blocks))]
    if direction == FWD:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bsr = dense.to_sparse_bsr((block, block))
            peers.append(Provider(BSR, runner(lambda: (bsr @ x.t()).t(), FWD)))
    return Prepared(ours, peers, run(whole, blocks, torch.float64))


def _floats(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = _through(q) @ _through(k).transpose(-1, -2) / math.sqrt(q.shape[-1])
    # torch's clamp passes the gradient at its bounds, the threshold does not.
    surrogate = scores * (scores.abs() < 1)
    return (surrogate + ((scores > 0).to(q.dtype) - surrogate).detach()) @ _through(v)


def _attention(heads: int, T: int, D: int, direction: str, device: str) -> Prepared:
    g = torch.Generator().manual_seed(T)
    *given, grad = (torch.randn(heads, T, D, generator=g).to(device) for _ in range(4))

    def run(f, dtype: torch.dtype = torch.float32):
        leaves = tuple(t.to(dtype, copy=True).requires_grad_(direction == BOTH) for t in given)
        return runner(lambda: f(*leaves), direction, leaves, grad.to(dtype))

    ours = Provider(OURS, run(lambda *qkv: B.binary_attention(*qkv, probability="bool")))
    return Prepared(ours, [Provider(COMPOSED, run(_floats))], run(_floats, torch.float64))


def test_structured(case, bench_case):
    bench_case(case)
