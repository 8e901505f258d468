"""Higher derivatives of a fused operator, from the operators it fuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._dispatch import alive, is_transformed


def gradients(composed: Callable, inputs: Sequence, needs: Sequence[bool], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients of ``composed(*inputs)`` as differentiable functions of the inputs and of ``grads``.

    A fused backward kernel is opaque to autograd. Where a gradient of the gradient is wanted (``torch.is_grad_enabled()`` inside
    a backward), the unfused composition of differentiable operators is run and differentiated instead; it may keep what the
    fused kernel does not, E x F messages included.
    """
    if is_transformed():
        return _transformed(composed, inputs, needs, grads)
    with torch.enable_grad():
        leaves = [t.view_as(t) if n else t for t, n in zip(inputs, needs, strict=True)]
        out = composed(*leaves)
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None and o.requires_grad]
        wanted = [t for t, n in zip(leaves, needs, strict=True) if n]
        found = iter(
            torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
            if pairs and wanted
            else [None] * len(wanted)
        )
    return [next(found) if n else None for n in needs]


def apart(t: Tensor, higher: bool) -> Tensor:
    """``t`` as a point of its own in the graph, for partial derivatives, whatever the operands have to do with one another.

    ``higher``: whether derivatives of these derivatives may follow.
    """
    return t.view_as(t) if higher and t.requires_grad else t.detach().requires_grad_()


def _transformed(composed: Callable, inputs: Sequence, needs: Sequence[bool], grads: Sequence) -> list[Tensor | None]:
    """The same by torch.func.vjp, which nests in every transform; torch.autograd.grad under vmap is silently wrong."""

    def run(*leaves):
        given = iter(leaves)
        out = composed(*(next(given) if n else t for t, n in zip(inputs, needs, strict=True)))
        outs = out if isinstance(out, (tuple, list)) else (out,)
        return tuple(o for o, g in zip(outs, grads, strict=True) if g is not None)

    pull = torch.func.vjp(run, *(alive(t) for t, n in zip(inputs, needs, strict=True) if n))[1]
    found = iter(pull(tuple(g for g in grads if g is not None)))
    return [next(found) if n else None for n in needs]
