"""Several aggregations of the same messages in one pass, with degree scalers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ..graph import Graph, checked_graph, checked_pointer
from ..kernels import codes as C
from ._operands import analyse

AGGREGATORS = ("sum", "mean", "min", "max", "std", "var")
SCALERS = ("identity", "amplification", "attenuation", "linear", "inverse_linear")


@autocast.promotes
def multi_aggregate(
    graph: Graph,
    x: Tensor | None,
    aggregators: Sequence[str] = ("mean", "min", "max", "std"),
    scalers: Sequence[str] = ("identity",),
    *,
    delta: float | dict[str, float] = 1.0,
    x_dst: Tensor | None = None,
    edge: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Principal neighbourhood aggregation: several reductions of the messages ``x[u] + x_dst[v] + edge[k]``, times degree scalers,
    in one pass over the edges.

    Args:
        graph: the structure.
        x: ``[num_src, *, F]``; float32, float64, bfloat16 or float16 (accumulated in float32, float64 for float64). None where the
            messages are ``edge``.
        aggregators: at most 16 of sum, mean, min, max, std, var. var is that of the messages, divided by their number; std is
            ``sqrt(var + eps)``. Both are summed about a shift close to the mean, so a large offset costs no digits.
        scalers: of identity (1), amplification (log(d + 1) / delta), attenuation (delta / log(d + 1)), linear (d / delta),
            inverse_linear (delta / d), d being the in-degree, at least 1 in quotients.
        delta: mean of log(d + 1), or of d for the linear ones, over the training set; or both as {"log": .., "lin": ..}.
        x_dst: ``[num_dst, *, F]``, added to every message of a destination; edge: ``[E, *, F]`` in the graph's edge order.
        eps: under the root of std, at least 0.

    Returns:
        ``[num_dst, *, len(scalers) * len(aggregators) * F]``: for every scaler the aggregators side by side, the order of PyG.
        Destinations without edges give 0 (std: sqrt(eps)).

    Differentiable in x, x_dst and edge to any order; min and max through the first winner in CSR order. The backward is one pass
    over the reversed edges whatever the aggregators; saved are the operands, mean (var, std), deviation (std) and winners (min,
    max), ``[num_dst, *, F]`` each. No message is stored; higher orders run the aggregators one by one. Deterministic.

    Raises:
        TypeError, ValueError: a wrong name, dtype, shape or device, before any kernel runs.

    Source: arXiv:2004.05718.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    >>> structops.sparse.multi_aggregate(g, torch.tensor([[1.], [3.]]), ("sum", "mean", "max")).tolist()
    [[0.0, 0.0, 0.0], [4.0, 2.0, 3.0]]
    """
    op = "multi_aggregate"
    checked_graph(op, graph)
    if x is None and edge is None:
        check.fail(ValueError, op, "x, edge or both", "neither")
    name, first = ("x", x) if x is not None else ("edge", edge)
    check.dense(op, name, first)
    if first.dim() < 2:
        check.fail(ValueError, op, f"{name} of shape [.., *, F]", list(first.shape))
    if first.device != graph.device:
        check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", first.device)
    for name, t, rows in (("x", x, graph.num_src), ("edge", edge, graph.num_edges), ("x_dst", x_dst, graph.num_dst)):
        if t is not None:
            check.shaped(op, name, t, (rows, *first.shape[1:]), first)
    analyse(graph, x)
    return _reduce(op, x, edge, x_dst, graph.structure, graph.in_degrees(), aggregators, scalers, delta, eps)


def segment_multi_aggregate(
    src: Tensor,
    indptr: Tensor,
    aggregators: Sequence[str] = ("mean", "min", "max", "std"),
    scalers: Sequence[str] = ("identity",),
    *,
    delta: float | dict[str, float] = 1.0,
    eps: float = 1e-5,
) -> Tensor:
    """The aggregations of :func:`multi_aggregate` of consecutive groups: group n is ``src[indptr[n]:indptr[n + 1]]``.

    Args:
        src: ``[E, *, F]``, dtypes as there; indptr: int32 or int64 ``[N + 1]``, non-decreasing from 0 to E, checked on every call.

    Returns:
        ``[N, *, len(scalers) * len(aggregators) * F]``. Differentiable in src to any order; saved are src and what is saved there.

    Raises:
        TypeError, ValueError: a wrong name, dtype, shape, order or device, before any kernel runs.

    >>> import torch, structops
    >>> structops.sparse.segment_multi_aggregate(torch.tensor([[1.], [3.], [5.]]), torch.tensor([0, 2, 3]), ("sum", "max")).tolist()
    [[4.0, 3.0], [5.0, 5.0]]
    """
    op = "segment_multi_aggregate"
    check.dense(op, "src", src)
    if src.dim() < 2:
        check.fail(ValueError, op, "src of shape [E, *, F]", list(src.shape))
    indptr = checked_pointer(op, "indptr", indptr, src, src.shape[0])
    return _reduce(op, None, src, None, (indptr, *(None,) * 5), indptr.diff(), aggregators, scalers, delta, eps)


def _reduce(op: str, x, edge, x_dst, structure: tuple, degree: Tensor, aggregators, scalers, delta, eps) -> Tensor:
    for name, given, known in (("aggregators", aggregators, AGGREGATORS), ("scalers", scalers, SCALERS)):
        if isinstance(given, str) or not given:
            check.fail(ValueError, op, f"{name} to be a sequence of names", repr(given))
        for one in given:
            check.choice(op, name, one, known)
    if len(aggregators) > 16:
        check.fail(ValueError, op, "at most 16 aggregators", len(aggregators))
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not eps >= 0:
        check.fail(ValueError, op, "eps >= 0", repr(eps))
    like = x if x is not None else edge
    lead, F, N = like.shape[1:-1], like.shape[-1], degree.shape[0]
    P, parts = math.prod(lead), len(scalers) * len(aggregators)
    check.fits(op, like.dtype, N, parts, P * F)
    scale = None
    if tuple(scalers) != ("identity",):
        d = degree.to(torch.float64 if like.dtype == torch.float64 else torch.float32)
        scale = torch.stack([_scale(op, d, one, delta) for one in scalers])
    operands = [None if t is None else t.reshape(t.shape[0], P * F).contiguous() for t in (x, edge, x_dst)]
    keep = ladder.wants_derivative(*operands)
    reduces = [C.REDUCES[a] for a in aggregators]
    out, _, _ = ladder.multi_reduce(*operands, *structure, scale, reduces, float(eps), keep)
    if P == 1:
        return out.reshape(N, *lead, parts * F)
    return out.reshape(N, parts, P, F).transpose(1, 2).reshape(N, *lead, parts * F)


def _scale(op: str, degree: Tensor, scaler: str, delta: float | dict[str, float]) -> Tensor:
    """The factors ``[N]`` of a scaler."""
    if scaler == "identity":
        return torch.ones_like(degree)
    linear = scaler in ("linear", "inverse_linear")
    if isinstance(delta, dict):
        kind = "lin" if linear else "log"
        if kind not in delta:
            check.fail(ValueError, op, f"delta to hold {kind!r} for the scaler {scaler}", sorted(delta))
        delta = delta[kind]
    if scaler in ("amplification", "linear"):
        return (degree if linear else (degree + 1).log()) / delta
    least = degree.clamp(min=1)
    return delta / (least if linear else (least + 1).log())
