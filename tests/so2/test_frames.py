"""eigh_small, eigh_small_bwd, frames, frame_average: values and derivatives against torch.linalg.eigh in float64, degenerate spectra, symmetries."""

from __future__ import annotations

import itertools

import pytest
import structops
import torch
from rotations import random_rotation
from structops.kernels.so2 import eigh_small_ref
from structops.so2 import Frames, eigh_small, frame_average, frames
from torch.autograd import gradcheck, gradgradcheck

SPECTRA = ((1, 2, 3), (1, 1, 2), (1, 2, 2), (1, 1, 1), (0, 0, 0), (0, 0, 1), (0, 1, 1), (-2, 0, 2), (1, 1 + 1e-7, 2), (1, 1 + 1e-14, 1 + 1e-13), (1e-8, 1, 1e8))


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_spectrum(w, count: int = 7, seed: int = 0) -> torch.Tensor:
    n = len(w)
    q = torch.linalg.qr(rand(count, n, n, seed=seed)).Q
    q[0] = torch.eye(n)
    return q @ torch.diag(torch.tensor(w, dtype=torch.float64)) @ q.mT


# ---- eigh_small ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 16, 133])
def test_against_linalg(count: int, n: int, isa: str, on_threads, poison) -> None:
    """Unsymmetric input: its symmetric part."""
    a = rand(count, n, n)
    for dtype in (torch.float64, torch.float32):
        w, v = on_threads(lambda: torch.ops.structops.eigh_small(a.to(dtype)))
        want_w, want_v = eigh_small_ref.eigh_small(a.to(dtype).double())
        eps = torch.finfo(dtype).eps
        assert w.dtype == v.dtype == dtype and w.shape == (count, n) and v.shape == (count, n, n)
        if count:
            assert (w - want_w).abs().max() < max(20, 10 * (n - 1)) * eps
            gap = want_w.diff(dim=1).amin(1)
            assert ((v - want_v).abs().amax((1, 2)) < max(30, 10 * n) * eps / gap).all()


@pytest.mark.parametrize("w", SPECTRA, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e-44])
def test_any_spectrum(w, scale: float, isa: str) -> None:
    """Residual, orthogonality, order, determinant and signs, whatever the gaps."""
    for dtype, part in itertools.product((torch.float64, torch.float32), (w, w[:2], (*w, *w), (*w, 0.5, *w, -1))):
        a = (with_spectrum(part) * scale).to(dtype)
        a = (a + a.mT) / 2
        size, eps = float(a.double().abs().max()), torch.finfo(dtype).eps
        bound, least = max(16, 4 * len(part) + 4), torch.finfo(dtype).smallest_normal * eps
        w_, v = (t.double() for t in eigh_small(a))
        assert (a.double() @ v - v * w_[:, None]).abs().max() <= bound * (eps * size + least)
        assert (v.mT @ v - torch.eye(len(part))).abs().max() <= bound * eps
        assert (w_.diff(dim=1) >= 0).all() and (torch.linalg.det(v) - 1).abs().max() <= bound * eps
        assert (v.amax(1) - v.abs().amax(1))[:, :-1].min() >= -bound * eps  # of equal magnitudes any may be the one


def test_exact_where_diagonal(isa: str) -> None:
    w, v = eigh_small(torch.diag(torch.tensor([3.0, 1.0, 2.0])))
    assert w.tolist() == [1.0, 2.0, 3.0] and v.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_matrices_are_independent(isa: str) -> None:
    """Bit for bit, also beside matrices that take more rotations, or are not finite."""
    a = torch.cat([with_spectrum((1, 2, 3), 40), with_spectrum((1e-8, 1, 1e8), 9)])
    a[11, 0, 1], a[30, 2, 2] = float("nan"), float("inf")
    w, v = eigh_small(a)
    for i in range(len(a)):
        alone_w, alone_v = eigh_small(a[i])
        if i in (11, 30):
            assert w[i].isnan().all() and v[i].isnan().all() and alone_w.isnan().all()
        else:
            assert torch.equal(alone_w, w[i]) and torch.equal(alone_v, v[i])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_derivatives(n: int) -> None:
    a = rand(4, n, n).requires_grad_()
    assert gradcheck(eigh_small, a) and gradgradcheck(eigh_small, a)
    first = lambda t: torch.autograd.grad(sum(r.sin().sum() for r in eigh_small(t)), t, create_graph=True)[0]
    assert gradgradcheck(first, rand(1, n, n, seed=2).requires_grad_())


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [0, 1, 37])
def test_backward_kernel(count: int, n: int, isa: str, on_threads, poison) -> None:
    """Gradients of both results or of one; the formula needs no orthogonality."""
    w, v, gw, gv = rand(count, n).sort(1).values + torch.arange(n), rand(count, n, n), rand(count, n, seed=1), rand(count, n, n, seed=2)
    for dtype, pair in itertools.product((torch.float64, torch.float32), ((gw, gv), (gw, None), (None, gv), (None, None))):
        args = [None if t is None else t.to(dtype) for t in (w, v, *pair)]
        got = on_threads(lambda: torch.ops.structops.eigh_small_bwd(*args))
        want = eigh_small_ref.eigh_small_bwd(*(None if t is None else t.double() for t in args))
        assert got.dtype == dtype and torch.allclose(got.double(), want, atol=200 * torch.finfo(dtype).eps, rtol=0)


def test_gradient_is_that_of_linalg() -> None:
    a = with_spectrum((1, 2, 4)).requires_grad_()
    signs = torch.linalg.eigh(a.detach())[1].mul(eigh_small(a.detach())[1]).sum(1).sign()
    c, b = rand(7, 3, seed=3), rand(7, 3, 3, seed=4)
    found = []
    for f, s in ((eigh_small, 1), (torch.linalg.eigh, signs[:, None])):
        w, v = f((a + a.mT) / 2)
        found.append(torch.autograd.grad((w * c).sum() + (v * s * b).sum(), a)[0])
    assert torch.allclose(*found, atol=1e-12)


def test_equal_eigenvalues() -> None:
    """A gradient through eigenvalues is exact; one through eigenvectors is not finite, as in torch.linalg.eigh."""
    a = torch.eye(3, dtype=torch.float64).requires_grad_()
    (g,) = torch.autograd.grad(eigh_small(a)[0].square().sum(), a, create_graph=True)
    assert torch.equal(g, 2 * torch.eye(3, dtype=torch.float64))
    assert not torch.autograd.grad(g.sum(), a)[0].isfinite().all()
    assert not torch.autograd.grad(eigh_small(a)[1].sum(), a)[0].isfinite().all()


def test_dtypes_shapes_and_errors() -> None:
    a = with_spectrum((1, 2, 3), 6).reshape(2, 3, 3, 3)
    w, v = eigh_small(a.transpose(0, 1))
    assert torch.equal(w, eigh_small(a)[0].transpose(0, 1)) and v.shape == (3, 2, 3, 3)
    for dtype in (torch.bfloat16, torch.float16):
        w, v = eigh_small(a.to(dtype))
        assert w.dtype == v.dtype == dtype and (w.double() - torch.tensor([1.0, 2.0, 3.0])).abs().max() < 0.05
    for bad, kind in ((a[..., :2], ValueError), (rand(9, 9), ValueError), (rand(1, 1), ValueError), (rand(3), ValueError), (a.long(), TypeError), (3, TypeError)):
        with pytest.raises(kind, match="eigh_small: expected a"):
            eigh_small(bad)
    with structops.backends.override("reference"):
        assert gradgradcheck(eigh_small, rand(2, 3, 3).requires_grad_())


def test_compile_of_frames() -> None:
    ptr, pos = torch.tensor([0, 4, 9]), rand(9, 3)

    def f(x):
        found = frames(x, ptr)
        return frame_average(found, (found.pos + 0.5).sin(), "position")

    x = pos.clone().requires_grad_()
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), f(x))
    grads = [torch.autograd.grad(h(x).square().sum(), x)[0] for h in (f, compiled)]
    assert torch.allclose(*grads)


# ---- frames ----------------------------------------------------------------------------------------------------------

PTR = torch.tensor([0, 5, 5, 12])
GROUPS = {"O(3)": 8, "SO(3)": 4, "O(2)": 4, "SO(2)": 2}


def turn(D: int, proper: bool) -> torch.Tensor:
    R = random_rotation(3)
    if D == 2:
        c, s = torch.tensor(0.7, dtype=torch.float64).cos(), torch.tensor(0.7, dtype=torch.float64).sin()
        R = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
    return R if proper else R @ torch.diag(torch.tensor([-1.0] + [1.0] * (D - 1), dtype=torch.float64))


@pytest.mark.parametrize("group", GROUPS)
def test_frames_against_their_definition(group: str) -> None:
    D, proper = int(group[-2]), group[0] == "S"
    pos = rand(12, D)
    f = frames(pos, PTR.int(), group)
    assert f.rotation.shape == (3, GROUPS[group], D, D) and f.pos.shape == (GROUPS[group], 12, D)
    for g, (a, b) in enumerate(zip(PTR.tolist(), PTR.tolist()[1:], strict=False)):
        if a == b:
            assert f.eigenvalues[g].abs().sum() == 0 and f.gap()[g] == 0
            continue
        x = pos[a:b] - pos[a:b].mean(0)
        w, U = torch.linalg.eigh(x.T @ x)
        assert torch.allclose(f.eigenvalues[g], w) and torch.allclose(f.gap()[g], w.diff().min() / w[-1])
        want = [U * torch.tensor(s, dtype=torch.float64) for s in itertools.product((1.0, -1.0), repeat=D)]
        want = [u for u in want if not proper or torch.linalg.det(u) > 0]
        for u in want:  # each once, and the points in it
            (o,) = [o for o in range(GROUPS[group]) if torch.allclose(f.rotation[g, o], u)]
            assert torch.allclose(f.pos[o, a:b], x @ u)


def averaged(pos, group="O(3)", ptr=PTR, **kwargs):
    """A scalar of each cloud, a vector of each point, a position of each point: of a map without any symmetry but permutations."""
    f = frames(pos, ptr, group, **kwargs)
    D = pos.shape[1]
    h = torch.tanh(f.pos @ rand(D, 6, seed=5) + rand(6, seed=6))
    pooled = torch.stack([structops.segment_reduce(t, ptr) for t in h])
    mixed = (h @ rand(6, 2 * D, seed=7)).reshape(*h.shape[:2], 2, D)
    return frame_average(f, pooled, per_cloud=True), frame_average(f, mixed, "vector"), frame_average(f, mixed[:, :, 0], "position")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("reflect", [False, True])
def test_invariance_and_equivariance(group: str, reflect: bool) -> None:
    """Rotations and translations; reflections for O, and for SO they must show."""
    D = int(group[-2])
    pos, R = rand(12, D), turn(D, not reflect)
    before, after = averaged(pos, group), averaged(pos @ R.T + 5.0, group)
    want = before[0], before[1] @ R.T, before[2] @ R.T + 5.0
    for a, b in zip(after, want, strict=True):
        # Both clouds' rows; the empty one does not move.
        same = torch.allclose(a[: len(a) if a.dim() > 2 or len(a) == 12 else 1], b[: len(b) if b.dim() > 2 or len(b) == 12 else 1], atol=1e-9)
        assert same is (not reflect or group[0] == "O")


def test_permutations_and_clouds_are_separate() -> None:
    pos = rand(12, 3)
    order = torch.cat([torch.randperm(5), 5 + torch.randperm(7)])
    for a, b in zip(averaged(pos[order]), averaged(pos), strict=True):
        assert torch.allclose(a, b[order] if len(b) == 12 else b, atol=1e-10)
    other = pos.clone()
    other[5:] *= 3
    assert torch.equal(averaged(other)[1][:5], averaged(pos)[1][:5])


def test_stochastic_frames() -> None:
    """One of the frames each, in all proportions, the same from the same generator; the mean over draws is the average."""
    pos, ptr = rand(12, 3), torch.tensor([0, 5, 12])
    full = frames(pos, ptr)
    draws = [frames(pos, ptr, stochastic=True, generator=torch.Generator().manual_seed(i)) for i in range(64)]
    seen = [{int((d.rotation[g] - full.rotation[g]).abs().amax((1, 2)).argmin()) for d in draws} for g in range(2)]
    assert seen == [set(range(8))] * 2
    for d in draws[:4]:
        assert d.pos.shape == (1, 12, 3) and d.rotation.shape == (2, 1, 3, 3)
        assert torch.allclose(frame_average(d, d.pos, "position"), pos)
        assert torch.allclose(d.pos[0, :5], (pos[:5] - d.center[0]) @ d.rotation[0, 0])
    again = frames(pos, ptr, stochastic=True, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.pos, draws[3].pos)


def test_gap_tells_ill_posed_frames() -> None:
    """Linear, square and single-point clouds; a planar one with two extents is determined, and equivariant."""
    line, square = torch.tensor([[1.0, 2, 3]]) * torch.arange(4.0)[:, None], torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    planar = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 1, 0], [0, 2, 0]])
    pos = torch.cat([line, square, planar, torch.ones(1, 3)]).double()
    ptr = torch.tensor([0, 4, 8, 12, 13])
    gap = frames(pos, ptr).gap()
    assert (gap[[0, 1, 3]] < 1e-12).all() and gap[2] > 0.1
    R, part = turn(3, False), planar.double()
    one = torch.tensor([0, 4])
    assert torch.allclose(averaged(part @ R.T, ptr=one)[1], averaged(part, ptr=one)[1] @ R.T, atol=1e-9)


def test_derivatives_of_frames() -> None:
    pos, ptr = rand(7, 3).requires_grad_(), torch.tensor([0, 3, 7])
    assert gradcheck(lambda x: averaged(x, "SO(3)", ptr), pos) and gradgradcheck(lambda x: averaged(x, "SO(3)", ptr)[1], pos)
    assert gradcheck(lambda x: averaged(x, "O(3)", ptr), pos)
    R = turn(3, True)
    energy = lambda x: averaged(x, ptr=ptr)[0].sum()
    force = lambda x: torch.autograd.grad(energy(x), x)[0]
    turned = (pos.detach() @ R.T).requires_grad_()
    assert torch.allclose(force(turned), force(pos) @ R.T, atol=1e-9)


def test_dtypes_and_empty_input() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        f = frames(rand(12, 3).to(dtype), PTR)
        assert f.pos.dtype == f.rotation.dtype == dtype
        assert (frame_average(f, f.pos, "position").double() - rand(12, 3)).abs().max() < 0.05
    f = frames(torch.zeros(0, 3), torch.tensor([0]))
    assert f.pos.shape == (8, 0, 3) and f.rotation.shape == (0, 8, 3, 3) and f.gap().shape == (0,)
    assert frame_average(f, torch.zeros(8, 0, 2, 3), "vector").shape == (0, 2, 3)
    f = frames(torch.ones(0, 2), group="O(2)")
    assert f.rotation.shape == (1, 4, 2, 2) and frame_average(f, torch.ones(4, 1), per_cloud=True).tolist() == [1.0]


@pytest.mark.parametrize(
    ("kind", "name", "call"),
    [
        (ValueError, "group", lambda x: frames(x, PTR, "E(3)")),
        (ValueError, r"\[N, 2\]", lambda x: frames(x, PTR, "O(2)")),
        (TypeError, "pos of dtype", lambda x: frames(x.long(), PTR)),
        (TypeError, "ptr", lambda x: frames(x, PTR.double())),
        (ValueError, "ptr", lambda x: frames(x, PTR + 1)),
        (ValueError, "ptr", lambda x: frames(x, torch.tensor([0, 7, 5, 12]))),
        (TypeError, "stochastic", lambda x: frames(x, PTR, stochastic=1)),
        (TypeError, "generator", lambda x: frames(x, PTR, generator=3)),
        (TypeError, "frames to be", lambda x: frame_average(x, x)),
        (ValueError, "kind", lambda x: frame_average(frames(x), x, "tensor")),
        (ValueError, r"\[8, 12", lambda x: frame_average(frames(x), x)),
        (ValueError, r"\[8, 1,", lambda x: frame_average(frames(x), x.expand(8, 12, 3), per_cloud=True)),
        (ValueError, "features, 3", lambda x: frame_average(frames(x), x.expand(8, 12, 3)[..., :2], "vector")),
        (TypeError, "value of dtype", lambda x: frame_average(frames(x), x.expand(8, 12, 3).float(), "vector")),
    ],
)
def test_bad_input(kind, name, call) -> None:
    with pytest.raises(kind, match=name):
        call(rand(12, 3))


def test_frames_is_a_record() -> None:
    f = frames(rand(5, 3))
    assert isinstance(f, Frames) and f.ptr.tolist() == [0, 5]
