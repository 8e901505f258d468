"""Directed filters, optimal bases, matrix coefficients, made of poly_filter and spmm; and normalised adjacencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ._operands import analyse
from ._poly import _coefficients, _inputs, polynomial_filter
from ._poly_bases import BASES, bernstein_to_chebyshev, recurrence


def normalized_adjacency(
    graph: Graph, weight: Tensor | None = None, kind: str = "sym", *, self_loops: float = 0.0, dtype: torch.dtype = torch.float32
) -> tuple[Graph, Tensor]:
    """A graph and the edge weights of its normalised adjacency matrix.

    ``sym``: ``w / sqrt(d_in[v] d_out[u])``; ``rw``: ``w / d_in[v]``, rows summing to 1; ``col``: ``w / d_out[u]``. Degrees are
    sums of weights; where one is not positive the weight is 0.

    Args:
        graph: the structure; rectangular ones take no self loops.
        weight: ``[E]`` in the graph's edge order (default: 1).
        kind: sym, rw or col.
        self_loops: weight of a loop added to every node, after the graph's own edges; 0 adds none.
        dtype: of the weights, where ``weight`` is not given.

    Returns:
        The graph (a new one with self loops) and its weights ``[E]`` or ``[E + N]``.

    Differentiable in weight. Deterministic.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    >>> structops.sparse.normalized_adjacency(g, kind="rw")[1].tolist()
    [0.5, 1.0, 1.0, 0.5]
    """
    op = "normalized_adjacency"
    checked_graph(op, graph)
    check.choice(op, "kind", kind, ("sym", "rw", "col"))
    if dtype not in check.FLOATS:
        check.fail(TypeError, op, "dtype float32, float64, bfloat16 or float16", dtype)
    if weight is None:
        weight = torch.ones(graph.num_edges, dtype=dtype, device=graph.device)
    else:
        check.dense(op, "weight", weight)
        if weight.dim() != 1 or weight.shape[0] != graph.num_edges:
            check.fail(ValueError, op, f"weight of shape [{graph.num_edges}]", list(weight.shape))
        if weight.device != graph.device:
            check.fail(ValueError, op, f"weight on {graph.device}, as the graph", weight.device)
    if self_loops:
        if graph.num_src != graph.num_dst:
            check.fail(
                ValueError, op, "a square graph with self loops", f"{graph.num_src} sources and {graph.num_dst} destinations"
            )
        N = graph.num_dst
        index = graph.edge_index()
        loop = torch.arange(N, dtype=index.dtype, device=index.device)
        graph = Graph(torch.cat([index, torch.stack([loop, loop])], 1), num_nodes=N)
        weight = torch.cat([weight, weight.new_full((N,), float(self_loops))])
    weight = weight.contiguous()
    s = graph.structure
    if kind != "rw" or weight.requires_grad:
        graph.reversed_structure  # noqa: B018
        s = graph.structure
    reverse = (*s[3:], *s[:3])

    def factor(way: tuple, power: float) -> Tensor:
        degree = ladder.spmm(None, weight, *way, None, C.COPY_E, C.SUM, C.ARG_NONE, 0.0, False, True)[0]
        safe = torch.where(degree > 0, degree, torch.ones_like(degree))
        return torch.where(degree > 0, safe**power, torch.zeros_like(degree))

    src, dst = graph.edge_index().long()
    if kind == "rw":
        return graph, weight * factor(s, -1.0)[dst]
    if kind == "col":
        return graph, weight * factor(reverse, -1.0)[src]
    return graph, weight * factor(s, -0.5)[dst] * factor(reverse, -0.5)[src]


@autocast.promotes
def directed_filter(
    graph: Graph,
    x: Tensor,
    forward: Tensor | None,
    backward: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    basis: str = "monomial",
) -> Tensor:
    """Polynomials of a directed operator and of its transpose: ``out = sum_k forward[k] p_k(P) x + sum_k backward[k] p_k(P') x``.

    Args:
        graph: the directed structure, as many sources as destinations; P' goes against the edges.
        x: ``[N, *features]``; floating, or complex64 or complex128.
        forward, backward: ``[K + 1]`` or ``[K + 1, C]``, real or complex; None leaves a direction out.
        weight: real ``[E]`` in the graph's edge order (default: 1).
        basis: as in :func:`polynomial_filter`.

    Returns:
        ``[N, *features]``, complex where x or a coefficient is.

    P is real, so real and imaginary parts are further channels of one recurrence; complex coefficients double them once more.
    Differentiable as :func:`polynomial_filter`. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: HoloNets (arXiv:2310.02232).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    >>> structops.sparse.directed_filter(g, torch.tensor([0., 1., 0.]), torch.tensor([0., 1.]), torch.tensor([0., 10.])).tolist()
    [10.0, 0.0, 1.0]
    """
    op = "directed_filter"
    if forward is None and backward is None:
        check.fail(ValueError, op, "forward or backward coefficients", "neither")
    check.tensor(op, "x", x)
    given = {n: check.tensor(op, n, t) for n, t in (("forward", forward), ("backward", backward)) if t is not None}
    parts = [_one_way(graph if n == "forward" else graph.reverse(), x, t, weight, basis) for n, t in given.items()]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _one_way(graph: Graph, x: Tensor, coefficients: Tensor, weight: Tensor | None, basis: str) -> Tensor:
    if not (x.is_complex() or coefficients.is_complex()):
        return polynomial_filter(graph, x, coefficients, basis, weight)
    flat = x.reshape(x.shape[0], -1) if x.dim() > 1 else x[:, None]
    channels = flat.shape[1]
    real = [flat.real, flat.imag] if flat.is_complex() else [flat]
    if not coefficients.is_complex():
        wide = coefficients if coefficients.dim() == 1 or coefficients.shape[1] == 1 else coefficients.repeat(1, len(real))
        out = polynomial_filter(graph, torch.cat(real, 1), wide, basis, weight)
        return torch.complex(out[:, :channels].contiguous(), out[:, channels:].contiguous()).reshape(x.shape)
    c = coefficients if coefficients.dim() > 1 else coefficients[:, None]
    c = c.expand(-1, channels)
    both = torch.cat([c.real] * len(real) + [c.imag] * len(real), 1)
    out = polynomial_filter(graph, torch.cat(real * 2, 1), both, basis, weight).split(channels, 1)
    if len(real) == 1:
        return torch.complex(out[0].contiguous(), out[1].contiguous()).reshape(x.shape)
    return torch.complex(out[0] - out[3], out[1] + out[2]).reshape(x.shape)


@autocast.promotes
def optimal_basis_filter(
    graph: Graph, x: Tensor, coefficients: Tensor, weight: Tensor | None = None, *, eps: float = 1e-8
) -> Tensor:
    """A polynomial filter in the basis that is orthonormal on the signal itself, feature by feature (Lanczos).

    ``h_0 = x / |x|;  v = P h_k, less its parts along h_k and h_{k-1};  h_{k+1} = v / |v|;  out = sum_k coefficients[k] h_k``

    Args:
        graph: the structure, as many sources as destinations, with a symmetric matrix.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16.
        coefficients: ``[K + 1]`` or ``[K + 1, C]``.
        weight: ``[E]`` in the graph's edge order (default: 1).
        eps: least norm that is divided by; a feature whose Krylov space ends gives noise below it, not NaN.

    Returns:
        ``[N, *features]`` in the dtype of x.

    Made of spmm and column products: differentiable in everything to any order, and autograd keeps some [N, C] tensors per step.
    Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: OptBasisGNN (arXiv:2302.12432).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.optimal_basis_filter(g, torch.tensor([3., 0.]), torch.tensor([1., 2.])).tolist()
    [1.0, 2.0]
    """
    op = "optimal_basis_filter"
    flat, weight = _inputs(op, graph, x, weight)
    alpha = _coefficients(op, "coefficients", coefficients, None, flat.shape[1], flat)
    h = flat.to(alpha.dtype)
    w = None if weight is None else weight.to(alpha.dtype)
    norm = lambda v: torch.where(v == 0, 0, v).square().sum(0).clamp(min=eps * eps).sqrt()
    h, before = h / norm(h), None
    out = alpha[0] * h
    for k in range(1, alpha.shape[0]):
        v = _product(graph, h, w)
        v = v - (v * h).sum(0) * h
        if before is not None:
            v = v - (v * before).sum(0) * before
        h, before = v / norm(v), h
        out = out + alpha[k] * h
    return out.to(x.dtype).reshape(x.shape)


def _product(graph: Graph, h: Tensor, w: Tensor | None) -> Tensor:
    analyse(graph, h, w)
    message = C.COPY_U if w is None else C.MUL
    e = None if w is None else w[:, None]
    return ladder.spmm(h.contiguous(), e, *graph.structure, None, message, C.SUM, C.ARG_NONE, 0.0, False, True)[0]


@autocast.lowers
def polynomial_conv(
    graph: Graph,
    x: Tensor,
    matrices: Tensor,
    basis: str = "chebyshev",
    weight: Tensor | None = None,
    *,
    jacobi: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """A polynomial filter with matrix coefficients, ``out = sum_k basis_k(P) x matrices[k]``: ChebConv and its relatives.

    Clenshaw's recurrence runs from the highest degree down on the outputs, so K products with P of D channels and K + 1 of matrices
    are all there is, and no stack ``[K + 1, N, C]`` is made.

    Args:
        graph: the structure, as many sources as destinations.
        x: ``[N, C]``; float32, float64, bfloat16 or float16.
        matrices: ``[K + 1, C, D]`` in the dtype of x.
        basis: as in :func:`polynomial_filter`.
        weight: ``[E]`` in the graph's edge order (default: 1).
        jacobi: (a, b) of the Jacobi polynomials.

    Returns:
        ``[N, D]`` in the dtype of x.

    Differentiable in everything to any order. Saved: x; and K intermediate ``[N, D]`` where weight needs a gradient. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: ChebNet (arXiv:1606.09375); Clenshaw (1955).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.polynomial_conv(g, torch.tensor([[1.], [0.]]), torch.tensor([[[1.]], [[10.]], [[100.]]]))
    tensor([[101.],
            [ 10.]])
    """
    op = "polynomial_conv"
    flat, weight = _inputs(op, graph, x, weight)
    check.choice(op, "basis", basis, BASES)
    check.dense(op, "matrices", matrices)
    if x.dim() != 2 or matrices.dim() != 3 or matrices.shape[0] < 1 or matrices.shape[1] != x.shape[1]:
        check.fail(
            ValueError, op, "x of shape [N, C] and matrices of shape [K + 1, C, D]", f"{list(x.shape)} and {list(matrices.shape)}"
        )
    if matrices.dtype != x.dtype or matrices.device != x.device:
        check.fail(ValueError, op, f"matrices of {x.dtype} on {x.device}, as x", f"{matrices.dtype} on {matrices.device}")
    K = matrices.shape[0] - 1
    if basis == "bernstein":
        matrices = torch.tensordot(bernstein_to_chebyshev(K).to(matrices), matrices, 1)
    a, b, c = recurrence(basis, K, (float(jacobi[0]), float(jacobi[1])) if basis == "jacobi" else (0.0, 0.0))
    analyse(graph, x, matrices, weight)
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    step = lambda k: torch.tensor([[[a[k]]], [[b[k]]], [[0.0]]], dtype=acc, device=x.device)
    pick = torch.tensor([[0.0], [1.0]], dtype=acc, device=x.device)
    above: Any = None
    y = flat @ matrices[K]
    for k in range(K - 1, -1, -1):
        moved = ladder.poly_filter(y, weight, *graph.structure, pick, step(k), None, None)[0]  # (a_k P + b_k) y
        total = torch.addmm(moved, flat, matrices[k])
        if above is not None and c[k + 1]:
            total = total + c[k + 1] * above
        y, above = total, y
    return y
