"""What the distributions of the peers share: properties that are computed once, and gradients taken inside of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def own_leaves(given: Iterable[Tensor], wanted: bool) -> list[Tensor]:
    """Each tensor as a point of its own in the graph: partial derivatives, whatever the tensors have to do with one another.

    ``wanted``: whether derivatives of these derivatives may follow. To be called where gradients are enabled.
    """
    return [t.view_as(t) if wanted and t.requires_grad else t.detach().requires_grad_() for t in given]
