"""Polynomial filters: poly_filter, poly_filter_bwd and the public functions on them."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS, INTEGERS, random_coo, to_csr, values
from compare import assert_close, assert_same
from structops import Graph, sparse
from structops.kernels.sparse import poly_ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

raw, raw_bwd = torch.ops.structops.poly_filter, torch.ops.structops.poly_filter_bwd
N, E = 23, 140
COO = random_coo(N, N, E)
GRAPH = Graph(COO, num_nodes=N)
WEIGHT = values(E, seed=4) / 8


def dense(weight: Tensor = WEIGHT, coo: Tensor = COO, n: int = N) -> Tensor:
    return torch.zeros(n, n, dtype=weight.dtype).index_put((coo[1], coo[0]), weight, accumulate=True)


def structure(index: torch.dtype = torch.int64) -> tuple:
    return (*to_csr(COO, N, index), *to_csr(COO.flip(0), N, index))


def powers(matrix: Tensor, x: Tensor, K: int) -> list[Tensor]:
    found = [x]
    for _ in range(K):
        found.append(matrix @ found[-1])
    return found


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    wide = lambda t: None if t is None else t.double()
    for n, (C, K) in enumerate([(1, 0), (3, 4), (16, 1), (17, 4), (33, 3), (70, 2), (130, 3), (5, 4)]):
        s = structure(INTEGERS[n % 2])
        x, grad, dot = (values(N, C, dtype=dtype, seed=i) for i in range(3))
        alpha, recur, gate = values(K + 1, C).to(acc), (values(3, K, C) / 2).to(acc), (values(C + 1) / 8).to(acc)
        for weight, g in ((None, None), (WEIGHT.to(dtype), None), (None, gate), (WEIGHT.to(dtype), gate)):
            scale = 0.2 if weight is None else 1.0
            r = recur * scale
            got = on_threads(lambda: raw(x, weight, *s, alpha, r, dot, g))
            want = poly_ref.poly_filter(wide(x), wide(weight), *s, wide(alpha), wide(r), wide(dot), wide(g))
            back = on_threads(lambda: raw_bwd(grad, x, weight, *s, alpha, r, g, weight is not None))
            wanted = poly_ref.poly_filter_bwd(
                wide(grad), wide(x), wide(weight), *s, wide(alpha), wide(r), wide(g), weight is not None
            )
            for i, (a, b) in enumerate(zip((*got, *back), (*want, *wanted), strict=True)):
                largest = b.abs().max().item() if b.numel() else 1.0
                assert_close(a, b, a.dtype, terms=64, magnitude=max(largest, 1.0), what=(C, K, weight is None, g is None, i))


def test_coefficients_for_every_channel() -> None:
    x, alpha, recur = values(N, 5), values(4), values(3, 3, 1)
    s = structure()
    one = raw(x, WEIGHT, *s, alpha[:, None], recur, None, None)[0]
    each = raw(x, WEIGHT, *s, alpha[:, None].expand(-1, 5).contiguous(), recur.expand(-1, -1, 5).contiguous(), None, None)[0]
    assert_same(one, each)


def test_large_rows_and_many_items(on_threads) -> None:
    """Blocks beyond the first cache, a hub, several work items."""
    n, count = 3000, 40_000
    coo = random_coo(n, n, count, hub=9000)
    s = (*to_csr(coo, n, torch.int32), *to_csr(coo.flip(0), n, torch.int32))
    w = torch.rand(coo.shape[1]) / 16
    x, alpha, recur = values(n, 70, dtype=torch.float32), values(3, 1).float(), values(3, 2, 1).float() / 2
    out, dots = on_threads(lambda: raw(x, w, *s, alpha, recur, x, None))
    matrix = torch.sparse_coo_tensor(coo.flip(0), w.double(), (n, n))
    r, h0 = recur.double(), x.double()
    h1 = r[0, 0] * (matrix @ h0) + r[1, 0] * h0
    h2 = r[0, 1] * (matrix @ h1) + r[1, 1] * h1 + r[2, 1] * h0
    want = sum(alpha[k].double() * h for k, h in enumerate((h0, h1, h2)))
    assert_close(out, want, torch.float32, terms=2000, magnitude=16.0)
    assert_close(dots, torch.stack([(x.double() * h).sum(0) for h in (h0, h1, h2)]), torch.float32, terms=9000, magnitude=64.0)


BASES = {
    "monomial": lambda p, k, K: p**k,
    "chebyshev": lambda p, k, K: torch.cos(k * torch.acos(p)),
    "chebyshev2": lambda p, k, K: torch.sin((k + 1) * torch.acos(p)) / torch.sin(torch.acos(p)),
    "legendre": lambda p, k, K: torch.special.legendre_polynomial_p(p, k),
    "bernstein": lambda p, k, K: math.comb(K, k) * 2.0**-K * (1 + p) ** (K - k) * (1 - p) ** k,
    # (1, 1): proportional to the Gegenbauer polynomial of index 3/2, the derivative of Legendre's.
    "jacobi": lambda p, k, K: pytest.importorskip("scipy.special").eval_jacobi(k, 1.0, 1.0, p),
}


@pytest.mark.parametrize("basis", BASES)
def test_bases_against_the_spectrum(basis: str) -> None:
    """U diag(f(lambda)) U' of a symmetric normalised adjacency."""
    both = torch.cat([COO, COO.flip(0)], 1)
    graph, w = sparse.normalized_adjacency(Graph(both, num_nodes=N), dtype=torch.float64, self_loops=0.5)
    matrix = dense(w, graph.edge_index().long())
    assert torch.allclose(matrix, matrix.T)
    value, U = torch.linalg.eigh(matrix)
    value = value.clamp(-1, 1) * (1 - 1e-12)
    x = values(N, 4)
    for K in (0, 1, 2, 7):
        theta = values(K + 1, 4, seed=K)
        response = sum(theta[k] * torch.as_tensor(BASES[basis](value, k, K))[:, None] for k in range(K + 1))
        want = U @ (response * (U.T @ x))
        assert (sparse.polynomial_filter(graph, x, theta, basis, w) - want).abs().max() < 1e-7 * max(1.0, want.abs().max().item())
        conv = sparse.polynomial_conv(graph, x, torch.diag_embed(theta), basis, w)
        assert (conv - want).abs().max() < 1e-7 * max(1.0, want.abs().max().item())


def test_gradients(poison: None) -> None:
    x, alpha, w = values(N, 3).requires_grad_(), values(4, 3).requires_grad_(), WEIGHT.clone().requires_grad_()
    a = values(3, 3, seed=1).requires_grad_()
    b = values(3, seed=2).requires_grad_()
    gate, bias = values(3).requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    complex_ = torch.complex(values(3, 2), values(3, 2, seed=1)).requires_grad_()
    calls = (
        (lambda x, t: sparse.polynomial_filter(GRAPH, x, t, "chebyshev", WEIGHT), (x, alpha)),
        (lambda t: sparse.polynomial_filter(GRAPH, x.detach(), t, "bernstein"), (b,)),
        (lambda x, t, a, b, w: sparse.three_term_filter(GRAPH, x, t, a, b, 0.5, w), (x, alpha, a, b, w)),
        (lambda x, s, b, w: sparse.gated_filter(GRAPH, x, s, b, 3, w), (x, gate, bias, w)),
        (lambda x, m, w: sparse.polynomial_conv(GRAPH, x, m, "jacobi", w), (x, values(3, 3, 2).requires_grad_(), w)),
        (
            lambda x, c: torch.view_as_real(sparse.directed_filter(GRAPH, x, c, c, WEIGHT)),
            (values(N, 2).requires_grad_(), complex_),
        ),
    )
    for fn, leaves in calls:
        assert gradcheck(fn, leaves, fast_mode=True)
        assert gradgradcheck(fn, leaves, fast_mode=True)


def test_optimal_basis_gradient() -> None:
    both = torch.cat([COO, COO.flip(0)], 1)
    graph, w = sparse.normalized_adjacency(Graph(both, num_nodes=N), dtype=torch.float64)
    x, t = values(N, 2).requires_grad_(), values(4, 2).requires_grad_()
    assert gradcheck(lambda x, t, w: sparse.optimal_basis_filter(graph, x, t, w), (x, t, w.requires_grad_()), fast_mode=True)


def test_adjoint_is_the_filter_on_reversed_edges() -> None:
    x, g, theta = values(N, 3), values(N, 3, seed=1), values(5)
    left = (g * sparse.polynomial_filter(GRAPH, x, theta, "legendre", WEIGHT)).sum()
    right = (x * sparse.polynomial_filter(GRAPH.reverse(), g, theta, "legendre", WEIGHT)).sum()
    assert_close(left, right, terms=4096, magnitude=8.0)


def test_gradient_of_x_saves_no_features() -> None:
    x = torch.randn(N, 50, requires_grad=True)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        sparse.polynomial_filter(GRAPH, x, torch.ones(4))
    assert max(saved) <= E


def test_special_values_and_sizes(poison: None) -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 2]]), num_nodes=4)
    x = torch.tensor([float("nan"), 1.0, float("inf"), 2.0])
    out = sparse.polynomial_filter(graph, x, torch.tensor([0.0, 1.0, 1.0]))
    assert out[3] == 0 and out[1:3].isnan().all() and out[0].isnan()
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=3)
    ones = torch.ones(3, 2, requires_grad=True)
    assert_same(sparse.polynomial_filter(empty, ones, torch.tensor([2.0, 5.0])).detach(), torch.full((3, 2), 2.0))
    none = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0)
    theta = torch.ones(3, requires_grad=True)
    sparse.polynomial_filter(none, torch.zeros(0, 2), theta).sum().backward()
    assert_same(theta.grad, torch.zeros(3))
    w = torch.ones(E, requires_grad=True)
    sparse.polynomial_filter(GRAPH, torch.zeros(N, 0), theta, weight=w).sum().backward()
    assert_same(w.grad, torch.zeros(E))


def test_errors() -> None:
    x = torch.zeros(N, 2)
    call = sparse.polynomial_filter
    for kind, args in (
        (TypeError, (COO, x, torch.ones(2))),
        (ValueError, (Graph(COO, num_src=N, num_dst=N + 1), x, torch.ones(2))),
        (ValueError, (GRAPH, x[1:], torch.ones(2))),
        (TypeError, (GRAPH, x.long(), torch.ones(2))),
        (ValueError, (GRAPH, x, torch.ones(2, 3))),
        (ValueError, (GRAPH, x, torch.ones(0))),
        (ValueError, (GRAPH, x, torch.ones(2), "fourier")),
        (ValueError, (GRAPH, x, torch.ones(2), "monomial", torch.ones(E + 1))),
    ):
        with pytest.raises(kind, match="polynomial_filter: expected"):
            call(*args)
    with pytest.raises(ValueError, match="damping"):
        call(GRAPH, x, torch.ones(2), damping="jackson")
    with pytest.raises(ValueError, match="hops"):
        sparse.gated_filter(GRAPH, x, torch.ones(2), hops=-1)
    with pytest.raises(ValueError, match="gate"):
        sparse.gated_filter(GRAPH, x, torch.ones(3))


def test_compile() -> None:
    w = WEIGHT.clone()
    GRAPH.reversed_structure  # noqa: B018
    for fn in (
        lambda x, t: sparse.polynomial_filter(GRAPH, x, t, "chebyshev", w),
        lambda x, t: sparse.three_term_filter(GRAPH, x, t, t[1:], 0.1, 0.2, w),
        lambda x, t: sparse.gated_filter(GRAPH, x, t[0], 0.1, 3, w),
    ):
        results = []
        for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
            leaves = values(N, 3).requires_grad_(), values(4, 3).requires_grad_()
            out = f(*leaves)
            out.square().sum().backward()
            results.append([out.detach(), *(t.grad for t in leaves)])
        for a, b in zip(*results, strict=True):
            assert_close(b, a, terms=256, magnitude=max(8.0, a.abs().max().item()))
    torch._dynamo.reset()
