"""One call: operands for the kernels, forward and backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..graph import Graph
from ._functions import Functions, add, jit, multiply
from ._kernels import U, extreme_kernel, fold_kernel, pull_kernel
from ._numba import OP, nb


@lru_cache(maxsize=256)
def _offsets(own: tuple[int, ...], features: tuple[int, ...]) -> np.ndarray:
    index = np.arange(math.prod(own), dtype=np.int32).reshape(own)
    return np.broadcast_to(index, features).flatten()  # a copy: numba compiles anew for read-only arrays


def table(own: tuple[int, ...], features: tuple[int, ...]) -> np.ndarray:
    """int32 [F]: the operand's feature behind every feature of the result."""
    return _offsets(tuple(map(int, own)), tuple(map(int, features)))


@dataclass(frozen=True, eq=False)
class Job:
    graph: Graph
    functions: Functions
    reduce: str
    identity: float
    fill: float
    tables: tuple[np.ndarray, ...]
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
            arrays.append(nb.flat(OP, like.new_zeros(1) if absent else t))
            tables.append(np.zeros(self.F, np.int32) if absent else table)
            widths.append(U(0 if absent else math.prod(t.shape[1:])))
        return *arrays, *tables, *widths

    def forward(self, x: Tensor | None, e: Tensor | None) -> tuple[Tensor, np.ndarray]:
        """The result and, for min and max, the winners [N, F]."""
        like = x if x is not None else e
        xa, ea, xt, et, Fx, Fe = self.operands(x, e)
        ptr, col, eid = (nb.index(OP, t, self.graph.rowptr) for t in self.graph.structure[:3])
        N, F = self.graph.num_dst, self.F
        out = np.empty(N * F, xa.dtype)
        winners = np.empty(N * F if self.reduce in ("min", "max") else 0, np.int64)
        fill, ranges = out.dtype.type(self.fill), nb.rows(ptr, 4 * F)
        message = self.functions.message
        if out.size == 0:
            pass
        elif len(winners):
            kernel, low = extreme_kernel(message), self.reduce == "min"
            args = (xa, ea, ptr, col, eid, xt, et, Fx, Fe, out, winners, U(F), low, fill)
            nb.run(lambda v0, v1: kernel(*args, v0, v1), ranges)
        else:
            step = self.functions.step or jit(multiply if self.reduce == "prod" else add)
            kernel = fold_kernel(message, step)
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
        ga = nb.flat(OP, g)
        last = nb.flat(OP, final) if final is not None else ga[:0]
        f = self.functions
        results: list[Tensor | None] = []
        for toward_x, wanted, like, width in ((True, wants[0], x, Fx), (False, wants[1], e, Fe)):
            if not wanted:
                results.append(None)
                continue
            ptr, other, eid = (nb.index(OP, t, s[0]) for t in (self.graph.reversed_structure if toward_x else s))
            out = np.zeros(like.numel(), xa.dtype)
            if out.size and self.F:
                kernel = pull_kernel(f.message, f.grad, f.step_grad if self.reduce == "user" else None, toward_x)
                fixed = (xa, ea, ga, last, winners, ptr, other, eid, xt, et, Fx, Fe, U(self.F), width, out)
                nb.run(lambda r0, r1, kernel=kernel, fixed=fixed: kernel(*fixed, r0, r1), nb.rows(ptr, 4 * self.F))
            results.append(torch.from_numpy(out).reshape(like.shape))
        dx, de = results
        return dx, de


class Aggregate(torch.autograd.Function):
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
            f"{OP}: message and reduce functions have first derivatives only; "
            "for a second one write the message with the named messages of structops.spmm"
        )
