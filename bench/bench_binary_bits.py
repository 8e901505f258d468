"""Making, reading and counting bits: bits_pack, bits_unpack, bits_count, bits_panels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from structops import binary
from structops.binary import _ops as ops
from structops.kernels.binary import bits_ref
from torch import Tensor

from .case import FWD, OURS, Case, Prepared, Provider, at_level
from .models import Traffic


def cases(level: str) -> Iterator[Case]:
    R, K = at_level(level, smoke=(7, 130), quick=(1024, 4096), default=(4096, 4096), full=(8192, 8192))
    size = R * K
    for op, moved in (
        ("pack", size * 4 + size // 8),
        ("pack columns", size * 4 + size // 8),
        ("unpack", size * 4 + size // 8),
        ("popcount", size // 8 + R * 4),
        ("hamming", size // 4 + R * 4),
        ("bits_panels", size // 4),
    ):
        yield Case(op, FWD, "random", f"{R} x {K}", K, partial(_build, op, R, K), Traffic(moved, moved, size))


@lru_cache(maxsize=1)
def _values(R: int, K: int, device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(R + K)
    return torch.randn(R, K, generator=g).to(device), torch.randn(R, K, generator=g).to(device)


def _as_words(octets: np.ndarray) -> Tensor:
    return torch.from_numpy(np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8))).view(np.int64))


def _build(op: str, R: int, K: int, device: str) -> Prepared:
    x, y = _values(R, K, device)
    a, b = binary.pack(x), binary.pack(y)
    one = lambda name, f: Provider(name, lambda: (f(),))
    numpy = lambda t, axis: np.packbits(t.numpy() >= 0, axis=axis, bitorder="little")
    if op == "pack":
        peers = [one("numpy.packbits", lambda: _as_words(numpy(x.cpu(), 1)))]
        return Prepared(one(OURS, lambda: binary.pack(x).words), peers, lambda: (bits_ref.to_words(x >= 0).double(),))
    if op == "pack columns":
        peers = [one("numpy.packbits", lambda: _as_words(np.ascontiguousarray(numpy(x.cpu(), 0).T)))]
        return Prepared(one(OURS, lambda: binary.pack(x, 0).words), peers, lambda: (bits_ref.to_words(x.t() >= 0).double(),))
    if op == "unpack":
        octets = a.words.cpu().numpy().view(np.uint8)
        expand = lambda: torch.from_numpy(np.unpackbits(octets, axis=1, count=K, bitorder="little")).float().mul_(2).sub_(1)
        return Prepared(
            one(OURS, lambda: binary.unpack(a)),
            [one("numpy.unpackbits", expand)],
            lambda: (torch.where(x >= 0, 1.0, -1.0).double(),),
        )
    if op == "popcount":
        return Prepared(
            one(OURS, lambda: binary.popcount(a)),
            [one("torch sum of bool", lambda: (x >= 0).sum(1))],
            lambda: ((x >= 0).double().sum(1),),
        )
    if op == "hamming":
        peers = [one("torch sum of bool", lambda: ((x >= 0) != (y >= 0)).sum(1))]
        return Prepared(one(OURS, lambda: binary.hamming(a, b)), peers, lambda: (((x >= 0) != (y >= 0)).double().sum(1),))
    words = a.words[None]
    return Prepared(one(OURS, lambda: ops.bits_panels(words)), [], lambda: (bits_ref.bits_panels(words).double(),))


def test_bits(case, bench_case):
    bench_case(case)
