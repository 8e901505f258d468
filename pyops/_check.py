"""Argument checks of the public functions. A message names the operator, the argument, what was expected and what came."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INDICES = (torch.int32, torch.int64)
NARROW = (torch.int8, torch.uint8, torch.int16)


def fail(kind: type[Exception], op: str, expected: str, got: Any) -> NoReturn:
    raise kind(f"{op}: expected {expected}, got {got}")


def describe(t: Any) -> str:
    if not isinstance(t, Tensor):
        return type(t).__name__
    return f"{t.dtype} {list(t.shape)} on {t.device}"


def tensor(op: str, name: str, t: Any) -> Tensor:
    if not isinstance(t, Tensor):
        fail(TypeError, op, f"{name} to be a torch.Tensor", type(t).__name__)
    if t.layout != torch.strided:
        fail(TypeError, op, f"{name} to be a dense tensor", t.layout)
    return t


def dense(op: str, name: str, t: Any, integers: bool = False) -> Tensor:
    """A dense operand of a supported dtype."""
    tensor(op, name, t)
    if t.dtype in FLOATS or (integers and (t.dtype in INDICES or t.dtype in NARROW)):
        return t
    kinds = "float32, float64, bfloat16 or float16" + (" or an integer type" if integers else "")
    fail(TypeError, op, f"{name} of dtype {kinds}", t.dtype)


def shaped(op: str, name: str, t: Any, shape: tuple[int | None, ...], like: Tensor | None = None) -> Tensor:
    """A dense floating tensor of a shape (None: any size), on the device and of the dtype of ``like``."""
    dense(op, name, t)
    if t.dim() != len(shape) or any(s is not None and a != s for a, s in zip(t.shape, shape, strict=True)):
        wanted = ", ".join("*" if s is None else str(s) for s in shape)
        fail(ValueError, op, f"{name} of shape [{wanted}]", list(t.shape))
    if like is not None and t.device != like.device:
        fail(ValueError, op, f"{name} on {like.device}", t.device)
    if like is not None and t.dtype != like.dtype:
        fail(TypeError, op, f"{name} of dtype {like.dtype}", t.dtype)
    return t


def index(op: str, name: str, t: Any, like: Tensor | None = None) -> Tensor:
    tensor(op, name, t)
    if t.dtype not in INDICES:
        fail(TypeError, op, f"{name} of dtype int32 or int64", t.dtype)
    if t.device.type == "meta":
        fail(NotImplementedError, op, f"{name} with data: its values are checked", "a meta tensor")
    if like is not None and t.device != like.device:
        fail(ValueError, op, f"{name} on {like.device}", t.device)
    return t


def choice(op: str, name: str, value: Any, allowed) -> Any:
    if not isinstance(value, str) or value not in allowed:
        fail(ValueError, op, f"{name} to be one of {', '.join(allowed)}", repr(value))
    return value


def size(op: str, name: str, value: Any) -> int:
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if isinstance(value, bool):
        fail(TypeError, op, f"{name} to be an int", "a bool")
    try:
        value = operator.index(value)
    except TypeError:
        fail(TypeError, op, f"{name} to be an int", type(value).__name__)
    if value < 0:
        fail(ValueError, op, f"{name} >= 0", value)
    if value >= 2**62:
        fail(ValueError, op, f"{name} below 2**62", value)
    return value


def flags(op: str, **values: bool) -> None:
    for name, value in values.items():
        if value is not True and value is not False:
            fail(TypeError, op, f"{name} to be True or False", repr(value))


def fits(op: str, dtype: torch.dtype, *sizes: int) -> None:
    """The result must be addressable; whether it also fits the memory is for the allocator to say."""
    n = dtype.itemsize
    for s in sizes:
        if isinstance(s, torch.SymInt):
            return
        n *= max(s, 1)
    if n >= 2**62:
        fail(ValueError, op, "a result below 2**62 bytes", f"shape {list(sizes)}")


def axis(op: str, dim: Any, rank: int) -> int:
    try:
        dim = operator.index(dim)
    except TypeError:
        fail(TypeError, op, "dim to be an int", type(dim).__name__)
    if rank == 0:
        fail(ValueError, op, "a tensor with at least one dimension", "a scalar")
    if not -rank <= dim < rank:
        fail(IndexError, op, f"dim in [{-rank}, {rank})", dim)
    return dim % rank


def fill(op: str, value: Any, dtype: torch.dtype, default: float) -> float:
    """The value of empty groups as the double that kernels take."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fail(TypeError, op, "fill_value to be a number", type(value).__name__)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        whole = value == value and abs(value) <= 2**53 and value == int(value)
        if not whole or not info.min <= value <= info.max:
            fail(ValueError, op, f"fill_value to be an integer of dtype {dtype} of at most 2**53 in magnitude", value)
    try:
        return float(value)
    except OverflowError:
        fail(ValueError, op, "fill_value within the range of float64", "a larger integer")


def same_device(op: str, **tensors: Tensor | None) -> torch.device:
    first = None
    for name, t in tensors.items():
        if t is None:
            continue
        if first is None:
            first = (name, t.device)
        elif t.device != first[1]:
            fail(ValueError, op, f"{name} on {first[1]}, as {first[0]}", t.device)
    assert first is not None
    return first[1]
