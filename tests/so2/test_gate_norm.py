"""Gates, norms and inner products: against e3nn, fairchem, the formulas; equivariance and derivatives."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from fairchem_parts import uma
from rotations import act, random_rotation
from structops import so2
from structops.so2 import Irreps
from torch.autograd import gradcheck, gradgradcheck
from turns import turn

FLAT = Irreps("3x0e+2x1o+1x0o+2x2e+1x1e")


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def uniform(lmax: int, C: int) -> Irreps:
    """The irreps of rows ``[(lmax + 1)^2, C]`` flattened: layout ir_mul."""
    return Irreps([(C, l, (-1) ** l) for l in range(lmax + 1)])


# ---- gate ------------------------------------------------------------------------------------------------------------


def test_gate_equals_e3nn() -> None:
    nn = pytest.importorskip("e3nn.nn", reason="e3nn is not installed")
    peer = nn.Gate("4x0e+2x0o", [torch.nn.functional.silu, torch.tanh], "5x0e", [torch.sigmoid], "3x1o+2x2e").double()
    assert str(peer.irreps_in) == "2x0o+9x0e+3x1o+2x2e"  # sorted: odd and even scalars, gates, gated
    x = rand(7, peer.irreps_in.dim)
    odd, even, gates, gated = x.split([2, 4, 5, 9 + 10], 1)
    acts = [peer.act_scalars.acts[0], peer.act_scalars.acts[1]]
    got = so2.gate(torch.cat([even, odd, gated], 1), gates, "4x0e+2x0o+3x1o+2x2e", act=acts, gate_act=peer.act_gates.acts[0])
    assert_close(got, peer(x), terms=4)


@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_gate_equals_fairchem(lmax: int) -> None:
    module = uma("nn.activation")
    x, gates = rand(5, (lmax + 1) ** 2, 6), rand(5, lmax * 6, seed=1)
    assert_close(so2.gate(x, gates, lmax), module.GateActivation(lmax, lmax, 6)(gates, x), terms=4)


@pytest.mark.parametrize("L,M", [(0, 0), (2, 1), (3, 3)])
def test_frame_gate_per_degree_equals_fairchem(L: int, M: int) -> None:
    peer = uma("nn.activation").GateActivation(L, M, 6, m_prime=True)
    x, gates = rand(5, len(so2.frame_order(L, M)), 6), rand(5, L, 6, seed=1)
    assert_close(so2.so2_gate(x, gates, lmax=L, mmax=M, per_degree=True), peer(gates.flatten(1), x), terms=4)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_gate_is_equivariant(layout: str) -> None:
    x, gates, R = rand(6, FLAT.dim), rand(6, 5, seed=1), random_rotation()
    f = lambda t: so2.gate(t, gates, FLAT, act=["silu", "tanh"], layout=layout)
    for inversion in (False, True):
        assert_close(f(act(FLAT, x, R, inversion, layout)), act(FLAT, f(x), R, inversion, layout), terms=32)


def test_a_relu_of_vectors_is_not_equivariant() -> None:
    """The harness sees what it should: the norm gate passes, ReLU on components does not."""
    irreps, R = Irreps("4x1o"), random_rotation()
    x = rand(6, irreps.dim)
    by_norm = lambda t: so2.gate(t, so2.inner_product(t, t, irreps).sqrt(), irreps)
    assert_close(by_norm(act(irreps, x, R)), act(irreps, by_norm(x), R), terms=32)
    assert (act(irreps, x, R).relu() - act(irreps, x.relu(), R)).abs().max() > 0.1


def test_inner_product() -> None:
    irreps = Irreps("2x0e+0x1o+3x2e+1x1e")  # one term without copies
    x, y = rand(4, 3, irreps.dim), rand(4, 3, irreps.dim, seed=1)
    want = [
        (x[..., s] * y[..., s]).unflatten(-1, (t.mul, t.dim)).sum(-1) for t, s in zip(irreps, irreps.slices(), strict=True) if t.mul
    ]
    assert_close(so2.inner_product(x, y, irreps), torch.cat(want, -1), terms=8)
    z = rand(4, 9, 5)
    assert_close(so2.inner_product(z, z, 2), torch.cat([z[:, l * l : (l + 1) ** 2].square().sum(1) for l in range(3)], 1), terms=8)


# ---- norm ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["component", "norm"])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_norm_equals_fairchem(float64_default: None, lmax: int, balanced: bool, normalization: str) -> None:
    module = uma("nn.layer_norm")
    C = 6
    x, w, b = rand(5, (lmax + 1) ** 2, C), rand(lmax + 1, C, seed=1), rand(C, seed=2)
    options = {"normalization": normalization, "balanced": balanced}

    peer = module.EquivariantLayerNormArray(lmax, C, normalization=normalization)
    peer.affine_weight.data, peer.affine_bias.data = w, b
    assert_close(so2.norm(x, lmax, w, b, kind="layer_norm", **options), peer(x).detach(), terms=64)

    peer = module.EquivariantLayerNormArraySphericalHarmonics(lmax, C, normalization=normalization, std_balance_degrees=balanced)
    peer.norm_l0.weight.data, peer.norm_l0.bias.data, peer.affine_weight.data = w[0], b, w[1:]
    assert_close(so2.norm(x, lmax, w, b, kind="layer_norm_sh", **options), peer(x).detach(), terms=64)

    if normalization == "component" or not balanced:
        for centered in (True, False):
            peer = module.EquivariantRMSNormArraySphericalHarmonicsV2(
                lmax, C, normalization=normalization, std_balance_degrees=balanced, centering=centered
            )
            peer.affine_weight.data = w
            if centered:
                peer.affine_bias.data = b
            got = so2.norm(x, lmax, w, b if centered else None, centered=centered, **options)
            assert_close(got, peer(x).detach(), terms=64)


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_sh", "rms_norm_sh"])
def test_flat_rows_equal_stacked_rows(kind: str) -> None:
    lmax, C = 2, 4
    x, w, b = rand(5, 9, C), rand(lmax + 1, C, seed=1), rand(C, seed=2)
    want = so2.norm(x, lmax, w, b, kind=kind)
    got = so2.norm(x.flatten(1), uniform(lmax, C), w.flatten(), b, kind=kind, layout="ir_mul")
    assert_close(got.reshape(x.shape), want)


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_sh", "rms_norm_sh"])
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_norm_is_equivariant(kind: str, layout: str) -> None:
    x, w, b, R = rand(6, FLAT.dim), rand(FLAT.num_irreps, seed=1), rand(3, seed=2), random_rotation()
    f = lambda t: so2.norm(t, FLAT, w, b, kind=kind, layout=layout)
    for inversion in (False, True):
        assert_close(f(act(FLAT, x, R, inversion, layout)), act(FLAT, f(x), R, inversion, layout), terms=64)


def test_normalised_rows() -> None:
    """Means of squares are 1, whatever the scale; a zero row stays 0 and has a finite gradient."""
    x = 1e3 * rand(5, FLAT.dim)
    y = so2.norm(x, FLAT, kind="layer_norm")
    for t, s in zip(FLAT, FLAT.slices(), strict=True):
        if t.l >= 0:
            assert_close(y[:, s].square().mean(1), torch.ones(5, dtype=torch.float64), magnitude=1e7)
    zero = torch.zeros(2, 9, 3, dtype=torch.float64, requires_grad=True)
    out = so2.norm(zero, 2)
    (g,) = torch.autograd.grad(out.sum(), zero)
    assert (out == 0).all() and g.isfinite().all()


# ---- edge frame ------------------------------------------------------------------------------------------------------


def test_frame_layers_commute_with_turns() -> None:
    L, M, E, C = 4, 2, 5, 3
    n = len(so2.frame_order(L, M))
    x, gamma = rand(E, n, C), rand(E, seed=1)
    gates, w, b = rand(E, (n - L - 1) // 2, C, seed=2), rand((n + L + 1) // 2, C, seed=3), rand(L + 1, C, seed=4)
    for f in (
        lambda t: so2.so2_gate(t, gates, lmax=L, mmax=M),
        lambda t: so2.so2_norm(t, w, b, lmax=L, mmax=M),
        lambda t: so2.so2_norm(t, lmax=L, mmax=M, centered=False),
    ):
        assert_close(f(turn(x, gamma, L, M)), turn(f(x), gamma, L, M), terms=32)


def test_frame_layers_row_by_row() -> None:
    L, M, E, C = 3, 2, 4, 2
    rows = so2.frame_order(L, M)
    pairs = [r for r in rows if r[1] > 0]
    x, gates, w, b = (
        rand(E, len(rows), C),
        rand(E, len(pairs), C, seed=1),
        rand(L + 1 + len(pairs), C, seed=2),
        rand(L + 1, C, seed=3),
    )
    got, normed = so2.so2_gate(x, gates, lmax=L, mmax=M), so2.so2_norm(x, w, b, lmax=L, mmax=M, eps=1e-3)
    for i, (l, m) in enumerate(rows):
        y = x[:, [j for j, r in enumerate(rows) if abs(r[1]) == abs(m)]]
        if m == 0:
            want, y = torch.nn.functional.silu(x[:, i]), y - y.mean((1, 2), keepdim=True)
            mean = x[:, [j for j, r in enumerate(rows) if r[1] == 0]].mean((1, 2))[:, None]
            scaled = (x[:, i] - mean) / (y.square().mean((1, 2))[:, None] + 1e-3).sqrt() * w[l] + b[l]
        else:
            at = pairs.index((l, abs(m)))
            want = x[:, i] * gates[:, at].sigmoid()
            scaled = x[:, i] / (2 * y.square().mean((1, 2))[:, None] + 1e-3).sqrt() * w[L + 1 + at]
        assert_close(got[:, i], want)
        assert_close(normed[:, i], scaled, terms=32)


# ---- derivatives, types, errors --------------------------------------------------------------------------------------


def test_derivatives() -> None:
    x, gates = rand(2, FLAT.dim).requires_grad_(), rand(2, 5, seed=1).requires_grad_()
    w, b = rand(FLAT.num_irreps, seed=2).requires_grad_(), rand(3, seed=3).requires_grad_()
    other = rand(2, FLAT.dim, seed=9).requires_grad_()
    frame, pair_gates = rand(2, 7, 2).requires_grad_(), rand(2, 2, 2, seed=4).requires_grad_()
    fw, fb = rand(5, 2, seed=5).requires_grad_(), rand(3, 2, seed=6).requires_grad_()
    calls = [
        (lambda x, g: so2.gate(x, g, FLAT, act=["silu", "tanh"]), (x, gates)),
        (lambda x, y: so2.inner_product(x, y, FLAT), (x, other)),
        (lambda x, g: so2.so2_gate(x, g, lmax=2, mmax=1), (frame, pair_gates)),
        (lambda x, w, b: so2.so2_norm(x, w, b, lmax=2, mmax=1), (frame, fw, fb)),
        *((lambda x, w, b, kind=kind: so2.norm(x, FLAT, w, b, kind=kind), (x, w, b)) for kind in ("layer_norm", "layer_norm_sh", "rms_norm_sh")),
    ]  # fmt: skip
    for fn, args in calls:
        assert gradcheck(fn, args, fast_mode=True) and gradgradcheck(fn, args, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    x, gates = rand(5, 9, 33, dtype=dtype), rand(5, 66, seed=1, dtype=dtype)
    assert_close(so2.norm(x, 2), so2.norm(x.double(), 2), dtype, terms=300)
    assert so2.gate(x, gates, 2).dtype == dtype
    frame = rand(5, 7, 3, dtype=dtype)
    assert_close(so2.so2_norm(frame, lmax=2, mmax=1), so2.so2_norm(frame.double(), lmax=2, mmax=1), dtype, terms=32)


def test_empty() -> None:
    for N, C in ((0, 3), (3, 0)):
        x = rand(N, 9, C)
        assert so2.gate(x, rand(N, 2 * C), 2).shape == x.shape
        assert so2.norm(x, 2).shape == x.shape
        assert so2.inner_product(x, x, 2).shape == (N, 3 * C)
    assert so2.gate(rand(3, 0), rand(3, 0), "").shape == (3, 0)
    assert so2.norm(rand(3, 0), "").shape == (3, 0)
    assert so2.so2_norm(rand(0, 4, 2), lmax=1).shape == (0, 4, 2)


def test_arguments_are_left_alone() -> None:
    x, gates = rand(3, FLAT.dim), rand(3, 5)
    before = x.clone(), gates.clone()
    so2.gate(x, gates, FLAT, act="tanh")
    so2.norm(x, FLAT)
    assert torch.equal(x, before[0]) and torch.equal(gates, before[1])


@pytest.mark.parametrize(
    "call,error,name",
    [
        (lambda: so2.gate(rand(2, 8, 3), rand(2, 6), 2), ValueError, "x"),
        (lambda: so2.gate(rand(2, 9, 3), rand(2, 7), 2), ValueError, "gates"),
        (lambda: so2.gate(rand(2, 9, 3), rand(2, 6).float(), 2), TypeError, "gates"),
        (lambda: so2.gate(rand(2, 9, 3), rand(2, 6), True), TypeError, "irreps"),
        (lambda: so2.gate(rand(2, 9, 3), rand(2, 6), 2, act="swish"), ValueError, "act"),
        (lambda: so2.gate(rand(2, 1), rand(2, 0), "0o"), ValueError, "odd"),
        (lambda: so2.gate(rand(2, 2), rand(2, 0), "0e+0e", act=["silu"]), ValueError, "act"),
        (lambda: so2.gate(rand(2, 9, 3), rand(2, 6), 2, layout="x"), ValueError, "layout"),
        (lambda: so2.inner_product(rand(2, 4), rand(2, 5), "0e+1o"), ValueError, "y"),
        (lambda: so2.norm(rand(2, 9, 3), 2, rand(9)), ValueError, "weight"),
        (lambda: so2.norm(rand(2, 9, 3), 2, None, rand(2)), ValueError, "bias"),
        (lambda: so2.norm(rand(2, 9, 3), 2, kind="batch"), ValueError, "kind"),
        (lambda: so2.norm(rand(2, 9, 3), 2, normalization="x"), ValueError, "normalization"),
        (lambda: so2.norm(rand(2, 9, 3), 2, balanced=1), TypeError, "balanced"),
        (lambda: so2.norm(torch.zeros(2, 4, dtype=torch.int64), "0e+1o"), TypeError, "x"),
        (lambda: so2.so2_gate(rand(2, 4, 3), rand(2, 2, 3), lmax=1), ValueError, "gates"),
        (lambda: so2.so2_gate(rand(2, 4, 3), rand(2, 1, 3), lmax=1, per_degree=1), TypeError, "per_degree"),
        (lambda: so2.so2_norm(rand(2, 4, 3), rand(4, 3), lmax=1), ValueError, "weight"),
        (lambda: so2.so2_norm(rand(2, 5, 3), lmax=1), ValueError, "x"),
    ],
)
def test_bad_input(call, error, name) -> None:
    with pytest.raises(error, match=name):
        call()


def test_compiled() -> None:
    x, gates = rand(5, 9, 4), rand(5, 8, seed=1)
    fn = lambda x, g: so2.norm(so2.gate(x, g, 2), 2)
    assert_close(torch.compile(fn, fullgraph=True, backend="aot_eager")(x, gates), fn(x, gates))
