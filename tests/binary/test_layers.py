"""Masks, fast feed-forward networks, and the layers on them, against their references and brute force."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import structops
import torch
from cases import FLOATS, generator
from compare import assert_close, assert_same
from structops.kernels import codes as C
from structops.kernels.binary import fff_ref, mask_ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

B, ops = structops.binary, torch.ops.structops


def rand(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


# ---- masks -----------------------------------------------------------------------------------------------------------


@cache
def topk_cases(n: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, list[tuple]]:
    """Scores with ties; how many to keep and whether by magnitude, with the reference's mask and what it leaves."""
    score = rand(n, dtype=dtype, seed=seed)
    if n > 7:
        score[::3] = score[0]
    found = []
    for keep, magnitude in itertools.product((0, 1, n // 3, n - 1, n), (False, True)):
        bits = mask_ref.topk_mask(score, keep, magnitude)
        assert int(mask_ref.unpack(bits, n).sum()) == keep
        found.append((keep, magnitude, bits, mask_ref.mask_apply(score, bits)))
    return score, found


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_topk_mask(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, seed in ((1, 0), (7, 1), (8, 2), (1000, 3), (4097, 4), (600_000, 5)):
        score, found = topk_cases(n, seed, dtype)
        for keep, magnitude, want, left in found:
            bits = on_threads(lambda: ops.topk_mask(score, keep, magnitude))
            assert_same(bits, want, (n, keep, magnitude))
            assert_same(on_threads(lambda: ops.mask_apply(score, bits)), left, n)


def test_topk_mask_of_special_values(isa: str) -> None:
    inf, nan = float("inf"), float("nan")
    score = torch.tensor([nan, -inf, 0.0, -0.0, 1e-45, inf, -1.0, nan, 2.0])
    for dtype, magnitude in itertools.product((torch.float32, torch.float64), (False, True)):
        for keep in range(10):
            assert_same(ops.topk_mask(score.to(dtype), keep, magnitude), mask_ref.topk_mask(score.to(dtype), keep, magnitude), keep)


def test_edge_popup_and_biprop() -> None:
    w, s, g = rand(20, 30), rand(20, 30, seed=1), rand(20, 30, seed=2)
    keep = 200
    mask = torch.zeros(600, dtype=torch.float64)
    mask[s.abs().reshape(-1).topk(keep).indices] = 1
    mask = mask.reshape(20, 30)
    a, b = w.clone().requires_grad_(), s.clone().requires_grad_()
    y = B.edge_popup(a, b, keep)
    assert_same(y.detach(), w * mask)
    y.backward(g)
    assert_close(a.grad, g * mask)
    assert_close(b.grad, g * w)
    assert_same(B.edge_popup(w, s, 1 / 3), w * mask)
    b.grad = None
    y = B.biprop(w, b, keep)
    alpha = (w.abs() * mask).sum() / keep
    assert_close(y.detach(), alpha * torch.sign(w) * mask, terms=600)
    y.backward(g)
    assert_close(b.grad, g * w.abs())


def test_recycling_keeps_the_high_weights() -> None:
    w, s = rand(50, 40), rand(50, 40, seed=1)
    out = B.recycle_weights(w, s, 0.2)
    order = s.abs().reshape(-1).sort(stable=True).indices
    want = w.reshape(-1).clone()
    want[order[:400]] = want[order.flip(0)[:400]]
    assert_same(out.reshape(-1), want)
    assert torch.equal(w, rand(50, 40)) and B.recycle_weights(w, s, 0.0).equal(w)


# ---- fast feed-forward networks --------------------------------------------------------------------------------------


def network(depth: int, I: int, H: int, O: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    n, L = 2**depth - 1, 2**depth
    shapes = ((n, I), (n,), (L, I, H), (L, H), (L, H, O), (L, O))
    return [(rand(*s, seed=seed + i) / 2).to(dtype) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_descend(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for depth, I, rows in ((0, 3, 4), (1, 1, 5), (3, 17, 64), (5, 70, 33), (4, 64, 0)):
        nodes, bias, *_ = network(depth, I, 1, 1, dtype)
        x = rand(rows, I, dtype=dtype, seed=9)
        for c, strict in itertools.product((bias, None), (False, True)):
            leaf, logit = on_threads(lambda: ops.fff_descend(x, nodes, c, depth, strict))
            want, z = fff_ref.fff_descend(x.double(), nodes.double(), None if c is None else c.double(), depth, strict)
            clear = z.abs().amin(1) > 0.05 if depth else torch.ones(rows, dtype=torch.bool)
            assert_same(leaf[clear], want[clear])
            assert_close(logit[clear], z[clear], dtype, terms=I, magnitude=4.0)


def test_ties_go_as_asked() -> None:
    x, nodes = torch.zeros(1, 3), torch.ones(7, 3)
    assert B.fff_descend(x, nodes)[0].item() == 7
    assert B.fff_descend(x, nodes, tie=">")[0].item() == 0


@pytest.mark.parametrize("activation", C.ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_leaves(isa: str, dtype: torch.dtype, activation: str, poison: None, on_threads) -> None:
    """Every row goes through its own leaf, forward and backward, with and without biases."""
    code = C.ACTIVATIONS[activation]
    for depth, I, H, O, rows in ((0, 3, 2, 1, 5), (2, 9, 5, 7, 40), (3, 33, 16, 40, 50), (1, 8, 1, 3, 0)):
        _, _, *leaves = network(depth, I, H, O, dtype)
        leaf = torch.randint(0, 2**depth, (rows,), generator=generator(3))
        leaf[leaf == 1] = 0  # a leaf without rows
        rowptr, perm = ops.csr_build(leaf, 2**depth)
        x, g = rand(rows, I, dtype=dtype, seed=9), rand(rows, O, dtype=dtype, seed=10)
        for biases in (True, False):
            w1, b1, w2, b2 = (t if biases or i % 2 == 0 else None for i, t in enumerate(leaves))
            args = (rowptr, perm, w1, b1, w2, b2, code)
            wide = [t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in args]
            y = on_threads(lambda: ops.fff_leaf(x, *args))
            assert_close(y, fff_ref.fff_leaf(x.double(), *wide), dtype, terms=I * H, magnitude=4.0)
            got = on_threads(lambda: ops.fff_leaf_bwd(g, x, *args))
            for name, a, b in zip(
                ("x", "w1", "b1", "w2", "b2"), got, fff_ref.fff_leaf_bwd(g.double(), x.double(), *wide), strict=True
            ):
                assert_close(a, b, dtype, terms=I * H + rows * O, magnitude=8.0, what=name)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_hard_is_the_loop_and_soft_its_mixture(depth: int) -> None:
    n = network(depth, 6, 4, 5)
    x = rand(2, 10, 6, seed=7)
    hard = B.fff_hard(x, *n)
    y, mixture, _ = B.fff_soft(x, *n)
    nodes, bias, w1, b1, w2, b2 = n
    for row, mine, mixed, m in zip(
        x.reshape(-1, 6), hard.reshape(-1, 5), y.reshape(-1, 5), mixture.reshape(-1, 2**depth), strict=True
    ):
        node, total = 0, torch.zeros(5, dtype=torch.float64)
        for _ in range(depth):
            node = 2 * node + 1 + int(nodes[node] @ row + bias[node] >= 0)
        mlp = lambda leaf: torch.relu(row @ w1[leaf] + b1[leaf]) @ w2[leaf] + b2[leaf]
        assert_close(mine, mlp(node - (2**depth - 1)), terms=64)
        for leaf in range(2**depth):
            share, at = torch.ones((), dtype=torch.float64), 0
            for t in range(depth):
                second = leaf >> (depth - 1 - t) & 1
                q = torch.sigmoid(nodes[at] @ row + bias[at])
                share, at = share * (q if second else 1 - q), 2 * at + 1 + second
            assert_close(m[leaf], share, terms=64)
            total += share * mlp(leaf)
        assert_close(mixed, total, terms=256)
    assert_close(mixture.sum(-1), torch.ones(2, 10, dtype=torch.float64), terms=8)
    sharp = B.fff_soft(x, 1e8 * nodes, 1e8 * bias, w1, b1, w2, b2)[0]
    assert_close(sharp, hard, terms=64)


def test_gradients_of_networks() -> None:
    n = [t.requires_grad_() for t in network(2, 4, 3, 2)]
    x = rand(9, 4, seed=5).requires_grad_()
    assert gradcheck(lambda x, *leaves: B.fff_hard(x, n[0], n[1], *leaves, activation="gelu"), (x, *n[2:]))
    assert gradcheck(lambda *a: B.fff_soft(*a, activation="silu")[0], (x, *n))
    assert gradgradcheck(lambda x, w: B.fff_soft(x, w, *n[1:], activation="silu")[0], (x, n[0]))
    out = rand(7, 3, seed=8).requires_grad_()
    w_in, b_in = rand(7, 4, seed=6).requires_grad_(), rand(7, seed=7).requires_grad_()
    assert gradcheck(lambda *a: B.fff_path(*a), (x, w_in, b_in, out))
    with pytest.raises(NotImplementedError, match="differentiable once"):
        (g,) = torch.autograd.grad(B.fff_hard(x, *n).sum(), x, create_graph=True)
        g.sum().backward()


def test_path_visits_the_nodes() -> None:
    x, w_in, w_out = rand(20, 5), rand(15, 5, seed=1), rand(15, 3, seed=2)
    b_in = rand(15, seed=3)
    want = torch.zeros(20, 3, dtype=torch.float64)
    for r in range(20):
        node = 0
        for _ in range(4):
            z = x[r] @ w_in[node] + b_in[node]
            want[r] += torch.nn.functional.gelu(z) * w_out[node]
            node = 2 * node + 1 + int(z > 0)
    assert_close(B.fff_path(x, w_in, b_in, w_out), want, terms=64)
    assert_close(B.fff_path(x, w_in.requires_grad_(), b_in, w_out).detach(), want, terms=64)


def test_load_balance() -> None:
    m = torch.softmax(rand(12, 8), -1).requires_grad_()
    leaf = torch.randint(0, 8, (12,), generator=generator(1))
    want = sum(m[:, k].sum() * (leaf == k).sum() for k in range(8))
    assert_close(B.fff_load_balance(m, leaf).detach(), want.detach(), terms=64)
    assert gradcheck(lambda m: B.fff_load_balance(m, leaf), (m,))
    nodes, bias, *_ = network(3, 6, 1, 1)
    x = rand(12, 6, seed=7)
    mixture, _ = B.fff_probabilities(x, nodes, bias)
    assert_close(B.fff_load_balance(mixture), B.fff_load_balance(mixture, B.fff_descend(x, nodes, bias)[0]), terms=8)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: B.topk_mask(torch.zeros(4), 5), ValueError),
        (lambda: B.topk_mask(torch.zeros(4), -1), ValueError),
        (lambda: B.topk_mask(torch.zeros(4), 1.5), ValueError),
        (lambda: B.topk_mask(torch.zeros(4).long(), 1), TypeError),
        (lambda: B.masked(torch.zeros(9), torch.zeros(1, dtype=torch.uint8)), ValueError),
        (lambda: B.edge_popup(torch.zeros(4), torch.zeros(5), 1), ValueError),
        (lambda: B.recycle_weights(torch.zeros(4), torch.zeros(4), 0.6), ValueError),
        (lambda: B.fff_descend(torch.zeros(2, 3), torch.zeros(4, 3)), ValueError),
        (lambda: B.fff_descend(torch.zeros(2, 3), torch.zeros(3, 4)), ValueError),
        (lambda: B.fff_descend(torch.zeros(2, 3), torch.zeros(3, 3).double()), TypeError),
        (lambda: B.fff_descend(torch.zeros(2, 3), torch.zeros(3, 3), torch.zeros(2)), ValueError),
        (lambda: B.fff_descend(torch.zeros(2, 3), torch.zeros(3, 3), tie="<"), ValueError),
        (
            lambda: B.fff_hard(torch.zeros(2, 3), torch.zeros(1, 3), None, torch.zeros(3, 3, 1), None, torch.zeros(2, 1, 1), None),
            ValueError,
        ),
        (
            lambda: B.fff_hard(torch.zeros(2, 3), torch.zeros(1, 3), None, torch.zeros(2, 3, 1), None, torch.zeros(2, 2, 1), None),
            ValueError,
        ),
        (lambda: B.fff_path(torch.zeros(2, 3), torch.zeros(3, 3), None, torch.zeros(2, 3)), ValueError),
    ],
)
def test_bad_input(call, kind) -> None:
    with pytest.raises(kind):
        call()
