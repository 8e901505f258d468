"""One route into every operator, and the autograd formulas attached to it.

``define(op, fake, setup, backward, differentiable)`` returns the function that the package calls. In eager mode it takes the
shortest way: the kernel below autograd when no gradient is wanted, a ``torch.autograd.Function`` otherwise. (A formula from
``torch.library.register_autograd`` costs about 3 microseconds on every eager call.) Under torch.compile and export it calls
``torch.ops.structops.<op>``, on which the same formula is registered; under torch.func and in forward mode a Function that they
accept, whose forward derivative is its reverse mode, transposed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from . import _autocast as autocast
from .kernels import backends

_below_autograd = torch._C._AutoDispatchBelowAutograd
_HAS_CUDA = torch.cuda.is_available()
_unwrap_if_dead = torch._C._functorch.unwrap_if_dead
_functorch_level = torch._C._functorch.maybe_current_level
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_compiling = torch.compiler.is_compiling
_grad_enabled = torch.is_grad_enabled
_forward_grad_enabled = torch._C._is_fwd_grad_enabled


def is_forward_mode() -> bool:
    """Whether tensors may carry tangents: of torch.autograd.forward_ad or torch.func.jvp."""
    return forward_ad._current_level >= 0 and _forward_grad_enabled()


def is_transformed() -> bool:
    """Whether a torch.func transform, or forward mode, is looking on."""
    return _functorch_level() is not None or is_forward_mode()


def is_eager() -> bool:
    """Neither torch.compile nor torch.func, forward mode, or a dispatch mode, which may be tracing, is looking on."""
    return not _is_compiling() and not is_transformed() and _dispatch_modes() == 0


def bare_apply(function: type[torch.autograd.Function]) -> Callable:
    """``function.apply`` without its handling of torch.func, which takes a third of its time: for calls where is_eager()."""
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def wants_derivative(*tensors: Tensor | None) -> bool:
    """Whether derivatives with respect to ``tensors`` may be asked for: by reverse mode, or by whoever transforms or traces."""
    if _grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return not _is_compiling() and (is_transformed() or _dispatch_modes() > 0)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """For tensors that are kept beyond the call: no inference tensors, none that a torch.func transform has wrapped, and on the CPU
    where no device is named, whatever the default device."""
    with torch.inference_mode(False), contextlib.ExitStack() as stack:
        if not _is_compiling():
            stack.enter_context(torch._C._DisableFuncTorch())
            stack.enter_context(torch.device("cpu"))
        yield


def state(t: Tensor) -> tuple[int, int]:
    """What changes where ``t`` is written to, or given other memory; inference tensors do not count what is written to them."""
    return 0 if t.is_inference() else t._version, t.data_ptr()


class Entry(Protocol):
    """The way into an operator; ``below``, the same below autograd."""

    below: Callable

    def __call__(self, *args: Any) -> Any: ...


def _device(args: tuple) -> str:
    for a in args:
        if isinstance(a, Tensor):
            return a.device.type
    return "cpu"


def alive(a: Any) -> Any:
    """``a`` without the wrappers of transforms that have ended. torch takes off one; derivatives of derivatives leave several."""
    while isinstance(a, Tensor) and (inner := _unwrap_if_dead(a)) is not a:
        a = inner
    return a


def _moves(result: Any) -> bool:
    """Whether a result has a derivative."""
    return isinstance(result, Tensor) and result.is_floating_point()


def _forward_derivative(function: Callable, args: list, tangents: tuple, zeros: list[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of ``function(*args)`` along ``tangents``, None where there is none: its reverse mode, transposed.

    ``zeros``: like the results that have derivatives. All of it happens within torch.func.grad: what torch.func.vjp returns would
    run after its transform has ended.
    """
    moving = [i for i, t in enumerate(tangents) if isinstance(t, Tensor)]

    def product(*u):
        def weighted(*values):
            given = list(args)
            for i, v in zip(moving, values, strict=True):
                given[i] = v
            output = function(*given)
            results = filter(_moves, (output,) if isinstance(output, Tensor) else output)
            return sum((o * w).sum() for o, w in zip(results, u, strict=True))

        grads = torch.func.grad(weighted, tuple(range(len(moving))))(*(args[i] for i in moving))
        return sum((g * tangents[i].to(g.dtype)).sum() for g, i in zip(grads, moving, strict=True))

    return torch.func.grad(product, tuple(range(len(zeros))))(*zeros)


def define(op: str, fake: Callable, setup: Callable | None, backward: Callable | None, differentiable: tuple[int, ...]) -> Entry:
    """Attach ``fake`` and the autograd formula to ``op`` and return its entry function (positional arguments only).

    The entry's ``below`` runs the kernel below autograd: for eager mode, where no gradient is wanted or a Function sees to it.

    ``differentiable``: positions of the arguments that may need a gradient. ``setup(ctx, inputs, output)`` and
    ``backward(ctx, *grads)`` are as in torch.library; ``backward`` may only use differentiable functions, so that the
    second order follows.
    """
    packet = None
    if backward is not None:
        backward = autocast.disabled(backward)
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
            kernel = backends.implementation(op, key[1])
            cached[key] = kernel = kernel if isinstance(kernel, torch._ops.OpOverload) else autocast.disabled(kernel)
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
            """The same for torch.func and forward mode, which want forward and setup apart, and rules of their own."""

            @staticmethod
            def forward(*args):
                return call(*args)

            @staticmethod
            def setup_context(ctx, inputs, output):
                setup(ctx, inputs, output)
                is_tensor = [isinstance(a, Tensor) for a in inputs]
                ctx.save_for_forward(*(a for a, t in zip(inputs, is_tensor, strict=True) if t))
                ctx.forward_inputs = [(t, None if t else a) for a, t in zip(inputs, is_tensor, strict=True)]
                still = getattr(ctx, "non_differentiable", None) or ()
                results = (output,) if isinstance(output, Tensor) else output
                ctx.forward_results = [(_moves(o), any(o is t for t in still), o.shape, o.dtype, o.device) for o in results]

            @staticmethod
            def jvp(ctx, *tangents):
                saved = iter(ctx.saved_tensors)
                args = [forward_ad.unpack_dual(next(saved)).primal if is_tensor else a for is_tensor, a in ctx.forward_inputs]
                with torch.enable_grad():
                    zeros = [torch.zeros(shape, dtype=t, device=d) for moves, _, shape, t, d in ctx.forward_results if moves]
                    found = iter(_forward_derivative(call, args, tangents, zeros))
                along = [next(found) if moves else None for moves, *_ in ctx.forward_results]
                along = [None if still else t for t, (_, still, *_) in zip(along, ctx.forward_results, strict=True)]
                return tuple(along) if len(along) > 1 else along[0]

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
        if backward is not None and is_transformed():
            return Transformed.apply(*map(alive, args))
        if backward is not None and _grad_enabled():
            for i in differentiable:
                a = args[i]
                if isinstance(a, Tensor) and a.requires_grad:
                    return differentiable_apply(*args)
        return below(*args)

    call.__name__ = call.__qualname__ = op
    call.below = below  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]
