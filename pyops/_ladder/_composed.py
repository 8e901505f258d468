"""Higher derivatives of a fused operator, from the operators it fuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(composed: Callable, inputs: Sequence, needs: Sequence[bool], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients of ``composed(*inputs)`` as differentiable functions of the inputs and of ``grads``.

    A fused backward kernel is opaque to autograd. Where a gradient of the gradient is wanted (``torch.is_grad_enabled()`` inside
    a backward), the unfused composition of differentiable operators is run and differentiated instead; it may keep what the
    fused kernel does not, E x F messages included.
    """
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
