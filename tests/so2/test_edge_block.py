"""The edge-wise eSCN block: edge_block and edge_block_bwd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import remembered
from compare import assert_close, assert_same
from so2_block_cases import POLES, Problem, directions, problem
from structops import Graph, so2
from structops.kernels.so2 import edge_block_ref as ref
from structops.kernels.so2 import wigner_ref
from torch.autograd import gradcheck, gradgradcheck

ref = remembered(ref)

raw, raw_bwd = torch.ops.structops.edge_block, torch.ops.structops.edge_block_bwd
CASES = [  # L, M, C, H, N, E, radial, envelope
    (2, 2, 16, 16, 6, 190, "fused", True), (2, 2, 1, 1, 5, 30, "scale", True), (1, 0, 3, 2, 4, 9, "none", False),
    (3, 1, 48, 5, 3, 100, "fused", False), (4, 2, 3, 48, 5, 40, "scale", True), (2, 1, 257, 3, 4, 20, "fused", True),
    (6, 3, 2, 3, 3, 12, "none", True), (0, 0, 4, 3, 3, 8, "fused", True), (8, 8, 1, 2, 2, 5, "scale", True),
    (2, 2, 4, 4, 4, 0, "fused", True), (2, 2, 4, 4, 1, 3, "fused", True), (2, 2, 4, 4, 0, 0, "none", False),
]  # fmt: skip
ALL = 15
NAMES = ("x", "vec", "radial", "radial_weight", "radial_bias", "envelope", "weight1", "bias1", "weight2", "bias2")


def expected(p: Problem, grad: torch.Tensor):
    args, tail = p.leaves(), (*p.structure(), p.L, p.M, p.H)
    rows = ref.edge_block(*args[:10], *p.structure(), p.L, p.M, p.H, False, True)
    return rows, ref.edge_block_bwd(grad, *args, *p.structure(), None, None, *tail[3:], False, ALL)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max().clamp(min=1e-30)) if want.numel() else 0.0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(isa: str, case: tuple, poison: None, on_threads) -> None:
    L, M, C, H, N, E, radial, envelope = case
    exact = problem(L, M, C, H, N, E, radial, envelope)
    grad = torch.randn(exact.x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    forward, backward = expected(exact, grad)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        p, g = exact.to(dtype), grad.to(dtype)
        if dtype == torch.float32:  # the inputs as float32 holds them
            forward, backward = expected(p.to(torch.float64), g.double())
        options = (p.L, p.M, p.H)
        for three in (False, True):
            kept = on_threads(lambda: raw(*p.leaves(), *p.structure(), *options, three, True))
            for got, want, name in zip(kept, forward, ("out", "pre", "mid"), strict=True):
                assert got.shape == want.shape and got.dtype == dtype
                assert relative(got, want) < tolerance, (name, three)
            assert_same(raw(*p.leaves(), *p.structure(), *options, three, False)[0], kept[0])
            for pre, mid in ((None, None), kept[1:]):
                found = on_threads(lambda: raw_bwd(g, *p.leaves(), *p.structure(), pre, mid, *options, three, ALL))
                for got, want, name in zip(found, backward, NAMES, strict=True):
                    assert got.shape == want.shape and got.dtype == dtype, name
                    # The reference differentiates through the frame: near a pole its float64 has that much error and no more.
                    assert relative(got, want) < (max(tolerance, 1e-9) if name == "vec" else tolerance), (name, three, pre is None)


def test_only_the_wanted_gradients() -> None:
    p = problem(2, 1, 3, 4, N=4, E=30)
    grad = torch.randn(p.x.shape, dtype=torch.float64)
    args = (grad, *p.leaves(), *p.structure(), None, None, p.L, p.M, p.H, False)
    full = raw_bwd(*args, ALL)
    bits = (1, 1, 2, 8, 8, 4, 8, 8, 8, 8)
    for wanted in range(16):
        for got, want, bit in zip(raw_bwd(*args, wanted), full, bits, strict=True):
            if wanted & bit:
                assert_same(got, want)
            else:
                assert got.numel() == 0


def test_derivatives_at_every_direction() -> None:
    """Three orders against finite differences, exactly at and near both poles too."""
    p = problem(2, 2, 2, 2, N=3, E=8, seed=3)
    names = ("x", "vec", "radial", "radial_weight", "radial_bias", "envelope", "w1", "b1", "w2", "b2")

    def fn(*leaves):
        w1, w2 = leaves[6], leaves[8]
        x, vec, radial, wr, br, env = leaves[:6]
        return so2.edge_block(
            x, vec, p.graph, w1, leaves[7], w2, leaves[9], lmax=2, radial=radial, radial_weight=wr, radial_bias=br, envelope=env
        )

    leaves = [t.clone().requires_grad_() for t in p.leaves()]
    assert len(names) == len(leaves)
    assert gradcheck(fn, leaves, fast_mode=True) and gradgradcheck(fn, leaves, fast_mode=True)
    fixed = p.leaves()

    def force(x, vec):
        rest = fixed[2:]
        out = fn(x, vec, *rest)
        return torch.autograd.grad(out.sin().sum(), (x, vec), create_graph=True)

    assert gradgradcheck(force, (leaves[0], leaves[1]), fast_mode=True)


@pytest.mark.parametrize("keep", [False, True])
def test_hessian_is_symmetric_and_right(keep: bool) -> None:
    p = problem(3, 1, 2, 3, N=3, E=6, seed=4)
    vec = torch.cat([POLES, directions(4, seed=1, poles=False)]).requires_grad_()

    def energy(v):
        return replace(p, vec=v).call(keep=keep).sin().sum()

    rows = []
    (g,) = torch.autograd.grad(energy(vec), vec, create_graph=True)
    for i in range(g.numel()):
        rows.append(torch.autograd.grad(g.reshape(-1)[i], vec, retain_graph=True)[0].reshape(-1))
    H = torch.stack(rows)
    assert (H - H.T).abs().max() < 1e-12 * H.abs().max()
    step = 1e-5
    for i in range(vec.numel()):
        shift = torch.zeros(vec.numel(), dtype=torch.float64)
        shift[i] = step
        ends = [
            torch.autograd.grad(energy(v), v)[0].reshape(-1)
            for s in (1, -1)
            for v in [(vec + s * shift.reshape(vec.shape)).detach().requires_grad_()]
        ]
        assert ((ends[0] - ends[1]) / (2 * step) - H[i]).abs().max() < 1e-7 * H.abs().max()


def rotation(seed: int) -> torch.Tensor:
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    return q * torch.linalg.det(q)


def test_equivariant_under_rotations_and_reflections() -> None:
    for L, M, radial in ((2, 2, "fused"), (4, 1, "scale"), (3, 3, "none")):
        p = problem(L, M, 3, 4, N=5, E=25, radial=radial, seed=L)
        R = rotation(L)
        D = torch.block_diag(*(d[0] for d in wigner_ref.wigner_full(R[None], L)))
        turned = replace(p, x=D @ p.x, vec=p.vec @ R.T)
        assert_close(turned.call(), D @ p.call(), terms=256, magnitude=4)
        # Inversion holds where +m and -m do not mix: W2 = 0.
        even = [torch.cat([w[: w.shape[0] // 2], torch.zeros_like(w[w.shape[0] // 2 :])]) for w in p.w1[1:]]
        even2 = [torch.cat([w[: w.shape[0] // 2], torch.zeros_like(w[w.shape[0] // 2 :])]) for w in p.w2[1:]]
        q = replace(p, w1=[p.w1[0], *even], w2=[p.w2[0], *even2])
        parity = torch.cat([torch.full((2 * l + 1, 1), (-1.0) ** l, dtype=torch.float64) for l in range(L + 1)])
        assert_close(replace(q, x=parity * q.x, vec=-q.vec).call(), parity * q.call(), terms=256, magnitude=4)


def test_permuted_edges_give_the_same_bits() -> None:
    p = problem(2, 2, 5, 6, N=6, E=300).to(torch.float32)
    results = []
    for seed in (None, 0, 1):
        perm = torch.arange(300) if seed is None else torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        index, vec = p.edge_index[:, perm], p.vec[perm]
        order = so2.edge_order(index, vec)
        perm = perm[order]
        leaves = p.x.clone().requires_grad_(), p.vec[perm].clone().requires_grad_()
        q = replace(
            p,
            x=leaves[0],
            vec=leaves[1],
            graph=Graph(index[:, order], num_nodes=6),
            radial=p.radial[perm],
            envelope=p.envelope[perm],
        )
        out = q.call()
        dx, dv = torch.autograd.grad(out.sin().sum(), leaves)
        results.append((out.detach(), dx, torch.empty_like(dv).index_copy(0, perm, dv)))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_same(a, b)


def test_nodes_without_edges_and_zero_length() -> None:
    p = problem(2, 1, 3, 4, N=7, E=30)  # the last node has no edge
    assert (p.call()[-1] == 0).all()
    vec = p.vec.clone()
    vec[4] = 0
    out = replace(p, vec=vec).call()
    hit = int(p.edge_index[1, 4])
    assert out[hit].isnan().all()
    rest = [v for v in range(7) if v != hit]
    assert_close(out[rest], p.call()[rest], terms=64)


def test_training_step_with_forces() -> None:
    """Gradients of an energy and force loss, and the weights after a step, equal those of the reference in fixed frames."""
    p = problem(2, 2, 3, 4, N=4, E=30, seed=7)
    target = torch.randn(p.vec.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for ours in (True, False):
        leaves = [t.clone().requires_grad_() for t in p.leaves()]
        x, vec, radial, wr, br, env, w1, b1, w2, b2 = leaves
        if ours:
            out = so2.edge_block(
                x, vec, p.graph, w1, b1, w2, b2, lmax=2, radial=radial, radial_weight=wr, radial_bias=br, envelope=env
            )
        else:
            out = ref.edge_block(*leaves, *p.structure(), p.L, p.M, p.H, False, False)[0]
        energy = out.sin().sum()
        (force,) = torch.autograd.grad(energy, vec, create_graph=True)
        loss = energy.square() + (force - target).square().sum()
        results.append((force.detach(), *torch.autograd.grad(loss, leaves)))
    for name, a, b in zip(("force", *NAMES), *results, strict=True):
        assert (a - b).abs().max() < 1e-8 * b.abs().max(), name


def test_chunks_of_the_second_derivative_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from structops.so2 import _block_ops

    p = problem(2, 1, 2, 3, N=5, E=50)

    def hessian_product():
        leaves = [t.clone().requires_grad_() for t in p.leaves()]
        x, vec, radial, wr, br, env, w1, b1, w2, b2 = leaves
        out = so2.edge_block(
            x, vec, p.graph, w1, b1, w2, b2, lmax=2, mmax=1, radial=radial, radial_weight=wr, radial_bias=br, envelope=env
        )
        first = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(f.sin().sum() for f in first), leaves)

    whole = hessian_product()
    monkeypatch.setattr(_block_ops, "CHUNK", 7)
    for a, b in zip(hessian_product(), whole, strict=True):
        assert_close(a, b, terms=512, magnitude=float(b.abs().max()))


def test_weights_are_never_stale_and_inputs_are_left_alone() -> None:
    p = problem(2, 2, 3, 4)
    before = [t.clone() for t in p.leaves()]
    first = p.call()
    for a, b in zip(p.leaves(), before, strict=True):
        assert_same(a, b)
    with torch.no_grad():
        for w in (*p.w1, *p.w2):
            w.mul_(1.5)
    second = p.call()
    assert not torch.equal(first, second)
    assert_close(second, ref.edge_block(*p.leaves(), *p.structure(), 2, 2, 4, False, False)[0], terms=256)


def test_sixteen_bit_floats() -> None:
    p = problem(2, 2, 8, 8).to(torch.bfloat16)
    out = p.call()
    assert out.dtype == torch.bfloat16
    assert_close(
        out, ref.edge_block(*p.to(torch.float64).leaves(), *p.structure(), 2, 2, 8, False, False)[0], torch.bfloat16, terms=512
    )


def test_vmap_gives_hessians() -> None:
    p = problem(2, 1, 2, 2, N=3, E=5)
    fn = lambda v: replace(p, vec=v).call().sin().sum()
    got = torch.func.vmap(torch.func.grad(fn))(torch.stack([p.vec, 2 * p.vec, p.vec.flip(0)]))
    for v, g in zip((p.vec, 2 * p.vec, p.vec.flip(0)), got, strict=True):
        leaf = v.clone().requires_grad_()
        assert_close(g, torch.autograd.grad(fn(leaf), leaf)[0], terms=64)


@pytest.mark.parametrize("crystal", ["Cu", "NaCl"])
def test_forces_on_crystals(crystal: str) -> None:
    """Ideal crystals, with many edges exactly along y, against the float64 reference; float32 close to it."""
    build, neighbours = pytest.importorskip("ase.build"), pytest.importorskip("ase.neighborlist")
    atoms = build.bulk("Cu", cubic=True) if crystal == "Cu" else build.bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    i, j, D = neighbours.neighbor_list("ijD", atoms, 4.5)
    vec, index = torch.as_tensor(D), torch.stack([torch.as_tensor(j), torch.as_tensor(i)])
    assert int(((vec[:, 0] == 0) & (vec[:, 2] == 0)).sum()) > 0
    p = problem(2, 2, 4, 4, N=len(atoms), E=len(i), radial="none", seed=2)
    exact = replace(p, vec=vec, graph=Graph(index, num_nodes=len(atoms)))
    want = ref.edge_block_bwd(torch.ones_like(p.x), *exact.leaves(), *exact.structure(), None, None, 2, 2, 4, False, 1)[1]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        q = exact.to(dtype)
        v = q.vec.clone().requires_grad_()
        (got,) = torch.autograd.grad(replace(q, vec=v).call().sum(), v)
        assert (got.double() - want).abs().max() < tolerance * want.abs().max()


@pytest.mark.parametrize(
    "change,error,name",
    [
        ({"x": torch.zeros(5, 8, 3)}, ValueError, "x"),
        ({"x": torch.zeros(4, 9, 3)}, ValueError, "graph"),
        ({"vec": torch.zeros(19, 3)}, ValueError, "vec"),
        ({"vec": torch.zeros(20, 3).double()}, TypeError, "vec"),
        ({"graph": 3}, TypeError, "graph"),
        ({"w1": []}, ValueError, "weight1"),
        ({"b1": torch.zeros(21)}, ValueError, "bias1"),
        ({"b2": torch.zeros(2)}, ValueError, "bias2"),
        ({"radial": None}, ValueError, "radial"),
        ({"radial": torch.zeros(20, 7)}, ValueError, "radial_weight"),
        ({"radial_bias": torch.zeros(7)}, ValueError, "radial_bias"),
        ({"envelope": torch.zeros(3)}, ValueError, "envelope"),
        ({"M": 3}, ValueError, "mmax"),
    ],
)
def test_bad_input(change, error, name) -> None:
    p = problem(2, 2, 3, 4).to(torch.float32)
    with pytest.raises(error, match=name):
        replace(p, **change).call()
