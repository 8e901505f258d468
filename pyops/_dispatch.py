"""One route into every operator, and the autograd formulas attached to it.

``define(op, fake, setup, backward, differentiable)`` returns the function that the package calls. In eager mode it takes the
shortest way: the kernel below autograd when no gradient is wanted, a ``torch.autograd.Function`` otherwise. (A formula from
``torch.library.register_autograd`` costs about 3 microseconds on every eager call.) Under torch.compile and export it calls
``torch.ops.structops.<op>``, on which the same formula is registered; under torch.func a Function that functorch accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .kernels import backends

_below_autograd = torch._C._AutoDispatchBelowAutograd
_HAS_CUDA = torch.cuda.is_available()
_functorch_level = torch._C._functorch.maybe_current_level
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_compiling = torch.compiler.is_compiling
_grad_enabled = torch.is_grad_enabled


def is_eager() -> bool:
    """Neither torch.compile nor a torch.func transform nor a dispatch mode, which may be tracing, is looking on."""
    return not _is_compiling() and _functorch_level() is None and _dispatch_modes() == 0


def bare_apply(function: type[torch.autograd.Function]) -> Callable:
    """``function.apply`` without its handling of torch.func, which takes a third of its time: for calls where is_eager()."""
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


class Entry(Protocol):
    """The way into an operator; ``below``, the same below autograd."""

    below: Callable

    def __call__(self, *args: Any) -> Any: ...


def _device(args: tuple) -> str:
    for a in args:
        if isinstance(a, Tensor):
            return a.device.type
    return "cpu"


def define(op: str, fake: Callable, setup: Callable | None, backward: Callable | None, differentiable: tuple[int, ...]) -> Entry:
    """Attach ``fake`` and the autograd formula to ``op`` and return its entry function (positional arguments only).

    The entry's ``below`` runs the kernel below autograd: for eager mode, where no gradient is wanted or a Function sees to it.

    ``differentiable``: positions of the arguments that may need a gradient. ``setup(ctx, inputs, output)`` and
    ``backward(ctx, *grads)`` are as in torch.library; ``backward`` may only use differentiable functions, so that the
    second order follows.
    """
    packet = None
    if backends.native:
        packet = getattr(torch.ops.structops, op).default
        torch.library.register_fake(f"structops::{op}", fake)
        if backward is not None:
            torch.library.register_autograd(f"structops::{op}", backward, setup_context=setup)

    cached: dict[tuple[int, str], Callable] = {}

    def below(*args):
        key = (backends._generation, _device(args) if _HAS_CUDA else "cpu")
        kernel = cached.get(key)
        if kernel is None:
            cached.clear()
            kernel = cached[key] = backends.implementation(op, key[1])
        if backward is None:
            return kernel(*args)
        # A reference may use autograd itself, which is not there below autograd.
        with _below_autograd() if isinstance(kernel, torch._ops.OpOverload) else torch.no_grad():
            return kernel(*args)

    if backward is not None:

        class Differentiable(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *args):
                output = below(*args)
                setup(ctx, args, output)
                return output

        Differentiable.backward = staticmethod(backward)  # type: ignore[method-assign]
        Differentiable.__name__ = Differentiable.__qualname__ = op
        differentiable_apply = bare_apply(Differentiable)

        class Transformed(torch.autograd.Function):
            """The same for torch.func: functorch wants forward and setup apart, and a batching rule."""

            @staticmethod
            def forward(*args):
                return call(*args)

            @staticmethod
            def setup_context(ctx, inputs, output):
                setup(ctx, inputs, output)

            @staticmethod
            def vmap(info, in_dims, *args):
                calls = [
                    call(*(a.select(d, i).contiguous() if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)))
                    for i in range(info.batch_size)
                ]
                if isinstance(calls[0], Tensor):
                    return torch.stack(calls), 0
                return tuple(torch.stack(t) for t in zip(*calls, strict=True)), (0,) * len(calls[0])

        Transformed.backward = staticmethod(backward)  # type: ignore[method-assign]
        Transformed.__name__ = Transformed.__qualname__ = op

    def call(*args):
        if _is_compiling():
            # Without the compiled library there is no operator to put in a graph: one clean break.
            return packet(*args) if packet is not None else torch.compiler.disable(call)(*args)
        if backward is not None and _functorch_level() is not None:
            return Transformed.apply(*args)
        if backward is not None and _grad_enabled():
            for i in differentiable:
                a = args[i]
                if isinstance(a, Tensor) and a.requires_grad:
                    return differentiable_apply(*args)
        return below(*args)

    call.__name__ = call.__qualname__ = op
    call.below = below  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]
