"""Putting these kernels into an imported DGL, and taking them out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from . import _backend as backend
from . import ops

_NAMES = (
    "gspmm", "gsddmm", "gspmm_hetero", "gsddmm_hetero", "edge_softmax", "edge_softmax_hetero", "segment_reduce", "scatter_add",
    "segment_mm", "gather_mm",
)  # fmt: skip
_replaced: list[tuple[Callable, Callable]] = []


def install() -> None:
    """Let ``dgl.ops``, ``update_all``, ``apply_edges``, readouts and ``dgl.nn`` run on these kernels, until :func:`uninstall`.

    Replaces the functions of ``dgl.backend.pytorch.sparse``, and ``dgl.ops.gather_mm``, wherever DGL's modules hold them, and
    lets graphs keep the index of each relation, which holds its analysis. Calling it again changes nothing.

    Raises:
        ImportError: DGL cannot be imported. RuntimeError: its backend is not PyTorch.
    """
    if _replaced:
        return
    dgl = importlib.import_module("dgl")
    if dgl.backend.backend_name != "pytorch":
        raise RuntimeError(f"install: expected DGL with the backend pytorch, got {dgl.backend.backend_name}")
    theirs = importlib.import_module("dgl.backend.pytorch.sparse")
    pairs = [(getattr(theirs, name), getattr(backend, name)) for name in _NAMES]
    pairs.append((importlib.import_module("dgl.ops").gather_mm, ops.gather_mm))
    _swap(pairs)
    _replaced.extend(pairs)
    index = _index_class()
    index._structops_get_relation_graph, index.get_relation_graph = index.get_relation_graph, backend.relation_graph


def uninstall() -> None:
    """Undo :func:`install`."""
    if not _replaced:
        return
    index = _index_class()
    index.get_relation_graph = index._structops_get_relation_graph
    del index._structops_get_relation_graph
    _swap([(ours, theirs) for theirs, ours in _replaced])
    _replaced.clear()


def _index_class() -> Any:
    return importlib.import_module("dgl.heterograph_index").HeteroGraphIndex


def _swap(pairs: list[tuple[Callable, Callable]]) -> None:
    by_identity = {id(old): new for old, new in pairs}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "dgl":
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in by_identity:
                setattr(module, attribute, by_identity[id(value)])
