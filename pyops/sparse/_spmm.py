"""g-SpMM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph
from ..kernels import codes as C
from ._groups import EXTREMES, no_arg
from ._operands import analyse, broadcast, has_batch, kernel_layout, operand


def spmm(
    graph: Graph,
    x: Tensor | None = None,
    edge: Tensor | None = None,
    message: str | Callable | None = None,
    reduce: str | tuple = "sum",
    *,
    batch_dims: int = 0,
    fill_value: float | None = None,
    return_arg: bool = False,
    unbiased: bool = True,
    skip_nan: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Generalised SpMM: for every destination, reduce the messages of its incoming edges, without storing them.

    ``out[v] = reduce over edges k: u -> v of message(x[u], edge[k])``

    Args:
        graph: the structure.
        x: source values ``[*batch, num_src, *features]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64
            for float64), or int32 or int64 for copies with sum, min, max or prod (sums wrap). Not used by copy_e.
        edge: edge values ``[*batch, E, *features]`` or ``[E, *features]``, in the graph's edge order. Not used by copy_u.
        message: copy_u, copy_e, add, sub, mul or div (default: mul with both operands, else a copy). Feature dimensions
            broadcast as in NumPy, so edge values ``[E, H, 1]`` serve ``x [N, H, D]`` as multi-head weights.
            Or a function, see below.
        reduce: sum, mean, min, max, prod, var, std or logsumexp.
        batch_dims: number of leading dimensions of ``x`` that share the structure.
        fill_value: value of destinations without edges (default 0; 1 for prod, -inf for logsumexp).
        return_arg: for min and max also return the winning edges, int64, E where there is none; the first in CSR order wins.
        unbiased: var and std divide by ``max(n - 1, 1)`` rather than n.
        skip_nan: min and max ignore NaN instead of propagating it.

    Returns:
        ``[*batch, num_dst, *features]``, and the winners with ``return_arg``.

    User-defined functions: ``message=fn(x, e)`` and ``reduce=(fn(acc, m), identity)`` are scalar functions compiled by numba;
    ``message.grad = fn(x, e, g) -> (dx, de)`` makes the sum of such messages differentiable.

    Differentiable in ``x`` and ``edge`` to any order (min, max: through the winners; prod: to second order at zeros). The
    backward of logsumexp, and of prod over add or sub, holds messages ``[E, F]`` while it runs; no other does. Saved:
    the operands where the derivative reads them, and winners ``[N, F]`` of 4 or 8 bytes for min and max. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    Convention of DGL's g-SpMM (arXiv:1909.01315).

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
    >>> structops.spmm(g, torch.tensor([[1.], [2.], [3.]]), torch.tensor([10., 20., 30.])[:, None])
    tensor([[90.],
            [50.],
            [ 0.]])
    """
    op = "spmm"
    checked_graph(op, graph)
    defaults = edge is None and not batch_dims and fill_value is None
    if isinstance(reduce, str) and defaults and _is_plain(graph, x, message, reduce, return_arg, unbiased, skip_nan):
        return _copy_reduce(graph, x, C.REDUCES[reduce])
    if callable(message) or not isinstance(reduce, str):
        from ..user_defined import spmm_user

        if batch_dims or return_arg or skip_nan:
            check.fail(ValueError, op, "batch_dims, return_arg and skip_nan unset with user-defined functions", "one of them set")
        return spmm_user(graph, x, edge, message, reduce, fill_value)
    if message is None:
        message = "mul" if x is not None and edge is not None else "copy_u" if edge is None else "copy_e"
    kind = C.MESSAGES[check.choice(op, "message", message, C.MESSAGES)]
    code = C.REDUCES[check.choice(op, "reduce", reduce, C.REDUCES)]
    check.size(op, "batch_dims", batch_dims)
    check.flags(op, return_arg=return_arg, unbiased=unbiased, skip_nan=skip_nan)
    if return_arg:
        no_arg(op, code)
    exact = kind in (C.COPY_U, C.COPY_E) and code in (C.SUM, C.MIN, C.MAX, C.PROD)
    x = None if kind == C.COPY_E else operand(op, "x", x, graph, graph.num_src, batch_dims, integers=exact)
    edge = None if kind == C.COPY_U else operand(op, "edge", edge, graph, graph.num_edges, batch_dims, True, exact)
    if x is not None and edge is not None and x.dtype != edge.dtype:
        dtype = torch.promote_types(x.dtype, edge.dtype)
        x, edge = x.to(dtype), edge.to(dtype)
    like = x if x is not None else edge
    e_batch = edge is not None and batch_dims > 0 and has_batch(edge, graph.num_edges, batch_dims, x)
    x_features = None if x is None else tuple(x.shape[batch_dims + 1 :])
    e_features = None if edge is None else tuple(edge.shape[(batch_dims if e_batch else 0) + 1 :])
    if batch_dims and x is not None and edge is not None and not e_batch and edge.shape[0] != graph.num_edges:
        check.fail(ValueError, op, f"edge of shape [{graph.num_edges}, *features], or with the batch of x", list(edge.shape))
    features, expand_x, offsets = broadcast(op, x_features, e_features)
    check.fits(op, like.dtype, *like.shape[:batch_dims], graph.num_dst, *features)
    batch = tuple((x if x is not None else edge).shape[:batch_dims]) if (x is not None or e_batch) else ()
    F = math.prod(features)
    if x is not None:
        if expand_x:
            pad = (1,) * (len(features) - len(x_features))
            x = x.reshape(*batch, graph.num_src, *pad, *x_features).expand(*batch, graph.num_src, *features)
        x = kernel_layout(x, batch_dims, F if expand_x else math.prod(x_features))
    if edge is not None:
        edge = kernel_layout(edge, batch_dims if e_batch else 0, math.prod(e_features))
    fill = check.fill(op, fill_value, like.dtype, C.EMPTY[code])
    grad = ladder.wants_derivative(x, edge)
    arg = C.ARG_NONE
    if code in EXTREMES and (return_arg or grad):
        binary = kind not in (C.COPY_U, C.COPY_E)
        arg = C.ARG_POSITION if binary and grad else C.ARG_EDGE if return_arg else C.ARG_SOURCE if kind == C.COPY_U else C.ARG_EDGE
        if return_arg and grad and kind == C.COPY_U:
            arg = C.ARG_POSITION
    if kind != C.COPY_E and code not in EXTREMES:
        analyse(graph, x, edge)
    bcast = None if offsets is None else torch.tensor([range(F), offsets], dtype=torch.int32, device=graph.device)
    if x is not None and edge is not None and x.dim() != edge.dim():
        x, edge = (x[:, None] if x.dim() == 1 else x), (edge[:, None] if edge.dim() == 1 else edge)
    out, winners = ladder.spmm(x, edge, *graph.structure, bcast, kind, code, arg, fill, skip_nan, unbiased)
    shape = (*batch, graph.num_dst, *features)
    out = out if out.shape == shape else out.reshape(shape)
    if not return_arg:
        return out
    if arg == C.ARG_POSITION and graph.eid is not None:
        winners = ladder.lookup(graph.eid, winners, graph.num_edges)
    return out, winners.to(torch.int64).reshape(shape)


def _is_plain(graph: Graph, x: Any, message, reduce: str, return_arg, unbiased, skip_nan) -> bool:
    """Whether a call is the common one, already in the kernels' layout: its checks, and nothing to convert."""
    return (
        isinstance(x, Tensor)
        and (message is None or message == "copy_u")
        and reduce in C.REDUCES
        and return_arg is False
        and unbiased is True
        and skip_nan is False
        and x.layout is torch.strided
        and x.dim() == 2
        and x.dtype in check.FLOATS
        and x.shape[0] == graph.num_src
        and x.device == graph.rowptr.device
        and x.is_contiguous()
    )


def _copy_reduce(graph: Graph, x: Tensor, code: int) -> Tensor:
    if code not in EXTREMES and x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        graph.reversed_structure  # noqa: B018  as analyse, without a call
    if code <= C.MAX and ladder.is_eager():
        return ladder.copy_reduce(x, graph.structure, code)
    arg = C.ARG_SOURCE if code in EXTREMES and ladder.wants_derivative(x) else C.ARG_NONE
    return ladder.spmm(x, None, *graph.structure, None, C.COPY_U, code, arg, C.EMPTY[code], False, True)[0]
