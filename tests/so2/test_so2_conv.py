"""The SO(2) linear map: so2_conv, so2_conv_wgrad and so2_linear."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_same
from structops import so2
from structops.kernels.so2 import so2_conv_ref as ref
from torch.autograd import gradcheck, gradgradcheck
from turns import turn

ops = torch.ops.structops
SHAPES = [  # L, M, Cin, Cout, extra, E
    (0, 0, 1, 1, 0, 1), (2, 2, 3, 5, 4, 9), (2, 2, 48, 16, 32, 85), (3, 1, 1, 257, 0, 3), (4, 2, 17, 1, 7, 170), (8, 8, 2, 3, 1, 20),
    (6, 3, 40, 9, 0, 14), (1, 0, 257, 3, 5, 29), (2, 1, 4, 4, 2, 0),
]  # fmt: skip


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def numel(L: int, M: int, Cin: int, Cout: int, extra: int) -> int:
    return sum(a * b for a, b in so2.weight_shapes(L, M, Cin, Cout, extra))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("three", [False, True])
def test_raw_values(isa: str, dtype: torch.dtype, three: bool, poison: None, on_threads) -> None:
    for L, M, Cin, Cout, extra, E in SHAPES:
        shape, n = (L, M, Cin, Cout, extra), len(so2.frame_order(L, M))
        w = rand(numel(*shape), dtype=dtype)
        x, g = rand(E, n * Cin, seed=1, dtype=dtype), rand(E, extra + n * Cout, seed=2, dtype=dtype)
        for bias in (None, rand(extra + (L + 1) * Cout, dtype=dtype)):
            got = on_threads(lambda: ops.so2_conv(x, w, bias, *shape, False, three))
            want = ref.so2_conv(x.double(), w.double(), None if bias is None else bias.double(), *shape, False, three)
            assert_close(got, want, dtype, terms=3 * (L + 1) * Cin, magnitude=2, what=(shape, E))
        got = on_threads(lambda: ops.so2_conv(g, w, None, *shape, True, three))
        assert_close(
            got,
            ref.so2_conv(g.double(), w.double(), None, *shape, True, three),
            dtype,
            terms=3 * (L + 1) * (Cout + extra),
            magnitude=2,
        )
        got = on_threads(lambda: ops.so2_conv_wgrad(x, g, *shape))
        assert_close(got, ref.so2_conv_wgrad(x.double(), g.double(), *shape), dtype, terms=2 * E + 1, magnitude=2)


def test_the_products_are_each_others_derivatives() -> None:
    shape = (2, 1, 2, 3, 2)
    n = len(so2.frame_order(2, 1))
    x, g = rand(4, n * 2).requires_grad_(), rand(4, 2 + n * 3, seed=1).requires_grad_()
    w, b = rand(numel(*shape)).requires_grad_(), rand(11).requires_grad_()
    conv = lambda three: lambda x, w, b: ops.so2_conv(x, w, b, *shape, False, three)
    back = lambda g, w: ops.so2_conv(g, w, None, *shape, True, False)
    grad = lambda x, g: ops.so2_conv_wgrad(x, g, *shape)
    for fn, args in ((conv(False), (x, w, b)), (conv(True), (x, w, b)), (back, (g, w)), (grad, (x, g))):
        assert gradcheck(fn, args) and gradgradcheck(fn, args, fast_mode=True)


def test_an_edge_does_not_see_its_neighbours() -> None:
    """The same bits for a row wherever it stands in a tile."""
    shape = (2, 2, 7, 5, 3)
    x, w = rand(200, 63, dtype=torch.float32), rand(numel(*shape), dtype=torch.float32)
    perm = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    for three in (False, True):
        assert_same(ops.so2_conv(x[perm], w, None, *shape, False, three), ops.so2_conv(x, w, None, *shape, False, three)[perm])
        assert_same(ops.so2_conv(x[3:4], w, None, *shape, False, three), ops.so2_conv(x, w, None, *shape, False, three)[3:4])


def test_linear_commutes_with_turns_about_the_edge() -> None:
    L, M, E = 3, 2, 6
    w = [rand(*s, seed=i) for i, s in enumerate(so2.weight_shapes(L, M, 4, 5, 3))]
    x, gamma = rand(E, len(so2.frame_order(L, M)), 4), rand(E)
    f = lambda t: so2.so2_linear(t, w, rand(3 + 4 * 5), lmax=L, mmax=M, out_channels=5, extra=3)
    (e1, y1), (e2, y2) = f(turn(x, gamma, L, M)), f(x)
    assert_close(e1, e2, terms=32)
    assert_close(y1, turn(y2, gamma, L, M), terms=64)


def test_weights_are_never_stale() -> None:
    w = [rand(*s, seed=i).requires_grad_() for i, s in enumerate(so2.weight_shapes(2, 2, 3, 4))]
    x = rand(5, 9, 3)
    step = torch.optim.SGD(w, lr=0.1)
    for _ in range(3):
        y = so2.so2_linear(x, w, lmax=2, out_channels=4)
        flat = torch.cat([m.reshape(-1) for m in w]).detach()
        assert_close(y.detach().flatten(1), ref.so2_conv(x.flatten(1), flat, None, 2, 2, 3, 4, 0, False, False), terms=32)
        step.zero_grad()
        y.square().sum().backward()
        step.step()


def test_equals_the_full_tensor_product() -> None:
    """Rotate, convolve with weights made of Clebsch-Gordan numbers, rotate back: the tensor product with spherical harmonics."""
    o3 = pytest.importorskip("e3nn.o3")
    L, E, C = 3, 7, 2
    vec, x = rand(E, 3, seed=1), rand(E, (L + 1) ** 2, C, seed=2)
    paths = [(a, f, b) for a in range(L + 1) for f in range(L + 1) for b in range(L + 1) if abs(a - f) <= b <= a + f]
    strength = dict(zip(paths, rand(len(paths), C, C, seed=3), strict=True))
    Y = lambda l, v: o3.spherical_harmonics(l, v, True, "component")
    want = torch.zeros(E, (L + 1) ** 2, C, dtype=torch.float64)
    blocks = {(a, b): torch.zeros(2 * b + 1, 2 * a + 1, C, C, dtype=torch.float64) for a in range(L + 1) for b in range(L + 1)}
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    for (a, f, b), h in strength.items():
        cg = o3.wigner_3j(a, f, b, dtype=torch.float64)
        want[:, b * b : (b + 1) ** 2] += torch.einsum("ifo,eic,ef,cd->eod", cg, x[:, a * a : (a + 1) ** 2], Y(f, vec), h)
        blocks[a, b] += torch.einsum("ifo,f,cd->oicd", cg, Y(f, up), h)
    weights = []
    for m in range(L + 1):
        rows = [torch.cat([blocks[a, b][b + m, a + m].T for a in range(m, L + 1)], 1) for b in range(m, L + 1)]
        if m == 0:
            weights.append(torch.cat(rows))
        else:
            cross = [torch.cat([blocks[a, b][b - m, a + m].T for a in range(m, L + 1)], 1) for b in range(m, L + 1)]
            weights.append(torch.cat(rows + cross))
    D = so2.wigner(vec, L)
    got = so2.rotate_back(so2.so2_linear(so2.rotate(x, D, L), weights, lmax=L, out_channels=C), D, L)
    assert_close(got, want, terms=256, magnitude=4)


@pytest.mark.parametrize(
    "change,error,name",
    [
        ({"x": torch.zeros(2, 8, 3)}, ValueError, "x"),
        ({"lmax": 9}, ValueError, "lmax"),
        ({"mmax": 3}, ValueError, "mmax"),
        ({"weight": [torch.zeros(12, 9)]}, ValueError, "weight"),
        ({"weight": torch.zeros(5)}, ValueError, "weight"),
        ({"bias": torch.zeros(3)}, ValueError, "bias"),
        ({"out_channels": 5}, ValueError, "weight"),
        ({"extra": -1}, ValueError, "extra"),
        ({"three_products": 1}, TypeError, "three_products"),
    ],
)
def test_bad_input(change, error, name) -> None:
    given = {
        "x": torch.zeros(2, 9, 3),
        "weight": [torch.zeros(s) for s in so2.weight_shapes(2, 2, 3, 4)],
        "lmax": 2,
        "out_channels": 4,
        **change,
    }
    with pytest.raises(error, match=name):
        so2.so2_linear(**given)
