"""Linear layers and products on bits, their epilogues and gradients: bits_gemm, bits_w1a8, bits_w1a16."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from conftest import ISAS
from structops import backends, binary
from torch import Tensor

KS = (1, 3, 31, 32, 33, 63, 64, 65, 127, 129, 257, 4099)


def sign(x: Tensor, sign_zero: int = 1) -> Tensor:
    return torch.where(x >= 0 if sign_zero == 1 else x > 0, 1.0, -1.0).to(x.dtype)


@pytest.mark.parametrize("K", KS)
def test_equals_the_float_product(K: int, isa: str) -> None:
    for M, N in ((1, 1), (3, 70), (67, 129)):
        x, w = torch.randint(-2, 3, (M, K)).float(), torch.randint(-2, 3, (N, K)).float()
        for sign_zero in (1, -1):
            want = sign(x, sign_zero) @ sign(w, sign_zero).t()
            got = binary.binary_linear(x, w, sign_zero=sign_zero)
            assert torch.equal(got, want)
            packed = binary.PackedWeight(w, sign_zero=sign_zero)
            for polarity in (1, -1):
                bits = binary.pack(x, sign_zero=sign_zero, polarity=polarity)
                assert torch.equal(binary.binary_linear(bits, packed, out=torch.int32), want.int())
                assert torch.equal(binary.bit_matmul(bits, binary.pack(w, sign_zero=sign_zero, polarity=-polarity)), want.int())
                assert torch.equal(binary.bit_matmul(bits, packed, count="hamming"), ((K - want) / 2).int())


@pytest.mark.parametrize(
    ("kind", "levels"),
    [("pm1", (-1, 1)), ("01", (0, 1)), ("ternary", (-1, 0, 1)), ("int2", (-2, -1, 0, 1)), ("odd2", (-3, -1, 1, 3))],
)
@pytest.mark.parametrize("K", (1, 64, 65, 300))
def test_kinds_of_weight(kind: str, levels: tuple[int, ...], K: int, isa: str) -> None:
    w = torch.tensor(levels, dtype=torch.float64)[torch.randint(0, len(levels), (67, K))]
    packed = binary.PackedWeight(w, kind)
    assert torch.equal(packed.dense(torch.float64), w)
    x = torch.randn(5, K, dtype=torch.float64)
    assert torch.equal(binary.binary_linear(x, packed), sign(x) @ w.t())
    assert torch.equal(binary.bit_matmul(binary.pack(x, values="01"), packed).double(), (x > 0).double() @ w.t())
    x8 = torch.randint(-128, 128, (5, K), dtype=torch.int8)
    assert torch.equal(binary.packed_linear(x8, packed).double(), x8.double() @ w.t())
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)):
        v = x.to(dtype)
        got = binary.packed_linear(v, packed)
        want = v.double() @ w.t()
        assert got.dtype == dtype and (got.double() - want).abs().max() <= tolerance * (
            v.double().abs().sum(1).max() * max(levels) + 1
        )


@pytest.mark.parametrize("kind", ("pm1", "01", "ternary", "int2", "odd2"))
@pytest.mark.parametrize(("N", "K"), ((64, 512), (70, 513), (130, 1100), (1, 31)))
def test_w1a8_of_many_rows(kind: str, N: int, K: int, isa: str, threads: int, poison) -> None:
    """Below and above the numbers of rows at which the kernel takes bits apart ahead, and at which it cuts the rows."""
    low, high = {"pm1": (-1, 1), "01": (0, 1), "ternary": (-1, 1), "int2": (-2, 1), "odd2": (-3, 3)}[kind]
    step = 2 if kind in ("pm1", "odd2") else 1
    w = torch.randint(0, (high - low) // step + 1, (N, K), dtype=torch.float64) * step + low
    packed = binary.PackedWeight(w, kind)
    for M in (7, 8, 15, 16, 17, 64, 128, 131, 260):
        x = torch.randint(-128, 128, (M, K), dtype=torch.int8)
        assert torch.equal(binary.packed_linear(x, packed).double(), x.double() @ w.t()), M
    for value in (-128, 127):
        x = torch.full((20, K), value, dtype=torch.int8)
        for extreme in (low, high):
            packed = binary.PackedWeight(torch.full((N, K), float(extreme)), kind)
            assert (binary.packed_linear(x, packed) == K * value * extreme).all()


@pytest.mark.parametrize("coef", ([127], [-127], [128], [64, -64], [2**30, 5], [0, 0]))
def test_w1a8_wraps(coef: list[int], isa: str) -> None:
    x, bits = torch.randint(-128, 128, (33, 700), dtype=torch.int8), torch.rand(len(coef), 65, 700) < 0.5
    words = binary.pack(bits.float() - 0.5).words
    for base in (0, -(2**31), 77777):
        weight = base + sum(c * plane.long() for c, plane in zip(coef, bits, strict=True))
        want = (x.long()[:, None] * weight).sum(-1).to(torch.int32)
        for rows in (33, 5):
            assert torch.equal(torch.ops.structops.bits_w1a8(x[:rows], words, None, coef, base), want[:rows])


@pytest.mark.skipif(backends.native is None, reason="no compiled library")
def test_w1a16_is_the_same_everywhere() -> None:
    """Same order of summation on every instruction set: the same bits."""
    x, packed = torch.randn(23, 999), binary.PackedWeight(torch.randn(70, 999).round(), "ternary")
    results = []
    for isa in ISAS:
        backends.set_isa(isa)
        results.append(binary.packed_linear(x, packed, torch.ones(70), scale=torch.full((70,), 0.3)))
    backends.set_isa("auto")
    assert all(torch.equal(r, results[0]) for r in results)


def test_w1a16_of_infinities() -> None:
    x = torch.zeros(1, 65)
    x[0, 64] = float("inf")
    assert binary.packed_linear(x, binary.PackedWeight(torch.tensor([[1.0] * 65, [-1.0] * 65]))).tolist() == [
        [float("inf"), -float("inf")]
    ]


def test_batched_product(isa: str) -> None:
    a, b = torch.randn(2, 3, 5, 70), torch.randn(2, 3, 9, 70)
    got = binary.bit_matmul(binary.pack(a), binary.pack(b))
    assert torch.equal(got, (sign(a) @ sign(b).transpose(-1, -2)).int())
    assert torch.equal(binary.bit_matmul(binary.pack(a), binary.pack(b[0, 0])), (sign(a) @ sign(b[0, 0]).t()).int())


def test_large_counts_do_not_wrap() -> None:
    K = 2**24 + 65
    ones = binary.BitTensor(torch.full((1, (K + 63) // 64), -1), K, validate=False)
    ones.words[0, -1] = (1 << K % 64) - 1
    zeros = binary.BitTensor(torch.zeros_like(ones.words), K)
    for x, w, want in ((ones, ones, K), (ones, zeros, -K)):
        assert binary.bit_matmul(x, w).item() == want


# ---- epilogue --------------------------------------------------------------------------------------------------------


def quarters(*shape: int) -> Tensor:
    return torch.randint(-8, 9, shape) / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_epilogue(dtype: torch.dtype, isa: str) -> None:
    M, N, K = 9, 75, 70
    x, w = torch.randn(M, K).to(dtype), torch.randn(N, K)
    dot = sign(x).float() @ sign(w).t()
    scale, bias, residual = quarters(N), quarters(N), quarters(M, N).to(dtype)
    gamma, slope, zeta, shift = quarters(N), quarters(N), quarters(N), quarters(N)
    affine = dot * scale + bias
    assert torch.equal(binary.binary_linear(x, w, bias, scale=scale), affine.to(dtype))
    t = affine + residual.float() + gamma
    full = torch.where(t > 0, t, t * slope) + zeta
    call = dict(scale=scale, residual=residual, prelu=(gamma, slope, zeta))
    assert torch.equal(binary.binary_linear(x, w, bias, **call), full.to(dtype))
    assert torch.equal(binary.binary_linear(x, w, prelu=torch.tensor([0.25])), torch.where(dot > 0, dot, dot / 4).to(dtype))
    bits = binary.binary_linear(x, binary.PackedWeight(w), bias, shift=shift, **call)
    assert torch.equal(binary.unpack(bits), sign(full + shift)) and bits.shape == (M, N)
    bits.validate()
    assert torch.equal(binary.unpack(binary.binary_linear(x, w, out="bits")), sign(dot))


def test_stack_stays_in_bits(isa: str) -> None:
    sizes, x = (70, 130, 65, 10), torch.randn(6, 70)
    weights = [torch.randn(b, a) for a, b in zip(sizes, sizes[1:], strict=False)]
    bits, y = binary.pack(x), sign(x)
    for i, w in enumerate(weights):
        y = y @ sign(w).t()
        last = i == len(weights) - 1
        threshold = None if last else torch.stack([torch.arange(w.shape[0]) % 5 - 2, -(torch.arange(w.shape[0]) % 2)]).int()
        bits = binary.binary_linear(bits, binary.PackedWeight(w), threshold=threshold)
        if not last:
            y = sign(torch.where((y >= threshold[0]) ^ threshold[1].bool(), 1.0, -1.0))
    assert torch.equal(bits, y)


def test_leading_dimensions_and_empty() -> None:
    w = torch.randn(5, 33)
    for shape in ((33,), (0, 33), (2, 0, 33), (2, 3, 33)):
        x = torch.randn(shape)
        assert torch.equal(binary.binary_linear(x, w), sign(x) @ sign(w).t())
    assert torch.equal(binary.binary_linear(torch.zeros(3, 0), torch.zeros(4, 0)), torch.zeros(3, 4))
    assert binary.binary_linear(torch.zeros(3, 5), torch.zeros(0, 5)).shape == (3, 0)


# ---- packed weights --------------------------------------------------------------------------------------------------


def test_packed_weights_are_never_stale() -> None:
    w = torch.randn(6, 40, requires_grad=True)
    packed, x = binary.PackedWeight(w), torch.randn(3, 40)
    with torch.no_grad():
        for change in (torch.Tensor.neg_, lambda t: t.copy_(torch.randn(6, 40)), lambda t: t[2].fill_(-1.0)):
            binary.binary_linear(x, packed)
            change(w)
            assert torch.equal(binary.binary_linear(x, packed), sign(x) @ sign(w).t())
            assert torch.equal(packed.dense(), sign(w))
    optimiser = torch.optim.SGD([w], lr=10.0)
    binary.binary_linear(x, w).square().sum().backward()
    optimiser.step()
    assert torch.equal(packed.dense(), sign(w.detach()))
    w.data = torch.randn(6, 40)
    assert torch.equal(packed.dense(), sign(w.detach()))
    w.data.neg_()  # leaves no trace
    packed.refresh()
    assert torch.equal(packed.dense(), sign(w.detach()))
    kept = packed.dense()
    del w, optimiser
    gc.collect()
    assert torch.equal(packed.dense(), kept)
    with pytest.raises(RuntimeError, match="no tensor"):
        packed.refresh()


# ---- training --------------------------------------------------------------------------------------------------------


class Ste(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clip):
        ctx.save_for_backward(x)
        ctx.clip = clip
        return sign(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g if ctx.clip is None else g * (x.abs() <= ctx.clip)), None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clip", [1.0, 0.5, None])
def test_gradients(dtype: torch.dtype, clip: float | None, isa: str) -> None:
    M, K, N = 5, 70, 9
    make = lambda *s: (torch.randint(-8, 9, s) / 4).to(dtype).requires_grad_()  # with values at the clip
    x, w, scale, bias, residual, gamma, slope, zeta = (
        make(2, M, K),
        make(N, K),
        make(N),
        make(N),
        make(2, M, N),
        make(N),
        make(N),
        make(N),
    )
    leaves = (x, w, scale, bias, residual, gamma, slope, zeta)
    how = dict(surrogate="identity") if clip is None else dict(clip=clip)
    got = binary.binary_linear(x, w, bias, scale=scale, residual=residual, prelu=(gamma, slope, zeta), **how)
    t = Ste.apply(x, clip) @ Ste.apply(w, clip).t() * scale + bias + residual + gamma
    want = torch.where(t > 0, t, t * slope) + zeta
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    close = lambda a, b: (a.double() - b.double()).abs().max() <= tolerance * (b.double().abs().max() + 1)
    assert got.dtype == dtype and close(got, want)
    g = torch.randint(-4, 5, got.shape).to(dtype)
    for a, b in zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and close(a, b)


def test_saves_bits() -> None:
    """Two bits a value of x and weight, and the scale."""
    x, w, scale = (
        torch.randn(64, 640, requires_grad=True),
        torch.randn(320, 640, requires_grad=True),
        torch.ones(320, requires_grad=True),
    )
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        binary.binary_linear(x, w, scale=scale)
    assert sum(kept.values()) == (64 + 320) * 640 // 8 * 2 + 320 * 4


def test_second_derivatives_are_refused() -> None:
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    (gx,) = torch.autograd.grad(binary.binary_linear(x, w).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are not available"):
        gx.sum().backward()


def test_training_follows_the_simulation() -> None:
    """Two layers, fifty steps: the packed path and the float simulation stay equal."""
    torch.manual_seed(1)
    data, labels = torch.randn(128, 20), torch.randint(0, 3, (128,))
    start = [torch.rand(64, 20) - 0.5, torch.rand(3, 64) - 0.5]

    def train(linear) -> tuple[list[float], list[Tensor]]:
        weights = [w.clone().requires_grad_() for w in start]
        optimiser, losses = torch.optim.SGD(weights, lr=0.5), []
        for _ in range(50):
            h = linear(data, weights[0]) / 8
            loss = F.cross_entropy(linear(h, weights[1]) / 16, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, weights

    ours, w1 = train(binary.binary_linear)
    simulated, w2 = train(lambda x, w: Ste.apply(x, 1.0) @ Ste.apply(w, 1.0).t())
    assert max(abs(a - b) for a, b in zip(ours, simulated, strict=True)) < 1e-5
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(w1, w2, strict=True)) and ours[-1] < ours[0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, w: binary.binary_linear(x, w[:, :3]), ValueError, "weight"),
        (lambda x, w: binary.binary_linear(x, [1.0]), TypeError, "weight"),
        (lambda x, w: binary.binary_linear(x, w, torch.zeros(3)), ValueError, "bias"),
        (lambda x, w: binary.binary_linear(x, w, scale=torch.zeros(2, dtype=torch.int32)), TypeError, "scale"),
        (lambda x, w: binary.binary_linear(x, w, residual=torch.zeros(3, 3)), ValueError, "residual"),
        (lambda x, w: binary.binary_linear(x, w, prelu=(None, None, None)), ValueError, "prelu"),
        (lambda x, w: binary.binary_linear(x, w, threshold=torch.zeros(2, 2)), TypeError, "threshold"),
        (lambda x, w: binary.binary_linear(x, w, torch.zeros(2), threshold=torch.zeros(2, 2).int()), ValueError, "threshold"),
        (lambda x, w: binary.binary_linear(x, w, torch.zeros(2), out=torch.int32), ValueError, "bias"),
        (lambda x, w: binary.binary_linear(x, w, out="words"), ValueError, "out"),
        (lambda x, w: binary.binary_linear(x, w, shift=torch.zeros(2), out=torch.float32), ValueError, "bits"),
        (lambda x, w: binary.binary_linear(x, w, clip=-1), ValueError, "clip"),
        (lambda x, w: binary.binary_linear(x, w, surrogate="tanh"), ValueError, "surrogate"),
        (lambda x, w: binary.binary_linear(x, w, sign_zero=0), ValueError, "sign_zero"),
        (lambda x, w: binary.binary_linear(x.requires_grad_(), w, out="bits"), ValueError, "gradient"),
        (lambda x, w: binary.binary_linear(x.requires_grad_(), binary.PackedWeight(w)), TypeError, "gradient"),
        (lambda x, w: binary.binary_linear(binary.pack(x, 0), w), ValueError, "last dimension"),
    ],
)
def test_bad_input(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(torch.randn(3, 5), torch.randn(2, 5))
