"""Registering dispatcher names of a library that a compat package replaces."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable

import torch

from ..kernels import backends


def cuda_version() -> int:
    """The CUDA version (12060 for 12.6) the kernels serve, -1 without CUDA kernels."""
    if torch.version.cuda is None or not (backends.native and backends.native.cuda_compiled()):
        return -1
    major, minor = torch.version.cuda.split(".")[:2]
    return int(major) * 1000 + int(minor) * 10


def is_registered(name: str) -> bool:
    return bool(torch._C._jit_get_schemas_for_operator(name))


def define(namespace: str, schemas: dict[str, str], function: Callable[[str], Callable]) -> torch.library.Library:
    """Register ``namespace::name`` for every schema, implemented by ``function(name)``; they last as long as the result."""
    library = torch.library.Library(namespace, "FRAGMENT")
    for name, schema in schemas.items():
        library.define(name + schema)
        library.impl(name, function(name), "CompositeImplicitAutograd")
    return library


def guard(library: str, namespace: str, package: str) -> None:
    """Turn the crash of loading ``library`` on top of the registered names into an ImportError."""
    sys.meta_path.insert(0, _Guard(library, namespace, package))


class _Guard(importlib.machinery.PathFinder):
    def __init__(self, library: str, namespace: str, package: str):
        self.library, self.namespace, self.package = library, namespace, package

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.library or importlib.machinery.PathFinder.find_spec(fullname, path) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise ImportError(
            f"{self.library}: {self.package} has registered torch.ops.{self.namespace}.*; call its install() to import it "
            f"under this name, or import {self.library} before {self.package}"
        )
