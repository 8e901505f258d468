"""Graph partitioning by METIS, through pymetis."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from .. import _check as check
from ..graph import checked_pointer

_MOST = 1 << 30  # of a sum of weights: METIS may have been built with 32-bit integers


def available() -> bool:
    return importlib.util.find_spec("pymetis") is not None


def metis(
    op: str,
    rowptr: Tensor,
    col: Tensor,
    num_parts: int,
    node_weight: Tensor | None = None,
    edge_weight: Tensor | None = None,
    recursive: bool = False,
) -> Tensor:
    """The part of every node, int64 [N] in 0..num_parts - 1, of the undirected graph with these edges: parts of about equal weight,
    with few edges between them. Deterministic.

    An edge counts in both directions, whichever are given; loops do not count, and parallel edges count together. Weights are
    integers of at least 1, or floating numbers of at least 0, which are scaled to integers. Runs on the CPU, whatever the device.

    Raises:
        NotImplementedError: pymetis is not installed. IndexError, TypeError, ValueError: bad arguments.
    """
    check.size(op, "num_parts", num_parts)
    check.flags(op, recursive=recursive)
    if num_parts < 1:
        check.fail(ValueError, op, "num_parts >= 1", num_parts)
    check.index(op, "rowptr", rowptr)
    check.index(op, "col", col, like=rowptr)
    if col.dim() != 1:
        check.fail(ValueError, op, "col [E]", list(col.shape))
    rowptr = checked_pointer(op, "rowptr", rowptr, col, col.shape[0])
    device, N, E = rowptr.device, rowptr.shape[0] - 1, col.shape[0]
    ptr, col = rowptr.cpu().long(), col.cpu().long()
    if E and not 0 <= int(col.min()) <= int(col.max()) < N:
        check.fail(IndexError, op, f"col within 0..{N - 1}, a square structure", [int(col.min()), int(col.max())])
    nodes, edges = _weights(op, "node_weight", node_weight, N), _weights(op, "edge_weight", edge_weight, E)
    if num_parts == 1 or num_parts >= N:  # METIS wants more nodes than parts
        return torch.arange(N, device=device) % num_parts
    if not available():
        raise NotImplementedError(f"{op} into several parts runs on METIS: pip install pymetis")
    import pymetis

    xadj, adjncy, weights = _undirected(ptr, col, edges)
    given = {} if nodes is None else {"vweights": nodes.numpy()}
    if not bool((weights == weights[:1]).all()):
        given["eweights"] = _bounded(weights).numpy()
    if adjncy.numel() == 0:  # nothing to cut, and METIS reads no empty list
        return torch.arange(N, device=device) % num_parts
    adjacency = pymetis.CSRAdjacency(xadj.numpy(), adjncy.numpy())
    _, parts = pymetis.part_graph(num_parts, adjacency, recursive=recursive, **given)  # type: ignore[call-overload, unused-ignore]
    return torch.as_tensor(parts, dtype=torch.int64).to(device)


def _weights(op: str, name: str, weight: Tensor | None, count: int) -> Tensor | None:
    """Integers of at least 1, int64 on the CPU, or None where all are equal."""
    if weight is None:
        return None
    check.tensor(op, name, weight)
    if tuple(weight.shape) != (count,):
        check.fail(ValueError, op, f"{name} of shape [{count}]", list(weight.shape))
    if weight.dtype == torch.bool or weight.is_complex():
        check.fail(TypeError, op, f"{name} of an integer or floating dtype", weight.dtype)
    weight = weight.detach().cpu()
    least = 0 if weight.is_floating_point() else 1
    if count and not bool((weight.isfinite() & (weight >= least)).all()):
        check.fail(ValueError, op, f"{name} finite and at least {least}", float(weight.min()))
    if not count or bool((weight == weight[0]).all()):
        return None
    if weight.is_floating_point():
        wide = weight.double()
        weight = (wide * (2**16 / wide.max())).round_().clamp_(min=1)
    return _bounded(weight.long())


def _bounded(weight: Tensor) -> Tensor:
    """Scaled down where the sum is large."""
    total = int(weight.double().sum())
    return weight if total <= _MOST else (weight.double() * (_MOST / total)).long().clamp_(min=1)


def _undirected(ptr: Tensor, col: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Pointers, neighbours and summed weights of the edges and their reversals, sorted, without loops."""
    N = ptr.shape[0] - 1
    row = torch.repeat_interleave(torch.arange(N, device=ptr.device), ptr.diff())
    weight = torch.ones_like(col) if weight is None else weight
    kept = row != col
    row, col, weight = row[kept], col[kept], weight[kept]
    keys, place = torch.cat([row * N + col, col * N + row]).unique(return_inverse=True)
    weight = torch.zeros_like(keys).index_add_(0, place, torch.cat([weight, weight]))
    ends = torch.bincount(keys // N, minlength=N).cumsum(0) if N else keys
    return torch.cat([ends.new_zeros(1), ends]), keys % N, weight
