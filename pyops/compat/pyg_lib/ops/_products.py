"""Products with a matrix per group, values read by index, sorting, softmax over ranges."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import Tensor

from .... import _check as check
from .... import _ladder as ladder
from .... import sparse
from ....graph import checked_indptr
from ..._scatter.short import gather


def grouped_matmul(inputs: list[Tensor], others: list[Tensor], biases: list[Tensor] | None = None) -> list[Tensor]:
    """``inputs[i] [N_i, K_i] @ others[i] [K_i, M_i] + biases[i] [M_i]`` for every i: torch's products, one by one."""
    op = "grouped_matmul"
    for name, given in (("others", others), ("biases", biases)):
        if given is not None and len(given) != len(inputs):
            check.fail(ValueError, op, f"{len(inputs)} {name}, one for every input", len(given))
    for i, (x, w) in enumerate(zip(inputs, others, strict=True)):
        check.dense(op, f"inputs[{i}]", x)
        check.dense(op, f"others[{i}]", w)
        if x.dim() != 2 or w.dim() != 2 or x.shape[1] != w.shape[0]:
            check.fail(ValueError, op, f"matrices [N, K] and [K, M] at {i}", f"{list(x.shape)} and {list(w.shape)}")
    if biases is None:
        return [x @ w for x, w in zip(inputs, others, strict=True)]
    return [torch.addmm(b, x, w) for x, w, b in zip(inputs, others, biases, strict=True)]


def segment_matmul(inputs: Tensor, ptr: Tensor, other: Tensor, bias: Tensor | None = None) -> Tensor:
    """``inputs[i] @ other[b] + bias[b]`` for ``ptr[b] <= i < ptr[b + 1]``: :func:`structops.sparse.segment_matmul`.

    ``ptr`` may lie on the CPU while the rest is on a GPU.
    """
    if torch.jit.is_scripting():
        out = torch.ops.pyg.segment_matmul(inputs, ptr, other)
        if bias is None:
            return out
        return out + bias.repeat_interleave(ptr[1:] - ptr[:-1], dim=0)
    check.index("segment_matmul", "ptr", ptr)
    return sparse.segment_matmul(inputs, ptr.to(inputs.device), other, bias)


# ---- values read by index --------------------------------------------------------------------------------------------

_SAMPLED = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}


def sampled_op(left: Tensor, right: Tensor, left_index: Tensor | None, right_index: Tensor | None, op: str) -> Tensor:
    apply = _SAMPLED[check.choice("sampled_op", "op", op, _SAMPLED)]
    name = f"sampled_{op}"
    return apply(_rows(name, "left", left, left_index), _rows(name, "right", right, right_index))


def _rows(op: str, name: str, t: Tensor, index: Tensor | None) -> Tensor:
    check.dense(op, name, t, integers=True)
    if index is None:
        return t
    check.index(op, f"{name}_index", index, like=t)
    if index.dim() != 1 or t.dim() < 1:
        check.fail(ValueError, op, f"{name}_index of shape [E] into {name} [N, *]", f"{list(index.shape)} into {list(t.shape)}")
    index = index.contiguous()
    if not torch.compiler.is_compiling():
        low, high, _ = ladder.index_range(index)
        if index.numel() and (low < 0 or high >= t.shape[0]):
            check.fail(IndexError, op, f"{name}_index in [0, {t.shape[0]})", low if low < 0 else high)
    if not t.is_floating_point():
        return t.index_select(0, index)
    flat = t.reshape(t.shape[0], t[:1].numel()) if t.dim() > 1 else t
    return gather(flat.contiguous(), index).reshape(index.shape[0], *t.shape[1:])


def sampled_add(left: Tensor, right: Tensor, left_index: Tensor | None = None, right_index: Tensor | None = None) -> Tensor:
    """``left[left_index] + right[right_index]``; without an index the operand is taken as it is."""
    return sampled_op(left, right, left_index, right_index, "add")


def sampled_sub(left: Tensor, right: Tensor, left_index: Tensor | None = None, right_index: Tensor | None = None) -> Tensor:
    """``left[left_index] - right[right_index]``; without an index the operand is taken as it is."""
    return sampled_op(left, right, left_index, right_index, "sub")


def sampled_mul(left: Tensor, right: Tensor, left_index: Tensor | None = None, right_index: Tensor | None = None) -> Tensor:
    """``left[left_index] * right[right_index]``; without an index the operand is taken as it is."""
    return sampled_op(left, right, left_index, right_index, "mul")


def sampled_div(left: Tensor, right: Tensor, left_index: Tensor | None = None, right_index: Tensor | None = None) -> Tensor:
    """``left[left_index] / right[right_index]``; without an index the operand is taken as it is."""
    return sampled_op(left, right, left_index, right_index, "div")


# ---- sorting and softmax ---------------------------------------------------------------------------------------------


def index_sort(inputs: Tensor, max_value: int | None = None) -> tuple[Tensor, Tensor]:
    """``inputs [E]``, int32 or int64, in ascending order, and the int64 positions that sort it; stable.

    Numbers that are not negative and below 4 E are counted, others compared. ``max_value`` is not needed and not used.
    """
    if torch.jit.is_scripting():
        return torch.ops.pyg.index_sort(inputs, max_value)
    op = "index_sort"
    check.index(op, "inputs", inputs)
    if inputs.dim() != 1:
        check.fail(RuntimeError, op, "inputs of shape [E]", list(inputs.shape))
    inputs = inputs.contiguous()
    low, high, ascending = ladder.index_range(inputs)
    if ascending:
        return inputs.clone(), torch.arange(inputs.numel(), device=inputs.device)
    if low < 0 or high >= 4 * inputs.numel():
        return torch.sort(inputs, stable=True)
    order = ladder.csr_build(inputs, high + 1)[1].to(torch.int64)
    return inputs[order], order


def softmax_csr(src: Tensor, ptr: Tensor, dim: int = 0) -> Tensor:
    """Softmax of ``src [*, E, *]`` along ``dim`` over the ranges of ``ptr [N + 1]``: :func:`structops.segment_softmax`."""
    if torch.jit.is_scripting():
        return torch.ops.pyg.softmax_csr(src, ptr, dim)
    return sparse.segment_softmax(src, ptr, dim)


def softmax_csr_backward(out: Tensor, out_grad: Tensor, ptr: Tensor, dim: int = 0) -> Tensor:
    """The gradient of ``src`` from the result of :func:`softmax_csr` and its gradient."""
    check.dense("softmax_csr_backward", "out", out)
    if out_grad.shape != out.shape:
        check.fail(ValueError, "softmax_csr_backward", f"out_grad of shape {list(out.shape)}", list(out_grad.shape))
    dim = check.axis("softmax_csr_backward", dim, out.dim())
    checked_indptr("softmax_csr_backward", "ptr", ptr.contiguous(), out.shape[dim])
    weighted = out * out_grad
    total = cast(Tensor, sparse.segment_reduce(weighted, ptr, "sum", dim))
    return weighted - out * sparse.segment_gather(total, ptr, dim)
