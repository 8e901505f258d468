"""Polynomial graph filters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ._operands import analyse
from ._poly_bases import BASES, DAMPINGS, bernstein_to_chebyshev, gibbs_damping, recurrence


def _inputs(op: str, graph: Any, x: Any, weight: Any) -> tuple[Tensor, Tensor | None]:
    """x as [N, C] and the weights in its dtype, checked."""
    checked_graph(op, graph, square=True)
    check.dense(op, "x", x)
    if x.dim() < 1 or x.shape[0] != graph.num_dst:
        check.fail(ValueError, op, f"x of shape [{graph.num_dst}, *features]", list(x.shape))
    if x.device != graph.device:
        check.fail(ValueError, op, f"x on {graph.device}, as the graph", x.device)
    if weight is not None:
        check.dense(op, "weight", weight)
        if weight.dim() != 1 or weight.shape[0] != graph.num_edges:
            check.fail(ValueError, op, f"weight of shape [{graph.num_edges}]", list(weight.shape))
        if weight.device != graph.device:
            check.fail(ValueError, op, f"weight on {graph.device}, as the graph", weight.device)
        weight = weight.to(x.dtype).contiguous()
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).contiguous(), weight


def _coefficients(op: str, name: str, t: Any, rows: int | None, channels: int, like: Tensor) -> Tensor:
    """Coefficients [rows] or [rows, channels] as [rows, 1 or channels] in the accumulator's dtype."""
    if not isinstance(t, Tensor):
        t = torch.as_tensor(t, dtype=torch.float64)
        t = t.to(like.device)
    check.tensor(op, name, t)
    if t.dtype not in check.FLOATS:
        check.fail(TypeError, op, f"{name} of a floating dtype", t.dtype)
    if t.device != like.device:
        check.fail(ValueError, op, f"{name} on {like.device}, as x", t.device)
    if t.dim() == 0 and rows is not None:
        t = t.expand(rows)
    good = t.dim() in (1, 2) and (t.shape[0] >= 1 if rows is None else t.shape[0] == rows)
    if not good or (t.dim() == 2 and t.shape[1] not in (1, channels)):
        first = "K + 1" if rows is None else rows
        check.fail(ValueError, op, f"{name} of shape [{first}] or [{first}, {channels}]", list(t.shape))
    t = t.to(torch.float64 if like.dtype == torch.float64 else torch.float32)
    return (t[:, None] if t.dim() == 1 else t).contiguous()


def _run(graph: Graph, x: Tensor, weight: Tensor | None, alpha: Tensor, recur: Tensor, gate: Tensor | None = None) -> Tensor:
    analyse(graph, x, weight, alpha, recur, gate)
    return ladder.poly_filter(x, weight, *graph.structure, alpha, recur, None, gate)[0]


def _constant(rows: tuple, like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32, device=like.device)[:, :, None]


@autocast.promotes
def polynomial_filter(
    graph: Graph, x: Tensor, coefficients: Tensor, basis: str = "monomial", weight: Tensor | None = None, *,
    jacobi: tuple[float, float] = (1.0, 1.0), damping: str | None = None,
) -> Tensor:  # fmt: skip
    """A polynomial of a weighted adjacency matrix applied to node features, in one call that keeps no stack of powers.

    ``out = sum_k coefficients[k] * basis_k(P) x`` with ``(P x)[v] = sum over edges k: u -> v of weight[k] x[u]``

    Args:
        graph: the structure, as many sources as destinations.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16 (all arithmetic in float32, float64 for float64).
        coefficients: ``[K + 1]``, or ``[K + 1, C]`` with C the number of features: a filter for every feature.
        basis: monomial; chebyshev (of the first kind), chebyshev2 (of the second), legendre or jacobi, with P's spectrum in
            [-1, 1]; bernstein, with ``basis_k = binom(K, k) 2^-K (I + P)^(K - k) (I - P)^k``, evaluated in Chebyshev's basis.
        weight: ``[E]`` in the graph's edge order (default: 1); :func:`normalized_adjacency` makes the usual ones.
        jacobi: (a, b) of the Jacobi polynomials.
        damping: a Gibbs damping of Chebyshev coefficients: jackson, fejer, lanczos, lorentz, vekic or wang (:func:`gibbs_damping`).

    Returns:
        ``[N, *features]`` in the dtype of x.

    Differentiable to any order in x and coefficients, by the same kernel on the reversed edges; in weight with ``K + 4`` buffers
    of one block of channels, and beyond the first order through spmm. Saved: nothing of its own; x, where coefficients or weights
    need a gradient. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, an unknown basis, before any kernel runs.

    Sources: ChebNet (arXiv:1606.09375), BernNet (arXiv:2106.10994), JacobiConv (arXiv:2205.11172).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=3)
    >>> structops.sparse.polynomial_filter(g, torch.tensor([[1.], [0.], [0.]]), torch.tensor([1., 10., 100.]))
    tensor([[  1.],
            [ 10.],
            [100.]])
    """
    op = "polynomial_filter"
    flat, weight = _inputs(op, graph, x, weight)
    check.choice(op, "basis", basis, BASES)
    alpha = _coefficients(op, "coefficients", coefficients, None, flat.shape[1], flat)
    K = alpha.shape[0] - 1
    if damping is not None:
        check.choice(op, "damping", damping, DAMPINGS)
        if basis != "chebyshev":
            check.fail(ValueError, op, "basis chebyshev with a damping", repr(basis))
        alpha = alpha * gibbs_damping(damping, K).to(alpha)[:, None]
    if basis == "jacobi":
        first, second = (float(v) for v in jacobi)
        if not (first > -1 and second > -1):
            check.fail(ValueError, op, "jacobi parameters above -1", jacobi)
        jacobi = (first, second)
    if basis == "bernstein":
        alpha = bernstein_to_chebyshev(K).to(alpha) @ alpha
    recur = _constant(recurrence(basis, K, jacobi if basis == "jacobi" else (0.0, 0.0)), flat)
    return _run(graph, flat, weight, alpha, recur).reshape(x.shape)


@autocast.promotes
def three_term_filter(
    graph: Graph,
    x: Tensor,
    alpha: Tensor,
    a: Tensor | float,
    b: Tensor | float = 0.0,
    c: Tensor | float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """A polynomial filter by any three-term recurrence, with coefficients that may be learned.

    ``h_0 = x,  h_{k+1} = a_k (P h_k) + b_k h_k + c_k h_{k-1},  out = sum_k alpha_k h_k``, every coefficient by feature.

    Args:
        graph: the structure, as many sources as destinations.
        x: ``[N, *features]``; float32, float64, bfloat16 or float16 (all arithmetic in float32, float64 for float64).
        alpha: ``[K + 1]`` or ``[K + 1, C]``.
        a, b, c: ``[K]``, ``[K, C]`` or one number; c_0 is not used.
        weight: ``[E]`` in the graph's edge order (default: 1).

    Returns:
        ``[N, *features]`` in the dtype of x.

    Differentiable in everything: in x and alpha as :func:`polynomial_filter`; in a, b, c and weight by an adjoint recurrence that
    recomputes h_0 ... h_K and holds them while it runs, ``(K + 4) N B`` numbers for a block of B channels; beyond the first order
    through spmm. Saved: x and the coefficients. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: FavardGNN (arXiv:2302.12432): by Favard's theorem every orthonormal basis is
    ``a_k = 1 / sqrt(beta_{k+1}),  b_k = -gamma_k a_k,  c_k = -sqrt(beta_k) a_k`` with h_0 scaled by ``1 / sqrt(beta_0)``.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.three_term_filter(g, torch.tensor([[1.], [0.]]), torch.tensor([0., 0., 1.]), a=2.0, c=-1.0)
    tensor([[3.],
            [0.]])
    """
    op = "three_term_filter"
    flat, weight = _inputs(op, graph, x, weight)
    channels = flat.shape[1]
    first = _coefficients(op, "alpha", alpha, None, channels, flat)
    parts = [_coefficients(op, n, t, first.shape[0] - 1, channels, flat) for n, t in (("a", a), ("b", b), ("c", c))]
    wide = max(p.shape[1] for p in parts)
    recur = torch.stack([p.expand(-1, wide) for p in parts])
    return _run(graph, flat, weight, first, recur).reshape(x.shape)


@autocast.promotes
def gated_filter(
    graph: Graph, x: Tensor, gate: Tensor, bias: Tensor | float = 0.0, hops: int = 10, weight: Tensor | None = None
) -> Tensor:
    """Adaptive propagation: every node weighs its own hops by a learned gate, without the stack of hops.

    ``out[v] = sum_{k <= hops} sigmoid(<gate, h_k[v]> + bias) h_k[v],  h_k = P^k x``

    Args:
        graph: the structure, as many sources as destinations.
        x: ``[N, C]``; float32, float64, bfloat16 or float16 (all arithmetic in float32, float64 for float64).
        gate: ``[C]``.
        bias: one number.
        hops: the highest power, K.
        weight: ``[E]`` in the graph's edge order (default: 1).

    Returns:
        ``[N, C]`` in the dtype of x.

    Differentiable in x, gate, bias and weight; the backward recomputes h_0 ... h_K and holds them, ``(K + 4) N C`` numbers, while
    it runs; beyond the first order through spmm. Saved: x. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Source: DAGNN (arXiv:2007.09296).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> structops.sparse.gated_filter(g, torch.tensor([[4.], [2.]]), torch.tensor([0.]), hops=1)
    tensor([[3.],
            [3.]])
    """
    op = "gated_filter"
    flat, weight = _inputs(op, graph, x, weight)
    if x.dim() != 2:
        check.fail(ValueError, op, f"x of shape [{graph.num_dst}, C]", list(x.shape))
    hops = check.size(op, "hops", hops)
    channels = flat.shape[1]
    if isinstance(gate, Tensor) and (gate.dim() != 1 or gate.shape[0] != channels):
        check.fail(ValueError, op, f"gate of shape [{channels}]", list(gate.shape))
    column = _coefficients(op, "gate", gate, channels, 1, flat)[:, 0] if channels else flat.new_empty(0)
    if isinstance(bias, Tensor) and bias.numel() != 1:
        check.fail(ValueError, op, "bias of one number", list(bias.shape))
    shift = _coefficients(op, "bias", bias.reshape(1) if isinstance(bias, Tensor) else bias, 1, 1, flat)[:, 0]
    recur = _constant(recurrence("monomial", hops), flat)
    ones = torch.ones(hops + 1, 1, dtype=shift.dtype, device=flat.device)
    return _run(graph, flat, weight, ones, recur, torch.cat([column.to(shift.dtype), shift]))
