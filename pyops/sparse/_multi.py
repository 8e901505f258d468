"""Several aggregations of the same neighbours at once, with degree scalers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph, checked_graph
from ._spmm import spmm

AGGREGATORS = ("sum", "mean", "min", "max", "std", "var")
SCALERS = ("identity", "amplification", "attenuation", "linear", "inverse_linear")


def multi_aggregate(
    graph: Graph,
    x: Tensor,
    aggregators: Sequence[str] = ("mean", "min", "max", "std"),
    scalers: Sequence[str] = ("identity",),
    *,
    delta: float | dict[str, float] = 1.0,
    x_dst: Tensor | None = None,
    edge: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Principal neighbourhood aggregation: several reductions of the messages ``x[u] + x_dst[v] + edge[k]``, times degree scalers.

    Args:
        graph: the structure.
        x: ``[num_src, *, F]``; float32, float64, bfloat16 or float16.
        aggregators: of sum, mean, min, max, std, var. var is that of the messages, divided by their number; std is
            ``sqrt(var + eps)``. Both are computed about the mean, so a large offset costs no digits.
        scalers: of identity (1), amplification (log(d + 1) / delta), attenuation (delta / log(d + 1)), linear (d / delta),
            inverse_linear (delta / d), d being the in-degree, at least 1 in quotients.
        delta: mean of log(d + 1), or of d for the linear ones, over the training set; or both as {"log": .., "lin": ..}.
        x_dst: ``[num_dst, *, F]``, added to every message of a destination; edge: ``[E, *, F]``.
        eps: under the root of std.

    Returns:
        ``[num_dst, *, len(scalers) * len(aggregators) * F]``: for every scaler the aggregators side by side, the order of PyG.
        Destinations without edges give 0 (std: sqrt(eps)).

    Differentiable in x, x_dst and edge to any order; min and max through the first winner, whose number ``[num_dst, *, F]`` they
    keep. No message is stored: the destination's part is added after the reduction. Deterministic.

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
    for name, given, known in (("aggregators", aggregators, AGGREGATORS), ("scalers", scalers, SCALERS)):
        if isinstance(given, str) or not given:
            check.fail(ValueError, op, f"{name} to be a sequence of names", repr(given))
        for one in given:
            check.choice(op, name, one, known)
    check.dense(op, "x", x)
    if x.dim() < 2 or x.shape[0] != graph.num_src:
        check.fail(ValueError, op, f"x of shape [{graph.num_src}, *, F]", list(x.shape))
    if x_dst is not None:
        check.dense(op, "x_dst", x_dst)
        if x_dst.shape != (graph.num_dst, *x.shape[1:]):
            check.fail(ValueError, op, f"x_dst of shape {[graph.num_dst, *x.shape[1:]]}", list(x_dst.shape))
    message = "copy_u" if edge is None else "add"
    degree = graph.in_degrees().to(x.dtype).reshape(-1, *(1,) * (x.dim() - 1))
    found: dict[str, Tensor] = {}

    def total(how: str) -> Tensor:
        return cast(Tensor, spmm(graph, x, edge, message, how, unbiased=False))

    def reduced(name: str) -> Tensor:
        if name not in found:
            if name == "std":
                found[name] = (reduced("var") + eps).sqrt()
            elif name == "sum":
                found[name] = reduced("mean") * degree if "mean" in aggregators else total("sum")
            else:
                found[name] = total(name)
        return found[name]

    parts = []
    for name in aggregators:
        value = reduced(name)
        if x_dst is not None and name not in ("std", "var"):
            value = value + x_dst * (degree if name == "sum" else (degree > 0).to(x.dtype))
        parts.append(value)
    together = torch.cat(parts, -1)
    return torch.cat([_scaled(op, together, degree, s, delta) for s in scalers], -1)


def _scaled(op: str, value: Tensor, degree: Tensor, scaler: str, delta: float | dict[str, float]) -> Tensor:
    if scaler == "identity":
        return value
    linear = scaler in ("linear", "inverse_linear")
    if isinstance(delta, dict):
        missing = "lin" if linear else "log"
        if missing not in delta:
            check.fail(ValueError, op, f"delta to hold {missing!r} for the scaler {scaler}", sorted(delta))
        delta = delta[missing]
    if scaler in ("amplification", "linear"):
        return value * ((degree if linear else (degree + 1).log()) / delta)
    return value * (delta / (degree.clamp(min=1) if linear else (degree.clamp(min=1) + 1).log()))
