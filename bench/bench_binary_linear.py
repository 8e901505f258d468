"""Products of bits: bits_gemm against float32, int8 and other packages' bits; bits_w1a8 and bits_w1a16 against the same.

The layers: packing both operands, weights packed ahead, bits in and out. One-bit products are counted as multiply-adds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from structops import binary
from structops.kernels.binary import bits_ref
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

BOTH_PACKED, AHEAD, BITS, TRAIN = "linear, packs both", "linear, packed weight", "linear, bits in and out", "linear, training"
GEMM, HAMMING, A8, A16 = "bit GEMM", "Hamming GEMM", "w1a8", "w1a16"
FLOAT, INT8, INT_MM = "torch float32", "torch int8 dynamic", "torch._int_mm"


def cases(level: str) -> Iterator[Case]:
    for M, N in at_level(
        level,
        smoke=[(3, 70)],
        quick=[(64, 1024), (1, 4096)],
        default=[(1, 4096), (64, 1024), (512, 4096)],
        full=[(M, N) for N in (1024, 2048, 4096) for M in (1, 64, 256, 512)],
    ):
        one = M == 1
        for what, least in ((BOTH_PACKED, 18.0), (AHEAD, 25.0 if one else 28.0), (BITS, 25.0 if one else 33.0)):
            if not (one and what == BOTH_PACKED):
                yield _case(what, M, N, N, {FLOAT: least, INT8: 4.0})
        yield _case(A8, M, N, N, {})
        yield _case(A16, M, N, N, {})
        if not one:
            yield _case(TRAIN, M, N, N, {})
    for n in at_level(level, smoke=(), quick=(1024,), default=(1024, 2048), full=()):  # rows enough to be bound by the products
        yield _case(A8, 256, n, n, {})
    for n in at_level(level, smoke=(70,), quick=(1024,), default=(1024, 4096), full=(512, 1024, 2048, 4096)):
        yield _case(GEMM, n, n, n, {"bnn-lab": 2.0})
        yield _case(HAMMING, n, n, n, {"numkong": 1.3})


def _case(what: str, M: int, N: int, K: int, targets: dict[str, float]) -> Case:
    element = 0.125 if what in (BITS, GEMM, HAMMING) else 1 if what == A8 else 4
    weights = N * K * (4 if what in (BOTH_PACKED, TRAIN) else 0.125)
    moved = int(M * K * element + weights + M * N * (0.125 if what == BITS else 4))
    direction = BOTH if what == TRAIN else FWD
    return Case(
        what,
        direction,
        "random",
        f"{M} x {K} x {N}",
        N,
        partial(_build, what, M, N, K),
        Traffic(moved, moved, 2 * M * N * K),
        targets,
    )


@lru_cache(maxsize=1)
def _operands(M: int, N: int, K: int, device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(M + N + K)
    return torch.randn(M, K, generator=g).to(device), torch.randn(N, K, generator=g).to(device)


def signs(t: Tensor) -> Tensor:
    return torch.where(t >= 0, 1.0, -1.0)


def _int8(weight: Tensor) -> torch.nn.Module:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear}, torch.qint8)


def _int_mm(a: Tensor, b: Tensor) -> Provider:
    """a [M, K] times b [N, K] transposed, both small integers kept as int8: exact."""
    a8, b8 = a.to(torch.int8), b.to(torch.int8).t()
    try:
        torch._int_mm(a8, b8)
    except RuntimeError as refused:
        return Provider(INT_MM, None, str(refused).splitlines()[0])
    return Provider(INT_MM, runner(lambda: torch._int_mm(a8, b8), FWD))


def _bnn_lab(a: Tensor, b: Tensor) -> Provider:
    kernels, reason = load("bnn.kernels")
    if kernels is None or a.is_cuda:
        return Provider("bnn-lab", None, reason or "CPU only")
    (xp, n), (wp, _) = (kernels.pack_binary_pm1(signs(t).numpy()) for t in (a, b))

    def run():
        kernels.set_num_threads(torch.get_num_threads())
        return (torch.from_numpy(kernels.binary_gemm_native_prepacked(xp, wp, n)),)

    return Provider("bnn-lab", run)


def _numkong(a: binary.BitTensor, b: binary.BitTensor) -> Provider:
    nk, reason = load("numkong")
    if nk is None or a.words.is_cuda:
        return Provider("numkong", None, reason or "CPU only")
    import numpy as np

    rows = [t.words.numpy().view(np.uint8) for t in (a, b)]
    packed = nk.hammings_pack(rows[1], dtype="uint1")
    return Provider("numkong", lambda: (torch.from_numpy(np.asarray(nk.hammings_packed(rows[0], packed)).view(np.int32)),))


def _build(what: str, M: int, N: int, K: int, device: str) -> Prepared:
    x, w = _operands(M, N, K, device)
    sx, sw = signs(x), signs(w)
    bits, ahead = binary.pack(x), binary.PackedWeight(w)
    dot = lambda: sx.double() @ sw.double().t()
    do = lambda f: runner(f, FWD)
    as_float = Provider(FLOAT, do(lambda: F.linear(sx, sw)))
    if what in (GEMM, HAMMING):
        count = "dot" if what == GEMM else "hamming"
        ours = Provider(OURS, do(lambda: binary.bit_matmul(bits, ahead, count=count)))
        peers = [_bnn_lab(x, w), as_float] if what == GEMM else [_numkong(bits, binary.pack(w))]
        return Prepared(ours, peers, lambda: ((dot() if what == GEMM else (K - dot()) / 2),), tolerance=0)
    if what == TRAIN:
        lx, lw, g = x.clone().requires_grad_(), w.clone().requires_grad_(), torch.randn_like(x[:, :1]).expand(M, N).contiguous()

        def simulated(x, w):
            ste = lambda t: (signs(t) - t.clamp(-1, 1)).detach() + t.clamp(-1, 1)
            return ste(x) @ ste(w).t()

        wide = [t.detach().double().requires_grad_() for t in (x, w)]
        ours = Provider(OURS, runner(lambda: binary.binary_linear(lx, lw), BOTH, (lx, lw), g))
        peer = Provider("float simulation", runner(lambda: simulated(lx, lw), BOTH, (lx, lw), g))
        return Prepared(ours, [peer], runner(lambda: simulated(*wide), BOTH, tuple(wide), g.double()))
    if what in (A8, A16):
        v = (x * 40).round().clamp(-127, 127) if what == A8 else x
        given = v.to(torch.int8) if what == A8 else v
        ours = Provider(OURS, do(lambda: binary.packed_linear(given, ahead)))
        peers = [Provider(FLOAT, do(lambda: F.linear(v, sw)))]
        if what == A8:
            peers.append(_int_mm(v, sw))
        return Prepared(ours, peers, lambda: (v.double() @ sw.double().t(),))
    if what == BITS:
        threshold = torch.stack([torch.arange(N) % 7 - 3, -(torch.arange(N) % 2)]).int().to(device)
        ours = Provider(OURS, do(lambda: binary.binary_linear(bits, ahead, threshold=threshold).words))
        want = lambda: (bits_ref.to_words((dot() >= threshold[0]) ^ threshold[1].bool()).double(),)
        # Numbers are not bits: the peers' results are compared in the cases beside this one.
        integers = _int_mm(sx, sw)
        uncompared = integers.run and (lambda: integers.run()[:0])
        peers = [Provider(FLOAT, lambda: as_float.run()[:0]), Provider(INT_MM, uncompared, integers.reason)]
        return Prepared(ours, peers, want)
    weight = w if what == BOTH_PACKED else ahead
    ours = Provider(OURS, do(lambda: binary.binary_linear(x, weight)))
    peers = [as_float]
    if device == "cpu":
        quantised = _int8(sw)
        peers.append(Provider(INT8, do(lambda: quantised(sx))))
    # The int8 peer rounds; ours is exact, which the tests and the GEMM cases hold it to.
    return Prepared(ours, peers, lambda: (dot(),), tolerance=5e-2)


def test_linear(case, bench_case):
    bench_case(case)
