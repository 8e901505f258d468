"""One route into every operator, and the autograd formulas attached to it.

``define(op, fake, setup, backward, differentiable)`` returns the function that the package calls. In eager mode it takes the
shortest way: the kernel below autograd when no gradient is wanted, a ``torch.autograd.Function`` otherwise. (A formula from
``torch.library.register_autograd`` costs about 3 microseconds on every eager call.) Under torch.compile and export it calls
``torch.ops.structops.<op>``, on which the same formula is registered; under torch.func a Function that functorch accepts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .kernels import backends

_below_autograd = torch._C._AutoDispatchBelowAutograd
_HAS_CUDA = torch.cuda.is_available()
_functorch_level = torch._C._functorch.maybe_current_level


def is_eager() -> bool:
    """Neither torch.compile nor a torch.func transform is looking on."""
    return not torch.compiler.is_compiling() and _functorch_level() is None


def define(op: str, fake: Callable, setup: Callable | None, backward: Callable | None, differentiable: tuple[int, ...]):
    """Attach ``fake`` and the autograd formula to ``op`` and return its entry function (positional arguments only).

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

    def kernel(args: tuple) -> Callable:
        device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu") if _HAS_CUDA else "cpu"
        key = (backends._generation, device)
        if key not in cached:
            cached.clear()
            cached[key] = backends.implementation(op, device)
        return cached[key]

    def below(*args):
        fn = kernel(args)
        # A reference may use autograd itself, which is not there below autograd.
        with _below_autograd() if isinstance(fn, torch._ops.OpOverload) else torch.no_grad():
            return fn(*args)

    if backward is not None:

        class Differentiable(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *args):
                output = below(*args)
                setup(ctx, args, output)
                return output

        Differentiable.backward = staticmethod(backward)
        Differentiable.__name__ = Differentiable.__qualname__ = op

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
                    call(*(a if d is None else a.select(d, i).contiguous() for a, d in zip(args, in_dims, strict=True)))
                    for i in range(info.batch_size)
                ]
                if isinstance(calls[0], Tensor):
                    return torch.stack(calls), 0
                return tuple(torch.stack(t) for t in zip(*calls, strict=True)), (0,) * len(calls[0])

        Transformed.backward = staticmethod(backward)
        Transformed.__name__ = Transformed.__qualname__ = op

    def call(*args):
        if torch.compiler.is_compiling():
            # Without the compiled library there is no operator to put in a graph: one clean break.
            return packet(*args) if packet is not None else torch.compiler.disable(call)(*args)
        if backward is not None and _functorch_level() is not None:
            return Transformed.apply(*args)
        if backward is not None and torch.is_grad_enabled():
            for i in differentiable:
                a = args[i]
                if isinstance(a, Tensor) and a.requires_grad:
                    return Differentiable.apply(*args)
        return below(*args)

    call.__name__ = call.__qualname__ = op
    return call
