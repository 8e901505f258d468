"""Partitions by METIS: what is asked of them, PyG's cluster loader on them, bad input, and life without pymetis."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from structops.compat import _metis, pyg_lib
from structops.compat import torch_sparse as ts
from torch import Tensor

needs_pymetis = pytest.mark.skipif(not _metis.available(), reason="pymetis is not installed")
SIDE = 12


def grid(directed: bool = False) -> tuple[Tensor, Tensor]:
    """Row pointers and neighbours of a square grid, one way or both ways."""
    nodes = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    right, down = (nodes[:, :-1], nodes[:, 1:]), (nodes[:-1], nodes[1:])
    one = torch.cat([torch.stack([a.flatten(), b.flatten()], 1) for a, b in (right, down)])
    row, col = (one if directed else torch.cat([one, one.flip(1)])).t()
    order = (row * SIDE**2 + col).argsort()
    count = torch.bincount(row, minlength=SIDE**2)
    return torch.cat([count.new_zeros(1), count.cumsum(0)]), col[order]


def cut(ptr: Tensor, col: Tensor, part: Tensor) -> int:
    row = torch.repeat_interleave(torch.arange(len(ptr) - 1), ptr.diff())
    return int((part[row] != part[col]).sum())


@needs_pymetis
@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("parts", [2, 4, 7])
def test_parts_are_balanced_and_hang_together(parts: int, recursive: bool) -> None:
    ptr, col = grid()
    part = _metis.metis("metis", ptr, col, parts, recursive=recursive)
    size = torch.bincount(part, minlength=parts)
    assert len(size) == parts and size.min() > 0.9 * SIDE**2 / parts - 1 and size.max() < 1.1 * SIDE**2 / parts + 1
    # METIS is a heuristic: about as good as stripes, which are best for two parts.
    stripes = torch.arange(SIDE**2) * parts // SIDE**2
    assert cut(ptr, col, part) <= 1.25 * cut(ptr, col, stripes)
    for given in (grid(directed=True), (ptr.int(), col.int())):
        assert torch.equal(_metis.metis("metis", *given, parts, recursive=recursive), part)
    loops = torch.arange(SIDE**2)
    with_loops = torch.cat([torch.cat([col[a:b], i[None]]) for i, a, b in zip(loops, ptr[:-1], ptr[1:], strict=True)])
    assert torch.equal(_metis.metis("metis", ptr + torch.arange(SIDE**2 + 1), with_loops, parts, recursive=recursive), part)


@needs_pymetis
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_weights(dtype: torch.dtype) -> None:
    """Heavy edges stay whole; heavy nodes fill a part by themselves."""
    ptr, col = grid()
    row = torch.repeat_interleave(torch.arange(SIDE**2), ptr.diff())
    heavy = (row // SIDE == col // SIDE).to(dtype) * 1000 + 1  # along rows
    part = _metis.metis("metis", ptr, col, 3, edge_weight=heavy)
    assert all(len(part[r * SIDE : (r + 1) * SIDE].unique()) == 1 for r in range(SIDE))
    weight = torch.ones(SIDE**2, dtype=dtype)
    weight[:SIDE] = SIDE - 1  # half of all there is
    part = _metis.metis("metis", ptr, col, 2, node_weight=weight)
    share = float(weight[part == 0].sum() / weight.sum())
    assert 0.45 < share < 0.55 and abs(float((part == 0).double().mean()) - 0.5) > 0.2
    huge = heavy.double() * 1e12 if dtype.is_floating_point else heavy.long() * (2**31 // 1000)
    part = _metis.metis("metis", ptr, col, 3, edge_weight=huge)
    assert all(len(part[r * SIDE : (r + 1) * SIDE].unique()) == 1 for r in range(SIDE))


def test_trivial_partitions() -> None:
    """One part, as many parts as nodes, no nodes: known without METIS."""
    ptr, col = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0])
    assert _metis.metis("metis", ptr, col, 1).tolist() == [0, 0, 0]
    assert _metis.metis("metis", ptr, col, 3).tolist() == _metis.metis("metis", ptr, col, 9).tolist() == [0, 1, 2]
    assert _metis.metis("metis", ptr[:1], col[:0], 4).tolist() == []


@needs_pymetis
def test_graphs_without_edges() -> None:
    for ptr, col in ((torch.zeros(11, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)), (torch.arange(11), torch.arange(10))):
        assert torch.bincount(_metis.metis("metis", ptr, col, 3)).tolist() == [4, 3, 3]


@needs_pymetis
def test_random_graphs() -> None:
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        N = int(torch.randint(2, 40, (1,), generator=g))
        edges = torch.randint(0, N, (2, int(torch.randint(0, 80, (1,), generator=g))), generator=g)
        count = torch.bincount(edges[0], minlength=N)
        ptr, col = torch.cat([count.new_zeros(1), count.cumsum(0)]), edges[1][edges[0].argsort(stable=True)]
        for parts in (2, 3, max(N - 1, 1)):
            part = _metis.metis("metis", ptr, col, parts, recursive=bool(seed % 2))
            assert part.shape == (N,) and part.min() >= 0 and part.max() < parts


@needs_pymetis
def test_torch_sparse_partition() -> None:
    ptr, col = grid()
    value = torch.arange(1, len(col) + 1).double()
    A = ts.SparseTensor(rowptr=ptr, col=col, value=value, sparse_sizes=(SIDE**2, SIDE**2))
    for kwargs in ({}, {"recursive": True}, {"weighted": True}, {"balance_edge": True}, {"node_weight": torch.arange(SIDE**2) + 1}):
        out, pointers, perm = ts.partition(A, 4, **kwargs)
        assert pointers[0] == 0 and pointers[-1] == SIDE**2 and bool((pointers.diff() > 0).all()) and len(pointers) == 5
        assert torch.equal(perm.sort().values, torch.arange(SIDE**2))
        assert torch.equal(out.to_dense(), A.to_dense()[perm][:, perm])
        assert all(bool((p.diff() > 0).all()) for p in perm.split(pointers.diff().tolist()))
    part = torch.empty(SIDE**2, dtype=torch.int64)
    part[perm] = torch.repeat_interleave(torch.arange(4), pointers.diff())
    given = ptr, col, None, torch.arange(SIDE**2) + 1, 4, False
    assert torch.equal(torch.ops.torch_sparse.partition2(*given), part)
    assert torch.equal(torch.ops.torch_sparse.mt_partition(*given, 2), part)
    assert torch.equal(torch.ops.torch_sparse.partition(ptr, col, None, 4, False), pyg_lib.partition.metis(ptr, col, 4))
    assert torch.equal(torch.ops.pyg.metis(ptr, col, 4), pyg_lib.partition.metis(ptr, col, 4))


LOADER = """
import torch, structops
structops.compat.install("torch_scatter", {library!r})
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData, ClusterLoader
g = torch.Generator().manual_seed(0)
edge_index = torch.randint(0, 60, (2, 300), generator=g)
data = Data(x=torch.arange(60.0)[:, None], edge_index=edge_index, num_nodes=60)
parts = ClusterData(data, num_parts=5, log=False)
assert len(parts) == 5
seen = torch.cat([batch.x for batch in ClusterLoader(parts, batch_size=2)]).flatten().sort().values
assert torch.equal(seen, torch.arange(60.0)), seen
"""


@needs_pymetis
@pytest.mark.parametrize("library", ["torch_sparse", "pyg_lib"])
def test_cluster_loader_of_pyg(library: str) -> None:
    pytest.importorskip("torch_geometric")
    subprocess.run([sys.executable, "-c", LOADER.format(library=library)], check=True, timeout=300)


def test_without_pymetis() -> None:
    code = """
import importlib.util, sys, torch
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pymetis" else found(name, *rest)
from structops.compat import pyg_lib, torch_sparse
assert not hasattr(pyg_lib, "partition")
A = torch_sparse.SparseTensor(row=torch.tensor([0, 1, 2]), col=torch.tensor([1, 2, 0]))
assert A.partition(1)[1].tolist() == [0, 3]
for call in (lambda: A.partition(2), lambda: torch.ops.pyg.metis(torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0]), 2)):
    try:
        call()
    except NotImplementedError as error:
        assert "pip install pymetis" in str(error)
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


PTR, COL = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "num_parts", lambda: _metis.metis("metis", PTR, COL, 0)),
        (TypeError, "num_parts", lambda: _metis.metis("metis", PTR, COL, 2.0)),
        (IndexError, "square", lambda: _metis.metis("metis", PTR, COL + 2, 2)),
        (IndexError, "square", lambda: _metis.metis("metis", PTR, COL - 1, 2)),
        (ValueError, "rowptr", lambda: _metis.metis("metis", torch.tensor([0, 2, 1, 2]), COL, 2)),
        (ValueError, "rowptr", lambda: _metis.metis("metis", PTR, torch.tensor([0]), 2)),
        (TypeError, "rowptr", lambda: _metis.metis("metis", PTR.float(), COL, 2)),
        (ValueError, r"\[3\]", lambda: _metis.metis("metis", PTR, COL, 2, torch.ones(2))),
        (ValueError, "at least 1", lambda: _metis.metis("metis", PTR, COL, 2, torch.tensor([0, 1, 2]))),
        (ValueError, "at least 0", lambda: _metis.metis("metis", PTR, COL, 2, None, torch.tensor([-0.5, 1.0]))),
        (ValueError, "finite", lambda: _metis.metis("metis", PTR, COL, 2, None, torch.tensor([float("nan"), 1.0]))),
        (TypeError, "edge_weight", lambda: _metis.metis("metis", PTR, COL, 2, None, torch.tensor([True, False]))),
    ],
)
def test_bad_input(error: type[Exception], text: str, call) -> None:
    with pytest.raises(error, match=text):
        call()
