"""Presenting a package of this folder under the name of the library that it replaces."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType


def installers(library: str, package: str, submodules: tuple[str, ...]) -> tuple[Callable, Callable]:
    """The functions ``install`` and ``uninstall`` of a compat package."""
    replaced: dict[str, ModuleType] = {}

    def others() -> list[str]:
        ours = lambda name: getattr(sys.modules[name], "__name__", "").startswith(package)
        return [name for name in sys.modules if name.partition(".")[0] == library and not ours(name)]

    def install(force: bool = False) -> None:
        found = others()
        if found and not force:
            raise RuntimeError(
                f"install: {library} is imported already; call {package}.install() before anything imports it, or pass "
                "force=True to replace it for later imports"
            )
        for name in found:
            replaced[name] = sys.modules.pop(name)
        sys.modules[library] = sys.modules[package]
        for name in submodules:
            sys.modules[f"{library}.{name}"] = importlib.import_module(f"{package}.{name}")

    def uninstall() -> None:
        kept = others()
        for name in [n for n in sys.modules if n.partition(".")[0] == library and n not in kept]:
            del sys.modules[name]
        sys.modules.update(replaced)
        replaced.clear()

    install.__doc__ = (
        f"Make ``import {library}`` find this package, until :func:`uninstall`. RuntimeError where {library} itself is imported "
        "already, unless ``force``."
    )
    uninstall.__doc__ = "Undo :func:`install`: the names are free again, or what ``force`` replaced is back."
    return install, uninstall
