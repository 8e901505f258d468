"""spmm with message and reduce functions of the user, compiled by numba. Reached through :func:`structops.spmm`."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _check as check
from .graph import Graph
from .kernels import codes as C

try:
    import numba
    from numba.core.errors import NumbaError

    from .kernels.sparse import common_numba as nb

    _missing = ""
except ImportError as error:
    numba = nb = None
    _missing = str(error)

_OP = "spmm"
_REDUCES = ("sum", "mean", "min", "max", "prod")
_CACHED = 128  # compiled pairs of functions kept
U = np.uint64


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
        raise ImportError(f"{_OP}: message and reduce functions are compiled by numba (pip install numba): {_missing}")
    message, x, edge = _operands(message, x, edge)
    features = _check_tensors(graph, x, edge)
    if x is not None and edge is not None and x.dtype != edge.dtype:
        dtype = torch.promote_types(x.dtype, edge.dtype)
        x, edge = x.to(dtype), edge.to(dtype)
    uses = ("x" if x is not None else "") + ("e" if edge is not None else "")
    message, message_grad = _message(message, uses)
    name, step, step_grad, identity = _reduction(reduce)
    like = x if x is not None else edge
    fill = check.fill(_OP, fill_value, like.dtype, identity if step is not None else C.EMPTY[C.REDUCES[name]])
    if torch.is_grad_enabled():
        for operand, t in (("x", x), ("edge", edge)):
            if t is not None and t.requires_grad:
                _check_gradient(operand, uses, name, message_grad, step, step_grad)
    scalar = numba.float32 if like.dtype == torch.float32 else numba.float64
    functions = _compiled(message, message_grad, step, step_grad, uses, scalar)
    tables = tuple(
        np.zeros(0, np.int32) if t is None else _table(tuple(t.shape[1:]), features) for t in (x, edge)
    )
    job = _Job(graph, functions, name, identity, fill, tables, features)
    return _Aggregate.apply(x, edge, job)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _operands(message: Any, x: Any, edge: Any) -> tuple[str | Callable, Any, Any]:
    """The message, by default as in spmm, and the operands that it uses."""
    if message is None:
        message = "mul" if x is not None and edge is not None else "copy_u" if edge is None else "copy_e"
    if isinstance(message, str):
        code = C.MESSAGES[check.choice(_OP, "message", message, C.MESSAGES)]
        x, edge = None if code == C.COPY_E else x, None if code == C.COPY_U else edge
        for name, t, used in (("x", x, code != C.COPY_E), ("edge", edge, code != C.COPY_U)):
            if used and t is None:
                check.fail(TypeError, _OP, f"{name} for message {message}", "None")
    if x is None and edge is None:
        check.fail(TypeError, _OP, "x, edge or both", "neither")
    return message, x, edge


def _check_tensors(graph: Graph, x: Tensor | None, edge: Tensor | None) -> tuple[int, ...]:
    """The broadcast features."""
    if graph.device.type != "cpu":
        check.fail(ValueError, _OP, "a graph on the CPU for message and reduce functions", graph.device)
    own = []
    for name, t, rows in (("x", x, graph.num_src), ("edge", edge, graph.num_edges)):
        if t is None:
            continue
        check.tensor(_OP, name, t)
        if t.device.type != "cpu":
            check.fail(ValueError, _OP, f"{name} on the CPU for message and reduce functions", t.device)
        if t.dtype not in (torch.float32, torch.float64):
            check.fail(TypeError, _OP, f"{name} of dtype float32 or float64 for message and reduce functions", t.dtype)
        if t.dim() == 0 or t.shape[0] != rows:
            check.fail(ValueError, _OP, f"{name} of shape [{rows}, *features]", list(t.shape))
        own.append(tuple(t.shape[1:]))
    try:
        return tuple(torch.broadcast_shapes(*own))
    except RuntimeError:
        check.fail(ValueError, _OP, "features of x and edge that broadcast", " and ".join(map(str, map(list, own))))


def _function(name: str, fn: Any, arguments: str) -> Callable:
    """``fn``, found to be a function of as many arguments as named."""
    python = getattr(fn, "py_func", fn)
    if not inspect.isfunction(python):
        check.fail(TypeError, _OP, f"{name} to be a Python or numba.njit function of ({arguments})", type(fn).__name__)
    try:
        inspect.signature(python).bind(*arguments.split(", "))
    except TypeError:
        check.fail(TypeError, _OP, f"{name} to take ({arguments})", f"{python.__name__}{inspect.signature(python)}")
    return fn


def _attached(name: str, fn: Callable, arguments: str) -> Callable | None:
    """The function's ``grad`` attribute."""
    grad = getattr(fn, "grad", None) or getattr(getattr(fn, "py_func", None), "grad", None)
    return None if grad is None else _function(f"{name}.grad", grad, arguments)


def _message(message: str | Callable, uses: str) -> tuple[Callable, Callable | None]:
    if isinstance(message, str):
        return _NAMED[message]
    arguments = ", ".join(uses)
    return _function("message", message, arguments), _attached("message", message, f"{arguments}, g")


def _reduction(reduce: Any) -> tuple[str, Callable | None, Callable | None, float]:
    """(name, step, its gradient, identity); step is None for a named reduction."""
    if isinstance(reduce, str):
        check.choice(_OP, "reduce with message functions", reduce, _REDUCES)
        return reduce, None, None, 1.0 if reduce == "prod" else 0.0
    pair = isinstance(reduce, (tuple, list)) and len(reduce) == 2
    if not pair or isinstance(reduce[1], bool) or not isinstance(reduce[1], Real):
        check.fail(TypeError, _OP, "reduce to be a name or (fn(acc, m), identity number)", repr(reduce))
    step = _function("the reduce function", reduce[0], "acc, m")
    return "user", step, _attached("the reduce function", step, "acc, m, g"), float(reduce[1])


def _check_gradient(operand, uses, name, message_grad, step, step_grad) -> None:
    rest = "; give it, or call under torch.no_grad()"
    if message_grad is None:
        result = {"xe": "fn(x, e, g) -> (dx, de)", "x": "fn(x, g) -> dx", "e": "fn(e, g) -> de"}[uses]
        raise NotImplementedError(
            f"{_OP}: {operand} requires a gradient, which needs message.grad = {result}{rest}"
        )
    if name == "prod":
        raise NotImplementedError(
            f"{_OP}: {operand} requires a gradient, which reduce prod over message functions has not; "
            "give (fn(acc, m), 1) with fn.grad, or call under torch.no_grad()"
        )
    if step is not None and step_grad is None:
        raise NotImplementedError(
            f"{_OP}: {operand} requires a gradient, which needs reduce_fn.grad = fn(acc, m, g) -> dm{rest}"
        )


# ---- functions -------------------------------------------------------------------------------------------------------

_NAMED: dict[str, tuple[Callable, Callable]] = {
    "copy_u": (lambda x: x, lambda x, g: g),
    "copy_e": (lambda e: e, lambda e, g: g),
    "add": (lambda x, e: x + e, lambda x, e, g: (g, g)),
    "sub": (lambda x, e: x - e, lambda x, e, g: (g, -g)),
    "mul": (lambda x, e: x * e, lambda x, e, g: (g * e, g * x)),
    "div": (lambda x, e: x / e, lambda x, e, g: (g / e, -g * x / (e * e))),
}


def _add(acc, m):
    return acc + m


def _multiply(acc, m):
    return acc * m


@lru_cache(maxsize=_CACHED)
def _jit(fn: Callable) -> Callable:
    return fn if hasattr(fn, "py_func") else numba.njit(nogil=True, error_model="numpy")(fn)


def _compile(name: str, fn: Callable | None, scalars: tuple, returns: int = 1) -> Callable | None:
    """``fn`` compiled for scalars, found to return that many numbers."""
    if fn is None:
        return None
    fn = _jit(fn)
    try:
        fn.compile(scalars)
    except NumbaError as error:
        raise TypeError(f"{_OP}: numba cannot compile {name}: {_first_line(error)}") from error
    except RuntimeError:  # compiled for given signatures only
        return fn
    found = fn.overloads[scalars].signature.return_type
    number = (numba.types.Number, numba.types.Boolean)
    if returns == 1 and not isinstance(found, number):
        check.fail(TypeError, _OP, f"{name} to return a number", found)
    if returns == 2 and not (isinstance(found, numba.types.BaseTuple) and len(found) == 2):
        check.fail(TypeError, _OP, f"{name} to return (dx, de)", found)
    return fn


def _first_line(error: Exception) -> str:
    """What numba found wrong, without the account of its passes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Failed in", "- Resolution", "During:"))), text)


@dataclass(frozen=True)
class _Functions:
    """Compiled over two operands: message(x, e), grad(x, e, g), step(acc, m), step_grad(acc, m, g)."""

    message: Callable
    grad: Callable | None
    step: Callable | None
    step_grad: Callable | None


@lru_cache(maxsize=_CACHED)
def _compiled(message, message_grad, step, step_grad, uses: str, scalar) -> _Functions:
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
    return _Functions(m, g, s, d)


# ---- kernels ---------------------------------------------------------------------------------------------------------
# Operands are flat; one that is absent has stride 0 and is read at 0. xt, et [F] hold the feature of the operand that
# feature f of the result reads; where `same` they are not needed, the strides xs, es (0 or 1) say as much.


@lru_cache(maxsize=_CACHED)
def _fold_kernel(message: Callable, step: Callable) -> Callable:
    """Rows [v0, v1) of a reduction by step(acc, m), in the precision of the array ``acc``."""

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, rowptr, col, eid, xt, et, same, xs, es, Fx, Fe, out, F, like, identity, fill, mean, v0, v1):
        acc = np.empty(F, like.dtype)
        rounded = out.dtype.type
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                acc[f] = identity
            for k in range(begin, end):
                xo = U(col[k]) * Fx
                eo = (U(eid[k]) if len(eid) > 0 else k) * Fe
                if same:
                    for f in range(F):
                        acc[f] = step(acc[f], rounded(message(x[xo + f * xs], e[eo + f * es])))
                else:
                    for f in range(F):
                        acc[f] = step(acc[f], rounded(message(x[xo + U(xt[f])], e[eo + U(et[f])])))
            for f in range(F):
                out[v * F + f] = fill if begin == end else acc[f] / (end - begin) if mean else acc[f]

    return kernel


@lru_cache(maxsize=_CACHED)
def _extreme_kernel(message: Callable) -> Callable:
    """Rows [v0, v1) of a min or max; winners [N, F] are edge numbers, -1 for none. The first wins; NaN propagates."""

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, rowptr, col, eid, xt, et, Fx, Fe, out, winners, F, low, fill, v0, v1):
        rounded = out.dtype.type
        for v in range(U(v0), U(v1)):
            begin, end = U(rowptr[v]), U(rowptr[v + U(1)])
            for f in range(F):
                out[v * F + f] = fill
                winners[v * F + f] = -1
            for k in range(begin, end):
                j = U(eid[k]) if len(eid) > 0 else k
                xo, eo = U(col[k]) * Fx, j * Fe
                for f in range(F):
                    m, old = rounded(message(x[xo + U(xt[f])], e[eo + U(et[f])])), out[v * F + f]
                    if k == begin or (m < old if low else m > old) or (m != m and old == old):
                        out[v * F + f] = m
                        winners[v * F + f] = j

    return kernel


@lru_cache(maxsize=_CACHED)
def _pull_kernel(message: Callable, grad: Callable, step_grad: Callable | None, toward_x: bool) -> Callable:
    """The gradient of x, walked over the reversed edges, or of e, walked over the edges.

    ``ptr, other, eid`` are the structure, its rows [r0, r1) being sources or destinations; ``winners`` is empty except
    for min and max. Sums in float64; an entry of the result belongs to one row.
    """
    side = 0 if toward_x else 1
    with_step = step_grad is not None

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(x, e, g, final, winners, ptr, other, eid, xt, et, Fx, Fe, F, width, out, r0, r1):
        acc = np.zeros(width)
        rounded = out.dtype.type
        by_winner = len(winners) > 0
        for r in range(U(r0), U(r1)):
            for f in range(width):
                acc[f] = 0
            for k in range(U(ptr[r]), U(ptr[r + U(1)])):
                u, v = (r, U(other[k])) if toward_x else (U(other[k]), r)
                j = U(eid[k]) if len(eid) > 0 else k
                for f in range(F):
                    at = v * F + f
                    if by_winner and winners[at] != np.int64(j):
                        continue
                    a, b, c = x[u * Fx + U(xt[f])], e[j * Fe + U(et[f])], g[at]
                    if with_step:
                        c = rounded(step_grad(final[at], rounded(message(a, b)), c))
                    acc[U(xt[f]) if toward_x else U(et[f])] += grad(a, b, c)[side]
                if not toward_x:
                    for f in range(width):
                        out[j * Fe + f] = acc[f]
                        acc[f] = 0
            if toward_x:
                for f in range(width):
                    out[r * Fx + f] = acc[f]

    return kernel


# ---- one call --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _offsets(own: tuple[int, ...], features: tuple[int, ...]) -> np.ndarray:
    index = np.arange(math.prod(own), dtype=np.int32).reshape(own)
    return np.broadcast_to(index, features).flatten()  # a copy: numba compiles anew for read-only arrays


def _table(own: tuple[int, ...], features: tuple[int, ...]) -> np.ndarray:
    """int32 [F]: the operand's feature behind every feature of the result."""
    return _offsets(tuple(map(int, own)), tuple(map(int, features)))


@dataclass(frozen=True, eq=False)
class _Job:
    graph: Graph
    functions: _Functions
    reduce: str
    identity: float
    fill: float
    tables: tuple[np.ndarray, np.ndarray]
    features: tuple[int, ...]

    @property
    def F(self) -> int:
        return math.prod(self.features)

    def operands(self, x: Tensor | None, e: Tensor | None):
        """(x, e, xt, et, Fx, Fe) as the kernels take them."""
        arrays, tables, widths = [], [], []
        like = x if x is not None else e
        for t, table in zip((x, e), self.tables, strict=True):
            absent = t is None
            arrays.append(nb.flat(_OP, like.new_zeros(1) if absent else t))
            tables.append(np.zeros(self.F, np.int32) if absent else table)
            widths.append(U(0 if absent else math.prod(t.shape[1:])))
        return *arrays, *tables, *widths

    def forward(self, x: Tensor | None, e: Tensor | None) -> tuple[Tensor, np.ndarray]:
        """The result and, for min and max, the winners [N, F]."""
        like = x if x is not None else e
        xa, ea, xt, et, Fx, Fe = self.operands(x, e)
        ptr, col, eid = (nb.index(_OP, t, self.graph.rowptr) for t in self.graph.structure[:3])
        N, F = self.graph.num_dst, self.F
        out = np.empty(N * F, xa.dtype)
        winners = np.empty(N * F if self.reduce in ("min", "max") else 0, np.int64)
        fill, ranges = out.dtype.type(self.fill), nb.rows(ptr, 4 * F)
        message = self.functions.message
        if out.size == 0:
            pass
        elif len(winners):
            kernel, low = _extreme_kernel(message), self.reduce == "min"
            fixed = (xa, ea, ptr, col, eid, xt, et, Fx, Fe, out, winners, U(F), low, fill)
            nb.run(lambda v0, v1: kernel(*fixed, v0, v1), ranges)
        else:
            step = self.functions.step or _jit(_multiply if self.reduce == "prod" else _add)
            kernel = _fold_kernel(message, step)
            like_acc = np.empty(0, out.dtype if self.reduce == "user" else np.float64)
            same = int(Fx) in (0, 1, F) and int(Fe) in (0, 1, F)
            xs, es = (U(int(width) == F and F > 1) for width in (Fx, Fe))
            layout = (xt, et, same, xs, es, Fx, Fe)
            identity = like_acc.dtype.type(self.identity)
            fixed = (xa, ea, ptr, col, eid, *layout, out, U(F), like_acc, identity, fill, self.reduce == "mean")
            nb.run(lambda v0, v1: kernel(*fixed, v0, v1), ranges)
        return torch.from_numpy(out).reshape(N, *self.features).to(like.dtype), winners

    def backward(self, g, x, e, final, winners, wants: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x and e for the cotangent g [N, *features]."""
        s = self.graph.structure[:3]
        if self.reduce == "mean":
            count = self.graph.in_degrees().clamp(min=1).to(g.dtype)
            g = g / count.reshape(-1, *(1,) * (g.dim() - 1))
        xa, ea, xt, et, Fx, Fe = self.operands(x, e)
        ga = nb.flat(_OP, g)
        last = nb.flat(_OP, final) if final is not None else ga[:0]
        f = self.functions
        results = []
        for toward_x, wanted, like, width in ((True, wants[0], x, Fx), (False, wants[1], e, Fe)):
            if not wanted:
                results.append(None)
                continue
            ptr, other, eid = (nb.index(_OP, t, s[0]) for t in (self.graph.reversed_structure if toward_x else s))
            out = np.zeros(like.numel(), xa.dtype)
            if out.size and self.F:
                kernel = _pull_kernel(f.message, f.grad, f.step_grad if self.reduce == "user" else None, toward_x)
                fixed = (xa, ea, ga, last, winners, ptr, other, eid, xt, et, Fx, Fe, U(self.F), width, out)
                nb.run(lambda r0, r1, kernel=kernel, fixed=fixed: kernel(*fixed, r0, r1), nb.rows(ptr, 4 * self.F))
            results.append(torch.from_numpy(out).reshape(like.shape))
        return tuple(results)


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, e, job):
        out, winners = job.forward(x, e)
        ctx.job, ctx.winners = job, winners
        ctx.save_for_backward(x, e, out if job.reduce == "user" else None)
        return out

    @staticmethod
    def backward(ctx, g):
        x, e, out = ctx.saved_tensors
        wants = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        return *_Gradient.apply(g, x, e, out, ctx.winners, ctx.job, wants), None


class _Gradient(torch.autograd.Function):
    """A node of its own, so that only a derivative of the gradient is an error."""

    @staticmethod
    def forward(ctx, g, x, e, out, winners, job, wants):
        return job.backward(g, x, e, out, winners, wants)

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(
            f"{_OP}: message and reduce functions have first derivatives only; "
            "for a second one write the message with the named messages of structops.spmm"
        )
