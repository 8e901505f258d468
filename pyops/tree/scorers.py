"""Scores of pairs and triples of words: biaffine and triaffine forms, dense or of given tuples only."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._ladder._composed import gradients
from ._ops import is_traced

__all__ = ["biaffine", "triaffine"]


# ---- checks ----------------------------------------------------------------------------------------------------------


def _prepare(op: str, inputs: dict[str, Any], weight: Any, biases: dict[str, bool]) -> Tensor:
    """weight as [O, ..]."""
    for name, t in {**inputs, "weight": weight}.items():
        check.dense(op, name, t)
    check.flags(op, **{f"bias_{k}": v for k, v in biases.items()})
    first = next(iter(inputs.values()))
    for name, t in inputs.items():
        if t.dim() != 3 or t.shape[0] != first.shape[0]:
            check.fail(ValueError, op, f"{name} of shape [{first.shape[0]}, N, D]", list(t.shape))
        if t.dtype != weight.dtype:
            check.fail(TypeError, op, f"{name} of dtype {weight.dtype}, as weight", t.dtype)
    check.same_device(op, **inputs, weight=weight)
    sizes = [t.shape[2] + biases.get(name, False) for name, t in inputs.items()]
    if list(weight.shape[-len(sizes) :]) != sizes or weight.dim() not in (len(sizes), len(sizes) + 1):
        check.fail(ValueError, op, f"weight of shape {sizes} or [O, {', '.join(map(str, sizes))}]", list(weight.shape))
    return weight if weight.dim() > len(sizes) else weight[None]


def _checked_index(op: str, index: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    if not isinstance(index, (tuple, list)) or len(index) != len(inputs):
        check.fail(TypeError, op, f"index as {len(inputs)} tensors [B, M]", type(index).__name__)
    found = []
    for at, (name, t) in zip(index, inputs.items(), strict=True):
        check.index(op, f"index of {name}", at, like=t)
        if at.dim() != 2 or at.shape[0] != t.shape[0] or at.shape != index[0].shape:
            check.fail(ValueError, op, f"index of {name} of shape [{t.shape[0]}, M], one M for all", list(at.shape))
        if at.numel() and not torch.compiler.is_compiling() and not is_traced(at):
            low, high = (int(v) for v in at.aminmax())
            if low < 0 or high >= t.shape[1]:
                check.fail(IndexError, op, f"index of {name} within 0..{t.shape[1] - 1}", low if low < 0 else high)
        found.append(at.long())
    return found


def _rows(t: Tensor, at: Tensor) -> Tensor:
    """t[b, at[b]]: [B, N, ..], [B, M] -> [B, M, ..]."""
    return t.gather(1, at.reshape(*at.shape, *(1,) * (t.dim() - 2)).expand(*at.shape, *t.shape[2:]))


# ---- pairs -----------------------------------------------------------------------------------------------------------


@autocast.lowers
def biaffine(
    x: Tensor, y: Tensor, weight: Tensor, bias_x: bool = False, bias_y: bool = False, scale: float = 1.0, index: Any = None
) -> Tensor:
    """Biaffine scores ``scale * [x 1]^T W [y 1]`` of every pair of rows, [B, N, M], or [B, O, N, M] with O outputs.

    Args:
        x, y: ``[B, N, Dx]`` and ``[B, M, Dy]`` of one floating dtype.
        weight: ``[Dx (+ 1), Dy (+ 1)]`` or ``[O, Dx (+ 1), Dy (+ 1)]``; the last row and column belong to the biases.
        bias_x, bias_y: whether weight has them. No column of ones is joined to x or y.
        scale: a factor of all scores.
        index: ``(ix, iy)`` of int32 or int64 ``[B, K]``: only the scores of these pairs, ``[B, K]`` or ``[B, O, K]``. Memory is
            then O(N D + K D) instead of N M.

    Two matrix products of torch. Differentiable any number of times. Saved for backward: the
    arguments and O N Dy numbers a sentence.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device or index.

    Source: Dozat and Manning 2017.

    >>> import torch, structops
    >>> x, y, weight = torch.rand(2, 5, 4), torch.rand(2, 6, 4), torch.rand(3, 5, 4)
    >>> structops.tree.biaffine(x, y, weight, bias_x=True).shape
    torch.Size([2, 3, 5, 6])
    """
    op = "biaffine"
    inputs = {"x": x, "y": y}
    w = _prepare(op, inputs, weight, {"x": bias_x, "y": bias_y})
    at = None if index is None else _checked_index(op, index, inputs)
    if scale != 1:
        w = w * scale
    O, (B, N, dx), dy = w.shape[0], x.shape, y.shape[2]
    # h[b, n, o, j] = sum_i [x 1][b, n, i] w[o, i, j]
    h = F.linear(x, w[:, :dx, :dy].transpose(1, 2).reshape(O * dy, dx), w[:, dx, :dy].reshape(-1) if bias_x else None)
    h = h.reshape(B, N, O, dy)
    constant = None
    if bias_y:
        constant = F.linear(x, w[:, :dx, dy], w[:, dx, dy] if bias_x else None)  # [B, N, O]
    if at is not None:
        score = torch.einsum("bkoj,bkj->bok", _rows(h, at[0]), _rows(y, at[1]))
        if constant is not None:
            score = score + _rows(constant, at[0]).transpose(1, 2)
    else:
        rows = h.transpose(1, 2).reshape(B, O * N, dy)
        if constant is None:
            score = torch.bmm(rows, y.transpose(1, 2))
        else:
            score = torch.baddbmm(constant.transpose(1, 2).reshape(B, O * N, 1), rows, y.transpose(1, 2))
        score = score.reshape(B, O, N, y.shape[1])
    return score if weight.dim() == 3 else score.squeeze(1)


# ---- triples ---------------------------------------------------------------------------------------------------------

_AT_ONCE = 1 << 20  # numbers of an intermediate result


def _first(x: Tensor, w: Tensor, bias_x: bool) -> Tensor:
    """a[b, n, j, k] = sum_i [x 1][b, n, i] w[i, j, k]."""
    dx = x.shape[2]
    flat = w.flatten(1)
    a = F.linear(x, flat[:dx].t(), flat[dx] if bias_x else None)
    return a.reshape(*x.shape[:2], *w.shape[1:])


def _second(a: Tensor, y: Tensor, bias_y: bool) -> Tensor:
    """c[b, n, m, k] = sum_j a[b, n, j, k] [y 1][b, m, j]."""
    B, N, _, K = a.shape
    dy = y.shape[2]
    rows = y[:, None].expand(B, N, *y.shape[1:]).reshape(B * N, *y.shape[1:]) if B > 1 else y.expand(N, -1, -1)
    a = a.reshape(B * N, -1, K)
    c = torch.baddbmm(a[:, dy:], rows, a[:, :dy]) if bias_y else torch.bmm(rows, a)
    return c.reshape(B, N, y.shape[1], K)


def _plain(x: Tensor, y: Tensor, z: Tensor, w: Tensor, bias_x: bool, bias_y: bool) -> Tensor:
    """[B, N, M, L] of one output, differentiable."""
    c = _second(_first(x, w, bias_x), y, bias_y)
    return torch.bmm(c.flatten(1, 2), z.transpose(1, 2)).reshape(*c.shape[:3], z.shape[1])


def _groups(x: Tensor, y: Tensor, w: Tensor) -> list[slice]:
    """Sentences whose intermediate results stay small."""
    B, N, _ = x.shape
    each = max(1, N * w.shape[2] * max(w.shape[1], y.shape[1]))
    step = max(1, _AT_ONCE // each)
    return [slice(b, min(b + step, B)) for b in range(0, B, step)]


class _Triaffine(torch.autograd.Function):
    """A few sentences at a time; nothing but the arguments is kept."""

    @staticmethod
    def forward(ctx, x, y, z, w, bias_x, bias_y):
        ctx.save_for_backward(x, y, z, w)
        ctx.biases = bias_x, bias_y
        B, N, M, L = x.shape[0], x.shape[1], y.shape[1], z.shape[1]
        out = x.new_empty(B, N, M, L)
        for g in _groups(x, y, w):
            c = _second(_first(x[g], w, bias_x), y[g], bias_y)
            torch.bmm(c.flatten(1, 2), z[g].transpose(1, 2), out=out[g].flatten(1, 2))
        return out

    @staticmethod
    @autocast.disabled
    def backward(ctx, grad):
        x, y, z, w = ctx.saved_tensors
        bias_x, bias_y = ctx.biases
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            again = lambda *operands: _plain(*operands, bias_x, bias_y)
            return *gradients(again, (x, y, z, w), ctx.needs_input_grad[:4], [grad]), None, None
        dx, dy = x.shape[2], y.shape[2]
        to_x, to_y, to_z, to_w = (torch.zeros_like(t) for t in (x, y, z, w))
        flat = w.flatten(1)
        for g in _groups(x, y, w):
            a = _first(x[g], w, bias_x)
            c = _second(a, y[g], bias_y).flatten(1, 2)
            u = grad[g].flatten(1, 2)  # [b, N M, L]
            torch.bmm(u.transpose(1, 2), c, out=to_z[g])
            to_c = torch.bmm(u, z[g]).reshape(a.shape[0], a.shape[1], -1, a.shape[3])  # [b, N, M, K]
            to_y[g] = torch.einsum("bnmk,bnjk->bmj", to_c, a[:, :, :dy])
            to_a = torch.empty_like(a)
            to_a[:, :, :dy] = torch.matmul(y[g][:, None].transpose(2, 3), to_c)
            if bias_y:
                to_a[:, :, dy] = to_c.sum(2)
            rows = to_a.flatten(2).flatten(0, 1)  # [b N, J K]
            torch.mm(rows, flat[:dx].t(), out=to_x[g].flatten(0, 1))
            to_w.flatten(1)[:dx].addmm_(x[g].flatten(0, 1).t(), rows)
            if bias_x:
                to_w.flatten(1)[dx] += rows.sum(0)
        return to_x, to_y, to_z, to_w, None, None


@autocast.lowers
def triaffine(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    bias_x: bool = False,
    bias_y: bool = False,
    scale: float = 1.0,
    index: Any = None,
) -> Tensor:
    """Triaffine scores ``scale * sum_ijk W[i, j, k] [x 1]_i [y 1]_j z_k`` of every triple of rows, [B, N, M, L] or [B, O, N, M, L].

    Args:
        x, y, z: ``[B, N, Dx]``, ``[B, M, Dy]``, ``[B, L, Dz]`` of one floating dtype.
        weight: ``[Dx (+ 1), Dy (+ 1), Dz]`` or ``[O, ..]``; the last of the first two belong to the biases.
        bias_x, bias_y, scale: as in :func:`biaffine`.
        index: ``(ix, iy, iz)`` of int32 or int64 ``[B, K]``: only the scores of these triples, ``[B, K]`` or ``[B, O, K]``,
            without the N M L of the others.

    Three matrix products for a few sentences at a time. Differentiable any number of times; saved for backward: the arguments.
    (The second derivative keeps the intermediate results.) For scores of low rank see ``sib_factors`` of
    :class:`structops.tree.DependencyCRF`.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device or index.

    Source: Wang, Huang and Tu 2019; Zhang, Li and Zhang 2020.

    >>> import torch, structops
    >>> x, weight = torch.rand(2, 5, 4), torch.rand(5, 5, 4)
    >>> structops.tree.triaffine(x, x, x, weight, bias_x=True, bias_y=True).shape
    torch.Size([2, 5, 5, 5])
    """
    op = "triaffine"
    inputs = {"x": x, "y": y, "z": z}
    w = _prepare(op, inputs, weight, {"x": bias_x, "y": bias_y})
    at = None if index is None else _checked_index(op, index, inputs)
    if scale != 1:
        w = w * scale
    parts = []
    x, y, z = (t.contiguous() for t in (x, y, z))
    for each in w.unbind(0):
        if at is not None:
            parts.append(_of_triples(x, y, z, each, bias_x, bias_y, at))
        elif torch.compiler.is_compiling() or is_traced(x):
            parts.append(_plain(x, y, z, each, bias_x, bias_y))
        else:
            parts.append(_Triaffine.apply(x, y, z, each.contiguous(), bias_x, bias_y))
    return torch.stack(parts, 1) if weight.dim() == 4 else parts[0]


def _of_triples(x: Tensor, y: Tensor, z: Tensor, w: Tensor, bias_x: bool, bias_y: bool, at: list[Tensor]) -> Tensor:
    """[B, K]: by rows of x where there are fewer of them than triples, else by triple."""
    first = _first(x, w, bias_x)  # [B, N, J, K]
    ya, za = _rows(y, at[1]), _rows(z, at[2])
    if bias_y:
        ya = F.pad(ya, (0, 1), value=1.0)
    # Triples of one x in turn would need sorting; a block of them at a time bounds the gathered matrices.
    step = max(1, _AT_ONCE // max(1, x.shape[0] * w.shape[1] * w.shape[2]))
    parts = [
        torch.einsum("bmjk,bmj,bmk->bm", _rows(first, at[0][:, m : m + step]), ya[:, m : m + step], za[:, m : m + step])
        for m in range(0, at[0].shape[1], step)
    ]
    return torch.cat(parts, 1) if parts else x.new_zeros(x.shape[0], 0)
