"""Bad input: every item has a stated exception whose message names the operator and the argument, and changes nothing.

Stated outcomes without an exception: zero edges, nodes or features give empty or filled results; NaN and infinities propagate;
non-contiguous and expanded inputs are read as they look; an integer tensor cannot require a gradient in torch itself.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pytest
import structops
import torch
from cases import values
from compare import assert_close, assert_same
from structops import (
    Graph,
    ScatterPlan,
    scatter_reduce,
    scatter_softmax,
    sddmm,
    segment_gather,
    segment_reduce,
    segment_softmax,
    spmm,
)  # fmt: skip

BIG = 2**31
i = torch.tensor
COO = i([[0, 1, 2, 0], [1, 1, 0, 2]])
GRAPH = Graph(COO, num_src=3, num_dst=4)
SRC = values(5, 2, dtype=torch.float32)
PTR = i([0, 2, 2, 5])
INDEX = i([0, 1, 1, 3, 0])
X, EDGE = values(3, 2, dtype=torch.float32), values(4, 2, dtype=torch.float32)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


# name: (call, exception, what the message must hold)
Case = tuple[Callable, type[Exception] | tuple, str]
SEGMENT: dict[str, Case] = {}
for name, fn in (("segment_reduce", segment_reduce), ("segment_softmax", segment_softmax)):
    SEGMENT |= {
        f"{name} indptr decreasing": (lambda fn=fn: fn(SRC, i([0, 3, 2, 5])), ValueError, "indptr"),
        f"{name} indptr negative": (lambda fn=fn: fn(SRC, i([-1, 2, 5])), ValueError, "indptr"),
        f"{name} indptr not from 0": (lambda fn=fn: fn(SRC, i([1, 2, 5])), ValueError, "indptr"),
        f"{name} indptr too short": (lambda fn=fn: fn(SRC, i([0, 2, 4])), ValueError, "indptr"),
        f"{name} indptr past the end": (lambda fn=fn: fn(SRC, i([0, 2, 6])), ValueError, "indptr"),
        f"{name} indptr past 2^31": (lambda fn=fn: fn(SRC, i([0, 2, BIG])), ValueError, "indptr"),
        f"{name} indptr int32 wraps": (lambda fn=fn: fn(SRC, i([0, BIG - 1, 5], dtype=torch.int32)), ValueError, "indptr"),
        f"{name} indptr empty": (lambda fn=fn: fn(SRC, PTR[:0]), ValueError, "indptr"),
        f"{name} indptr of two dimensions": (lambda fn=fn: fn(SRC, PTR[None]), ValueError, "indptr"),
        f"{name} indptr scalar": (lambda fn=fn: fn(SRC, i(0)), ValueError, "indptr"),
        f"{name} indptr float": (lambda fn=fn: fn(SRC, PTR.float()), TypeError, "indptr"),
        f"{name} indptr int16": (lambda fn=fn: fn(SRC, PTR.short()), TypeError, "indptr"),
        f"{name} indptr bool": (lambda fn=fn: fn(SRC, PTR.bool()), TypeError, "indptr"),
        f"{name} indptr list": (lambda fn=fn: fn(SRC, [0, 5]), TypeError, "indptr"),
        f"{name} indptr NumPy": (lambda fn=fn: fn(SRC, PTR.numpy()), TypeError, "indptr"),
        f"{name} indptr None": (lambda fn=fn: fn(SRC, None), TypeError, "indptr"),
        f"{name} indptr on another device": (lambda fn=fn: fn(SRC, PTR.to("meta")), (ValueError, NotImplementedError), "indptr"),
        f"{name} src on another device": (lambda fn=fn: fn(meta(5, 2), PTR), ValueError, "indptr on meta"),
        f"{name} all on meta": (lambda fn=fn: fn(meta(5, 2), PTR.to("meta")), NotImplementedError, "indptr"),
        f"{name} src NumPy": (lambda fn=fn: fn(SRC.numpy(), PTR), TypeError, "src"),
        f"{name} src bool": (lambda fn=fn: fn(SRC.bool(), PTR), TypeError, "src"),
        f"{name} src complex": (lambda fn=fn: fn(SRC.to(torch.complex64), PTR), TypeError, "src"),
        f"{name} src float8": (lambda fn=fn: fn(SRC.to(torch.float8_e4m3fn), PTR), TypeError, "src"),
        f"{name} src sparse": (lambda fn=fn: fn(SRC.to_sparse(), PTR), TypeError, "src"),
        f"{name} src scalar": (lambda fn=fn: fn(i(1.0), PTR), ValueError, "dimension"),
        f"{name} dim out of range": (lambda fn=fn: fn(SRC, PTR, dim=2), IndexError, "dim"),
        f"{name} dim too negative": (lambda fn=fn: fn(SRC, PTR, dim=-3), IndexError, "dim"),
        f"{name} dim float": (lambda fn=fn: fn(SRC, PTR, dim=0.0), TypeError, "dim"),
        f"{name} dim None": (lambda fn=fn: fn(SRC, PTR, dim=None), TypeError, "dim"),
        f"{name} wrong axis": (lambda fn=fn: fn(SRC, PTR, dim=1), ValueError, "indptr"),
    }  # fmt: skip
SEGMENT |= {
    "softmax of integers": (lambda: segment_softmax(SRC.int(), PTR), TypeError, "src"),
    "softmax log": (lambda: segment_softmax(SRC, PTR, log="no"), TypeError, "log"),
    "var of integers": (lambda: segment_reduce(SRC.int(), PTR, "var"), TypeError, "src"),
    "logsumexp of integers": (lambda: segment_reduce(SRC.int(), PTR, "logsumexp"), TypeError, "src"),
    "reduce unknown": (lambda: segment_reduce(SRC, PTR, "median"), ValueError, "reduce"),
    "reduce None": (lambda: segment_reduce(SRC, PTR, None), ValueError, "reduce"),
    "reduce list": (lambda: segment_reduce(SRC, PTR, ["sum"]), ValueError, "reduce"),
    "return_arg of sum": (lambda: segment_reduce(SRC, PTR, "sum", return_arg=True), ValueError, "return_arg"),
    "return_arg str": (lambda: segment_reduce(SRC, PTR, "max", return_arg="yes"), TypeError, "return_arg"),
    "skip_nan str": (lambda: segment_reduce(SRC, PTR, "max", skip_nan="yes"), TypeError, "skip_nan"),
    "unbiased None": (lambda: segment_reduce(SRC, PTR, "var", unbiased=None), TypeError, "unbiased"),
    "fill_value str": (lambda: segment_reduce(SRC, PTR, fill_value="0"), TypeError, "fill_value"),
    "fill_value bool": (lambda: segment_reduce(SRC, PTR, fill_value=True), TypeError, "fill_value"),
    "fill_value huge": (lambda: segment_reduce(SRC, PTR, fill_value=10**400), ValueError, "fill_value"),
    "fill_value inf for integers": (lambda: segment_reduce(SRC.int(), PTR, fill_value=float("inf")), ValueError, "fill_value"),
    "fill_value NaN for integers": (lambda: segment_reduce(SRC.int(), PTR, fill_value=float("nan")), ValueError, "fill_value"),
    "fill_value fraction for integers": (lambda: segment_reduce(SRC.int(), PTR, fill_value=0.5), ValueError, "fill_value"),
    "fill_value beyond int8": (lambda: segment_reduce(SRC.to(torch.int8), PTR, fill_value=200), ValueError, "fill_value"),
    "gather indptr of wrong length": (lambda: segment_gather(SRC, PTR), ValueError, "indptr"),
    "gather indptr decreasing": (lambda: segment_gather(SRC, i([0, 2, 1, 3, 3, 4])), ValueError, "indptr"),
    "gather indptr negative": (lambda: segment_gather(SRC[:1], i([-2, -1])), ValueError, "indptr"),
    "gather indptr float": (lambda: segment_gather(SRC[:1], i([0.0, 1.0])), TypeError, "indptr"),
    "gather on meta": (lambda: segment_gather(meta(1, 2), i([0, 2]).to("meta")), NotImplementedError, "indptr"),
    "gather past memory": (lambda: segment_gather(SRC[:1], i([0, 2**61])), ValueError, "a result below"),
}  # fmt: skip

SCATTER: dict[str, Case] = {}
for name, fn in (
    ("scatter_reduce", lambda src, index, n=None, **k: scatter_reduce(src, index, n, **k)),
    ("scatter_reduce max", lambda src, index, n=None, **k: scatter_reduce(src, index, n, "max", **k)),
    ("scatter_reduce prod", lambda src, index, n=None, **k: scatter_reduce(src, index, n, "prod", **k)),
    ("scatter_reduce std", lambda src, index, n=None, **k: scatter_reduce(src, index, n, "std", **k)),
    ("scatter_softmax", lambda src, index, n=None, **k: scatter_softmax(src, index, n, **k)),
):
    SCATTER |= {
        f"{name} index negative": (lambda fn=fn: fn(SRC, i([0, 1, -1, 3, 0]), 4), IndexError, "index"),
        f"{name} index negative without dim_size": (lambda fn=fn: fn(SRC, i([0, 1, -5, 3, 0])), IndexError, "index"),
        f"{name} index too large": (lambda fn=fn: fn(SRC, INDEX, 3), IndexError, "index.*dim_size"),
        f"{name} index past 2^31": (lambda fn=fn: fn(SRC, i([0, 1, BIG, 3, 0]), 4), IndexError, "index"),
        f"{name} index at the int64 limit": (lambda fn=fn: fn(SRC, i([0, 1, 2**63 - 1, 3, 0])), (IndexError, ValueError), "index"),
        f"{name} index too short": (lambda fn=fn: fn(SRC, INDEX[:4], 4), ValueError, "index"),
        f"{name} index float": (lambda fn=fn: fn(SRC, INDEX.float(), 4), TypeError, "index"),
        f"{name} index uint8": (lambda fn=fn: fn(SRC, INDEX.byte(), 4), TypeError, "index"),
        f"{name} index list": (lambda fn=fn: fn(SRC, [0, 1, 1, 3, 0], 4), TypeError, "index"),
        f"{name} index on another device": (lambda fn=fn: fn(SRC, INDEX.to("meta"), 4), (ValueError, NotImplementedError), "index"),
        f"{name} src on another device": (lambda fn=fn: fn(meta(5, 2), INDEX, 4), ValueError, "index"),
        f"{name} all on meta": (lambda fn=fn: fn(meta(5, 2), INDEX.to("meta"), 4), NotImplementedError, "index"),
        f"{name} dim_size negative": (lambda fn=fn: fn(SRC, INDEX, -1), ValueError, "dim_size"),
        f"{name} dim_size float": (lambda fn=fn: fn(SRC, INDEX, 4.0), TypeError, "dim_size"),
        f"{name} dim_size bool": (lambda fn=fn: fn(SRC, INDEX, True), TypeError, "dim_size"),
        f"{name} dim_size past int64": (lambda fn=fn: fn(SRC, INDEX, 2**63), ValueError, "dim_size"),
        f"{name} dim_size zero": (lambda fn=fn: fn(SRC, INDEX, 0), IndexError, "index"),
        f"{name} src bool": (lambda fn=fn: fn(SRC.bool(), INDEX, 4), TypeError, "src"),
        f"{name} plan of another length": (lambda fn=fn: fn(SRC[:3], ScatterPlan(INDEX)), ValueError, "src with 5 elements"),
        f"{name} plan of another size": (lambda fn=fn: fn(SRC, ScatterPlan(INDEX, 4), 5), ValueError, "dim_size"),
        f"{name} plan on another device": (lambda fn=fn: fn(meta(5, 2), ScatterPlan(INDEX, 4)), ValueError, "src on cpu"),
        f"{name} dim": (lambda fn=fn: fn(SRC, INDEX, 4, dim=3), IndexError, "dim"),
    }  # fmt: skip
SCATTER |= {
    "result past 2^62 bytes": (lambda: scatter_reduce(torch.ones(1, 1024), i([0]), 2**60), ValueError, "a result below"),
    "index that does not broadcast": (lambda: scatter_reduce(SRC, INDEX[:, None].expand(5, 3), 4), ValueError, "index"),
    "index of too many dimensions": (lambda: scatter_reduce(SRC, INDEX[:, None, None], 4), ValueError, "index"),
    "elements: index negative": (lambda: scatter_reduce(SRC, -INDEX[:, None], 4), IndexError, "index"),
    "elements: index too large": (lambda: scatter_reduce(SRC, INDEX[:, None].expand(5, 2), 3), IndexError, "index"),
    "return_arg of mean": (lambda: scatter_reduce(SRC, INDEX, 4, "mean", return_arg=True), ValueError, "return_arg"),
    "plan of floats": (lambda: ScatterPlan(INDEX.double()), TypeError, "index"),
    "plan of two dimensions": (lambda: ScatterPlan(INDEX[None]), ValueError, "index"),
    "plan of negatives": (lambda: ScatterPlan(-INDEX), IndexError, "index"),
    "plan too small": (lambda: ScatterPlan(INDEX, 3), IndexError, "index"),
    "softmax of integers": (lambda: scatter_softmax(SRC.long(), INDEX), TypeError, "src"),
}  # fmt: skip

csr = Graph.from_csr
GRAPHS: dict[str, Case] = {
    "negative source": (lambda: Graph(i([[0, -1], [0, 1]])), IndexError, r"edge_index\[0\]"),
    "negative destination": (lambda: Graph(i([[0, 1], [0, -1]])), IndexError, r"edge_index\[1\]"),
    "source too large": (lambda: Graph(COO, num_src=2, num_dst=4), IndexError, r"edge_index\[0\]"),
    "destination too large": (lambda: Graph(COO, num_src=3, num_dst=2), IndexError, r"edge_index\[1\]"),
    "node too large": (lambda: Graph(COO, num_nodes=2), IndexError, "edge_index"),
    "past 2^31": (lambda: Graph(i([[0, 2**40], [0, 1]]), num_nodes=5), IndexError, "edge_index"),
    "at the int64 limit": (lambda: Graph(i([[2**63 - 1], [0]])), (IndexError, ValueError), r"edge_index\[0\]"),
    "edges that wrap to int32": (lambda: Graph(i([[2**32], [0]]), num_nodes=5), IndexError, "edge_index"),
    "float": (lambda: Graph(COO.float()), TypeError, "edge_index"),
    "list": (lambda: Graph([[0], [0]]), TypeError, "edge_index"),
    "sparse": (lambda: Graph(COO.to_sparse()), TypeError, "edge_index"),
    "vector": (lambda: Graph(COO[0]), ValueError, "edge_index"),
    "three rows": (lambda: Graph(torch.zeros(3, 2, dtype=torch.long)), ValueError, "edge_index"),
    "transposed": (lambda: Graph(COO.t()), ValueError, "edge_index"),
    "meta": (lambda: Graph(COO.to("meta"), num_nodes=3), NotImplementedError, "edge_index"),
    "negative size": (lambda: Graph(COO, num_nodes=-1), ValueError, "num_"),
    "float size": (lambda: Graph(COO, num_nodes=3.0), TypeError, "num_"),
    "both sizes": (lambda: Graph(COO, num_nodes=3, num_src=3), ValueError, "num_nodes"),
    "size past int64": (lambda: Graph(COO, num_nodes=2**63), ValueError, "num_"),
    "size past memory": (lambda: Graph(COO, num_nodes=2**61), ValueError, "a result below"),
    "rowptr decreasing": (lambda: csr(i([0, 3, 2, 4]), i([0, 1, 2, 0])), ValueError, "rowptr"),
    "rowptr too short": (lambda: csr(i([0, 2]), i([0, 1, 2, 0])), ValueError, "rowptr"),
    "rowptr empty": (lambda: csr(i([]).long(), i([0])), ValueError, "rowptr"),
    "rowptr float": (lambda: csr(i([0.0, 1.0]), i([0])), TypeError, "rowptr"),
    "rowptr matrix": (lambda: csr(i([[0, 1]]), i([0])), ValueError, "rowptr"),
    "col negative": (lambda: csr(i([0, 1]), i([-1])), IndexError, "col"),
    "col too large": (lambda: csr(i([0, 1]), i([3]), 3), IndexError, "col"),
    "col matrix": (lambda: csr(i([0, 1]), i([[0]])), ValueError, "col"),
    "col float": (lambda: csr(i([0, 1]), i([0.0])), TypeError, "col"),
    "col on another device": (lambda: csr(i([0, 1]), i([0]).to("meta")), (ValueError, NotImplementedError), "col"),
    "num_src negative": (lambda: csr(i([0, 1]), i([0]), -1), ValueError, "num_src"),
    "torch: dense": (lambda: Graph.from_torch_sparse(SRC), TypeError, "layout"),
    "torch: three dimensions": (lambda: Graph.from_torch_sparse(torch.ones(2, 2, 2).to_sparse()), TypeError, "2-D"),
    "torch: None": (lambda: Graph.from_torch_sparse(None), TypeError, "2-D"),
    "scipy: dense": (lambda: Graph.from_scipy(np.ones((2, 2))), TypeError, "SciPy"),
}  # fmt: skip

SPMM: dict[str, Case] = {
    "graph missing": (lambda: spmm(COO, X), TypeError, "graph"),
    "no operand": (lambda: spmm(GRAPH), TypeError, "x"),
    "mul without edge": (lambda: spmm(GRAPH, X, None, "mul"), TypeError, "edge"),
    "copy_e without edge": (lambda: spmm(GRAPH, X, None, "copy_e"), TypeError, "edge"),
    "message unknown": (lambda: spmm(GRAPH, X, EDGE, "pow"), ValueError, "message"),
    "reduce unknown": (lambda: spmm(GRAPH, X, EDGE, "mul", "median"), ValueError, "reduce"),
    "x rows": (lambda: spmm(GRAPH, values(4, 2)), ValueError, "x"),
    "x scalar": (lambda: spmm(GRAPH, i(1.0)), ValueError, "x"),
    "edge rows": (lambda: spmm(GRAPH, X, values(5, 2, dtype=torch.float32)), ValueError, "edge"),
    "features": (lambda: spmm(GRAPH, X, values(4, 3, dtype=torch.float32)), ValueError, "features"),
    "x integers": (lambda: spmm(GRAPH, X.int(), reduce="mean"), TypeError, "x"),
    "edge integers": (lambda: spmm(GRAPH, X, EDGE.long()), TypeError, "edge"),
    "x complex": (lambda: spmm(GRAPH, X.to(torch.complex64)), TypeError, "x"),
    "x sparse": (lambda: spmm(GRAPH, X.to_sparse()), TypeError, "x"),
    "x NumPy": (lambda: spmm(GRAPH, X.numpy()), TypeError, "x"),
    "x on another device": (lambda: spmm(GRAPH, meta(3, 2)), ValueError, "x"),
    "edge on another device": (lambda: spmm(GRAPH, X, meta(4, 2)), ValueError, "edge"),
    "graph on another device": (lambda: spmm(GRAPH.to("meta"), X), ValueError, "x"),
    "batch_dims negative": (lambda: spmm(GRAPH, X, batch_dims=-1), ValueError, "batch_dims"),
    "batch_dims float": (lambda: spmm(GRAPH, X, batch_dims=1.0), TypeError, "batch_dims"),
    "batch_dims too many": (lambda: spmm(GRAPH, X, batch_dims=2), ValueError, "x"),
    "batches differ": (lambda: spmm(GRAPH, values(2, 3, 4), values(3, 4, 4), batch_dims=1), ValueError, "edge"),
    "return_arg of sum": (lambda: spmm(GRAPH, X, return_arg=True), ValueError, "return_arg"),
    "return_arg str": (lambda: spmm(GRAPH, X, reduce="max", return_arg="x"), TypeError, "return_arg"),
    "skip_nan int": (lambda: spmm(GRAPH, X, reduce="max", skip_nan=1), TypeError, "skip_nan"),
    "unbiased str": (lambda: spmm(GRAPH, X, reduce="var", unbiased="x"), TypeError, "unbiased"),
    "fill_value tensor": (lambda: spmm(GRAPH, X, fill_value=i(1.0)), TypeError, "fill_value"),
    "sddmm graph": (lambda: sddmm(COO, X, X), TypeError, "graph"),
    "sddmm rhs missing": (lambda: sddmm(GRAPH, X), TypeError, "rhs"),
    "sddmm lhs missing": (lambda: sddmm(GRAPH, None, X), TypeError, "lhs"),
    "sddmm op": (lambda: sddmm(GRAPH, X, X, "pow"), ValueError, "op"),
    "sddmm lhs_target": (lambda: sddmm(GRAPH, X, X, "add", "w"), ValueError, "lhs_target"),
    "sddmm rhs_target": (lambda: sddmm(GRAPH, X, X, "add", "u", None), ValueError, "rhs_target"),
    "sddmm lhs rows": (lambda: sddmm(GRAPH, EDGE, EDGE, "add"), ValueError, "lhs"),
    "sddmm rhs rows": (lambda: sddmm(GRAPH, X, X, "add"), ValueError, "rhs"),
    "sddmm features": (lambda: sddmm(GRAPH, X, values(4, 3), "add"), ValueError, "features"),
    "sddmm dot of vectors": (lambda: sddmm(GRAPH, X[:, 0], EDGE[:, 0]), ValueError, "feature"),
    "sddmm integers": (lambda: sddmm(GRAPH, X.int(), EDGE), TypeError, "lhs"),
    "sddmm on another device": (lambda: sddmm(GRAPH, X, meta(4, 2)), ValueError, "rhs"),
    "sddmm batches differ": (lambda: sddmm(GRAPH, values(2, 3, 4), values(3, 4, 4), batch_dims=1), ValueError, "rhs"),
    "sddmm batch_dims": (lambda: sddmm(GRAPH, X, EDGE, batch_dims=None), TypeError, "batch_dims"),
}  # fmt: skip

CASES = {f"{group}: {k}": v for group, cases in dict(segment=SEGMENT, scatter=SCATTER, graph=GRAPHS, spmm=SPMM).items() for k, v in cases.items()}


@pytest.mark.parametrize("name", CASES)
def test_stated_exception(name: str) -> None:
    call, exception, match = CASES[name]
    shared = (SRC, PTR, INDEX, COO, X, EDGE)
    before = [t.clone() for t in shared]
    with pytest.raises(exception, match=match) as caught:
        call()
    assert len(str(caught.value)) < 400 and "API call failed" not in str(caught.value)
    for t, b in zip(shared, before, strict=True):
        assert torch.equal(t, b)


def test_every_message_starts_with_the_operator() -> None:
    for name, (call, _, _) in CASES.items():
        with pytest.raises(Exception) as caught:
            call()
        assert str(caught.value).split(":")[0].split(".")[0] in (
            "segment_reduce", "segment_softmax", "segment_gather", "scatter_reduce", "scatter_softmax", "ScatterPlan", "Graph",
            "spmm", "sddmm",
        ), (name, caught.value)  # fmt: skip


def test_integers_cannot_require_a_gradient() -> None:
    """torch refuses before structops could be asked."""
    with pytest.raises(RuntimeError, match="floating point"):
        i([1, 2]).requires_grad_()
    out = segment_reduce(i([1, 2, 3]), i([0, 1, 3]))
    assert not out.requires_grad


def test_expanded_input_is_read_not_copied_out_of_order() -> None:
    wide = values(1, 2).expand(5, 2)
    assert_close(segment_reduce(wide, PTR), PTR.diff().double()[:, None] * wide[0], terms=5)
    same = i([2]).expand(5)
    assert_close(scatter_reduce(wide, same, 3), torch.stack([torch.zeros(2), torch.zeros(2), 5 * wide[0]]).double(), terms=5)
    assert_close(spmm(GRAPH, values(1, 2).expand(3, 2)), GRAPH.in_degrees().double()[:, None] * values(1, 2), terms=5)


def test_huge_stride_zero_index_is_refused_before_it_is_materialised() -> None:
    """2^33 elements by expansion: the length check must come before any copy."""
    long = i([0]).expand(2**33)
    for call in (lambda: scatter_reduce(SRC, long), lambda: scatter_softmax(SRC, ScatterPlan(INDEX[:3])), lambda: segment_gather(SRC, long)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError, match="x of shape"):
        spmm(GRAPH, torch.ones(1, 1).expand(2**33, 1))


def test_int32_structure_of_a_large_index_space() -> None:
    """Sizes beyond 2^31 choose int64, sizes below int32; values decide nothing."""
    assert structops.graph._index_type(2**31 - 2, 5) == torch.int32
    assert structops.graph._index_type(2**31, 5) == torch.int64
    assert structops.graph._index_type(5, 2**31 - 1) == torch.int64
    wide = Graph(i([[2**33], [0]]), num_src=2**34, num_dst=1)  # the sources of a graph take no memory until reversed
    assert wide.col.dtype == torch.int64 and wide.col.tolist() == [2**33]


def test_zero_edges_nodes_and_features() -> None:
    none = Graph(torch.zeros(2, 0, dtype=torch.long), num_src=3, num_dst=2)
    nodeless = Graph(torch.zeros(2, 0, dtype=torch.long))
    for reduce, fill in dict(sum=0.0, mean=0.0, min=0.0, max=0.0, prod=1.0, var=0.0, std=0.0, logsumexp=float("-inf")).items():
        x, e = values(3, 2).requires_grad_(), values(0, 2).requires_grad_()
        out = spmm(none, x, e, reduce=reduce)
        assert_same(out.detach(), torch.full((2, 2), fill, dtype=torch.float64))
        out.nan_to_num(0, 0, 0).sum().backward()
        assert_same(x.grad, torch.zeros(3, 2, dtype=torch.float64))
        assert e.grad.shape == (0, 2)
        assert spmm(nodeless, values(0, 2), reduce=reduce).shape == (0, 2)
        x = values(3, 0).requires_grad_()
        out = spmm(GRAPH, x, values(4, 1), reduce=reduce)
        assert out.shape == (4, 0)
        out.sum().backward()
        assert x.grad.shape == (3, 0)
        assert spmm(GRAPH, values(0, 3, 2), batch_dims=1, reduce=reduce).shape == (0, 4, 2)


MEMORY = """
    import resource, torch, structops
    limit = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    out, index = torch.ones(1, dtype=torch.bfloat16), torch.tensor([0])
    for call in (
        lambda: structops.scatter_reduce(out, index, 2**30),            # 2 GiB result, 4 GiB accumulator
        lambda: structops.scatter_reduce(out, index, 2**30, "max"),
        lambda: structops.scatter_reduce(out.float(), index, 7 << 27, "mean"),
        lambda: structops.scatter_reduce(out, index, 2**32),
        lambda: structops.ScatterPlan(index, 2**28 * 3),
        lambda: structops.Graph(torch.zeros(2, 1, dtype=torch.long), num_nodes=2**30),
        lambda: structops.segment_gather(out, torch.tensor([0, 2**33])),
    ):
        try:
            call()
            print("ok", end=" ")
        except (RuntimeError, MemoryError, ValueError) as e:
            print(type(e).__name__, end=" ")
"""


def test_running_out_of_memory_is_an_exception() -> None:
    """Under a 6 GiB limit: results and scratch that do not fit end in a Python exception, never in a crash."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(MEMORY)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])
    assert len(done.stdout.split()) == 7, done.stdout


def test_raw_operators_check_what_they_can() -> None:
    """The backstop for callers of torch.ops: RuntimeError, not a crash."""
    ops = torch.ops.structops
    ptr, x = i([0, 2, 5]), torch.ones(5, 2)
    none = (None,) * 3
    bad = {
        "spmm: no operand": lambda: ops.spmm(None, None, ptr, None, None, *none, None, 0, 0, 0, 0.0, False, True),
        "spmm: message code": lambda: ops.spmm(x, None, ptr, None, None, *none, None, 9, 0, 0, 0.0, False, True),
        "spmm: reduce code": lambda: ops.spmm(x, None, ptr, None, None, *none, None, 0, 8, 0, 0.0, False, True),
        "spmm: arg code": lambda: ops.spmm(x, None, ptr, None, None, *none, None, 0, 0, -1, 0.0, False, True),
        "spmm: dtypes": lambda: ops.spmm(x, x.double(), ptr, None, None, *none, None, 4, 0, 0, 0.0, False, True),
        "spmm: integers with mean": lambda: ops.spmm(x.int(), None, ptr, None, None, *none, None, 0, 1, 0, 0.0, False, True),
        "spmm: rank": lambda: ops.spmm(x[None, None], None, ptr, None, None, *none, None, 0, 0, 0, 0.0, False, True),
        "spmm: features": lambda: ops.spmm(x, torch.ones(5, 3), ptr, None, None, *none, None, 4, 0, 0, 0.0, False, True),
        "spmm: strided": lambda: ops.spmm(torch.ones(2, 5).t(), None, ptr, None, None, *none, None, 0, 0, 0, 0.0, False, True),
        "spmm: index dtypes": lambda: ops.spmm(x, None, ptr, i([0] * 5).int(), None, *none, None, 0, 0, 0, 0.0, False, True),
        "spmm: float indptr": lambda: ops.spmm(x, None, ptr.float(), None, None, *none, None, 0, 0, 0, 0.0, False, True),
        "spmm: empty rowptr": lambda: ops.spmm(x, None, ptr[:0], None, None, *none, None, 0, 0, 0, 0.0, False, True),
        "sddmm: no rhs": lambda: ops.sddmm(x, None, ptr, None, None, *none, None, 1, 1, 1, 5, 2, 1),
        "sddmm: features": lambda: ops.sddmm(x, x, ptr, None, None, *none, None, 1, 1, 1, 5, 3, 1),
        "sddmm: empty rowptr": lambda: ops.sddmm(x, x, ptr[:0], None, None, *none, None, 1, 2, 2, 5, 2, 1),
        "softmax: integers": lambda: ops.segment_softmax(x.int(), ptr, None, False),
        "softmax: empty rowptr": lambda: ops.segment_softmax(x, ptr[:0], None, False),
        "softmax_bwd: shapes": lambda: ops.segment_softmax_bwd(x, x[:3], ptr, None, False),
        "scatter: out of range": lambda: ops.scatter(x, i([0, 1, 2, 3, 9]), 4, 0, False, 0.0, False),
        "scatter: negative": lambda: ops.scatter(x, i([0, 1, 2, 3, -1]), 4, 0, False, 0.0, False),
        "scatter: length": lambda: ops.scatter(x, i([0, 1]), 4, 0, False, 0.0, False),
        "scatter: dim_size": lambda: ops.scatter(x, INDEX, -4, 0, False, 0.0, False),
        "select: shapes": lambda: ops.select(x, i([[0]])),
        "select_bwd: rows": lambda: ops.select_bwd(x, torch.zeros(5, 2, dtype=torch.long), -1),
        "csr_build: groups": lambda: ops.csr_build(INDEX, -1),
        "csr_build: range": lambda: ops.csr_build(INDEX, 2),
        "csr_from_coo: range": lambda: ops.csr_from_coo(INDEX, INDEX, 2, False),
        "csr_from_coo: rows": lambda: ops.csr_from_coo(INDEX, INDEX, -1, False),
        "csr_from_coo: lengths": lambda: ops.csr_from_coo(INDEX, INDEX[:3], 9, False),
        "csr_from_coo: dtypes": lambda: ops.csr_from_coo(INDEX, INDEX.int(), 9, False),
        "csr_from_coo: int32": lambda: ops.csr_from_coo(INDEX, INDEX, 2**31, False),
        "csr_transpose: range": lambda: ops.csr_transpose(ptr, INDEX, None, 2),
        "csr_transpose: columns": lambda: ops.csr_transpose(ptr, INDEX, None, -1),
        "csr_transpose: rowptr": lambda: ops.csr_transpose(ptr[:0], INDEX, None, 9),
        "csr_transpose: dtypes": lambda: ops.csr_transpose(ptr.int(), INDEX, None, 9),
        "csr_transpose: eid": lambda: ops.csr_transpose(ptr, INDEX, INDEX[:3], 9),
        "index_range: floats": lambda: ops.index_range(x),
    }  # fmt: skip
    for name, call in bad.items():
        with pytest.raises(RuntimeError):
            call()
            raise AssertionError(f"{name}: accepted")
