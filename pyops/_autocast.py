"""torch.autocast, as the operators understand it.

Within the package nothing is recast: kernels accumulate in float32 whatever their operands are, and the torch operations around
them run in the dtype that they are given, forward and backward. Only operands are, on the way in:

- ``lowers``: all of them become autocast's dtype, as those of ``torch.matmul`` do; for products with weights, and for attention
  whose scores are formed inside.
- ``promotes``: operands of several dtypes become float32; one dtype stays.

float64 is left alone, as torch does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
import torch.utils._pytree as pytree
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_is_enabled = torch._C._is_any_autocast_enabled
_is_compiling = torch.compiler.is_compiling


def _without(fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    if _is_compiling():
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return fn(*args, **kwargs)
    with torch._C._DisableAutocast():
        return fn(*args, **kwargs)


def disabled(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` without autocast."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return _without(fn, *args, **kwargs) if _is_enabled() else fn(*args, **kwargs)

    return call


def _is_recast(t: Any) -> bool:
    return isinstance(t, Tensor) and t.is_floating_point() and torch.is_autocast_enabled(t.device.type)


def _floats(given: Any) -> Iterator[Tensor]:
    """The operands that autocast is about, and the parameters of modules among the arguments."""
    for leaf in pytree.tree_leaves(given):
        yield from filter(_is_recast, leaf.parameters(recurse=False) if isinstance(leaf, torch.nn.Module) else (leaf,))


def _recast(given: Any, lower: bool) -> Any:
    floats = [*_floats(given)]
    dtypes = {t.dtype for t in floats}
    if not floats or torch.float64 in dtypes or (len(dtypes) == 1 and not lower):
        return given
    dtype = torch.get_autocast_dtype(floats[0].device.type) if lower else torch.float32
    return pytree.tree_map(lambda t: t.to(dtype) if _is_recast(t) else t, given)


def _casting(fn: Callable[P, R], lower: bool) -> Callable[P, R]:
    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _is_enabled():
            return fn(*args, **kwargs)
        args, kwargs = _recast((args, kwargs), lower)
        return _without(fn, *args, **kwargs)

    return call


def lowers(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` on operands of autocast's dtype."""
    return _casting(fn, lower=True)


def promotes(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` on operands of one dtype."""
    return _casting(fn, lower=False)


def promoted(*operands: Any) -> Any:
    """The operands of a function that calls what its caller gives it, which keeps autocast."""
    return _recast(operands, False) if _is_enabled() else operands
