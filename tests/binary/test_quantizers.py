"""Every public quantizer against its formula in float64: values, gradients, what it saves, and bad input."""

from __future__ import annotations

import math

import pytest
import structops
import torch
from cases import FLOATS, generator
from compare import assert_close
from torch import Tensor
from torch.autograd import gradcheck

B = structops.binary


def data(*shape: int, dtype: torch.dtype = torch.float64, scale: float = 1.5, seed: int = 0) -> Tensor:
    """Normal numbers, exact in bfloat16, with some zeros and ones."""
    x = (scale * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)).bfloat16().double()
    flat = x.view(-1)
    flat[::17], flat[1::19] = 0, 1
    return x.to(dtype)


def surrogate(forward: Tensor, through: Tensor) -> Tensor:
    """The value of ``forward`` with the gradient of ``through``."""
    return through + (forward - through).detach()


def sgn(x: Tensor, zero: float = 1.0) -> Tensor:
    return torch.where(x == 0, zero, torch.sign(x))


def clipped(x: Tensor, c: float = 1.0) -> Tensor:
    return surrogate(x, x * (x.abs() <= c))


def polynomial(x: Tensor) -> Tensor:
    mid = torch.where(x < 0, x * x + 2 * x, 2 * x - x * x)
    return torch.where(x < -1, -1.0, torch.where(x < 1, mid, 1.0)) + 0 * x


def swish(x: Tensor, b: float = 5.0) -> Tensor:
    s = torch.sigmoid(b * x)
    return 2 * s * (1 + b * x * (1 - s)) - 1


def series(x: Tensor, terms: int = 9, w: float = 0.1) -> Tensor:
    total = sum(torch.sin((2 * i + 1) * w * x) / (2 * i + 1) for i in range(terms + 1))
    return torch.where(x.abs() <= 1, 4 / math.pi * total, 0)


def rows(v: Tensor, like: Tensor, dim: int) -> Tensor:
    return v.reshape([-1 if d == dim else 1 for d in range(like.dim())])


def mean_size(w: Tensor) -> Tensor:
    return w.detach().abs().mean((1, 2), keepdim=True)


def dorefa_weight(w: Tensor, n: int, passed: bool) -> Tensor:
    t = torch.tanh(w)
    u = t / (2 * t.detach().abs().max()) + 0.5
    y = 2 * surrogate(torch.round(u * n) / n, u) - 1
    return surrogate(y, w) if passed else y


def recu(w: Tensor, tau: float = 0.85) -> Tensor:
    w0 = w - w.mean((1, 2), keepdim=True)
    w1 = w0 / (torch.sqrt(w0.var((1, 2), keepdim=True) + 1e-5) / (2 * math.sqrt(2)))
    q = (-w1.abs().mean() * math.log(2 - 2 * tau)).detach()
    w2 = torch.max(torch.min(w1, q), -q)
    return surrogate(sgn(w2), w2)


def irnet(w: Tensor, t: float, k: float) -> Tensor:
    w0 = w - w.mean((1, 2), keepdim=True)
    w1 = w0 / torch.sqrt(w0.var((1, 2), keepdim=True) + 1e-5)
    scale = torch.exp2(torch.round(torch.log2(w1.detach().abs().mean((1, 2), keepdim=True))))
    return scale * surrogate(sgn(w1), k * torch.tanh(t * w1))


def recu_activation(x: Tensor) -> Tensor:
    a = x / torch.sqrt(x.var((1, 2), keepdim=True) + 1e-5)
    return surrogate(sgn(a), polynomial(a))


def twn(x: Tensor) -> Tensor:
    limit = 0.7 * x.detach().abs().mean()
    kept = x.detach().abs() >= limit
    alpha = (x.detach().abs() * kept).sum() / kept.sum()
    return alpha * surrogate(torch.sign(x) * kept, clipped(x))


# name -> (ours, the formula), of one x [6, 5, 9]
FORMULAS = {
    "identity": (lambda x: B.sign(x, "identity"), lambda x: surrogate(sgn(x), x)),
    "clip": (lambda x: B.sign(x), lambda x: surrogate(sgn(x), clipped(x))),
    "clip 1.3, zero 0": (lambda x: B.sign(x, clip=1.3, sign_zero=0), lambda x: surrogate(torch.sign(x), clipped(x, 1.3))),
    "clip strict, zero -1": (
        lambda x: B.sign(x, "clip_strict", sign_zero=-1), lambda x: surrogate(sgn(x, -1), surrogate(x, x * (x.abs() < 1)))),
    "approx": (B.approx_sign, lambda x: surrogate(sgn(x), polynomial(x))),
    "swish": (B.swish_sign, lambda x: surrogate(sgn(x), swish(x))),
    "sigmoid": (lambda x: B.sign(x, "sigmoid"), lambda x: surrogate(sgn(x), 2 * torch.sigmoid(3 * x))),
    "tanh": (lambda x: B.sign(x, "tanh", width=2.0, height=1.5), lambda x: surrogate(sgn(x), 1.5 * torch.tanh(2 * x))),
    "fda": (B.fda_sign, lambda x: surrogate(sgn(x), series(x))),
    "fda 18 terms": (lambda x: B.fda_sign(x, 18), lambda x: surrogate(sgn(x), series(x, 18))),
    "heaviside": (B.heaviside, lambda x: surrogate((x > 0).double(), clipped(x))),
    "progressive": (lambda x: B.progressive_sign(x, 0.5), lambda x: torch.nn.functional.hardtanh(x / 0.5)),
    "dorefa 1": (lambda x: B.dorefa(x, 1), lambda x: surrogate(torch.round(x.clamp(0, 1)), x.clamp(0, 1))),
    "dorefa 3": (lambda x: B.dorefa(x, 3), lambda x: surrogate(torch.round(x.clamp(0, 1) * 7) / 7, x.clamp(0, 1))),
    "dorefa bitorch": (lambda x: B.dorefa(x, 2, peer="bitorch"), lambda x: surrogate(torch.round(x.clamp(0, 1) * 3) / 3, x)),
    "dorefa weights": (lambda x: B.dorefa(x, 2, "weights"), lambda x: dorefa_weight(x, 3, False)),
    "dorefa weights bitorch": (lambda x: B.dorefa(x, 1, "weights", peer="bitorch"), lambda x: dorefa_weight(x, 1, True)),
    "magnitude aware": (B.magnitude_aware_sign, lambda w: mean_size(w) * surrogate(sgn(w), clipped(w))),
    "xnor bireal": (B.xnor_weight, lambda w: surrogate(mean_size(w) * sgn(w), clipped(w))),
    "xnor dorefa": (
        lambda w: B.xnor_weight(w, peer="dorefa"), lambda w: surrogate(mean_size(w) * sgn(w), surrogate(w, w * (w.abs() < 1)))),
    "xnor centred": (
        lambda w: B.xnor_weight(w, peer="xnor"),
        lambda w: (lambda c: mean_size(c) * surrogate(sgn(c), clipped(c)))(w - w.mean((1, 2), keepdim=True))),
    "xnor activation": (B.xnor_activation, lambda x: surrogate(mean_size(x) * sgn(x), clipped(x))),
    "bwn": (B.bwn, lambda w: surrogate(w.detach().abs().mean() * sgn((w - w.mean()).detach()), w)),
    "ternary": (B.ternary, lambda x: surrogate(torch.sign(x) * (x.abs() >= 0.05), clipped(x))),
    "twn": (lambda x: B.ternary(x, "twn", scaled=True), twn),
    "b1.58": (
        lambda x: B.ternary(x, "mean", scaled=True),
        lambda x: surrogate(torch.round(x / x.abs().mean()).clamp(-1, 1) * x.abs().mean(), x)),
    "recu weight": (B.recu_weight, recu),
    "recu activation": (B.recu_activation, recu_activation),
    "irnet": (lambda w: B.irnet_weight(w, 2.0, 1.5), lambda w: irnet(w, 2.0, 1.5)),
    "biper stage 1": (lambda w: B.biper_weight(w, 3.0, 1), lambda w: torch.sin(3 * w)),
    "biper": (lambda w: B.biper_weight(w, 3.0), lambda w: surrogate(sgn(torch.sin(3 * w)), torch.sin(3 * w))),
}  # fmt: skip
SAMPLE = data(6, 5, 9)
WIDE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.004}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str, dtype: torch.dtype, poison: None) -> None:
    """The value and the gradient; the 16-bit types round statistics nowhere but in x and the results."""
    ours, formula = FORMULAS[name]
    x = SAMPLE.to(dtype).clone().requires_grad_()
    exact = x.detach().double().clone().requires_grad_()
    grad = data(6, 5, 9, seed=3, scale=0.5)
    y, want = ours(x), formula(exact)
    assert y.dtype == dtype and y.shape == x.shape
    y.backward(grad.to(dtype))
    want.backward(grad)
    tolerance = WIDE[dtype]
    torch.testing.assert_close(y.double(), want, rtol=tolerance, atol=tolerance)
    size = exact.grad.abs().max().item()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=tolerance, atol=2 * tolerance * size)


def test_inputs_are_not_changed_and_may_have_any_strides() -> None:
    for name, (ours, _) in FORMULAS.items():
        x = data(9, 5, 6).transpose(0, 2)
        before = x.clone()
        torch.testing.assert_close(ours(x), ours(x.contiguous()), rtol=0, atol=0, msg=name)
        assert torch.equal(x, before), name


@pytest.mark.parametrize("name", FORMULAS)
def test_empty(name: str) -> None:
    x = torch.zeros(0, 5, 9, requires_grad=True)
    FORMULAS[name][0](x).sum().backward()
    assert x.grad.shape == (0, 5, 9)


# ---- learned vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 1])
@pytest.mark.parametrize("signed", [True, False])
def test_elastic(signed: bool, dim: int | None) -> None:
    n = 1 if dim is None else 5
    x, a0 = data(6, 5, 9), torch.rand(n, dtype=torch.float64, generator=generator(2)) + 0.5
    grad = data(6, 5, 9, seed=4)
    leaves = [t.clone().requires_grad_() for t in (x, a0, x, a0)]
    ours = B.elastic(leaves[0], leaves[1], signed, dim=dim)
    v, alpha = leaves[2], leaves[3]
    f = 1 / math.sqrt(x.numel() // n)
    a = rows(alpha * f + (alpha - alpha * f).detach(), x, 1)
    u = v / a.detach()
    if signed:
        want = a * sgn(x) + surrogate(torch.zeros_like(x), v * (u.detach().abs() <= 1))
    else:
        q = torch.round(u.detach().clamp(0, 1))
        inside = (u.detach() >= 0) & (u.detach() <= 1)
        want = a * torch.where(inside, q - u.detach(), q) + surrogate((a * u * inside).detach(), v * inside)
    ours.backward(grad)
    want.backward(grad)
    assert_close(ours.detach(), want.detach(), terms=8)
    assert_close(leaves[0].grad, leaves[2].grad, terms=8)
    assert_close(leaves[1].grad, leaves[3].grad, terms=1000)


def test_rsign_and_rprelu(poison: None) -> None:
    x, grad = data(6, 5, 9), data(6, 5, 9, seed=4)
    vectors = [torch.randn(5, dtype=torch.float64, generator=generator(i)) for i in range(3)]
    for ours, formula in (
        (lambda x, b, *_: B.rsign(x, b), lambda x, b, *_: surrogate(sgn(x + b), polynomial(x + b))),
        (lambda x, *v: B.rprelu(x, *v), lambda x, b, s, z: torch.where(x + b > 0, x + b, s * (x + b)) + z),
        (lambda x, b, s, z: B.q_prelu(x, s, 1, b, z),
         lambda x, b, s, z: torch.where(x + b > 0, x + b, torch.exp2(surrogate(s.round(), s)) * (x + b)) + z),
    ):  # fmt: skip
        a = [t.clone().requires_grad_() for t in (x, *vectors)]
        b = [t.clone().requires_grad_() for t in (x, *vectors)]
        y, want = ours(*a), formula(b[0], *(v[:, None] for v in b[1:]))
        y.backward(grad)
        want.backward(grad)
        assert_close(y.detach(), want.detach(), terms=4)
        for s, t in zip(a, b, strict=True):
            assert (s.grad is None) == (t.grad is None)
            if s.grad is not None:
                assert_close(s.grad, t.grad, terms=400)


def test_xnorpp_scale() -> None:
    y, f = data(2, 3, 4, 5), [torch.rand(n, dtype=torch.float64, generator=generator(n)) for n in (3, 4, 5)]
    assert_close(B.xnorpp_scale(y, *f), y * f[0][:, None, None] * f[1][:, None] * f[2], terms=4)
    assert gradcheck(B.xnorpp_scale, (y.requires_grad_(), *(v.requires_grad_() for v in f)))


# ---- memory ----------------------------------------------------------------------------------------------------------


def saved_bytes(fn) -> int:
    """Bytes that one forward keeps, x itself included."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel() * t.element_size()), t)[1], lambda t: t):
        fn()
    return sum(kept)


def test_saved_bytes() -> None:
    x, n = torch.randn(64, 32, 8, 8, requires_grad=True), 64 * 32 * 64
    scale = torch.ones(32, requires_grad=True)
    w = torch.randn(64, 512, requires_grad=True)
    assert saved_bytes(lambda: B.sign(x)) == n // 8
    assert saved_bytes(lambda: B.sign(x, "identity")) == 0
    assert saved_bytes(lambda: B.heaviside(x)) == saved_bytes(lambda: B.ternary(x)) == saved_bytes(lambda: B.dorefa(x)) == n // 8
    assert saved_bytes(lambda: B.approx_sign(x, slope_bits=2)) == saved_bytes(lambda: B.fda_sign(x, slope_bits=2)) == n // 4
    assert saved_bytes(lambda: B.approx_sign(x)) == 4 * n
    assert saved_bytes(lambda: B.elastic(x, scale, dim=1)) == n // 4 + 3 * 4 * 32  # the vectors: alpha twice and its inverse
    assert saved_bytes(lambda: B.xnor_weight(w)) == 64 * 512 // 8 + 4 * 64
    with torch.no_grad():
        assert saved_bytes(lambda: B.sign(x)) == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_coarse_slopes(bits: int) -> None:
    """Within half a step of the exact slope."""
    for fn, top, signed in ((B.approx_sign, 2.0, False), (B.swish_sign, 5.0, True), (B.biper_weight, 20.0, True)):
        x = data(1000, scale=0.3).requires_grad_()
        fn(x).sum().backward()
        exact, x.grad = x.grad, None
        fn(x, slope_bits=bits).sum().backward()
        step = top / (2 ** (bits - 1) - 1 if signed else 2**bits - 1)
        assert ((x.grad - exact).abs() <= step / 2 + 1e-9).all()


# ---- higher order, errors --------------------------------------------------------------------------------------------


def test_second_order_uses_the_slope_s_derivative() -> None:
    for name in ("approx", "swish", "sigmoid", "tanh", "fda", "biper", "clip", "identity"):
        ours, formula = FORMULAS[name]
        x = SAMPLE.clone().requires_grad_()
        c, d = data(6, 5, 9, seed=7), data(6, 5, 9, seed=8)
        (a,) = torch.autograd.grad((ours(x) * c).sum(), x, create_graph=True)
        (b,) = torch.autograd.grad((formula(x) * c).sum(), x, create_graph=True)
        if not b.requires_grad:
            continue
        got = torch.autograd.grad((a * d).sum(), x, allow_unused=True)[0]
        want = torch.autograd.grad((b * d).sum(), x, allow_unused=True)[0]
        got, want = (torch.zeros_like(x) if t is None else t for t in (got, want))
        smooth = (SAMPLE != 0) & (SAMPLE.abs() != 1)
        assert_close(got[smooth], want[smooth], terms=256, magnitude=16.0, what=name)


def test_standardised_quantizers_say_that_they_are_differentiable_once() -> None:
    x = SAMPLE.clone().requires_grad_()
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(B.recu_weight(x).sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: B.sign(x.long()), TypeError),
        (lambda x: B.sign([1.0]), TypeError),
        (lambda x: B.sign(x, "round"), ValueError),
        (lambda x: B.sign(x, sign_zero=2), ValueError),
        (lambda x: B.sign(x, clip=-1.0), ValueError),
        (lambda x: B.sign(x, clip="1"), TypeError),
        (lambda x: B.approx_sign(x, slope_bits=3), ValueError),
        (lambda x: B.rsign(x, torch.zeros(4)), ValueError),
        (lambda x: B.rsign(x, torch.zeros(5).long()), TypeError),
        (lambda x: B.rsign(x, torch.zeros(5), dim=3), IndexError),
        (lambda x: B.heaviside(x, sign_zero=-1), ValueError),
        (lambda x: B.dorefa(x, 0), ValueError),
        (lambda x: B.dorefa(x, 2, "both"), ValueError),
        (lambda x: B.dorefa(x, 2, peer="bibench"), ValueError),
        (lambda x: B.ternary(x, "median"), ValueError),
        (lambda x: B.ternary(x, 0.1, scaled=True), ValueError),
        (lambda x: B.elastic(x, 1.0), TypeError),
        (lambda x: B.elastic(x, torch.ones(3)), ValueError),
        (lambda x: B.biper_weight(x, stage=3), ValueError),
        (lambda x: B.biper_weight(x, 0.0), ValueError),
        (lambda x: B.recu_weight(x, 1.0), ValueError),
        (lambda x: B.xnor_weight(x, peer="larq"), ValueError),
        (lambda x: B.xnorpp_scale(x, torch.ones(4)), ValueError),
    ],
)
def test_bad_input(call, kind) -> None:
    with pytest.raises(kind):
        call(torch.zeros(6, 5, 9))


def test_compiles() -> None:
    x = SAMPLE.float()
    for name in ("clip", "approx", "dorefa weights", "magnitude aware", "twn", "biper"):
        ours = FORMULAS[name][0]
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        compiled = torch.compile(lambda v: ours(v) * 2, fullgraph=True, backend="aot_eager")
        compiled(a).square().sum().backward()
        (ours(b) * 2).square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-6, msg=name)
        torch._dynamo.reset()
