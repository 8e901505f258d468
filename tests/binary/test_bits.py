"""Packing, unpacking, counting, and the tensor of bits: bits_pack, bits_unpack, bits_count, bits_panels."""

from __future__ import annotations

import io
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import backends, binary, selfcheck
from structops.binary import BitTensor

OPS = ("bits_pack", "bits_unpack", "bits_count", "bits_panels", "bits_gemm", "bits_conv", "bits_w1a8", "bits_w1a16", "bits_bag")
LENGTHS = (0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257)


@pytest.mark.parametrize("op", OPS)
def test_against_the_reference(op: str, isa: str, poison) -> None:
    result = selfcheck.check(op, seed=3)
    assert result.ok and result.cases > 5, result


@pytest.mark.parametrize("op", OPS)
def test_threads_change_nothing(op: str, on_threads) -> None:
    kernel = backends.implementation(op)
    for args in list(selfcheck.cases(op, torch.Generator().manual_seed(1)))[::7]:
        on_threads(lambda args=args: kernel(*args), op)
    if op in ("bits_gemm", "bits_w1a8", "bits_w1a16"):  # enough work to be shared
        x, w = binary.pack(torch.randn(300, 2000)), binary.PackedWeight(torch.randn(500, 2000))
        if op == "bits_gemm":
            on_threads(lambda: binary.bit_matmul(x, w))
        else:
            v = torch.randint(-128, 128, (300, 2000)).to(torch.int8 if op == "bits_w1a8" else torch.float32)
            on_threads(lambda: binary.packed_linear(v, w))


def sign(x: torch.Tensor, sign_zero: int = 1) -> torch.Tensor:
    return torch.where(x >= 0 if sign_zero == 1 else x > 0, 1.0, -1.0)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int8, torch.uint8]
)
@pytest.mark.parametrize("K", LENGTHS)
def test_round_trip(K: int, dtype: torch.dtype, isa: str) -> None:
    x = torch.randint(-2, 3, (3, K, 5)).to(dtype)
    for dim in range(3):
        moved = x.movedim(1, dim)
        for sign_zero in (1, -1):
            for polarity in (1, -1):
                bits = binary.pack(moved, dim, sign_zero=sign_zero, polarity=polarity)
                assert bits.shape == moved.shape and bits.dim == dim and bits.nbytes == 8 * 15 * ((K + 63) // 64)
                bits.validate()
                assert torch.equal(binary.unpack(bits), sign(moved, sign_zero))
                assert torch.equal(binary.popcount(bits).long(), (sign(moved, sign_zero) == polarity).sum(dim))
    for layout in (x.transpose(0, 2), x.contiguous().expand(3, K, 5)[:, :, ::2], x[:0]):
        assert torch.equal(binary.unpack(binary.pack(layout, 1)), sign(layout))


def test_layout_is_the_documented_one() -> None:
    x = torch.full((1, 70), -1.0)
    x[0, [0, 5, 63, 64, 69]] = 1
    assert binary.pack(x).words.tolist() == [[1 | 1 << 5 | -(1 << 63), 1 | 1 << 5]]
    octets = np.packbits((x.numpy() > 0), axis=1, bitorder="little")
    assert binary.pack(x).words.numpy().view(np.uint8)[0, :9].tolist() == octets[0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_zero_nan_and_infinity(dtype: torch.dtype, isa: str) -> None:
    x = torch.tensor([[0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45, -1e-45] * 11], dtype=dtype)
    for dim in (1, 0):
        y = x if dim == 1 else x.t()
        for sign_zero in (1, -1):
            assert torch.equal(binary.unpack(binary.pack(y, dim, sign_zero=sign_zero), torch.float32), sign(y, sign_zero))
        assert torch.equal(binary.unpack(binary.pack(y, dim, values="01")), (y > 0).float())


def test_shift_is_rsign(isa: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x, b = torch.randint(-3, 4, (6, 67)).to(dtype), torch.randint(-3, 4, (67,)).to(dtype)
        assert torch.equal(binary.unpack(binary.pack(x, shift=b)), sign(x + b))
        assert torch.equal(binary.unpack(binary.pack(x.t().contiguous(), 0, shift=b)), sign((x + b).t()))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 140))
def test_any_shape(shape: list[int], dim: int, K: int) -> None:
    dim %= len(shape)
    shape[dim] = K
    x = torch.randn(shape)
    bits = binary.pack(x, dim)
    assert torch.equal(binary.unpack(bits), sign(x))
    again = BitTensor.from_bytes(bits.to_bytes())
    assert again.shape == x.shape and again.dim == dim and torch.equal(again.words, bits.words)


def test_hamming(isa: str) -> None:
    for K in LENGTHS:
        x, y = torch.randn(4, K), torch.randn(4, K)
        want = (sign(x) != sign(y)).sum(1)
        for polarity in (1, -1):
            got = binary.hamming(binary.pack(x), binary.pack(y, polarity=polarity))
            assert torch.equal(got.long(), want) and got.dtype == torch.int32


def test_polarity() -> None:
    x = torch.randn(3, 70)
    bits = binary.pack(x)
    other = bits.with_polarity(-1)
    assert torch.equal(other.words, binary.pack(x, polarity=-1).words) and torch.equal(binary.unpack(other), sign(x))
    assert bits.with_polarity(1) is bits
    assert torch.equal(other.pack_like(x).words, other.words)


# ---- files -----------------------------------------------------------------------------------------------------------


def saved(thing: object) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize("K", [1, 7, 8, 64, 200])
def test_saves_one_bit_a_value(K: int) -> None:
    bits = binary.pack(torch.randn(30, K), polarity=-1, sign_zero=-1)
    assert len(bits.to_bytes()) <= (30 * K + 7) // 8 + 64
    for again in (pickle.loads(pickle.dumps(bits)), torch.load(io.BytesIO(saved({"x": bits})))["x"]):
        assert torch.equal(again.words, bits.words) and again.shape == bits.shape
        assert (again.dim, again.values, again.polarity, again.sign_zero) == (1, "pm1", -1, -1)
    for kind, w in (("pm1", torch.randn(9, 3, 3, 3)), ("ternary", torch.randn(4, K).round())):
        weight = binary.PackedWeight(w, kind)
        again = torch.load(io.BytesIO(saved(weight)))
        assert torch.equal(again.dense(), weight.dense()) and again.shape == weight.shape
    assert len(saved(binary.PackedWeight(torch.randn(256, 4096)))) < 256 * 4096 / 8 + 4096


def test_corrupt_files_are_refused() -> None:
    """Every changed byte, every truncation, and made-up headers with a right checksum."""
    import struct
    import zlib

    data = binary.pack(torch.randn(3, 5, 7), 1).to_bytes()
    rng = random.Random(0)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match="corrupt"):
            BitTensor.from_bytes(bytes(changed))
    for n in range(len(data)):
        with pytest.raises(ValueError, match="corrupt"):
            BitTensor.from_bytes(data[:n])
    for _ in range(2000):  # the checksum is right, the header is not
        changed = bytearray(data[:-4])
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(8, 48)] = rng.choice((0, 1, 2, 127, 128, 255, rng.randrange(256)))
        body = bytes(changed)
        try:
            found = BitTensor.from_bytes(body + struct.pack("<I", zlib.crc32(body)))
        except ValueError:
            continue
        found.validate()
        assert found.numel() == 105
    with pytest.raises(ValueError, match="corrupt"):
        BitTensor.from_bytes(data + b"\0")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: BitTensor(torch.zeros(2, 1), 5), TypeError),
        (lambda: BitTensor(torch.zeros(2, 1, dtype=torch.int64), 65), ValueError),
        (lambda: BitTensor(torch.full((2, 1), 32), 5), ValueError),
        (lambda: BitTensor(torch.zeros(2, 1, dtype=torch.int64), 5, 2), IndexError),
        (lambda: binary.pack(torch.zeros(2), 1), IndexError),
        (lambda: binary.pack(torch.zeros(())), ValueError),
        (lambda: binary.pack([1.0]), TypeError),
        (lambda: binary.pack(torch.zeros(2, dtype=torch.complex64)), TypeError),
        (lambda: binary.pack(torch.zeros(2), sign_zero=0), ValueError),
        (lambda: binary.pack(torch.zeros(2), polarity=2), ValueError),
        (lambda: binary.pack(torch.zeros(2), values="bool"), ValueError),
        (lambda: binary.pack(torch.zeros(2), shift=torch.zeros(3)), ValueError),
        (lambda: binary.pack(torch.zeros(2, dtype=torch.int32), shift=torch.zeros(2)), TypeError),
        (lambda: binary.unpack(torch.zeros(2)), TypeError),
        (lambda: binary.unpack(binary.pack(torch.zeros(2)), torch.int8), TypeError),
        (lambda: binary.hamming(binary.pack(torch.zeros(2)), binary.pack(torch.zeros(3))), ValueError),
        (lambda: binary.bit_matmul(binary.pack(torch.zeros(2, 3)), binary.pack(torch.zeros(2, 4))), ValueError),
        (
            lambda: (
                binary.PackedWeight(torch.zeros(2, 3), "int2").words + binary.PackedWeight(torch.full((2, 3), 2.0), "int2").words
            ),
            ValueError,
        ),
        (lambda: binary.PackedWeight(torch.zeros(3)), ValueError),
        (lambda: binary.PackedWeight(torch.zeros(3, 4, 3, 3), groups=2), ValueError),
        (lambda: binary.packed_linear(torch.zeros(2, 3), torch.zeros(2, 3)), TypeError),
        (lambda: binary.packed_linear(torch.zeros(2, 3, dtype=torch.float64), binary.PackedWeight(torch.zeros(2, 3))), TypeError),
    ],
)
def test_bad_input(call, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.skipif(backends.native is None, reason="no compiled library")
@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.bits_pack(torch.zeros(2, 3, 4, 5), None, 0, 0.0, False),
        lambda o: o.bits_pack(torch.zeros(2, 3), None, 7, 0.0, False),
        lambda o: o.bits_pack(torch.zeros(2, 3), torch.zeros(4), 0, 0.0, False),
        lambda o: o.bits_unpack(torch.zeros(2, 1, dtype=torch.int64), 65, 0, 0.0, 1.0),
        lambda o: o.bits_unpack(torch.zeros(2, 1, dtype=torch.int64), 3, 9, 0.0, 1.0),
        lambda o: o.bits_count(torch.zeros(2, 1, dtype=torch.int64), None, 1),
        lambda o: o.bits_gemm(
            *(torch.zeros(n, dtype=torch.int64) for n in ((2, 1), (1, 3, 2))), None, 64, [1], [0], 0, 0, False, *(None,) * 6, 0
        ),
        lambda o: o.bits_gemm(
            *(torch.zeros(n, dtype=torch.int64) for n in ((2, 1), (1, 3, 1))), None, 64, [1, 2], [0], 0, 0, False, *(None,) * 6, 0
        ),
        lambda o: o.bits_w1a8(torch.zeros(2, 3), torch.zeros(1, 2, 1, dtype=torch.int64), None, [1], 0),
        lambda o: o.bits_panels(torch.zeros(2, 3, dtype=torch.int64)),
    ],
)
def test_the_backstop_of_the_raw_operators(call) -> None:
    with pytest.raises(RuntimeError):
        call(torch.ops.structops)
