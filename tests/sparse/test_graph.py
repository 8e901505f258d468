"""Graph: construction from everything, structure, reversal, copies; and that it owns its memory."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import scipy.sparse
import torch
from cases import INTEGERS, generator, random_coo, to_csr, values
from compare import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import Graph, sddmm, spmm
from torch import Tensor

NUM_SRC, NUM_DST, EDGES = 7, 6, 16
COO = random_coo(NUM_SRC, NUM_DST, EDGES, seed=3)


def consistent(graph: Graph, coo: Tensor) -> None:
    """Structure and reversed structure describe ``coo`` in the caller's order."""
    rowptr, col, eid = to_csr(coo, graph.num_dst)
    assert_same(graph.rowptr.long(), rowptr)
    assert_same(graph.col.long(), col)
    if graph.eid is None:
        assert (coo[1].diff() >= 0).all()
    else:
        assert_same(graph.eid.long(), eid)
    colptr, row_t, eid_t = graph.reversed_structure
    assert_same(colptr.long(), torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(coo[0], minlength=graph.num_src).cumsum(0)]))
    assert_same(coo[1][eid_t.long()], row_t.long())
    assert (coo[0][eid_t.long()].diff() >= 0).all()
    assert sorted(eid_t.tolist()) == list(range(coo.shape[1]))
    assert_same(graph.edge_index().long(), coo)
    assert_same(graph.in_degrees().long(), torch.bincount(coo[1], minlength=graph.num_dst))
    assert_same(graph.out_degrees().long(), torch.bincount(coo[0], minlength=graph.num_src))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_from_coo(isa: str, dtype: torch.dtype) -> None:
    ordered = COO[:, torch.sort(COO[1], stable=True).indices]
    for coo in (COO, ordered):
        graph = Graph(coo.to(dtype), num_src=NUM_SRC, num_dst=NUM_DST)
        assert (graph.num_src, graph.num_dst, graph.num_edges) == (NUM_SRC, NUM_DST, EDGES)
        assert graph.rowptr.dtype == graph.col.dtype == torch.int32
        consistent(graph, coo)
    assert Graph(ordered, num_nodes=7).eid is None


def test_sizes() -> None:
    square = Graph(torch.tensor([[0, 4], [2, 1]]))
    assert (square.num_src, square.num_dst) == (5, 5)
    assert (Graph(torch.tensor([[0, 4], [2, 1]]), num_src=9).num_dst) == 3
    assert (Graph(torch.tensor([[0, 4], [2, 1]]), num_dst=9).num_src) == 5
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64))
    assert (empty.num_src, empty.num_dst, empty.num_edges) == (0, 0, 0)
    consistent(empty, torch.zeros(2, 0, dtype=torch.int64))
    lonely = Graph(torch.zeros(2, 0, dtype=torch.int32), num_nodes=4)
    assert lonely.in_degrees().tolist() == lonely.out_degrees().tolist() == [0] * 4
    assert repr(square) == "Graph(num_src=5, num_dst=5, num_edges=2, device=cpu)"


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_from_csr(dtype: torch.dtype) -> None:
    rowptr, col, _ = to_csr(COO, NUM_DST, dtype)
    graph = Graph.from_csr(rowptr, col, NUM_SRC)
    rows = torch.repeat_interleave(torch.arange(NUM_DST), rowptr.diff().long())
    consistent(graph, torch.stack([col.long(), rows]))
    assert Graph.from_csr(rowptr, col).num_src == int(col.max()) + 1


@pytest.mark.parametrize("layout", ["coo", "uncoalesced", "csr", "csc"])
def test_from_torch_sparse(layout: str) -> None:
    w = values(EDGES)
    coo = torch.sparse_coo_tensor(COO.flip(0), w, (NUM_DST, NUM_SRC))
    matrix = {"coo": coo.coalesce, "uncoalesced": lambda: coo, "csr": coo.to_sparse_csr, "csc": coo.to_sparse_csc}[layout]()
    weights = matrix._values() if layout == "uncoalesced" else matrix.values()
    x = values(NUM_SRC, 3)
    assert_close(spmm(Graph.from_torch_sparse(matrix), x, weights[:, None]), coo.to_dense() @ x, terms=64)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "array"])
def test_from_scipy(layout: str) -> None:
    w = values(EDGES)
    coo = scipy.sparse.coo_matrix((w.numpy(), (COO[1].numpy(), COO[0].numpy())), shape=(NUM_DST, NUM_SRC))
    matrix = {"coo": lambda: coo, "csr": coo.tocsr, "csc": coo.tocsc, "array": lambda: scipy.sparse.csr_array(coo)}[layout]()
    data = torch.as_tensor(coo.data if layout == "coo" else matrix.tocsr().data)
    x = values(NUM_SRC, 3)
    assert_close(spmm(Graph.from_scipy(matrix), x, data[:, None]), torch.as_tensor(coo.toarray()) @ x, terms=64)


def test_reverse() -> None:
    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    back = graph.reverse()
    assert (back.num_src, back.num_dst) == (NUM_DST, NUM_SRC)
    x, w = values(NUM_DST, 3), values(EDGES, 1, seed=1)
    again = Graph(COO.flip(0), num_src=NUM_DST, num_dst=NUM_SRC)
    assert_close(spmm(back, x, w), spmm(again, x, w), terms=64)
    assert_same(sddmm(back, x, values(NUM_SRC, 3)), sddmm(again, x, values(NUM_SRC, 3)))
    assert_same(back.reverse().rowptr, graph.rowptr)
    assert_same(back.reverse().edge_index(), graph.edge_index())
    leaf = x.clone().requires_grad_()
    spmm(back, leaf, w).sum().backward()
    assert_close(leaf.grad, spmm(graph, torch.ones(NUM_SRC, 3, dtype=torch.float64), w), terms=64)


@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_copies(how: str) -> None:
    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    graph.out_degrees()
    other = {"pickle": lambda g: pickle.loads(pickle.dumps(g)), "copy": copy.copy, "deepcopy": copy.deepcopy}[how](graph)
    consistent(other, COO)
    assert repr(other) == repr(graph)
    assert_same(spmm(other, values(NUM_SRC, 2)), spmm(graph, values(NUM_SRC, 2)))


def test_to() -> None:
    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    assert graph.to("cpu") is graph
    meta = graph.to("meta")
    assert meta.device.type == "meta" and meta.num_edges == EDGES and graph.device.type == "cpu"


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_structure_is_not_shared_with_the_caller(dtype: torch.dtype) -> None:
    """Writing to the arguments after the checks must not unsettle them."""
    ordered = COO[:, torch.sort(COO[1], stable=True).indices].to(dtype)
    rowptr, col, _ = to_csr(COO, NUM_DST, dtype)
    for make, tensors in ((lambda: Graph(ordered, num_nodes=7), [ordered]), (lambda: Graph.from_csr(rowptr, col, NUM_SRC), [rowptr, col])):
        graph = make()
        before = [t.clone() for t in (graph.rowptr, graph.col)]
        for t in tensors:
            t.fill_(10**6)
        assert_same(graph.rowptr, before[0])
        assert_same(graph.col, before[1])


@pytest.mark.parametrize("degrees", [Graph.in_degrees, Graph.out_degrees])
def test_degrees_are_the_callers_own(degrees: Callable) -> None:
    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    degrees(graph).fill_(10**6)
    consistent(graph, COO)


def test_noncontiguous_and_expanded_indices() -> None:
    strided = torch.stack([COO, COO], 2)[:, :, 0]
    assert not strided.is_contiguous()
    consistent(Graph(strided, num_src=NUM_SRC, num_dst=NUM_DST), COO)
    expanded = torch.tensor([[1], [2]]).expand(2, 5)
    consistent(Graph(expanded, num_nodes=3), expanded)
    consistent(Graph(COO.t().contiguous().t(), num_src=NUM_SRC, num_dst=NUM_DST), COO)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 2**16))
def test_any_graph(num_src: int, num_dst: int, edges: int, seed: int) -> None:
    rng = generator(seed)
    coo = torch.stack([torch.randint(num_src, (edges,), generator=rng), torch.randint(num_dst, (edges,), generator=rng)])
    consistent(Graph(coo, num_src=num_src, num_dst=num_dst), coo)


def test_caches_built_in_inference_mode_serve_training() -> None:
    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    with torch.inference_mode():
        graph.out_degrees(), graph.in_degrees(), graph.reverse()
        spmm(graph, torch.ones(NUM_SRC, 3, 11), torch.ones(EDGES, 3, 1))
    x = torch.ones(NUM_SRC, 3, 11, requires_grad=True)
    e = torch.ones(EDGES, 3, 1, requires_grad=True)
    for reduce in ("sum", "mean", "max", "var", "logsumexp"):
        spmm(graph, x, e, reduce=reduce).nan_to_num(0, 0, 0).sum().backward()


def test_caches_do_not_remember_the_mode_they_were_built_in() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    graph = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
    call = lambda d: spmm(graph, torch.ones(NUM_SRC, 3, d, device="cpu"), torch.ones(EDGES, 3, 1, device="cpu"))
    with torch.device("meta"):
        assert call(13).device.type == "cpu"
    with FakeTensorMode(allow_non_fake_inputs=True):
        call(14)
    for d in (13, 14):
        assert type(call(d)) is Tensor and call(d).device.type == "cpu"
        assert call(d).sum() == 3 * d * EDGES
