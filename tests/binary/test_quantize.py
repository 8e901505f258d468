"""The raw quantize, quantize_bwd and channel_stats against their reference in float64, on every instruction set and two threads."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, generator
from compare import assert_close, assert_same
from structops.kernels import codes as C
from structops.kernels.binary import quantize_ref as ref
from structops.selfcheck._quantize import PAIRS
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.structops
NAMES = ("shift", "gain", "scale", "extra")
LAYOUTS = (
    ((5000,), 1, 1),
    ((7, 5, 9), 5, 9),
    ((61, 33), 33, 1),
    ((3, 2, 1030), 2, 1030),
    ((1,), 1, 1),
    ((0, 4), 4, 1),
    ((70, 1025), 1025, 1),
)
EXACT = (C.CLIP, C.CLIP_STRICT, C.BOX, C.PRELU)


def operands(shape, channels: int, names: str, dtype: torch.dtype, seed: int = 0):
    """x off the multiples of 1/64, a gradient, and the vectors."""
    g = generator(seed)
    u = 2 * torch.rand(shape, generator=g, dtype=torch.float64) - 1
    x, grad = ((torch.round(u * 64) + 0.25) / 64).to(dtype), torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    vectors = tuple((0.5 * torch.randint(1, 4, (channels,), generator=g)).to(acc) if n in names else None for n in NAMES)
    return x, grad, vectors


def wide(args):
    return [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_forward_and_backward(isa: str, dtype: torch.dtype, pair: tuple, poison: None, on_threads) -> None:
    forward, slope, zero, t, p, q, terms, names = pair
    for shape, channels, inner in LAYOUTS:
        x, grad, vectors = operands(shape, channels, names, dtype)
        for bits in (0, 1) if slope in EXACT else (0,):
            signs = bits == 1 and forward in (C.SIGN, C.HEAVISIDE)
            static = (channels, inner, forward, slope, zero, t, p, q, terms, bits, signs)
            args = (x, *vectors, *static, False, False)
            out, codes = on_threads(lambda: ops.quantize(*args))
            want, want_codes = ref.quantize(*wide(args))
            assert_close(out, want, dtype, terms=16, magnitude=4.0, what=(shape, "y"))
            assert_same(codes, want_codes, (shape, "codes"))
            scale, extra = vectors[2] is not None and forward != C.TANH_LEVELS, forward == C.PRELU_FORWARD
            for learned_step in (False, True) if slope == C.BOX and bits == 0 else (False,):
                back = (
                    grad,
                    x,
                    codes if bits or signs else None,
                    *vectors,
                    *static,
                    scale and not extra,
                    learned_step,
                    True,
                    scale,
                    extra,
                )
                got = on_threads(lambda: ops.quantize_bwd(*back))
                for name, a, b in zip(("dx", "d_shift", "d_scale", "d_extra"), got, ref.quantize_bwd(*wide(back)), strict=True):
                    n = max(x.numel() // channels, 1) if name != "dx" else 16
                    # Sums of dx add what was rounded to dtype nowhere: the accumulator's error only.
                    assert_close(a, b, a.dtype, terms=n, magnitude=64.0, what=(shape, name))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_codes_of_slopes(isa: str, bits: int) -> None:
    """Codes are the rounded slope, whatever the length; the backward that reads them needs no x."""
    for slope, p, terms in ((C.POLY, 1.0, 0), (C.BELL, 1.5, 0), (C.SWISH, 5.0, 0), (C.FOURIER, 0.1, 9), (C.COSINE, 3.0, 0)):
        if bits == 1 and slope in C.SIGNED_SLOPES:
            continue
        for n in (1, 7, 8, 9, 1023, 1024, 1025, 3000):
            x, grad, _ = operands((n,), 1, "", torch.float64)
            static = (1, 1, C.SIGN, slope, 1.0, 0.0, p, 1.0, terms, bits, False)
            _, codes = ops.quantize(x, None, None, None, None, *static, False, False)
            assert codes.numel() == (n * bits + 7) // 8
            assert_same(codes, ref.quantize(x, None, None, None, None, *static, False, False)[1])
            dx = ops.quantize_bwd(grad, None, codes, None, None, None, None, *static, False, False, False, False, False)[0]
            assert_close(dx, ref.quantize_bwd(grad, None, codes, *(None,) * 4, *static, *(False,) * 5)[0], terms=4)
            exact = ref.slope(x, slope, p, 1.0, terms, x.new_ones(()))
            step = ref.slope_top(slope, p, 1.0, terms) / ref._levels_of_codes(slope, bits)[0]
            assert ((dx / grad - exact).abs() <= step / 2 + 1e-9).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_codes_of_prelu(isa: str, bits: int) -> None:
    """1[u > 0] in any number of bits; the slope of what is not positive is the scale, whatever its size and sign."""
    scale = torch.tensor([0.25, -3.0, 2.0], dtype=torch.float64)
    for given in (scale, None):
        x, grad, _ = operands((400, 3), 3, "", torch.float64)
        vectors, static = (None, None, given, None), (3, 1, C.PRELU_FORWARD, C.PRELU, 0.0, 0.0, 1.0, 1.0, 0, bits, False)
        codes = ops.quantize(x, *vectors, *static, False, False)[1]
        assert_same(codes, ref.quantize(x, *vectors, *static, False, False)[1])
        dx = ops.quantize_bwd(grad, None, codes, *vectors, *static, False, False, False, False, False)[0]
        assert_same(dx, grad * torch.where(x > 0, 1, 0 if given is None else given))


def test_special_values(isa: str) -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([0.0, -0.0, inf, -inf, nan, 1e-45, -1e-45, 100.0, -100.0, 1.0, -1.0])
    grad = torch.ones(11)
    none = (None,) * 4
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for forward, slope, _, t, p, q, terms, names in PAIRS:
            if names or forward in (C.SINE, C.SQUARE):
                continue
            for zero in (-1.0, 0.0, 1.0):
                v = x.to(dtype)
                static = (1, 1, forward, slope, zero, t, p, q, terms, 0, False, False, False)
                assert_close(ops.quantize(v, *none, *static)[0], ref.quantize(v.double(), *none, *static)[0], dtype, terms=4)
                got = ops.quantize_bwd(grad.to(dtype), v, None, *none, *static, False, False, False)[0]
                assert_close(
                    got, ref.quantize_bwd(grad.double(), v.double(), None, *none, *static, False, False, False)[0], dtype, terms=64
                )


def test_large_arguments_of_sine(isa: str) -> None:
    x = torch.linspace(-3e4, 3e4, 2001, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        v = x.to(dtype)
        y, _ = ops.quantize(v, None, None, None, None, 1, 1, C.SINE, C.COSINE, 1.0, 1.0, 1.0, 1.0, 0, 0, False, False, False)
        assert_close(y, torch.sin(v.double()), dtype, terms=4, magnitude=1 + v.double().abs() * 1e-4)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_channel_stats(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for shape, channels, inner in (*LAYOUTS, ((200_000,), 1, 1)):
        x, y, vectors = operands(shape, channels, "shift", dtype)
        for other, shift in ((None, None), (y, vectors[0])):
            args = (x, other, shift, channels, inner)
            got = on_threads(lambda: ops.channel_stats(*args))
            assert_close(
                got, ref.channel_stats(*wide(args)), got.dtype, terms=max(x.numel() // channels, 1), magnitude=4.0, what=shape
            )


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_backward_is_a_function(pair: tuple) -> None:
    """quantize_bwd differentiated numerically, with its vectors, twice where it is smooth."""
    from structops.binary._quantize import quantize_bwd

    forward, slope, zero, t, p, q, terms, names = pair
    x, grad, vectors = operands((3, 2, 3), 2, names, torch.float64)
    scaled = vectors[2] is not None and forward not in (C.PRELU_FORWARD,)
    static = (2, 3, forward, slope, zero, t, p, q, terms, 0, False, scaled, False)

    def dx(g, v):
        return quantize_bwd(g, v, None, *vectors, *static, False, False, False)[0]

    g, v = grad.requires_grad_(), x.requires_grad_()
    assert gradcheck(dx, (g, v))
    if slope in (C.BELL, C.COSINE, C.SWISH):
        assert gradgradcheck(dx, (g, v))


def test_sums_are_differentiable() -> None:
    """The gradients of a learned shift, slope and offset, differentiated again."""
    from structops.binary import rprelu

    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=generator(1)).requires_grad_()
    v = [torch.rand(3, dtype=torch.float64, generator=generator(i)).requires_grad_() for i in range(3)]
    assert gradcheck(lambda *a: rprelu(*a), (x, *v))
    assert gradgradcheck(lambda *a: rprelu(*a), (x, *v))
