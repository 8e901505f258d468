"""Thresholds equal the batch norm that they fold at every integer; packed weights of other packages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import binary


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_at_every_integer(dtype: torch.dtype, affine: bool) -> None:
    K, N = 577, 300
    g = torch.Generator().manual_seed(5)
    draw = lambda s=1.0: (s * torch.randn(N, generator=g)).to(dtype)
    mean, var, weight, bias, scale, extra = draw(90), draw(40).square(), draw(), draw(), draw(), draw(5)
    weight[:5] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 0.0])
    mean[5:60] = mean[5:60].round()  # sums that are 0 exactly
    bias[5:60] = 0
    var[60] = 0
    norm = dict(weight=weight, bias=bias) if affine else {}
    for layer in ({}, {"scale": scale, "layer_bias": extra}):
        threshold = binary.fold_batch_norm(mean, var, **norm, K=K, **layer)
        d = torch.arange(-K, K + 1)[:, None].expand(-1, N)
        y = d.to(dtype)
        if layer:
            y = y * scale + extra
        want = F.batch_norm(y, mean, var, norm.get("weight"), norm.get("bias"), False, 0.0, 1e-5) >= 0
        got = (d >= threshold[0]) ^ threshold[1].bool()
        assert torch.equal(got, want)
        assert 0 < got.double().mean() < 1


def test_folded_layer_equals_the_norm_in_a_network() -> None:
    x, w = torch.randn(2, 20, 6, 6), torch.randn(70, 20, 3, 3)
    norm = torch.nn.BatchNorm2d(70).eval()
    for t in (norm.weight.data, norm.bias.data, norm.running_mean):
        t.normal_()
    norm.running_var.uniform_(0.5, 30)
    threshold = binary.fold_batch_norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, K=180)
    bits = binary.binary_conv2d(x, w, padding=1, threshold=threshold)
    assert torch.equal(binary.unpack(bits) > 0, norm(binary.binary_conv2d(x, w, padding=1)) >= 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6))
def test_any_monotone_function(K: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 9, generator=g)
    fn = lambda d: torch.where(d * a > 0, d * a, d * a * 0.25) + 30 * b  # a PReLU between
    threshold = binary.fold_threshold(fn, 9, -K, K)
    d = torch.arange(-K, K + 1)[:, None]
    assert torch.equal((d >= threshold[0]) ^ threshold[1].bool(), fn(d) >= 0)


def test_power_of_two() -> None:
    x = torch.tensor([0.11, 0.25, 0.36, 5.0], requires_grad=True)
    y = binary.power_of_two(x)
    assert y.tolist() == [0.125, 0.25, 0.5, 4.0]
    y.sum().backward()
    assert torch.allclose(x.grad, y.detach() / x.detach())
    with pytest.raises(TypeError):
        binary.power_of_two(torch.tensor([1]))


@pytest.mark.parametrize("call", [
    lambda: binary.fold_threshold(lambda d: d, 2, 3, 1),
    lambda: binary.fold_threshold(lambda d: d.sum(), 2, -3, 3),
    lambda: binary.fold_batch_norm(torch.zeros(3), torch.ones(2), K=4),
    lambda: binary.fold_batch_norm(torch.zeros(3), torch.ones(3).double(), K=4),
])  # fmt: skip
def test_bad_input(call) -> None:
    with pytest.raises(ValueError):
        call()


# ---- importers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 8, 31, 32, 33, 64, 100, 128])
def test_importers(K: int) -> None:
    x = np.random.default_rng(K).integers(0, 2, (3, 2, K)) * 2 - 1
    want = torch.tensor(x, dtype=torch.float32)

    def rows(bits: np.ndarray, bytes_: int) -> np.ndarray:
        octets = np.packbits(bits, axis=-1, bitorder="little")
        return np.ascontiguousarray(np.pad(octets, ((0, 0), (0, 0), (0, -octets.shape[-1] % bytes_))))

    larq = rows(x < 0, 4).view(np.int32)
    for data in (larq, torch.from_numpy(larq)):
        assert torch.equal(binary.unpack(binary.from_larq(data, K)), want)
    assert torch.equal(binary.unpack(binary.from_bitorch_engine(rows(x > 0, 1), K)), want)
    assert torch.equal(binary.unpack(binary.from_bnn_lab(rows(x < 0, 8).view(np.uint64), K)), want)
    if K % 64:
        tail = rows(x < 0, 8).view(np.uint64)
        tail[..., -1] |= np.uint64(1 << 63)
        assert torch.equal(binary.unpack(binary.from_bnn_lab(tail, K)), want)
    assert torch.equal(binary.unpack(binary.from_larq(larq, K, 1)), want.movedim(2, 1))


def test_imported_filters(isa: str) -> None:
    """Filters [O, kh, kw, words] of larq-compute-engine in a convolution."""
    for C in (20, 64):
        w, x = torch.randn(5, C, 3, 3), torch.randn(2, C, 6, 6)
        octets = np.packbits((w < 0).permute(0, 2, 3, 1).numpy(), axis=-1, bitorder="little")
        octets = np.ascontiguousarray(np.pad(octets, [(0, 0)] * 3 + [(0, -octets.shape[-1] % 4)]))
        packed = binary.PackedWeight(binary.from_larq(octets.view(np.int32), C, 1))
        assert torch.equal(packed.dense(), torch.where(w >= 0, 1.0, -1.0))
        assert torch.equal(
            binary.binary_conv2d(x, packed, padding=1, pad_value=1), binary.binary_conv2d(x, w, padding=1, pad_value=1)
        )


@pytest.mark.parametrize("K", [1, 8, 31, 32, 33, 64, 100, 128])
def test_exporters(K: int) -> None:
    """What goes out is what NumPy packs, and comes in again, whatever the polarity and the packed dimension."""
    w = torch.randn(3, K, 2, generator=torch.Generator().manual_seed(K))
    last = w.movedim(1, -1).numpy()
    for polarity in (1, -1):
        bits = binary.pack(w, 1, polarity=polarity)
        for write, read, ones, dtype in (
            (binary.to_larq, binary.from_larq, last < 0, np.int32),
            (binary.to_bitorch_engine, binary.from_bitorch_engine, last > 0, np.uint8),
            (binary.to_bnn_lab, binary.from_bnn_lab, last < 0, np.int64),
        ):
            octets = np.packbits(ones, axis=-1, bitorder="little")
            octets = np.pad(octets, ((0, 0), (0, 0), (0, -octets.shape[-1] % np.dtype(dtype).itemsize)))
            out = write(bits)
            assert np.array_equal(out.numpy(), np.ascontiguousarray(octets).view(dtype)) and out.numpy().dtype == dtype
            assert torch.equal(binary.unpack(read(out, K, 1)), torch.where(w >= 0, 1.0, -1.0))
    filters = torch.randn(4, K, 3, 3)
    out = binary.to_larq(binary.PackedWeight(filters))
    assert out.shape == (4, 3, 3, -(-K // 32)) and torch.equal(out, binary.to_larq(binary.pack(filters, 1)))
    assert binary.to_larq(binary.pack(torch.zeros(0, K))).shape == (0, -(-K // 32))


def test_exporters_refuse() -> None:
    w = torch.tensor([[1.0, 0.0, -1.0]])
    for write in (binary.to_larq, binary.to_bitorch_engine, binary.to_bnn_lab):
        with pytest.raises(TypeError, match="BitTensor or a PackedWeight"):
            write(w)
        with pytest.raises(ValueError, match="values 'pm1'"):
            write(binary.pack(w, values="01"))
        for kind in ("01", "ternary", "int2"):
            with pytest.raises(ValueError, match="kind 'pm1'"):
                write(binary.PackedWeight(w, kind))


def test_importers_refuse() -> None:
    for call, error in (
        (lambda: binary.from_larq(torch.zeros(2, 1), 5), TypeError),
        (lambda: binary.from_larq([1], 5), TypeError),
        (lambda: binary.from_larq(torch.zeros(2, 1, dtype=torch.int32), 33), ValueError),
        (lambda: binary.from_larq(torch.full((2, 1), 1 << 20, dtype=torch.int32), 5), ValueError),
        (lambda: binary.PackedWeight(binary.from_larq(torch.zeros(2, 3, 1, dtype=torch.int32), 5, 0)), ValueError),
    ):
        with pytest.raises(error):
            call()
