"""Wigner matrices of edges, rotations, generators: so2_wigner, so2_rotate, so2_rotate_back, so2_rotate_outer, so3_turn, so3_torque."""

from __future__ import annotations

import pytest
import torch
from cases import remembered
from compare import assert_close, assert_same
from so2_block_cases import directions
from structops import so2
from structops.kernels.so2 import wigner_ref as ref
from torch.autograd import gradcheck, gradgradcheck

ref = remembered(ref)

ops = torch.ops.structops
DEGREES = [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2), (6, 3), (8, 8), (8, 0)]
REALS = (torch.float32, torch.float64)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", REALS, ids=str)
def test_wigner_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for (L, M), E in zip(DEGREES, (1, 7, 8, 9, 33, 600, 17, 0), strict=True):
        vec = directions(E, seed=L).to(dtype)
        for gamma in (None, rand(E, dtype=dtype)):
            expected = ref.so2_wigner(vec.double(), None if gamma is None else gamma.double(), L, M)
            got = on_threads(lambda: ops.so2_wigner(vec, gamma, L, M))
            assert_close(got, expected, dtype, terms=4 if dtype == torch.float32 else 64, what=(L, M, E))


def test_frame_turns_the_edge_onto_y() -> None:
    vec = directions(50)
    D = so2.wigner_dense(so2.wigner(vec, 1), 1)[:, [3, 1, 2]][:, :, 1:]  # rows m = -1, 0, 1
    e = vec / vec.norm(dim=1, keepdim=True)
    assert_close((D @ e[:, :, None]).squeeze(2), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(50, 3), terms=8)


def test_orthogonal_and_a_homomorphism() -> None:
    vec, gamma = directions(30, seed=1), rand(30)
    D = ref.wigner_full(ref.frame(vec, gamma), 8)
    turn = ref.wigner_full(ref.frame(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).expand(30, 3), gamma), 8)
    plain = ref.wigner_full(ref.frame(vec), 8)
    for l in range(9):
        assert_close(D[l] @ D[l].mT, torch.eye(2 * l + 1, dtype=torch.float64).expand(30, -1, -1), terms=64)
        assert_close(turn[l] @ plain[l], D[l], terms=64)
    assert_close(so2.wigner(vec, 8, gamma=gamma), ref.pack(D, 8), terms=64)


def test_spherical_harmonics_turn_with_it() -> None:
    o3 = pytest.importorskip("e3nn.o3")
    vec, p = directions(20, seed=2), rand(20, 3, seed=3)
    R = so2.wigner(vec, 1)[:, 1:].reshape(-1, 3, 3)
    turned = (R @ p[:, :, None]).squeeze(2)
    D = so2.wigner(vec, 8)
    Y = o3.spherical_harmonics(list(range(9)), p, False)
    got = so2.rotate(Y[:, :, None], D, 8).squeeze(2)
    want = o3.spherical_harmonics(list(range(9)), turned, False)
    index = [l * l + l + m for l, m in so2.frame_order(8)]
    assert (got - want[:, index]).abs().max() < 1e-12 * want.abs().max()


def test_zero_length_has_no_direction() -> None:
    vec = torch.tensor([[0.0, 0.0, 0.0], [1e-300, 0.0, 0.0], [1e300, 1e300, 0.0]], dtype=torch.float64)
    D = so2.wigner(vec, 3)
    assert D[0].isnan().all()
    assert_close(D[1:], ref.so2_wigner(torch.tensor([[1.0, 0, 0], [1, 1, 0]], dtype=torch.float64), None, 3, 3), terms=8)


SPOTS = [
    (0, 1.3, 0),
    (0, -1.3, 0),
    (1e-5, 1, 2e-5),
    (1e-5, -1, 1e-5),
    (0.7, 0, 0),
    (0.3, -0.5, 0.2),
    (0.526, -0.86, 0.0),
    (0.5, 0.1, -2),
]


@pytest.mark.parametrize("L,M", [(2, 2), (4, 1)])
def test_wigner_derivatives(L: int, M: int) -> None:
    """First, second and third order against finite differences, at the poles and on both sides of the seam."""
    vec = torch.tensor(SPOTS, dtype=torch.float64, requires_grad=True)
    weight = rand(len(SPOTS), ref.packed_size(L, M))

    def value(v):
        return (so2.wigner(v, L, M) * weight).sin().sum(1)

    def gradient(v):
        return torch.autograd.grad(value(v).sum(), v, create_graph=True)[0]

    assert gradcheck(value, vec, fast_mode=True) and gradgradcheck(value, vec, fast_mode=True)
    assert gradgradcheck(gradient, vec, fast_mode=True)


def test_gradient_equals_that_of_the_formula() -> None:
    for dtype in REALS:
        vec = directions(40, seed=5).to(dtype).requires_grad_()
        weight = rand(40, ref.packed_size(8, 8), dtype=dtype)
        (got,) = torch.autograd.grad((so2.wigner(vec, 8) * weight).sum(), vec)
        exact = vec.detach().double().requires_grad_()
        (want,) = torch.autograd.grad((ref.so2_wigner(exact, None, 8, 8) * weight.double()).sum(), exact)
        assert ((got - want).norm(dim=1) <= (1e-4 if dtype == torch.float32 else 1e-12) * want.norm(dim=1)).all()


@pytest.mark.parametrize("dtype", REALS, ids=str)
@pytest.mark.parametrize("C", [1, 3, 48, 257])
def test_rotations_and_generators(isa: str, dtype: torch.dtype, C: int, poison: None, on_threads) -> None:
    for (L, M), E in zip(((0, 0), (2, 2), (3, 1), (8, 4)), (5, 0, 23, 3), strict=True):
        D = ref.so2_wigner(directions(E), None, L, M).to(dtype)
        S, n = (L + 1) ** 2, len(ref.order(L, M))
        x, z, v = rand(E, S, C, dtype=dtype), rand(E, n, C, seed=1, dtype=dtype), rand(E, 3, seed=2, dtype=dtype)
        y, D2 = rand(E, S, C, seed=3, dtype=dtype), rand(*D.shape, seed=4, dtype=dtype)
        calls = {
            "so2_rotate": (x, D), "so2_rotate_back": (z, D), "so2_rotate_outer": (z, x), "so3_turn": (x, v), "so3_torque": (y, x),
        }  # fmt: skip
        for op, args in calls.items():
            m = -1 if op.startswith("so3") else M
            expected = getattr(ref, op)(*(t.double() for t in args), L, m)
            got = on_threads(lambda: getattr(ops, op)(*args, L, m))
            assert_close(got, expected, dtype, terms=S * C * 8 if "torque" in op else S + C, magnitude=4, what=(op, L, M, C))
        for op, args in {"so3_turn": (D2, v), "so3_torque": (D2, D)}.items():
            expected = getattr(ref, op)(*(t.double() for t in args), L, M)
            assert_close(getattr(ops, op)(*args, L, M), expected, dtype, terms=8 * S, magnitude=4, what=(op, "packed"))


def test_rotation_derivatives() -> None:
    L, M, E, C = 2, 1, 3, 2
    D = rand(E, ref.packed_size(L, M)).requires_grad_()
    x, z = rand(E, 9, C).requires_grad_(), rand(E, 7, C).requires_grad_()
    for fn, t in ((so2.rotate, x), (so2.rotate_back, z)):
        assert gradcheck(lambda t, D: fn(t, D, L, M), (t, D)) and gradgradcheck(lambda t, D: fn(t, D, L, M), (t, D))


def test_rotate_back_undoes_rotate_and_its_gradient_is_none() -> None:
    """D^T D x does not depend on the frame: no gradient in the direction."""
    vec, x = directions(12).requires_grad_(), rand(12, 16, 3)
    D = so2.wigner(vec, 3)
    y = so2.rotate_back(so2.rotate(x, D, 3), D, 3)
    assert_close(y.detach(), x, terms=32)
    (g,) = torch.autograd.grad((y * rand(12, 16, 3, seed=1)).sum(), vec)
    assert (g * vec.norm(dim=1, keepdim=True)).abs().max() < 1e-12


def test_sixteen_bit_floats_and_strides() -> None:
    vec, x = directions(9), rand(9, 9, 5)
    for dtype in (torch.bfloat16, torch.float16):
        low = vec.clamp(-4, 4).to(dtype)
        assert_close(so2.wigner(low, 2), ref.so2_wigner(low.double(), None, 2, 2), dtype, terms=8)
    wide = rand(9, 9, 10)[..., ::2]
    D = so2.wigner(vec, 2)
    assert_same(so2.rotate(wide, D, 2), so2.rotate(wide.contiguous(), D, 2))
    assert so2.rotate(x.transpose(0, 1).contiguous().transpose(0, 1), D, 2).shape == (9, 9, 5)


def test_edge_order() -> None:
    index = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]])
    vec = torch.tensor([[2.0, 0, 0], [0, 0, 0], [1, 5, 0], [1, 2, 0]])
    assert so2.edge_order(index, vec).tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize(
    "call,error,name",
    [
        (lambda v: so2.wigner(v[:, :2], 2), ValueError, "vec"),
        (lambda v: so2.wigner(v.long(), 2), TypeError, "vec"),
        (lambda v: so2.wigner(v, 9), ValueError, "lmax"),
        (lambda v: so2.wigner(v, 2, 3), ValueError, "mmax"),
        (lambda v: so2.wigner(v, -1), ValueError, "lmax"),
        (lambda v: so2.wigner(v, 2.0), TypeError, "lmax"),
        (lambda v: so2.wigner(v, 2, gamma=v[:, 0].requires_grad_()), ValueError, "gamma"),
        (lambda v: so2.wigner(v, 2, gamma=v[1:, 0]), ValueError, "gamma"),
        (lambda v: so2.rotate(torch.zeros(4, 8, 2), v, 2), ValueError, "x"),
        (lambda v: so2.rotate(torch.zeros(4, 9, 2), torch.zeros(4, 34), 2), ValueError, "wigner"),
        (lambda v: so2.rotate(torch.zeros(4, 9, 2), torch.zeros(4, 35).double(), 2), TypeError, "wigner"),
        (lambda v: so2.rotate_back(torch.zeros(4, 9), torch.zeros(4, 35), 2), ValueError, "z"),
    ],
)
def test_bad_input(call, error, name) -> None:
    with pytest.raises(error, match=name):
        call(torch.randn(4, 3))
