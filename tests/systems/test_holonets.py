"""Holomorphic filters of a directed operator and of its transpose."""

from __future__ import annotations

import pytest
import torch
from cases import random_coo, values
from structops import Graph, sparse, spmm

SYSTEM = "HoloNets (FaberNet): polynomial filters on directed graphs, both ways, real or complex"
OPERATORS = ("structops.sparse.directed_filter", "structops.sparse.polynomial_conv")
N, C, K = 20, 4, 4
COO = random_coo(N, N, 80)
GRAPH = Graph(COO, num_nodes=N)


def operator():
    """T = D_out^-1/4 A D_in^-1/4 and its dense matrix."""
    out = torch.bincount(COO[0], minlength=N).clamp(min=1).double() ** -0.25
    into = torch.bincount(COO[1], minlength=N).clamp(min=1).double() ** -0.25
    w = out[COO[0]] * into[COO[1]]
    return w, torch.zeros(N, N, dtype=torch.float64).index_put((COO[1], COO[0]), w, accumulate=True)


@pytest.mark.parametrize("complex_x", [False, True])
@pytest.mark.parametrize("complex_w", [False, True])
def test_channel_filters(complex_x: bool, complex_w: bool) -> None:
    w, T = operator()
    make = lambda c, *s: (torch.complex(values(*s), values(*s, seed=1)) if c else values(*s)).requires_grad_()
    x, f, b = make(complex_x, N, C), make(complex_w, K + 1, C), make(complex_w, K + 1, C)
    out = sparse.directed_filter(GRAPH, x, f, b, w)
    dtype = torch.complex128 if complex_x or complex_w else torch.float64
    h, r, want = x.to(dtype), x.to(dtype), 0
    for k in range(K + 1):
        want = want + f[k] * h + b[k] * r
        h, r = T.to(dtype) @ h, T.T.to(dtype) @ r
    assert out.dtype == dtype and (out - want).abs().max() < 1e-8
    for u, v in zip(*(torch.autograd.grad(o.abs().square().sum(), (x, f, b)) for o in (out, want)), strict=True):
        assert (u - v).abs().max() < 1e-8 * max(1, v.abs().max().item())
    swapped = sparse.directed_filter(GRAPH.reverse(), x, b, f, w)
    assert (swapped - out).abs().max() < 1e-9


def test_layer_with_matrices() -> None:
    """alpha sum 2^-(k-1) T^k X W_k + (1 - alpha) sum 2^-(k-1) T'^k X V_k."""
    w, T = operator()
    x, W, V = values(N, C).requires_grad_(), values(K + 1, C, 3).requires_grad_(), values(K + 1, C, 3, seed=2).requires_grad_()
    decay = (2.0 ** (1 - torch.arange(K + 1, dtype=torch.float64)))[:, None, None]
    one = sparse.polynomial_conv(GRAPH, x, 0.3 * decay * W, "monomial", w)
    out = one + sparse.polynomial_conv(GRAPH.reverse(), x, 0.7 * decay * V, "monomial", w)
    want = sum(
        decay[k] * (0.3 * torch.linalg.matrix_power(T, k) @ x @ W[k] + 0.7 * torch.linalg.matrix_power(T.T, k) @ x @ V[k])
        for k in range(K + 1)
    )
    assert (out - want).abs().max() < 1e-9
    for u, v in zip(*(torch.autograd.grad(o.sin().sum(), (x, W, V)) for o in (out, want)), strict=True):
        assert (u - v).abs().max() < 1e-8


def test_resolvent() -> None:
    """sum_{k >= 1} 2^-(k-1) T^k = T (I - T/2)^-1 for a norm below 2."""
    w, T = operator()
    scale = 1 / torch.linalg.matrix_norm(T, 2)
    theta = torch.cat([torch.zeros(1), 2.0 ** -torch.arange(60)]).double()
    x = values(N, C)
    got = sparse.polynomial_filter(GRAPH, x, theta, weight=scale * w)
    assert (got - scale * T @ torch.linalg.solve(torch.eye(N).double() - scale * T / 2, x)).abs().max() < 1e-12
    assert (spmm(GRAPH, x, w[:, None]) - T @ x).abs().max() < 1e-12
