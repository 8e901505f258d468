"""What the distributions of the peers share: properties that are computed once, and gradients taken inside of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._ladder._composed import apart


class lazy_property:
    """A property computed once; once more where it was computed without a gradient, and gradients are enabled now."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._with, self._without = f"_{name}_with_grad", f"_{name}_without_grad"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        kept, enabled = instance.__dict__, torch.is_grad_enabled()
        if self._with in kept:
            return kept[self._with]
        if enabled:
            kept.pop(self._without, None)
        elif self._without in kept:
            return kept[self._without]
        value = kept[self._with if enabled else self._without] = self._compute(instance)
        return value


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """A graph for a gradient within a query, whatever the mode of the caller."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def own_leaves(given: Iterable[Tensor], wanted: bool) -> list[Tensor]:
    """Each tensor :func:`apart`. To be called under :func:`recording`."""
    return [apart(t.clone() if t.is_inference() else t, wanted) for t in given]
