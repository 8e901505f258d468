"""Presenting this package as ``torch_scatter``."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_HERE = __name__.rpartition(".")[0]
_SUBMODULES = (
    "scatter", "segment_coo", "segment_csr", "composite", "composite.softmax", "composite.logsumexp", "composite.std",
    "utils", "testing", "placeholder",
)  # fmt: skip
_replaced: dict[str, ModuleType] = {}


def _is_ours(name: str) -> bool:
    return getattr(sys.modules[name], "__name__", "").startswith(_HERE)


def install(force: bool = False) -> None:
    """Make ``import torch_scatter`` and imports of its submodules find this package, until :func:`uninstall`.

    Modules that imported torch_scatter before keep what they have. Calling it again changes nothing.

    Raises:
        RuntimeError: torch_scatter itself is imported already. ``force`` replaces it for later imports; the dispatcher
            names ``torch.ops.torch_scatter.*`` then stay the library's.
    """
    others = [name for name in sys.modules if name.partition(".")[0] == "torch_scatter" and not _is_ours(name)]
    if others and not force:
        raise RuntimeError(
            "install: torch_scatter is imported already; call structops.compat.torch_scatter.install() before anything "
            "imports it, or pass force=True to replace it for later imports"
        )
    for name in others:
        _replaced[name] = sys.modules.pop(name)
    sys.modules["torch_scatter"] = sys.modules[_HERE]
    for name in _SUBMODULES:
        sys.modules[f"torch_scatter.{name}"] = importlib.import_module(f"{_HERE}.{name}")


def uninstall() -> None:
    """Undo :func:`install`: the names are free again, or what ``force`` replaced is back."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "torch_scatter" and _is_ours(n)]:
        del sys.modules[name]
    sys.modules.update(_replaced)
    _replaced.clear()
