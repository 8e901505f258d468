"""symmetric_contraction: against dense tables, all derivatives, symmetry, structure, errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import remembered
from compare import assert_close
from rotations import act, random_rotation
from structops.kernels.so2 import symmetric_contraction_ref
from structops.so2 import Irreps, SymmetricContraction, SymmetricContractionPlan, symmetric_contraction, wigner_3j
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

symmetric_contraction_ref = remembered(symmetric_contraction_ref)

ops = torch.ops.structops
LETTERS = "abde"


def dense_tables(irreps: Irreps, degree: int, l_out: int, p_out: int) -> Tensor:
    """[paths, 2 l_out + 1, D, .., D], by dense couplings of one copy after the other."""
    D, at = irreps.dim, irreps.offsets()
    level = []
    for t, begin in zip(irreps, at, strict=True):
        level.append(((t.l, t.p), torch.eye(D, dtype=torch.float64)[begin : begin + t.dim]))
    level.sort(key=lambda path: path[0])
    for _ in range(degree - 1):
        found = []
        for (l, p), left in level:
            for t, begin in zip(irreps, at, strict=True):
                for k in range(abs(l - t.l), l + t.l + 1):
                    if degree == 4 and p * t.p != (-1) ** k:
                        continue
                    table = wigner_3j(k, l, t.l, torch.float64) * (2 * k + 1) ** 0.5
                    right = torch.zeros(t.dim, D, dtype=torch.float64)
                    right[:, begin : begin + t.dim] = torch.eye(t.dim, dtype=torch.float64)
                    found.append(((k, p * t.p), torch.einsum("kij,i...,jd->k...d", table, left, right)))
        level = sorted(found, key=lambda path: path[0])
    kept = [table for reached, table in level if reached == (l_out, p_out)]
    return torch.stack(kept) if kept else torch.zeros(0, 2 * l_out + 1, *(D,) * degree, dtype=torch.float64)


def dense(plan: SymmetricContractionPlan, x: Tensor, w: Tensor, element: Tensor) -> Tensor:
    """[N, C, O] with every product of the features."""
    outs = []
    for n, term in enumerate(plan.irreps_out):
        total = x.new_zeros(*x.shape[:2], term.dim)
        for block in plan.blocks:
            if block.out != n:
                continue
            names = LETTERS[: block.degree]
            U = dense_tables(plan.irreps_in, block.degree, term.l, term.p)
            equation = f"pk{names},npc,{','.join(f'nc{i}' for i in names)}->nck"
            total = total + torch.einsum(equation, U, w[element][:, block.start : block.stop], *(x,) * block.degree)
        outs.append(total)
    return torch.cat(outs, 2)


def draw(*shape: int, dtype=torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


def operands(plan, N: int, C: int, Z: int = 3, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights, elements; no node has the last but one element."""
    element = torch.randint(0, Z, (N,), generator=torch.Generator().manual_seed(N))
    if Z > 1:
        element[element == Z - 2] = Z - 1
    return draw(N, C, plan.irreps_in.dim, dtype=dtype) / 2, draw(Z, plan.num_paths, C, dtype=dtype), element


@pytest.mark.parametrize("irreps, out, correlation", [
    ("0e+1o", "0e+1o", 3), ("0e+1o+2e", "0e+1o+2e", 3), ("0e+1o+2e", "1o", 2), ("0e+1o", "0e+1o+2e", 4), ("1e+1o", "0o+1e", 3),
    ("0e", "0e", 1), ("1o+0e+1o", "2e+0e", 2), ("1o", "2o", 2),
])  # fmt: skip
def test_against_dense_tables(irreps: str, out: str, correlation: int, isa: str) -> None:
    plan = SymmetricContractionPlan(irreps, out, correlation)
    x, w, element = operands(plan, 9, 5)
    want = dense(plan, x, w, element)
    assert (symmetric_contraction(x, w, element, plan) - want).abs().max() <= 1e-13 * max(float(want.abs().max()), 1)


@pytest.mark.parametrize("C", [1, 3, 16, 48, 130])
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_channels_and_dtypes(layout: str, C: int, isa: str, on_threads, poison) -> None:
    plan = SymmetricContractionPlan("0e+1o+2e", "0e+1o", 3)
    for dtype, itype in (
        (torch.float64, torch.int64),
        (torch.float32, torch.int32),
        (torch.bfloat16, torch.int64),
        (torch.float16, torch.int32),
    ):
        x, w, element = operands(plan, 13, C, dtype=dtype)
        want = dense(plan, x.double(), w.double(), element)
        turned = x if layout == "mul_ir" else x.transpose(1, 2)
        got = on_threads(lambda: symmetric_contraction(turned, w, element.to(itype), plan, layout))
        assert_close(got if layout == "mul_ir" else got.transpose(1, 2), want, dtype, terms=1000, magnitude=4.0)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_every_order_against_the_reference(order: int, last: bool, isa: str, on_threads, poison) -> None:
    """All directions, some without weights or features, each result alone and together; more nodes of an element than a piece."""
    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 4)
    for dtype, (N, C) in itertools.product((torch.float64, torch.float32), ((5, 19), (600, 3))):
        x, w, element = operands(plan, N, C, dtype=dtype)
        lay = lambda t: t if last else t.transpose(1, 2).contiguous()
        g = draw(N, C, plan.irreps_out.dim, dtype=dtype, seed=5)
        directions: list[Tensor | None] = []
        for j in range(2):
            part = (
                lay(draw(*x.shape, dtype=dtype, seed=j + 1)),
                draw(*w.shape, dtype=dtype, seed=j + 7),
                lay(draw(*g.shape, dtype=dtype, seed=j)),
            )
            directions += part if j < order else (None,) * 3
        ptr, nodes = ops.csr_build(element, 3)
        structure = ptr, nodes, *plan.on(x.device)
        for drop in ((), (1, 4), (0, 5)):
            given = [None if i in drop else d for i, d in enumerate(directions)]
            known = lay(x), w, lay(g), *given, *structure, order, last
            wide = (t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in known)
            expected = symmetric_contraction_ref.symmetric_contraction(*wide, True, True, True)
            for wants in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
                got = on_threads(lambda: ops.symmetric_contraction(*known, *wants))
                for a, b, wanted in zip(got, expected, wants, strict=True):
                    assert_close(a, b if wanted else b.new_empty(0), dtype, terms=4000, magnitude=30.0)
                if order == 0:
                    break


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_gradients(layout: str) -> None:
    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 3)
    x, w, element = operands(plan, 3, 2)
    x = (x if layout == "mul_ir" else x.transpose(1, 2).contiguous()).requires_grad_()
    f = lambda x, w: symmetric_contraction(x, w, element, plan, layout)
    assert gradcheck(f, (x, w.requires_grad_())) and gradgradcheck(f, (x, w))


def test_three_orders_and_no_fourth(isa: str) -> None:
    plan = SymmetricContractionPlan("0e+1o+2e", "0e+1o", 3)
    results = []
    for f in (dense, lambda p, x, w, e: symmetric_contraction(x, w, e, p)):
        x, w, element = operands(plan, 6, 7)
        args = [x.requires_grad_(), w.requires_grad_()]
        first = torch.autograd.grad(f(plan, *args, element).sin().sum(), args, create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), args, create_graph=True)
        third = torch.autograd.grad(sum(t.square().sum() for t in second), args, create_graph=True)
        results.append([t.detach() for t in (*first, *second, *third)])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()
    with pytest.raises(NotImplementedError, match="at most 3 derivatives"):
        torch.autograd.grad(third[0].square().sum(), args)


def test_training_on_forces() -> None:
    """The gradient, in the weights, of a loss on the energy's gradient."""
    plan = SymmetricContractionPlan("0e+1o+2e", "0e", 3)
    found = []
    for f in (dense, lambda p, x, w, e: symmetric_contraction(x, w, e, p)):
        x, w, element = operands(plan, 8, 3)
        (force,) = torch.autograd.grad(f(plan, x.requires_grad_(), w.requires_grad_(), element).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(force.square().sum(), (x, w)))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()


def test_checkpoint() -> None:
    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 3)
    x, w = torch.randn(4, 3, 4, requires_grad=True), torch.randn(2, plan.num_paths, 3, requires_grad=True)
    f = lambda x, w: symmetric_contraction(x, w, torch.tensor([0, 1, 1, 0]), plan)
    want = torch.autograd.grad(f(x, w).square().sum(), (x, w))
    got = torch.autograd.grad(checkpoint(f, x, w, use_reentrant=False).square().sum(), (x, w))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("inversion", [False, True])
def test_equivariance(inversion: bool) -> None:
    plan = SymmetricContractionPlan("0e+0o+1o+1e+2e+3o", "0e+0o+1o+1e+2e+2o+3o", 3)
    x, w, element = operands(plan, 4, 3)
    R = random_rotation(1)
    turn = lambda irreps, t: act(irreps, t.flatten(0, 1), R, inversion).reshape(t.shape)
    out = symmetric_contraction(turn(plan.irreps_in, x), w, element, plan)
    want = turn(plan.irreps_out, symmetric_contraction(x, w, element, plan))
    assert (out - want).abs().max() < 1e-12 * want.abs().max()


def test_nodes_are_independent_and_bitwise_reproducible(on_threads) -> None:
    """Order of nodes, other nodes and threads change no bit."""
    plan = SymmetricContractionPlan("0e+1o+2e", "0e+1o", 3)
    x, w, element = operands(plan, 41, 21, dtype=torch.float32)
    out = on_threads(lambda: symmetric_contraction(x, w, element, plan))
    order = torch.randperm(41, generator=torch.Generator().manual_seed(2))
    assert torch.equal(symmetric_contraction(x[order], w, element[order], plan), out[order])
    assert torch.equal(symmetric_contraction(x[3:5], w, element[3:5], plan), out[3:5])
    x[0] = torch.nan
    assert torch.equal(symmetric_contraction(x, w, element, plan)[1:], out[1:])


def test_independent_paths_span_the_same() -> None:
    whole = SymmetricContractionPlan("0e+1o+2e+3o", "0e+1o", 3)
    few = SymmetricContractionPlan("0e+1o+2e+3o", "0e+1o", 3, independent=True)
    assert (whole.num_paths, few.num_paths, whole.num_terms, few.num_terms) == (86, 29, 410, 410)
    x = draw(200, 1, 16)
    values = []
    for plan in (whole, few):
        rows = [symmetric_contraction(x, torch.eye(plan.num_paths, dtype=torch.float64)[[n], :, None], torch.zeros(200).long(), plan).flatten()
                for n in range(plan.num_paths)]  # fmt: skip
        values.append(torch.stack(rows))
    assert torch.linalg.matrix_rank(values[0]) == torch.linalg.matrix_rank(values[1]) == 29
    assert torch.linalg.matrix_rank(torch.cat(values)) == 29


def test_empty_operands() -> None:
    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 2)
    for N, C, Z in ((0, 3, 2), (4, 0, 2), (0, 3, 0)):
        x, w = draw(N, C, 4).requires_grad_(), draw(Z, plan.num_paths, C).requires_grad_()
        out = symmetric_contraction(x, w, torch.zeros(N, dtype=torch.long), plan)
        out.sum().backward()
        assert out.shape == (N, C, 4) and torch.equal(w.grad, torch.zeros_like(w)) and x.grad.shape == x.shape
    nothing = SymmetricContractionPlan("1o", "2o", 2)
    assert nothing.num_terms == 0
    assert torch.equal(
        symmetric_contraction(draw(2, 3, 3), draw(1, nothing.num_paths, 3), torch.zeros(2).long(), nothing),
        torch.zeros(2, 3, 5).double(),
    )


def test_module_loads_the_state_of_mace() -> None:
    """Weights of degree n = correlation are weights_max, those below weights.0, weights.1, ..; tables are left out."""
    layer = SymmetricContraction("4x0e+4x1o", "4x0e+4x1o", 3, num_elements=2).double()
    state, parts = {}, {(b.out, b.degree): draw(2, b.stop - b.start, 4, seed=b.start) for b in layer.plan.blocks}
    for (out, degree), value in parts.items():
        state[f"contractions.{out}." + ("weights_max" if degree == 3 else f"weights.{2 - degree}")] = value
        state[f"contractions.{out}.U_matrix_{degree}"] = torch.zeros(1)
    layer.load_state_dict(state)
    assert torch.equal(layer.weight, torch.cat([*parts.values()], 1))
    x, element = draw(5, 4, 4), torch.tensor([0, 1, 1, 0, 1])
    out = layer(x, element)
    assert torch.equal(layer(x, torch.nn.functional.one_hot(element, 2).double()), out)
    grouped = symmetric_contraction(x, layer.weight, element, layer.plan)
    assert torch.equal(out, torch.cat([grouped[:, :, :1].flatten(1), grouped[:, :, 1:].flatten(1)], 1))


def test_compile() -> None:
    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 3)
    x, w, element = operands(plan, 5, 3)
    f = lambda x, w: symmetric_contraction(x, w, element, plan).square().sum()
    results = []
    for g in (f, torch.compile(f, fullgraph=True, backend="aot_eager")):
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        results.append(torch.autograd.grad(g(*leaves), leaves))
    torch._dynamo.reset()
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b)


def test_errors() -> None:
    plan = SymmetricContractionPlan("0e+1o", "0e", 2)
    x, w, element = operands(plan, 4, 3)
    bad = [
        (ValueError, "x of shape", (x[:, :, :3], w, element, plan)), (ValueError, "weight of shape", (x, w[:, :2], element, plan)),
        (TypeError, "weight of dtype", (x, w.float(), element, plan)), (TypeError, "x of dtype", (x.long(), w, element, plan)),
        (TypeError, "element", (x, w, element.float(), plan)), (ValueError, "element of shape", (x, w, element[:2], plan)),
        (IndexError, "element in", (x, w, element + 1, plan)), (IndexError, "element in", (x, w, element - 4, plan)),
        (TypeError, "plan", (x, w, element, "0e")), (ValueError, "layout", (x, w, element, plan, "last")),
    ]  # fmt: skip
    for kind, message, args in bad:
        with pytest.raises(kind, match=message):
            symmetric_contraction(*args)
    for kind, message, args in [
        (ValueError, "correlation", ("0e", "0e", 5)), (ValueError, "correlation", ("0e", "0e", 0)), (ValueError, "one copy", ("2x0e", "0e", 2)),
        (ValueError, "one copy", ("0e", "", 2)), (ValueError, "up to l", ("8e", "8e", 3)), (TypeError, "correlation", ("0e", "0e", 2.0)),
    ]:  # fmt: skip
        with pytest.raises(kind, match=message):
            SymmetricContractionPlan(*args)
    with pytest.raises(ValueError, match="equal multiplicities"):
        SymmetricContraction("2x0e", "3x0e", 2, 1)
