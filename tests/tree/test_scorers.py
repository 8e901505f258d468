"""Biaffine and triaffine scores against their sums written out."""

from __future__ import annotations

import pytest
import torch
from cases import generator
from compare import assert_close
from structops.tree import biaffine, scorers, triaffine
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

BIASES = [(False, False), (True, False), (False, True), (True, True)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def ones(t: Tensor, bias: bool) -> Tensor:
    return torch.cat([t, torch.ones_like(t[..., :1])], -1) if bias else t


def pairs(x, y, w, bx, by):
    return torch.einsum("bxi,oij,byj->boxy", ones(x, bx), w, ones(y, by))


def triples(x, y, z, w, bx, by):
    return torch.einsum("bxi,oijk,byj,bzk->boxyz", ones(x, bx), w, ones(y, by), z)


@pytest.mark.parametrize(("bx", "by"), BIASES)
@pytest.mark.parametrize("O", [0, 1, 3])
def test_biaffine(O: int, bx: bool, by: bool) -> None:
    for B, N, M in ((2, 4, 3), (1, 1, 5), (0, 2, 2), (2, 0, 3)):
        x, y = draw(B, N, 5), draw(B, M, 4, seed=1)
        w = draw(*([O] if O else []), 5 + bx, 4 + by, seed=2)
        want = pairs(x, y, w if O else w[None], bx, by)
        got = biaffine(x, y, w, bx, by, scale=0.5)
        assert_close(got, want * 0.5 if O else want[:, 0] * 0.5, terms=64)
        if N and M:
            ix, iy = torch.arange(6).expand(B, 6) % N, torch.arange(6).expand(B, 6) * 7 % M
            some = biaffine(x, y, w, bx, by, index=(ix.int(), iy))
            full = want[torch.arange(B)[:, None], :, ix, iy].transpose(1, 2)
            assert_close(some, full if O else full[:, 0], terms=64)


@pytest.mark.parametrize(("bx", "by"), BIASES)
@pytest.mark.parametrize("O", [0, 2])
def test_triaffine(monkeypatch: pytest.MonkeyPatch, O: int, bx: bool, by: bool) -> None:
    monkeypatch.setattr(scorers, "_AT_ONCE", 200)  # several groups
    for B, N, M, L in ((3, 4, 3, 2), (1, 1, 5, 4), (0, 2, 2, 2), (2, 3, 0, 2)):
        x, y, z = draw(B, N, 5), draw(B, M, 4, seed=1), draw(B, L, 3, seed=2)
        w = draw(*([O] if O else []), 5 + bx, 4 + by, 3, seed=3)
        want = triples(x, y, z, w if O else w[None], bx, by)
        got = triaffine(x, y, z, w, bx, by, scale=2.0)
        assert_close(got, want * 2 if O else want[:, 0] * 2, terms=128)
        if B and N and M:
            at = [torch.arange(7).expand(B, 7) * k % n for k, n in ((1, N), (5, M), (3, L))]
            some = triaffine(x, y, z, w, bx, by, index=at)
            full = want[torch.arange(B)[:, None], :, at[0], at[1], at[2]].transpose(1, 2)
            assert_close(some, full if O else full[:, 0], terms=128)


@pytest.mark.parametrize(("bx", "by"), BIASES)
def test_gradients(monkeypatch: pytest.MonkeyPatch, bx: bool, by: bool) -> None:
    monkeypatch.setattr(scorers, "_AT_ONCE", 50)
    x, y, z = (draw(2, n, 2, seed=n).requires_grad_() for n in (2, 3, 1))
    w2, w3 = draw(2, 2 + bx, 2 + by, seed=5).requires_grad_(), draw(2 + bx, 2 + by, 2, seed=6).requires_grad_()
    at = torch.tensor([[0, 1, 1]] * 2)
    f = lambda x, y, w: biaffine(x, y, w, bx, by, 0.7)
    g = lambda x, y, z, w: triaffine(x, y, z, w, bx, by, 0.7)
    assert gradcheck(f, (x, y, w2)) and gradgradcheck(f, (x, y, w2))
    assert gradcheck(g, (x, y, z, w3)) and gradgradcheck(g, (x, y, z, w3))
    assert gradcheck(lambda x, y, w: biaffine(x, y, w, bx, by, index=(at, at)), (x, y, w2))
    assert gradcheck(lambda x, y, z, w: triaffine(x, y, z, w, bx, by, index=(at, at, at * 0)), (x, y, z, w3))


def test_lean_gradient_is_the_plain_one() -> None:
    x, w = draw(3, 6, 4), draw(5, 5, 4, seed=1)
    grads = []
    for f in (lambda x, w: triaffine(x, x, x, w, True, True), lambda x, w: triples(x, x, x, w[None], True, True)[:, 0]):
        leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        f(*leaves).square().sum().backward()
        grads.append([t.grad for t in leaves])
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, terms=2048, magnitude=50.0)


@pytest.mark.parametrize("chained", [False, True])
def test_operands_that_depend_on_each_other(chained: bool) -> None:
    x, w = draw(2, 3, 2).requires_grad_(), draw(2, 2, 2, seed=1).requires_grad_()
    y = (lambda x: x.tanh()) if chained else (lambda x: x)
    f = lambda x, w: triaffine(x, y(x), y(x), w)
    assert gradgradcheck(f, (x, w))
    first, graphed = (torch.autograd.grad(f(x, w).sin().sum(), (x, w), create_graph=c) for c in (False, True))
    for a, b in zip(first, graphed, strict=True):
        assert_close(a, b.detach(), terms=256)


def test_compile() -> None:
    x, w2, w3 = draw(2, 3, 4), draw(5, 5, seed=1), draw(5, 5, 4, seed=2)
    f = lambda x, w2, w3: biaffine(x, x, w2, True, True).sum() + triaffine(x, x, x, w3, True, True).sum()
    got = torch.compile(f, fullgraph=True, backend="aot_eager")(x, w2, w3)
    assert_close(got, f(x, w2, w3), terms=512, magnitude=10.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    x, w = draw(2, 3, 4, dtype=dtype), draw(4, 4, 4, seed=1, dtype=dtype)
    assert triaffine(x, x, x, w).dtype == dtype and biaffine(x, x, w).dtype == dtype
    noncontiguous = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(triaffine(noncontiguous, x, x, w), triaffine(x, x, x, w))


def test_errors() -> None:
    x, w = draw(2, 3, 4), draw(4, 4, seed=1)
    at = torch.zeros(2, 1, dtype=torch.int64)
    for call, error, match in (
        (lambda: biaffine(x, x, w, bias_x=True), ValueError, "weight of shape"),
        (lambda: biaffine(x, x[:1], w), ValueError, "y of shape"),
        (lambda: biaffine(x, x.float(), w), TypeError, "y of dtype"),
        (lambda: biaffine(x, [1], w), TypeError, "y to be"),
        (lambda: biaffine(x, x, w, index=at), TypeError, "index as 2"),
        (lambda: biaffine(x, x, w, index=(at, at + 3)), IndexError, "index of y"),
        (lambda: biaffine(x, x, w, index=(at, at[:, :0])), ValueError, "index of y"),
        (lambda: triaffine(x, x, x, w), ValueError, "weight of shape"),
        (lambda: triaffine(x, x, x, draw(4, 4, 4), bias_x=1), TypeError, "bias_x"),
    ):
        with pytest.raises(error, match=match):
            call()
