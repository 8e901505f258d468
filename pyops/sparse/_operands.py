"""Operands of the graph operators, brought to the kernels' layout."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph


def operand(
    op: str, name: str, t: Any, graph: Graph, rows: int, batch_dims: int, optional_batch: bool = False, integers: bool = False
) -> Tensor:
    if not (integers and isinstance(t, Tensor) and t.layout is torch.strided and t.dtype in check.INDICES):
        check.dense(op, name, t)
    if t.device != graph.device:
        check.fail(ValueError, op, f"{name} on {graph.device}, as the graph", t.device)
    at = batch_dims if t.dim() > batch_dims and t.shape[batch_dims] == rows else 0
    if (not optional_batch and at != batch_dims) or t.dim() <= at or t.shape[at] != rows:
        lead = "*batch, " if batch_dims else ""
        check.fail(ValueError, op, f"{name} of shape [{lead}{rows}, *features]", list(t.shape))
    return t


def analyse(graph: Any, *tensors: Tensor | None) -> None:
    """Builds the reversed edges, kept with the graph, once here rather than in every backward.

    Not in compiled code, whose backward builds them where they are missing.
    """
    if not torch.compiler.is_compiling() and torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        graph.reversed_structure  # noqa: B018


def has_batch(edge: Tensor, rows: int, batch_dims: int, x: Tensor | None) -> bool:
    if edge.dim() <= batch_dims or edge.shape[batch_dims] != rows:
        return False
    return x is None or edge.shape[:batch_dims] == x.shape[:batch_dims]


def kernel_layout(t: Tensor, batch_dims: int, F: int) -> Tensor:
    """[*batch, rows, *features] as [rows], [rows, F] or [B, rows, F]."""
    if t.dim() <= 2 and batch_dims == 0:
        return t.contiguous()
    rows = t.shape[batch_dims]
    shape = (rows, F) if batch_dims == 0 else (math.prod(t.shape[:batch_dims]), rows, F)
    return t.reshape(shape).contiguous()


def broadcast(op: str, x: tuple | None, e: tuple | None) -> tuple[tuple, bool, tuple | None]:
    """(broadcast features, whether x must be expanded to them, e's offset of each feature where that needs a table)."""
    if x is None or e is None:
        return (x if e is None else e), False, None
    # Dynamo traces through a cache anyway, and warns.
    return _broadcast(op, x, e) if torch.compiler.is_compiling() else _known_broadcast(op, x, e)


def _broadcast(op: str, x: tuple, e: tuple) -> tuple[tuple, bool, tuple | None]:
    try:
        out = tuple(torch.broadcast_shapes(x, e))
    except RuntimeError:
        check.fail(ValueError, op, "features of x and edge that broadcast", f"{list(x)} and {list(e)}")
    F, Fx, Fe = math.prod(out), math.prod(x), math.prod(e)
    expand_x = Fx not in (1, F)
    if Fe in (1, F):
        return out, expand_x, None
    strides = [0 if n == 1 else math.prod(e[i + 1 :]) for i, n in enumerate(e)]
    strides = [0] * (len(out) - len(e)) + strides
    offsets = tuple(sum(i * s for i, s in zip(at, strides, strict=True)) for at in itertools.product(*map(range, out)))
    return out, True, offsets


_known_broadcast = lru_cache(maxsize=256)(_broadcast)
