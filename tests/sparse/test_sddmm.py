"""sddmm: every op, target pair, broadcast, rank and dtype; derivatives; identities with spmm."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from cases import FEATURES, FLOATS, INTEGERS, random_coo, to_csr, values
from compare import assert_close, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops import Graph, sddmm, spmm
from structops.kernels import codes as C
from structops.kernels.sparse import sddmm_ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

NUM_SRC, NUM_DST, EDGES = 19, 24, 130
OPS = ("dot", "add", "sub", "mul", "div", "copy")
PAIRS = tuple(product("uve", "uve"))
COO = random_coo(NUM_SRC, NUM_DST, EDGES)
ROWS = {"u": NUM_SRC, "v": NUM_DST, "e": EDGES}

raw = torch.ops.structops.sddmm


def call(fn, lhs, rhs, s, op: int, lt: str, rt: str, Fo: int, R: int, bcast=None):
    return fn(lhs, rhs, *s, None, None, None, bcast, op, C.TARGETS[lt], C.TARGETS[rt], EDGES, Fo, R)


@cache
def expectation(lt: str, rt: str, Fl: int, Fr: int, op: int, Fo: int, R: int, permuted: bool, swapped: bool, narrow: bool) -> Tensor:
    dtype = torch.bfloat16 if narrow else torch.float32
    lhs, rhs = values(ROWS[lt], Fl, dtype=dtype), values(ROWS[rt], Fr, dtype=dtype, seed=1)
    rowptr, col, eid = to_csr(COO, NUM_DST)
    bcast = torch.stack([torch.arange(Fo * R), torch.arange(Fo * R).flip(0)]).int() if swapped else None
    return call(sddmm_ref.sddmm, lhs.double(), rhs.double(), (rowptr, col, eid if permuted else None), op, lt, rt, Fo, R, bcast)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", range(5))
def test_raw_elementwise(isa: str, op: int, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (lt, rt) in enumerate(PAIRS):
        rowptr, col, eid = to_csr(COO, NUM_DST, INTEGERS[n % 2])
        for k, F in enumerate(FEATURES[n % 3 :: 3]):
            Fl, Fr = ((F, F), (1, F), (F, 1))[(n + k) % 3]
            lhs, rhs = values(ROWS[lt], Fl, dtype=dtype), values(ROWS[rt], Fr, dtype=dtype, seed=1)
            s = (rowptr, col, eid if k % 2 else None)
            expected = expectation(lt, rt, Fl, Fr, op, F, 1, k % 2 == 1, False, dtype.itemsize == 2)
            out = on_threads(lambda: call(raw, lhs, rhs, s, op, lt, rt, F, 1))
            assert_close(out, expected, dtype, what=(lt, rt, F))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_dot(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Sums over R features, with one and several outputs, with and without offset tables."""
    s = to_csr(COO, NUM_DST)
    for n, R in enumerate(FEATURES):
        for Fo in (1, 3):
            lt, rt = PAIRS[n % len(PAIRS)]
            lhs, rhs = values(ROWS[lt], Fo * R, dtype=dtype), values(ROWS[rt], Fo * R, dtype=dtype, seed=1)
            swapped = torch.stack([torch.arange(Fo * R), torch.arange(Fo * R).flip(0)]).int()
            for bcast in (None, swapped):
                for op in (C.EDGE_MUL, C.EDGE_SUB):
                    expected = expectation(lt, rt, Fo * R, Fo * R, op, Fo, R, True, bcast is not None, dtype.itemsize == 2)
                    out = on_threads(lambda: call(raw, lhs, rhs, s, op, lt, rt, Fo, R, bcast))
                    assert_close(out, expected, dtype, terms=R, magnitude=2.0, what=(R, Fo, op, bcast is None))


def test_raw_ranks_and_batches(isa: str, poison: None) -> None:
    s = to_csr(COO, NUM_DST)
    for op in range(5):
        lhs, rhs = values(NUM_SRC), values(NUM_DST, seed=1)
        assert_close(call(raw, lhs, rhs, s, op, "u", "v", 1, 1), call(sddmm_ref.sddmm, lhs, rhs, s, op, "u", "v", 1, 1))
        for bl, br in [((3,), (3,)), ((3,), ()), ((), (3,)), ((1,), (3,)), ((3,), (1,))]:
            lhs, rhs = values(*bl, NUM_SRC, 5), values(*br, NUM_DST, 5, seed=1)
            out = call(raw, lhs, rhs, s, op, "u", "v", 5, 1)
            if op != C.EDGE_COPY:
                assert out.shape == (3, EDGES, 5)
            assert_close(out, call(sddmm_ref.sddmm, lhs, rhs, s, op, "u", "v", 5, 1), what=(op, bl, br))


def test_hub_rows(isa: str, on_threads) -> None:
    coo = random_coo(40, 12, 900, hub=20_000)
    s = to_csr(coo, 12, torch.int32)
    for dtype, F in ((torch.float32, 20), (torch.float64, 1), (torch.bfloat16, 8)):
        lhs, rhs = values(40, F, dtype=dtype), values(12, F, dtype=dtype, seed=1)
        out = on_threads(lambda: raw(lhs, rhs, *s, None, None, None, None, C.EDGE_MUL, 0, 1, coo.shape[1], 1, F))
        expected = (lhs.double()[coo[0]] * rhs.double()[coo[1]]).sum(1, keepdim=True)
        assert_close(out, expected, dtype, terms=F, magnitude=2.0)


# ---- public ----------------------------------------------------------------------------------------------------------


def oracle(coo: Tensor, lhs: Tensor, rhs: Tensor | None, op: str, lt: str, rt: str) -> Tensor:
    """Without batch; differentiable."""
    at = {"u": coo[0], "v": coo[1], "e": torch.arange(coo.shape[1])}
    left = lhs[at[lt]]
    if op == "copy":
        return left
    right = rhs[at[rt]]
    rank = max(left.dim(), right.dim())
    left, right = (t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in (left, right))
    if op == "dot":
        return (left * right).sum(-1, keepdim=True)
    return {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[op](left, right)


SHAPES = (((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (2, 1)), ((1,), (3,)), ((3,), (1,)), ((3, 1), (1, 2)), ((), ()), ((2, 3), (3,)), ((4,), ()), ((), (4,)))


def small(sort: bool = False) -> tuple[Graph, Tensor]:
    coo = random_coo(7, 6, 16, seed=3)
    if sort:
        coo = coo[:, torch.sort(coo[1], stable=True).indices]
    return Graph(coo, num_src=7, num_dst=6), coo


def leaves(lt: str, rt: str, fl: tuple, fr: tuple, op: str) -> tuple[Tensor, Tensor | None]:
    rows = {"u": 7, "v": 6, "e": 16}
    lhs = values(rows[lt], *fl).requires_grad_()
    return lhs, None if op == "copy" else values(rows[rt], *fr, seed=1).requires_grad_()


def two_orders(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    c = values(*out.shape, seed=7)
    first = torch.autograd.grad(out, inputs, c, create_graph=True)
    dot = sum((g * values(*g.shape, seed=8)).sum() for g in first)
    second = torch.autograd.grad(dot, inputs, allow_unused=True) if dot.requires_grad else [None] * len(inputs)
    return [*first, *(torch.zeros_like(i) if s is None else s for i, s in zip(inputs, second, strict=True))]


@pytest.mark.parametrize("op", OPS)
def test_values_and_two_orders(op: str, poison: None) -> None:
    for (lt, rt), sort in product(PAIRS, (False, True)):
        if op == "copy" and rt != "v":
            continue
        graph, coo = small(sort)
        for fl, fr in SHAPES if (lt, rt) in (("u", "v"), ("e", "u")) else SHAPES[:3]:
            if op == "dot" and not (fl and fr):
                continue
            lhs, rhs = leaves(lt, rt, fl, fr, op)
            inputs = [t for t in (lhs, rhs) if t is not None]
            out, expected = sddmm(graph, lhs, rhs, op, lt, rt), oracle(coo, lhs, rhs, op, lt, rt)
            what = (lt, rt, sort, fl, fr)
            assert_close(out, expected, terms=8, magnitude=2.0, what=what)
            for i, (a, b) in enumerate(zip(two_orders(out, inputs), two_orders(expected, inputs), strict=True)):
                assert_close(a, b, terms=512, magnitude=8.0, what=(what, i))


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(op: str) -> None:
    graph, _ = small()
    for lt, rt in (("u", "v"), ("e", "u"), ("v", "v")):
        inputs = tuple(t for t in leaves(lt, rt, (2, 3), (2, 1), op) if t is not None)
        fn = lambda *a: sddmm(graph, a[0], a[1] if len(a) > 1 else None, op, lt, rt)
        assert gradcheck(fn, inputs, fast_mode=True)
        assert gradgradcheck(fn, inputs, fast_mode=True)


@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("op", OPS[:5])
def test_one_operand_needs_a_gradient(op: str, only: int) -> None:
    graph, coo = small()
    for lt, rt in PAIRS:
        pair = list(leaves(lt, rt, (2, 3), (2, 3), op))
        pair[1 - only] = pair[1 - only].detach()
        got = torch.autograd.grad(sddmm(graph, *pair, op, lt, rt).square().sum(), pair[only])[0]
        want = torch.autograd.grad(oracle(coo, *pair, op, lt, rt).square().sum(), pair[only])[0]
        assert_close(got, want, terms=512, magnitude=8.0, what=(lt, rt))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("who", ["both", "lhs", "rhs"])
def test_batches(op: str, who: str) -> None:
    graph, coo = small()
    B = 3
    for lt, rt in PAIRS:
        rows = {"u": 7, "v": 6, "e": 16}
        lhs = values(*((B,) if who != "rhs" else ()), rows[lt], 2).requires_grad_()
        rhs = None if op == "copy" else values(*((B,) if who != "lhs" else ()), rows[rt], 2, seed=1).requires_grad_()
        if op == "copy" and who == "rhs":
            continue
        inputs = [t for t in (lhs, rhs) if t is not None]
        out = sddmm(graph, lhs, rhs, op, lt, rt, batch_dims=1)
        at = lambda t, b: None if t is None else t[b] if t.dim() == 3 else t
        expected = torch.stack([oracle(coo, at(lhs, b), at(rhs, b), op, lt, rt) for b in range(B)])
        assert_close(out, expected, terms=4, magnitude=2.0, what=(lt, rt))
        for a, b in zip(two_orders(out, inputs), two_orders(expected, inputs), strict=True):
            assert_close(a, b, terms=512, magnitude=8.0, what=(lt, rt))


def test_mixed_dtypes_are_promoted() -> None:
    graph, _ = small()
    assert sddmm(graph, values(7, 2, dtype=torch.float32), values(6, 2)).dtype == torch.float64
    assert sddmm(graph, values(7, 2, dtype=torch.bfloat16), values(6, 2, dtype=torch.float16)).dtype == torch.float32


def test_zero_sizes(poison: None) -> None:
    graph, _ = small()
    none = Graph(torch.zeros(2, 0, dtype=torch.int64), num_src=3, num_dst=2)
    nothing = Graph(torch.zeros(2, 0, dtype=torch.int64))
    for op in OPS:
        assert sddmm(none, values(3, 4), values(2, 4), op).shape == (0, 1 if op == "dot" else 4)
        assert sddmm(nothing, values(0, 4), values(0, 4), op).shape == (0, 1 if op == "dot" else 4)
        lhs = torch.zeros(7, 0, requires_grad=True)
        out = sddmm(graph, lhs, torch.zeros(6, 0), op)
        assert_same(out.detach(), torch.zeros(16, 1 if op == "dot" else 0))
        out.sum().backward()
        assert lhs.grad.shape == (7, 0)


# ---- identities ------------------------------------------------------------------------------------------------------

graphs = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**16))


def drawn(spec: tuple) -> tuple[Graph, Tensor, Tensor]:
    """A graph, its COO and random edge weights."""
    num_src, num_dst, edges, seed = spec
    rng = torch.Generator().manual_seed(seed)
    coo = torch.stack([torch.randint(num_src, (edges,), generator=rng), torch.randint(num_dst, (edges,), generator=rng)])
    return Graph(coo, num_src=num_src, num_dst=num_dst), coo, values(edges, 1, seed=seed)


@settings(max_examples=40, deadline=None)
@given(graphs, st.integers(1, 9))
def test_spmm_is_a_dense_product(spec: tuple, F: int) -> None:
    graph, coo, w = drawn(spec)
    x = values(graph.num_src, F)
    dense = torch.zeros(graph.num_dst, graph.num_src, dtype=torch.float64).index_put((coo[1], coo[0]), w[:, 0], accumulate=True)
    assert_close(spmm(graph, x, w), dense @ x, terms=80, magnitude=2.0)


@settings(max_examples=40, deadline=None)
@given(graphs, st.integers(1, 9))
def test_adjoint(spec: tuple, F: int) -> None:
    """<A x, y> = <x, A^T y>, A^T being the reversed graph; and the weights' gradient is the sddmm."""
    graph, _, w = drawn(spec)
    x, y = values(graph.num_src, F), values(graph.num_dst, F, seed=1)
    forward, backward = (spmm(graph, x, w) * y).sum(), (x * spmm(graph.reverse(), y, w)).sum()
    assert_close(forward, backward, terms=400, magnitude=3.0)
    assert_close((sddmm(graph, x, y) * w).sum(), forward, terms=400, magnitude=3.0)


@settings(max_examples=30, deadline=None)
@given(graphs, st.sampled_from(["sum", "mean", "min", "max", "prod", "var", "std", "logsumexp"]))
def test_permuting_edges(spec: tuple, reduce: str) -> None:
    graph, coo, w = drawn(spec)
    order = torch.randperm(coo.shape[1])
    shuffled = Graph(coo[:, order], num_src=graph.num_src, num_dst=graph.num_dst)
    x = values(graph.num_src, 3)
    assert_close(spmm(shuffled, x, w[order], reduce=reduce), spmm(graph, x, w, reduce=reduce), terms=200, magnitude=3.0)
    assert_same(sddmm(shuffled, x, values(graph.num_dst, 3)), sddmm(graph, x, values(graph.num_dst, 3))[order])


@settings(max_examples=30, deadline=None)
@given(graphs)
def test_relabelling_nodes(spec: tuple) -> None:
    graph, coo, w = drawn(spec)
    p, q = torch.randperm(graph.num_src), torch.randperm(graph.num_dst)
    renamed = Graph(torch.stack([p[coo[0]], q[coo[1]]]), num_src=graph.num_src, num_dst=graph.num_dst)
    x = values(graph.num_src, 3)
    moved = torch.empty_like(x).index_copy(0, p, x)
    assert_close(spmm(renamed, moved, w)[q], spmm(graph, x, w), terms=80, magnitude=2.0)
