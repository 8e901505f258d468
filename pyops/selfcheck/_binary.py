"""Self-check cases of the binary family."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from . import _quantize
from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    if not op.startswith("bits_"):
        return _quantize.cases(op, g)
    special = {
        "bits_bag": bag_cases,
        "bits_gemm": gemm_cases,
        "bits_conv": conv_cases,
        "bits_w1a8": mixed_cases,
        "bits_w1a16": mixed_cases,
    }
    return special.get(op, bit_cases)(op, g)


def words(g: torch.Generator, *shape: int, K: int) -> Tensor:
    """Random rows of K bits, padding 0."""
    w = torch.randint(-(2**63), 2**63 - 1, (*shape, (K + 63) // 64), generator=g)
    if K % 64 and w.numel():
        w[..., -1] &= (1 << K % 64) - 1
    return w


def bit_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    draw = lambda *shape: torch.randint(-2, 3, shape, generator=g)  # many zeros
    for K in (1, 63, 64, 200):
        if op == "bits_pack":
            for dtype in (*DTYPES, torch.int32, torch.int64):
                for test, invert in ((0, False), (1, True), (2, False), (3, False)):
                    yield draw(5, K).to(dtype), None, test, 1.0, invert
                    yield draw(2, K, 19).to(dtype), draw(K).to(dtype) if dtype.is_floating_point else None, test, 1.0, invert
        elif op == "bits_unpack":
            for code in range(6):
                yield words(g, 5, K=K), K, code, -1.0, 1.0
                yield words(g, 2, 19, K=K), K, code, 0.0, 1.0
        elif op == "bits_count":
            a, b = words(g, 9, K=K), words(g, 9, K=K)
            yield from ((a, None, 0), (a, b, 1), (a, b, 2))
        else:
            yield from ((words(g, 1, 1, K=K),), (words(g, 2, 130, K=K),))


def epilogues(g: torch.Generator, N: int, *lead: int) -> Iterator[tuple]:
    """(scale, bias, residual, prelu, shift, threshold, out): every result, exact in float32."""
    draw = lambda *shape: torch.randint(-8, 9, shape, generator=g) / 4
    none = (None,) * 6
    yield *none, 0
    yield draw(N), draw(N), None, None, None, None, 1
    for out, dtype in ((1, torch.float32), (2, torch.bfloat16), (3, torch.float16)):
        yield draw(N), draw(N), draw(*lead, N).to(dtype), draw(3, N), None, None, out
    yield draw(N), draw(N), draw(*lead, N), draw(3, N), draw(N), None, 4
    flips = torch.randint(-1, 1, (N,), generator=g)
    yield *none[:5], torch.stack([torch.randint(-9, 10, (N,), generator=g), flips]).int(), 4


def gemm_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    for M, N, K in ((1, 1, 1), (5, 3, 70), (7, 67, 129), (70, 130, 64), (3, 64, 4200)):
        a, b = words(g, M, K=K), words(g, 2, N, K=K)
        for e in epilogues(g, N, M):
            yield a, b[:1], None, K, [-2], [0], 0, K, False, *e
        none = ((None,) * 6, 0)
        yield a, b, None, K, [-1, 1], [0, 0], 0, 0, False, *none[0], 0
        yield a, b, None, K, [-1, 2], [1, -2], -1, 0, True, *none[0], 0
        yield words(g, 3, M, K=K), words(g, 1, 3, N, K=K), None, K, [-2], [0], 0, K, False, *none[0], 0
        *_, e = epilogues(g, N, M)  # a threshold
        yield words(g, 3, M, K=K), words(g, 1, 3, N, K=K), None, K, [-2], [0], 0, K, False, *e


def conv_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    H, W = 7, 6
    windows = ([3, 3, 1, 1, 1, 1, 1, 1, 7, 6], [2, 3, 2, 1, 0, 2, 1, 2, 3, 6], [1, 1, 1, 1, 0, 0, 1, 1, 7, 6])
    for C, groups, O in ((3, 1, 5), (64, 1, 66), (70, 1, 9), (70, 70, 70), (9, 9, 18), (128, 2, 20), (12, 3, 6)):
        for i, window in enumerate(windows):
            x, w = words(g, 2, H, W, K=C), words(g, O, K=window[0] * window[1] * C // groups)
            for pad in range(3):
                yield x, w, None, None, C, groups, window, pad, pad == 1, *(None,) * 6, 0
            if i == 0:
                for e in epilogues(g, O, 2, *window[8:]):
                    yield x, w, None, None, C, groups, window, 0, False, *e


def mixed_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    for M, N, K in ((1, 3, 5), (6, 70, 130), (5, 64, 64), (29, 65, 2100), (3, 5, 0)):
        w = words(g, 2, N, K=K)
        if op == "bits_w1a8":
            x = torch.randint(-128, 128, (M, K), generator=g).to(torch.int8)
            yield from ((x, w[:1], None, [2], -1), (x, w, None, [1, -2], 3))
            continue
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.randn(M, K, generator=g).to(dtype)
            yield from ((x, w[:1], None, [1.0], 0.0), (x, w, None, [0.5, -0.5], 1.5))


def bag_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Bags of 0, 1 and 600 rows among random ones, over tables of 1 to 19 words."""
    for K, dtype in ((1, torch.int64), (64, torch.int32), (130, torch.int64), (449, torch.int32), (1200, torch.int64)):
        sizes = torch.cat([torch.tensor([0, 1, 600, 0]), torch.randint(0, 40, (9,), generator=g), torch.tensor([255, 256, 7])])
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(dtype)
        index = torch.randint(0, 17, (int(offsets[-1]),), generator=g).to(dtype)
        for reduce in range(3):
            for zero, one in ((-1, 1), (1, -1), (0, 1)):
                yield words(g, 17, K=K), index, offsets, K, zero, one, reduce
    yield words(g, 17, K=70), index[:0], offsets[:1], 70, -1, 1, 0
