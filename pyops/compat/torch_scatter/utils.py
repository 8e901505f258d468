"""Broadcasting of an index."""

from torch import Tensor


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """``src`` expanded to the shape of ``other``: a vector lies along ``dim``, then 1s are added on the right."""
    axis = dim + other.dim() if dim < 0 else dim
    view = src
    if view.dim() == 1 and axis > 0:
        view = view.view([1] * axis + [view.size(0)])
    if view.dim() < other.dim():
        view = view.view(list(view.size()) + [1] * (other.dim() - view.dim()))
    return view.expand(other.size())
