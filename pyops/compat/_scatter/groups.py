"""The general way: any shape and index, brought to rows with one index each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import _check as check
from ... import _ladder as ladder
from ...kernels import codes as C
from ...sparse._groups import reduce_groups
from ...sparse._scatter import broadcast_index, scatter_rows
from .short import as_size, is_compiling


class Groups:
    """``src`` and ``index`` as rows [R], [R, F] or [B, E, F] with one index per row of ``axis``, checked.

    An index that differs along other dimensions than ``dim`` makes every combination of those a group of its own.
    """

    def __init__(self, op: str, src: Tensor, index: Tensor, dim: int, dim_size: int | None, ascending: bool = False):
        check.dense(op, "src", src, integers=True)
        check.index(op, "index", index, like=src)
        self.op, self.dim = op, check.axis(op, dim, src.dim())
        dim, shape = self.dim, src.shape
        self.elements = shape[dim]
        index = _essential(op, index, src, dim)
        self.size = self._checked(op, index, dim_size, ascending)
        self.shape = (*shape[:dim], self.size, *shape[dim + 1 :])
        self.src_shape = shape
        self.step = 0
        if index.dim() == 1:
            self.index, self.groups = index, self.size
            self.axis = min(dim, 1)
            lead, width = shape[:dim], shape[dim + 1 :]
            if dim or len(width) > 1:
                src = src.reshape(*((math.prod(lead),) if dim else ()), shape[dim], math.prod(width))
            self.rows = src.contiguous()
            self.count_shape = (self.size, *(1 for _ in shape[dim + 1 :]))
            return
        self.axis = 0
        B, E, F = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
        offset = torch.arange(B, device=src.device)[:, None] * self.size
        if any(s != 1 for s in index.shape[dim + 1 :]):
            feature = torch.arange(F, device=src.device)
            flat = (index.expand_as(src).reshape(B, E, F).long() + offset[:, :, None]) * F + feature
            self.rows, self.groups, self.step = src.reshape(-1).contiguous(), B * self.size * F, F
            self.count_shape = self.shape
        else:
            flat = index.expand(*shape[: dim + 1], *index.shape[dim + 1 :]).reshape(B, E).long() + offset
            self.rows, self.groups, self.step = src.reshape(B * E, F).contiguous(), B * self.size, 1
            self.count_shape = (*shape[:dim], self.size, *(1 for _ in shape[dim + 1 :]))
        self.index = flat.reshape(-1)

    def _checked(self, op: str, index: Tensor, dim_size: int | None, ascending: bool) -> int:
        if dim_size is not None:
            dim_size = as_size(op, dim_size)
            if is_compiling():
                return dim_size
        vector = index if index.dim() == 1 else index.movedim(self.dim, -1)
        low, high, ordered = ladder.index_range(vector.contiguous())
        if index.numel() and low < 0:
            check.fail(IndexError, op, "index >= 0", low)
        if dim_size is not None and high >= dim_size:
            check.fail(IndexError, op, f"index < {dim_size}", high)
        if ascending and not ordered and (index.dim() == 1 or bool((vector.diff() < 0).any())):
            check.fail(ValueError, op, "an ascending index", "a decreasing pair")
        return high + 1 if dim_size is None else dim_size

    def reduce(self, code: int, return_arg: bool = False):
        result = scatter_rows(
            self.op, self.rows, self.index, self.groups, code, self.axis, None, return_arg, True, True
        )
        return (self.values(result[0]), self.positions(result[1])) if return_arg else self.values(result)

    def plan(self) -> tuple[Tensor, Tensor]:
        return ladder.csr_build(self.index, self.groups)

    def reduce_plan(self, plan: tuple[Tensor, Tensor], code: int, fill: float, unbiased: bool = True) -> Tensor:
        """Per group in the rows' layout."""
        return reduce_groups(self.op, self.rows, self.axis, plan, code, fill, False, unbiased, False)

    def counts(self, plan: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """int64, in a shape that broadcasts to the result."""
        if plan is not None:
            return plan[0].diff().reshape(self.count_shape)
        ones = torch.ones(self.index.shape[0], dtype=torch.int64, device=self.index.device)
        return ladder.scatter(ones, self.index, self.groups, C.SUM, False, 0.0, False)[0].reshape(self.count_shape)

    def values(self, t: Tensor) -> Tensor:
        return t.reshape(self.shape)

    def positions(self, arg: Tensor) -> Tensor:
        if self.step:
            inside = arg < self.rows.shape[0]
            arg = torch.where(inside, arg // max(self.step, 1) % max(self.elements, 1), self.elements)
        return arg.reshape(self.shape)

    def spread(self, t: Tensor) -> Tensor:
        """Group values [*, N, *] on the elements [*, E, *]."""
        shape = list(self.rows.shape)
        shape[self.axis] = self.groups
        return t.reshape(shape).index_select(self.axis, self.index).reshape(self.src_shape)


def _essential(op: str, index: Tensor, src: Tensor, dim: int) -> Tensor:
    """``index`` as a contiguous vector [E] if it varies along ``dim`` only, else with size 1 where it does not vary."""
    if index.dim() == 1 and index.shape[0] == src.shape[dim]:
        return index.contiguous()
    view = broadcast_index(op, index, src, dim)
    for d in range(view.dim()):
        if d != dim and view.shape[d] > 1 and view.stride(d) == 0:
            view = view.narrow(d, 0, 1)
    if all(s == 1 for d, s in enumerate(view.shape) if d != dim):
        return view.reshape(-1).contiguous()
    return view


def checked_out(op: str, out: Tensor, src: Tensor, dim: int) -> int:
    """``out`` must be ``src`` with another size along ``dim``; that size."""
    check.tensor(op, "out", out)
    if out.dtype != src.dtype:
        check.fail(TypeError, op, f"out of dtype {src.dtype}, as src", out.dtype)
    if out.device != src.device:
        check.fail(ValueError, op, f"out on {src.device}", out.device)
    dim = check.axis(op, dim, src.dim())
    if out.dim() != src.dim() or out.shape[:dim] != src.shape[:dim] or out.shape[dim + 1 :] != src.shape[dim + 1 :]:
        check.fail(ValueError, op, f"out of shape {[*src.shape[:dim], 'N', *src.shape[dim + 1 :]]}", list(out.shape))
    return out.shape[dim]


def written(op: str, result: Tensor, src: Tensor, dim: int, out: Tensor | None) -> Tensor:
    """``result``, or ``out`` with ``result`` at its beginning along ``dim``."""
    if out is None:
        return result
    E = result.shape[dim]
    if checked_out(op, out, src, dim) < E:
        check.fail(ValueError, op, f"out of size {E} along dim {dim}", out.shape[dim])
    out.narrow(dim, 0, E).copy_(result)
    return out


def index_dim(op: str, name: str, index: Tensor) -> int:
    check.index(op, name, index)
    if index.dim() == 0:
        check.fail(ValueError, op, f"{name} with at least one dimension", "a scalar")
    return index.dim() - 1
