"""Products of a graph and a dense matrix by torch_sparse's rules."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check as check
from ... import sparse
from ...graph import Graph
from ._reduce import reduce_name


def product(op: str, graph: Graph, value: Tensor | None, other: Tensor, reduce: str, return_arg: bool = False):
    """``[*, M, K]`` of ``other [*, N, K]`` (or ``[M]`` of ``[N]``), and the winners with ``return_arg``.

    The values are cast to the dtype of ``other``.
    """
    reduce = reduce_name(op, reduce)
    check.dense(op, "other", other, integers=True)
    vector = other.dim() == 1
    other = other[:, None] if vector else other
    if other.dim() < 2 or other.shape[-2] != graph.num_src:
        check.fail(ValueError, op, f"other of shape [*, {graph.num_src}, K]", list(other.shape))
    if value is not None:
        if value.dim() != 1 or value.shape[0] != graph.num_edges:
            check.fail(ValueError, op, f"values of shape [{graph.num_edges}]", list(value.shape))
        value = value.to(other.dtype)
    lead = other.shape[:-2]
    if lead:
        # One product over wide rows reads every entry once, and is what has gradients to the values.
        other = other.flatten(0, -3).transpose(0, 1).flatten(1)
    out = _rows(graph, value, other, reduce, return_arg)
    back = lambda t: t[:, 0] if vector else _unfold(t, lead)
    return tuple(map(back, out)) if return_arg else back(out)


def _unfold(t: Tensor, lead: torch.Size) -> Tensor:
    return t if not lead else t.unflatten(1, (lead.numel(), -1)).transpose(0, 1).unflatten(0, lead).contiguous()


def _rows(graph: Graph, value: Tensor | None, other: Tensor, reduce: str, return_arg: bool):
    extreme = reduce in ("min", "max")
    if other.is_floating_point() or (value is None and reduce != "mean" and other.dtype in check.INDICES):
        edge = None if value is None else value[:, None]
        return sparse.spmm(graph, other, edge, reduce=reduce, return_arg=return_arg, skip_nan=extreme)
    # Integers: no kernel multiplies them, so the messages are held.
    messages = other[graph.col.long()]
    messages = messages if value is None else messages * value[:, None]
    return sparse.segment_reduce(messages, graph.rowptr, reduce, return_arg=return_arg)
