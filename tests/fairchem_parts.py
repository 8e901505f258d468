"""fairchem's modules, without what the rest of the package imports (``pip install --no-deps fairchem-core``)."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types

import pytest

UMA = "fairchem.core.models.uma"


def uma(name: str) -> types.ModuleType:
    """A module under ``fairchem.core.models.uma``; skips where fairchem-core is not installed."""
    try:
        home = importlib.metadata.distribution("fairchem-core").locate_file("fairchem")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fairchem-core is not installed")
    for parent in ("fairchem", "fairchem.core", "fairchem.core.models", UMA):
        if parent not in sys.modules:
            module = types.ModuleType(parent)
            module.__path__ = [str(home.joinpath(*parent.split(".")[1:]))]
            sys.modules[parent] = module
    return importlib.import_module(f"{UMA}.{name}")
