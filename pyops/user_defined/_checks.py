"""What a call with functions must be, and what it must have for gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph
from ..kernels import codes as C
from ._functions import NAMED
from ._numba import OP

_REDUCES = ("sum", "mean", "min", "max", "prod")


def operands(message: Any, x: Any, edge: Any) -> tuple[str | Callable, Any, Any]:
    """The message, by default as in spmm, and the operands that it uses."""
    if message is None:
        message = "mul" if x is not None and edge is not None else "copy_u" if edge is None else "copy_e"
    if isinstance(message, str):
        code = C.MESSAGES[check.choice(OP, "message", message, C.MESSAGES)]
        x, edge = None if code == C.COPY_E else x, None if code == C.COPY_U else edge
        for name, t, used in (("x", x, code != C.COPY_E), ("edge", edge, code != C.COPY_U)):
            if used and t is None:
                check.fail(TypeError, OP, f"{name} for message {message}", "None")
    if x is None and edge is None:
        check.fail(TypeError, OP, "x, edge or both", "neither")
    return message, x, edge


def check_tensors(graph: Graph, x: Tensor | None, edge: Tensor | None) -> tuple[int, ...]:
    """The broadcast features."""
    if graph.device.type != "cpu":
        check.fail(ValueError, OP, "a graph on the CPU for message and reduce functions", graph.device)
    own = []
    for name, t, rows in (("x", x, graph.num_src), ("edge", edge, graph.num_edges)):
        if t is None:
            continue
        check.tensor(OP, name, t)
        if t.device.type != "cpu":
            check.fail(ValueError, OP, f"{name} on the CPU for message and reduce functions", t.device)
        if t.dtype not in (torch.float32, torch.float64):
            check.fail(TypeError, OP, f"{name} of dtype float32 or float64 for message and reduce functions", t.dtype)
        if t.dim() == 0 or t.shape[0] != rows:
            check.fail(ValueError, OP, f"{name} of shape [{rows}, *features]", list(t.shape))
        own.append(tuple(t.shape[1:]))
    try:
        return tuple(torch.broadcast_shapes(*own))
    except RuntimeError:
        check.fail(ValueError, OP, "features of x and edge that broadcast", " and ".join(map(str, map(list, own))))


def _function(name: str, fn: Any, arguments: str) -> Callable:
    """``fn``, found to be a function of as many arguments as named."""
    python = getattr(fn, "py_func", fn)
    if not inspect.isfunction(python):
        check.fail(TypeError, OP, f"{name} to be a Python or numba.njit function of ({arguments})", type(fn).__name__)
    try:
        inspect.signature(python).bind(*arguments.split(", "))
    except TypeError:
        check.fail(TypeError, OP, f"{name} to take ({arguments})", f"{python.__name__}{inspect.signature(python)}")
    return fn


def _attached(name: str, fn: Callable, arguments: str) -> Callable | None:
    """The function's ``grad`` attribute."""
    grad = getattr(fn, "grad", None) or getattr(getattr(fn, "py_func", None), "grad", None)
    return None if grad is None else _function(f"{name}.grad", grad, arguments)


def named_message(message: str | Callable, uses: str) -> tuple[Callable, Callable | None]:
    if isinstance(message, str):
        return NAMED[message]
    arguments = ", ".join(uses)
    return _function("message", message, arguments), _attached("message", message, f"{arguments}, g")


def reduction(reduce: Any) -> tuple[str, Callable | None, Callable | None, float]:
    """(name, step, its gradient, identity); step is None for a named reduction."""
    if isinstance(reduce, str):
        check.choice(OP, "reduce with message functions", reduce, _REDUCES)
        return reduce, None, None, 1.0 if reduce == "prod" else 0.0
    pair = isinstance(reduce, (tuple, list)) and len(reduce) == 2
    if not pair or isinstance(reduce[1], bool) or not isinstance(reduce[1], Real):
        check.fail(TypeError, OP, "reduce to be a name or (fn(acc, m), identity number)", repr(reduce))
    step = _function("the reduce function", reduce[0], "acc, m")
    return "user", step, _attached("the reduce function", step, "acc, m, g"), float(reduce[1])


def check_gradient(operand, uses, name, message_grad, step, step_grad) -> None:
    rest = "; give it, or call under torch.no_grad()"
    if message_grad is None:
        result = {"xe": "fn(x, e, g) -> (dx, de)", "x": "fn(x, g) -> dx", "e": "fn(e, g) -> de"}[uses]
        raise NotImplementedError(
            f"{OP}: {operand} requires a gradient, which needs message.grad = {result}{rest}"
        )
    if name == "prod":
        raise NotImplementedError(
            f"{OP}: {operand} requires a gradient, which reduce prod over message functions has not; "
            "give (fn(acc, m), 1) with fn.grad, or call under torch.no_grad()"
        )
    if step is not None and step_grad is None:
        raise NotImplementedError(
            f"{OP}: {operand} requires a gradient, which needs reduce_fn.grad = fn(acc, m, g) -> dm{rest}"
        )
