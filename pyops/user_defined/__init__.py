"""spmm with message and reduce functions of the user, compiled by numba. Reached through :func:`structops.spmm`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph
from ..kernels import codes as C
from ._checks import check_gradient, check_tensors, named_message, operands, reduction
from ._functions import compiled
from ._job import Aggregate, Job, table
from ._numba import MISSING, OP, nb, numba


def spmm_user(
    graph: Graph,
    x: Tensor | None,
    edge: Tensor | None,
    message: str | Callable | None,
    reduce: str | tuple[Callable, float],
    fill_value: float | None = None,
) -> Tensor:
    """Reduce messages of a scalar function compiled by numba.

    ``out[v, f] = reduce over edges k: u -> v of message(x[u, f], edge[k, f])``

    Args:
        graph: the structure, on the CPU.
        x: source values ``[num_src, *features]``, float32 or float64, or None.
        edge: edge values ``[E, *features]`` in the graph's edge order, or None. Features broadcast as in NumPy.
        message: a Python (or ``numba.njit``) function of scalars, ``fn(x, e)``, or of the one operand that is given; or
            the name of a message of :func:`structops.spmm`. Its result is rounded to the dtype of the operands.
        reduce: sum, mean, min, max or prod; or ``(fn(acc, m), identity)``, applied from ``acc = identity`` to the
            messages of a row in CSR order, ``acc`` rounded to the dtype at every step. Named sums and products
            accumulate in float64.
        fill_value: value of rows without edges (default: the identity; 0 for min and max).

    Returns:
        ``[num_dst, *features]``.

    Gradients of first order, given by attributes of the functions:

    - ``message.grad = fn(x, e, g) -> (dx, de)``: the cotangent ``g`` of a message pulled back to its operands. For
      messages of one operand ``fn(x, g) -> dx``. Named messages have theirs. Sum, mean, min and max need nothing else;
      min and max send the gradient to the first winner.
    - ``reduce_fn.grad = fn(acc, m, g) -> dm``: from the cotangent ``g`` of the row's final value ``acc`` to that of
      message m.

    Backward recomputes the messages; no ``[E, F]`` tensor is stored unless it is the gradient of ``edge``. Saved: x,
    edge, the result for a user's reduce, and winners ``[num_dst, F]`` of 8 bytes for min and max. Deterministic; rows
    run on torch.get_num_threads() threads. Functions are compiled once and found again by identity, so define them
    once. torch.compile leaves the call to eager mode.

    Raises:
        TypeError: not a function, a wrong number of arguments, a function that numba cannot compile, a wrong dtype.
        ValueError: shapes that do not fit, an unknown name, CUDA tensors. ImportError: numba is missing.
        NotImplementedError: a gradient is wanted (when called, or of the gradient) that no function gives.

    >>> import torch, structops
    >>> g = structops.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
    >>> def gap(x, e): return abs(x - e)
    >>> structops.spmm(g, torch.tensor([1., 2., 3.]), torch.tensor([5., 5., 5.]), gap, "max")
    tensor([2., 4., 0.])
    """
    if torch.compiler.is_compiling():
        return torch.compiler.disable(_run)(graph, x, edge, message, reduce, fill_value)
    return _run(graph, x, edge, message, reduce, fill_value)


def _run(graph, x, edge, message, reduce, fill_value) -> Tensor:
    if nb is None:
        raise ImportError(f"{OP}: message and reduce functions are compiled by numba (pip install numba): {MISSING}")
    message, x, edge = operands(message, x, edge)
    features = check_tensors(graph, x, edge)
    if x is not None and edge is not None and x.dtype != edge.dtype:
        dtype = torch.promote_types(x.dtype, edge.dtype)
        x, edge = x.to(dtype), edge.to(dtype)
    uses = ("x" if x is not None else "") + ("e" if edge is not None else "")
    message, message_grad = named_message(message, uses)
    name, step, step_grad, identity = reduction(reduce)
    like = x if x is not None else edge
    fill = check.fill(OP, fill_value, like.dtype, identity if step is not None else C.EMPTY[C.REDUCES[name]])
    if torch.is_grad_enabled():
        for operand, t in (("x", x), ("edge", edge)):
            if t is not None and t.requires_grad:
                check_gradient(operand, uses, name, message_grad, step, step_grad)
    scalar = numba.float32 if like.dtype == torch.float32 else numba.float64
    functions = compiled(message, message_grad, step, step_grad, uses, scalar)
    tables = tuple(
        np.zeros(0, np.int32) if t is None else table(tuple(t.shape[1:]), features) for t in (x, edge)
    )
    job = Job(graph, functions, name, identity, fill, tables, features)
    return Aggregate.apply(x, edge, job)
