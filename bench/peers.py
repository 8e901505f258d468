"""The peers: which are installed, and how each is called at its best with its own structure cached."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from .case import BOTH, Provider, runner
from .data import Edges

NO_SUCH = "no such operation"
TORCH_REDUCE = {"sum": "sum", "mean": "mean", "min": "amin", "max": "amax"}


@cache
def load(name: str) -> tuple[Any, str]:
    """(module, "") or (None, why not)."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None, "not installed"
    try:
        return _IMPORTS.get(name, lambda: importlib.import_module(name))(), ""
    except Exception as error:  # a peer built for another torch fails in many ways
        return None, f"does not import: {type(error).__name__}"


class _Stub(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012  a package, so that submodules may be looked up

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {})
        setattr(self, name, value)
        return value


def _import_dgl():
    """DGL without the packages that it imports but whose parts its operators never use."""
    os.environ.setdefault("DGLBACKEND", "pytorch")
    inner = ("", ".datapipes", ".datapipes.iter", ".dataloader2", ".dataloader2.graph")
    optional = {"pandas": ["pandas"], "torchdata": [f"torchdata{part}" for part in inner]}
    missing = [name for top, names in optional.items() if importlib.util.find_spec(top) is None for name in names]
    stubs = ["dgl.graphbolt", *missing]
    for name in stubs:
        sys.modules[name] = _Stub(name)
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        return importlib.import_module("dgl")
    finally:
        for name in stubs:
            if name != "dgl.graphbolt":
                sys.modules.pop(name, None)


def _import_supar():
    """supar's structures without the parsers of the package, which need much that structures do not."""
    for name in ("supar", "supar.utils"):
        module = types.ModuleType(name)
        module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)  # type: ignore[attr-defined]
        sys.modules[name] = module
    return importlib.import_module("supar.structs")


_IMPORTS: dict[str, Callable[[], Any]] = {"dgl": _import_dgl, "supar.structs": _import_supar}


def versions() -> dict[str, str]:
    """Version or reason of every peer package."""
    found = {}
    graphs, trees = ("torch_scatter", "torch_sparse", "dgl", "cupyx"), ("supar.structs", "torch_struct", "torchcrf")
    for name in (*graphs, *trees, "e3nn", "sphericart", "bnn", "numkong", "openvino"):
        module, reason = load(name)
        found[name.partition(".")[0]] = _version(name, module) if module else reason
    if found["dgl"][:1].isdigit() and load("dgl")[0].is_libxsmm_enabled():
        found["dgl"] += " with libxsmm"
    return found


def _version(name: str, module: Any) -> str:
    if hasattr(module, "__version__"):
        return module.__version__
    for package in (name.partition(".")[0], name.replace("_", "-")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "installed"


# ---- g-SpMM ----------------------------------------------------------------------------------------------------------


@dataclass
class Peer:
    """``forward(x, w)`` with cached structure; ``plan(backward)`` builds that structure from unsorted edges."""

    name: str
    forward: Callable[[Tensor, Tensor | None], Tensor] | None
    plan: Callable[[bool], object] | None = None
    reason: str = ""

    def provider(self, direction: str, x: Tensor, w: Tensor | None, grad: Tensor | None) -> Provider:
        if self.forward is None:
            return Provider(self.name, reason=self.reason)
        leaves = tuple(t for t in (x, w) if t is not None and t.requires_grad)
        run = runner(lambda: self.forward(x, w), direction, leaves, grad)
        return Provider(self.name, run, plan=self.plan and (lambda: self.plan(direction == BOTH)))


def spmm(edges: Edges, reduce: str, weighted: bool) -> list[Peer]:
    """Every peer that can reduce ``x[src] * w`` by destination."""
    makers = [_torch_csr, _torch_reduce, _torch_sparse, _dgl, *([_cupyx] if edges.src.is_cuda else [])]
    return [make(edges, reduce, weighted) for make in makers]


def _plain_csr(edges: Edges, values: Tensor, wide: bool) -> Tensor:
    indices = (edges.indptr, edges.src) if wide else (edges.indptr.int(), edges.src.int())
    return torch.sparse_csr_tensor(*indices, values, (edges.num_dst, edges.num_src), check_invariants=False)


def _coo_to_csr(edges: Edges, index: Tensor) -> Tensor:
    ones, size = torch.ones(index.shape[1], device=index.device), (edges.num_dst, edges.num_src)
    return torch.sparse_coo_tensor(index.flip(0), ones, size, check_invariants=False).to_sparse_csr()


def csr_plan(edges: Edges) -> Callable[[bool], object]:
    index = edges.shuffled()
    return lambda backward: _coo_to_csr(edges, index)


@lru_cache(maxsize=4)
def _csr(edges: Edges, mean: bool, wide: bool = False) -> Tensor:
    """int32 indices, which the vendor libraries like best, or int64 (``wide``)."""
    values = torch.ones(edges.num_edges, device=edges.src.device)
    if mean:
        values /= edges.indptr.diff().clamp(min=1).float()[edges.dst]
    return _plain_csr(edges, values, wide)


def _with_values(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    """The matrix with other values, differentiable in them."""
    crow, col, size = matrix.crow_indices(), matrix.col_indices(), matrix.shape
    return lambda w: torch.sparse_csr_tensor(crow, col, w, size, check_invariants=False)


def _torch_csr(edges: Edges, reduce: str, weighted: bool) -> Peer:
    """The plain product (MKL, cuSPARSE); mean through values 1/degree."""
    name = "torch CSR @"
    if reduce not in ("sum", "mean") or (weighted and reduce == "mean"):
        return Peer(name, None, reason=NO_SUCH)
    matrix = _csr(edges, reduce == "mean")
    make = _with_values(matrix) if weighted else lambda w: matrix
    return Peer(name, lambda x, w: make(w) @ x, csr_plan(edges))


def _torch_reduce(edges: Edges, reduce: str, weighted: bool) -> Peer:
    name, kind = "torch.sparse.mm", TORCH_REDUCE[reduce]
    if edges.src.is_cuda:
        return Peer(name, None, reason="CPU only")
    matrix = _csr(edges, False, wide=True)  # its backward overflows on int32 where rows * columns does
    make = _with_values(matrix) if weighted else lambda w: matrix
    return Peer(name, lambda x, w: torch.sparse.mm(make(w), x, kind), csr_plan(edges))


@lru_cache(maxsize=2)
def _sparse_tensor(edges: Edges):
    module, _ = load("torch_sparse")
    return module.SparseTensor(row=edges.dst, col=edges.src, sparse_sizes=(edges.num_dst, edges.num_src)).fill_cache_()


def torch_sparse_plan(edges: Edges) -> Callable[[bool], object] | None:
    module, _ = load("torch_sparse")
    index = edges.shuffled()

    def plan(backward: bool):
        made = module.SparseTensor(row=index[1], col=index[0], sparse_sizes=(edges.num_dst, edges.num_src))
        return made.fill_cache_() if backward else made.csr()

    return plan if module else None


def _torch_sparse(edges: Edges, reduce: str, weighted: bool) -> Peer:
    module, reason = load("torch_sparse")
    if module is None:
        return Peer("torch_sparse", None, reason=reason)
    matrix = _sparse_tensor(edges)
    value = (lambda w: matrix.set_value(w, layout="coo")) if weighted else (lambda w: matrix)
    return Peer("torch_sparse", lambda x, w: module.matmul(value(w), x, reduce=reduce), torch_sparse_plan(edges))


@lru_cache(maxsize=2)
def dgl_graph(edges: Edges):
    graph = _make_dgl(edges, torch.stack([edges.src, edges.dst]))
    graph.create_formats_()
    return graph


def _make_dgl(edges: Edges, index: Tensor):
    sizes = {"u": edges.num_src, "v": edges.num_dst}
    return load("dgl")[0].heterograph({("u", "e", "v"): (index[0], index[1])}, num_nodes_dict=sizes)


def dgl_cached(edges: Edges) -> tuple[Any, Any, Callable[[bool], object] | None, str]:
    """(module, graph with all its formats, plan, ""), or three times None and the reason."""
    module, reason = load("dgl")
    if module is None:
        return None, None, None, reason
    try:
        return module, dgl_graph(edges), dgl_plan(edges), ""
    except Exception as error:  # a CPU build asked for a GPU
        return None, None, None, f"failed: {type(error).__name__}"


def dgl_plan(edges: Edges) -> Callable[[bool], object] | None:
    index = edges.shuffled()

    def plan(backward: bool):
        graph = _make_dgl(edges, index)
        if not backward:
            return graph.formats("csc")
        graph.create_formats_()
        return graph

    return plan if load("dgl")[0] else None


def _dgl(edges: Edges, reduce: str, weighted: bool) -> Peer:
    module, graph, plan, reason = dgl_cached(edges)
    if module is None:
        return Peer("DGL", None, reason=reason)
    op = getattr(module.ops, f"{'u_mul_e' if weighted else 'copy_u'}_{reduce}")
    forward = (lambda x, w: op(graph, x, w[:, None])) if weighted else (lambda x, w: op(graph, x))
    return Peer("DGL", forward, plan)


def _cupyx(edges: Edges, reduce: str, weighted: bool) -> Peer:
    """Forward only."""
    module, reason = load("cupyx")
    if module is None or reduce not in ("sum", "mean") or weighted:
        return Peer("cupyx", None, reason=reason or NO_SUCH)
    cupy = importlib.import_module("cupy")
    sparse = importlib.import_module("cupyx.scipy.sparse")
    m = _csr(edges, reduce == "mean")
    parts = tuple(cupy.from_dlpack(t) for t in (m.values(), m.col_indices(), m.crow_indices()))
    matrix = sparse.csr_matrix(parts, shape=tuple(m.shape))
    return Peer("cupyx", lambda x, w: torch.from_dlpack(matrix @ cupy.from_dlpack(x.detach())))
