"""Functions of scalars, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import _check as check
from ._numba import CACHED, OP, NumbaError, numba

NAMED: dict[str, tuple[Callable, Callable]] = {
    "copy_u": (lambda x: x, lambda x, g: g),
    "copy_e": (lambda e: e, lambda e, g: g),
    "add": (lambda x, e: x + e, lambda x, e, g: (g, g)),
    "sub": (lambda x, e: x - e, lambda x, e, g: (g, -g)),
    "mul": (lambda x, e: x * e, lambda x, e, g: (g * e, g * x)),
    "div": (lambda x, e: x / e, lambda x, e, g: (g / e, -g * x / (e * e))),
}


def add(acc, m):
    return acc + m


def multiply(acc, m):
    return acc * m


@lru_cache(maxsize=CACHED)
def jit(fn: Callable) -> Any:
    return fn if hasattr(fn, "py_func") else numba.njit(nogil=True, error_model="numpy")(fn)


def _compile(name: str, fn: Callable | None, scalars: tuple, returns: int = 1) -> Callable | None:
    """``fn`` compiled for scalars, found to return that many numbers."""
    if fn is None:
        return None
    dispatcher = jit(fn)
    try:
        dispatcher.compile(scalars)
    except NumbaError as error:
        raise TypeError(f"{OP}: numba cannot compile {name}: {_first_line(error)}") from error
    except RuntimeError:  # compiled for given signatures only
        return dispatcher
    found = dispatcher.overloads[scalars].signature.return_type
    number = (numba.types.Number, numba.types.Boolean)
    if returns == 1 and not isinstance(found, number):
        check.fail(TypeError, OP, f"{name} to return a number", found)
    if returns == 2 and not (isinstance(found, numba.types.BaseTuple) and len(found) == 2):
        check.fail(TypeError, OP, f"{name} to return (dx, de)", found)
    return dispatcher


def _first_line(error: Exception) -> str:
    """What numba found wrong, without the account of its passes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Failed in", "- Resolution", "During:"))), text)


@dataclass(frozen=True)
class Functions:
    """Compiled over two operands: message(x, e), grad(x, e, g), step(acc, m), step_grad(acc, m, g)."""

    message: Callable
    grad: Callable | None
    step: Callable | None
    step_grad: Callable | None


@lru_cache(maxsize=CACHED)
def compiled(message, message_grad, step, step_grad, uses: str, scalar) -> Functions:
    n = len(uses)
    m = _compile("message", message, (scalar,) * n)
    g = _compile("message.grad", message_grad, (scalar,) * (n + 1), n)
    jit = numba.njit(nogil=True, error_model="numpy")
    if uses == "x":
        own, own_grad = m, g
        m = jit(lambda x, e: own(x))
        g = None if g is None else jit(lambda x, e, c: (own_grad(x, c), 0.0))
    elif uses == "e":
        own, own_grad = m, g
        m = jit(lambda x, e: own(e))
        g = None if g is None else jit(lambda x, e, c: (0.0, own_grad(e, c)))
    s = _compile("the reduce function", step, (scalar, scalar))
    d = _compile("the reduce function's grad", step_grad, (scalar,) * 3)
    return Functions(m, g, s, d)
