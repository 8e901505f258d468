"""Sparse bilinear maps, channel by channel: products of spherical functions, of geometric algebras, of irreps.

``sparse_bilinear`` (csrc/so2/bilinear.h) is the gradient of one trilinear form in one of its three slots: its own gradients are the
same operator in the other two, so every order of derivative is a few calls of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import define
from ._product import LAYOUTS
from ._shapes import Constants


class Table:
    """The terms ``coef[t] * x[i[t]] * y[j[t]] -> out[k[t]]`` of a bilinear map, as the lists that kernels read.

    Args:
        i, j, k: ``[terms]`` components of x, y and the result. coef: ``[terms]``. sizes: the numbers of components ``(I, J, K)``.

    Terms of equal (i, j, k) are added, zeros dropped; the values are read here, once.

    Raises:
        ValueError, IndexError: unequal lengths, components out of range.
    """

    def __init__(self, i: Any, j: Any, k: Any, coef: Any, sizes: Sequence[int]) -> None:
        op = "bilinear"
        dims = [check.size(op, "sizes", s) for s in sizes]
        if len(dims) != 3:
            check.fail(ValueError, op, "three sizes (I, J, K)", len(dims))
        parts = [np.asarray(p, dtype=np.int64).reshape(-1) for p in (i, j, k)]
        values = np.asarray(coef, dtype=np.float64).reshape(-1)
        if len({p.size for p in (*parts, values)}) != 1:
            check.fail(ValueError, op, "i, j, k and coef of equal lengths", [p.size for p in (*parts, values)])
        for name, p, d in zip("ijk", parts, dims, strict=True):
            if p.size and not 0 <= p.min() <= p.max() < d:
                check.fail(IndexError, op, f"{name} in [0, {d})", f"{p.min()}..{p.max()}")
        flat, inverse = np.unique(np.ravel_multi_index(parts, [max(d, 1) for d in dims]), return_inverse=True)
        values = np.bincount(inverse, values, flat.size).astype(np.float64)
        slots = [p[values != 0] for p in np.unravel_index(flat, [max(d, 1) for d in dims])]
        values = values[values != 0]
        lists: list[np.ndarray] = []
        coefs, pairs, starts, at = [], [], [], 0
        for role in range(3):
            r, a, b = (slots[(role + n) % 3] for n in range(3))
            order = np.lexsort((b, a, r))
            r, a, b = r[order], a[order], b[order]
            last = np.ones(r.size, bool)  # of the terms with equal result and a
            last[:-1] = (r[1:] != r[:-1]) | (a[1:] != a[:-1])
            ends = np.flatnonzero(last)
            row_ptr = np.searchsorted(r[ends], np.arange(dims[role] + 1))
            part = np.concatenate([row_ptr, np.stack([a[ends], ends + 1], 1).reshape(-1), b])
            lists.append(part)
            coefs.append(values[order])
            pairs.append(ends.size)
            starts.append(at)
            at += part.size
        self.dims = tuple(dims)
        self.sizes = [*dims, values.size, *pairs, *starts]
        flat = np.concatenate(lists).astype(np.int32)
        self._constants = Constants(flat, np.stack(coefs))

    @property
    def terms(self) -> int:
        return self.sizes[3]

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
        """The operator's arguments, on a device."""
        lists, coef = self._constants.on(device)
        return lists, coef, self.sizes


def _fake(a, b, lists, coef, sizes, role, components_last, total):
    rows = 1 if total else b.shape[0] if a.shape[0] == 1 else a.shape[0]
    return a.new_empty((rows, a.shape[1], sizes[role]) if components_last else (rows, sizes[role], a.shape[2]))


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:7]


def _backward(ctx, g):
    a, b, lists, coef = ctx.saved_tensors
    sizes, role, components_last = ctx.rest
    g = g.contiguous()

    def grad(like, first, second, role):
        rows = second.shape[0] if first.shape[0] == 1 else first.shape[0]
        total = like.shape[0] == 1 and rows != 1
        d = sparse_bilinear(first, second, lists, coef, sizes, role % 3, components_last, total)
        return d if d.shape[0] == like.shape[0] else d.expand(like.shape[0], -1, -1)

    da = grad(a, b, g, role + 1) if ctx.needs_input_grad[0] else None
    db = grad(b, g, a, role + 2) if ctx.needs_input_grad[1] else None
    return da, db, *(None,) * 6


sparse_bilinear = define("sparse_bilinear", _fake, _setup, _backward, (0, 1))


def bilinear(x: Tensor, y: Tensor, table: Table | tuple, layout: str = "ir_mul", op: str = "bilinear") -> Tensor:
    """``out[..., k, c] = sum over terms of coef * x[..., i, c] * y[..., j, c]``, each channel by itself.

    Args:
        x: ``[..., I, C]``, y: ``[..., J, C]``; with layout ``mul_ir`` ``[..., C, I]`` and ``[..., C, J]``. Leading dimensions
            broadcast; an operand with one row for all is neither copied nor its gradient spread.
        table: a :class:`Table`, or its arguments ``(i, j, k, coef, sizes)``, which are then sorted at every call.
        op: the name in messages.

    Returns ``[..., K, C]`` or ``[..., C, K]``. float32, float64, bfloat16, float16 (accumulated in float32). Differentiable to any
    order by the same kernel; saves x and y; deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device, before any kernel runs.

    >>> import torch
    >>> from structops.so2._bilinear import Table, bilinear
    >>> complex_product = Table([0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1], [1, -1, 1, 1], (2, 2, 2))
    >>> bilinear(torch.tensor([[[0.], [1.]]]), torch.tensor([[[0.], [1.]]]), complex_product)[0, :, 0]
    tensor([-1.,  0.])
    """
    check.choice(op, "layout", layout, LAYOUTS)
    if not isinstance(table, Table):
        table = Table(*table)
    last = layout == "mul_ir"
    for name, t, dim in (("x", x, table.dims[0]), ("y", y, table.dims[1])):
        check.dense(op, name, t)
        if t.dim() < 2 or t.shape[-1 if last else -2] != dim:
            check.fail(ValueError, op, f"{name} of shape [..., {'C, ' if last else ''}{dim}{'' if last else ', C'}]", list(t.shape))
    if y.dtype != x.dtype:
        check.fail(TypeError, op, f"y of dtype {x.dtype}, as x", y.dtype)
    check.same_device(op, x=x, y=y)
    channels = -2 if last else -1
    if x.shape[channels] != y.shape[channels]:
        check.fail(ValueError, op, f"y with {x.shape[channels]} channels, as x", y.shape[channels])
    try:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        check.fail(ValueError, op, "leading dimensions of x and y that broadcast", [list(x.shape[:-2]), list(y.shape[:-2])])

    def rows(t: Tensor) -> Tensor:
        lead = t.shape[:-2]
        if lead != batch and any(s != 1 for s in lead):
            t = t.expand(*batch, *t.shape[-2:])
        elif lead != batch:
            return t.reshape(1, *t.shape[-2:]).contiguous()
        return t.reshape(batch.numel(), *t.shape[-2:]).contiguous()

    out = sparse_bilinear(rows(x), rows(y), *table.on(x.device), 2, last, False)
    return out.reshape(*batch, *out.shape[-2:])
