"""Convolutions of bits (bits_conv) at the sizes of ResNet-18 and QuickNet: floats in and out, bits in and out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from structops import binary
from structops.kernels.binary import bits_ref
from torch import Tensor

from .bench_binary_linear import FLOAT, signs
from .case import FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

FLOATS, BITS, DEPTHWISE = "conv, packed weight", "conv, bits in and out", "depthwise conv, bits in"
LAYERS = ((56, 64), (28, 128), (14, 256), (7, 512))


def cases(level: str) -> Iterator[Case]:
    for H, C in at_level(level, smoke=[(5, 70)], quick=[(56, 64), (14, 256)], default=LAYERS, full=(*LAYERS, (56, 32), (28, 64))):
        yield _case(FLOATS, H, C, {"OpenVINO": 1.0})
        yield _case(BITS, H, C, {FLOAT: 15.0, "OpenVINO": 1.0})
    H, C = (5, 70) if level == "smoke" else (28, 256)
    yield _case(DEPTHWISE, H, C, {})


def _case(what: str, H: int, C: int, targets: dict[str, float]) -> Case:
    image, weights = H * H * C, 9 * C * (1 if what == DEPTHWISE else C)
    moved = int(image * (4.125 if what == DEPTHWISE else 8 if what == FLOATS else 0.25) + weights / 8)
    return Case(
        what,
        FWD,
        "3x3, padding 1",
        f"{H}²x{C}",
        C,
        partial(_build, what, H, C),
        Traffic(moved, moved, 2 * H * H * weights),
        targets,
    )


@lru_cache(maxsize=1)
def _operands(H: int, C: int, groups: int, device: str) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(H + C)
    return torch.randn(1, C, H, H, generator=g).to(device), torch.randn(C, C // groups, 3, 3, generator=g).to(device)


def _openvino(x: Tensor, w: Tensor) -> Provider:
    """The plugin's BinaryConvolution behind the FakeQuantize that it needs; floats in and out."""
    ov, reason = load("openvino")
    if ov is None or x.is_cuda:
        return Provider("OpenVINO", None, reason or "CPU only")
    import numpy as np
    import openvino.opset8 as op

    C = x.shape[1]
    node = op.parameter(list(x.shape), np.float32)
    zero = op.constant(np.zeros((1, C, 1, 1), np.float32))
    bits = op.fake_quantize(node, zero, zero, op.constant(np.float32(0)), op.constant(np.float32(1)), 2)
    octets = np.packbits((w >= 0).numpy().reshape(-1), bitorder="little")
    filters = ov.op.Constant(ov.Tensor(octets, ov.Shape(list(w.shape)), ov.Type.u1))
    result = op.binary_convolution(bits, filters, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", 0.0)
    model = ov.Model([result], [node], "conv")
    compiled: dict[int, object] = {}
    array = x.numpy()

    def run(octets=octets):  # the constant does not own its bytes
        threads = torch.get_num_threads()
        if threads not in compiled:
            made = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
            compiled[threads] = made.create_infer_request()
        request = compiled[threads]
        return (torch.from_numpy(request.infer({0: array}, share_inputs=True, share_outputs=True)[0]),)

    return Provider("OpenVINO", run)


def _build(what: str, H: int, C: int, device: str) -> Prepared:
    groups = C if what == DEPTHWISE else 1
    x, w = _operands(H, C, groups, device)
    sx, sw = signs(x), signs(w)
    bits, ahead = binary.pack(x, 1), binary.PackedWeight(w, groups=groups)
    dot = lambda: F.conv2d(sx.double(), sw.double(), None, 1, 1, 1, groups)
    do = lambda f: runner(f, FWD)
    as_float = do(lambda: F.conv2d(sx, sw, None, 1, 1, 1, groups))
    if what == BITS:
        threshold = torch.stack([torch.arange(C) % 7 - 3, -(torch.arange(C) % 2)]).int().to(device)
        ours = do(lambda: binary.binary_conv2d(bits, ahead, None, 1, 1, threshold=threshold).words)
        flips = threshold[1].bool()
        want = lambda: (bits_ref.to_words((dot().movedim(1, -1) >= threshold[0]) ^ flips).double(),)
        # Results of the peers are floats: compared in the case beside this one.
        other = _openvino(x, w)
        peers = [Provider(FLOAT, lambda: as_float()[:0])]
        peers.append(Provider(other.name, other.run and (lambda: other.run()[:0]), other.reason))
        return Prepared(Provider(OURS, ours), peers, want)
    if what == DEPTHWISE:
        ours = do(lambda: binary.binary_conv2d(bits, ahead, None, 1, 1, groups=groups))
        return Prepared(Provider(OURS, ours), [Provider(FLOAT, as_float)], lambda: (dot(),), tolerance=0)
    ours = do(lambda: binary.binary_conv2d(x, ahead, None, 1, 1))
    return Prepared(Provider(OURS, ours), [Provider(FLOAT, as_float), _openvino(x, w)], lambda: (dot(),), tolerance=0)


def test_conv(case, bench_case):
    bench_case(case)
