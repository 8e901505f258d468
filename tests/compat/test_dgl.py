"""structops.compat.dgl.ops on a structops.Graph, against dense torch formulas."""

from __future__ import annotations

import inspect
import itertools
import sys

import pytest
import structops
import torch
from structops.compat import dgl as compat
from structops.compat.dgl import ops
from torch.autograd import gradcheck, gradgradcheck

SRC = torch.tensor([0, 3, 1, 0, 2, 3, 3, 1])
DST = torch.tensor([1, 1, 0, 4, 1, 4, 0, 1])  # 2 and 3 receive nothing; 3 -> 1 and 1 -> 1 are not in order
N, M, E = 4, 5, 8
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}
SHAPES = [((), ()), ((3,), (3,)), ((3,), (1,)), ((2, 3), (2, 1)), ((1, 2, 1), (3, 1, 2)), ((3,), ())]


@pytest.fixture(params=[torch.int32, torch.int64])
def graph(request):
    return structops.Graph(torch.stack([SRC, DST]).to(request.param), num_src=N, num_dst=M)


def values(rows, shape=()):
    """Numbers apart from each other and from 0."""
    n = rows * torch.Size(shape).numel()
    return ((torch.randperm(n) - n / 2 + 0.25 + torch.rand(n, dtype=torch.float64) / 3) / 8).reshape(rows, *shape).requires_grad_()


def pad(a, b):
    rank = max(a.dim(), b.dim())
    return tuple(t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in (a, b))


def reduced(messages, how):
    rows = []
    for v in range(M):
        group = messages[v == DST]
        if not len(group):
            rows.append(torch.zeros_like(messages[0]))
        else:
            rows.append(getattr(group, f"a{how}")(0) if how in ("min", "max") else getattr(group, how)(0))
    return torch.stack(rows)


def compare(got, want, *inputs):
    torch.testing.assert_close(got, want)
    g = torch.randn_like(want)
    found, wanted = torch.autograd.grad(got, inputs, g), torch.autograd.grad(want, inputs, g)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_names():
    ends = itertools.permutations("uve", 2)
    names = {f"u_{op}_e_{r}" for op in BINARY for r in ("sum", "max", "min", "mean")}
    names |= {f"copy_{t}_{r}" for t in "ue" for r in ("sum", "max", "min", "mean")}
    names |= {f"{a}_{op}_{b}" for a, b in ends for op in (*BINARY, "dot")} | {"copy_u", "copy_v", "copy_e"}
    names |= {"gspmm", "gsddmm", "edge_softmax", "segment_reduce", "segment_softmax", "segment_mm", "gather_mm"}
    assert set(ops.__all__) == names and all(getattr(ops, name).__name__ == name and getattr(ops, name).__doc__ for name in names)
    assert str(inspect.signature(ops.edge_softmax)).startswith("(graph: 'Any', logits: 'Any', eids: 'Tensor | str' = '__ALL__', norm_by")


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("op", BINARY)
def test_spmm(graph, op, reduce, shapes):
    x, e = values(N, shapes[0]), values(E, shapes[1])
    want = reduced(BINARY[op](*pad(x[SRC], e)), reduce)
    compare(getattr(ops, f"u_{op}_e_{reduce}")(graph, x, e), want, x, e)
    assert torch.equal(ops.gspmm(graph, op, reduce, x, e), getattr(ops, f"u_{op}_e_{reduce}")(graph, x, e))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_copy_reduce(graph, reduce):
    x, e = values(N, (2, 3)), values(E)
    compare(getattr(ops, f"copy_u_{reduce}")(graph, x), reduced(x[SRC], reduce), x)
    compare(getattr(ops, f"copy_e_{reduce}")(graph, e), reduced(e, reduce), e)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (1, 3)), ((1, 2, 1), (3, 1, 2))])
@pytest.mark.parametrize("op", [*BINARY, "dot"])
@pytest.mark.parametrize(("lhs", "rhs"), list(itertools.permutations("uve", 2)))
def test_sddmm(graph, lhs, rhs, op, shapes):
    rows, ends = {"u": N, "v": M, "e": E}, {"u": SRC, "v": DST, "e": torch.arange(E)}
    a, b = values(rows[lhs], shapes[0]), values(rows[rhs], shapes[1])
    p, q = pad(a[ends[lhs]], b[ends[rhs]])
    want = (p * q).sum(-1, keepdim=True) if op == "dot" else BINARY[op](p, q)
    compare(getattr(ops, f"{lhs}_{op}_{rhs}")(graph, a, b), want, a, b)


def test_copies_to_edges(graph):
    x, y, e = values(N, (2,)), values(M, (2,)), values(E)
    compare(ops.copy_u(graph, x), x[SRC], x)
    compare(ops.copy_v(graph, y), y[DST], y)
    assert ops.copy_e(graph, e) is e
    assert torch.equal(ops.gsddmm(graph, "copy_rhs", None, e, "u", "e"), e)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("eids", [None, [5, 0, 2, 1, 7]])
def test_edge_softmax(graph, norm_by, shape, eids):
    chosen = torch.arange(E) if eids is None else torch.tensor(eids)
    logits = values(len(chosen), shape)
    end = (SRC if norm_by == "src" else DST)[chosen]
    same = (end[:, None] == end).double()
    total = torch.tensordot(same, logits.exp(), 1)
    function = lambda x: ops.edge_softmax(graph, x, *([chosen.int()] if eids else []), norm_by=norm_by)
    compare(function(logits), logits.exp() / total, logits)
    assert gradcheck(function, logits) and gradgradcheck(function, logits)


def test_second_derivatives(graph):
    x, e, y = values(N, (2, 2)), values(E, (2, 1)), values(M, (2, 2))
    for reduce in ("sum", "mean", "max"):
        assert gradgradcheck(lambda x, e: ops.gspmm(graph, "mul", reduce, x, e), (x, e))
    assert gradgradcheck(lambda x, y: ops.u_dot_v(graph, x, y), (x, y))


def test_min_and_max_skip_nan_and_give_0_where_nothing_arrives(graph):
    x = values(N).detach()
    x[3] = torch.nan
    assert ops.copy_u_max(graph, x).tolist() == [x[1], max(x[0], x[1], x[2]), 0, 0, x[0]]
    assert ops.copy_u_sum(graph, x).isnan().tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(graph, dtype):
    x, e = values(N, (2, 3)).to(dtype), values(E, (2, 1)).to(dtype)
    tolerance = {} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    got = ops.u_mul_e_sum(graph, x, e)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), reduced(x.double()[SRC] * e.double(), "sum"), **tolerance)
    soft = ops.edge_softmax(graph, e)
    assert soft.dtype == dtype
    torch.testing.assert_close(ops.copy_e_sum(graph, soft).float()[[0, 1, 4]], torch.ones(3, 2, 1), **tolerance)


def test_no_edges_and_no_nodes():
    graph = structops.Graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=3)
    assert torch.equal(ops.u_add_e_max(graph, torch.ones(3, 2), torch.ones(0, 2)), torch.zeros(3, 2))
    assert ops.edge_softmax(graph, torch.ones(0, 2)).shape == (0, 2) and ops.u_dot_v(graph, torch.ones(3, 2), torch.ones(3, 2)).shape == (0, 1)
    none = structops.Graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=0)
    assert ops.copy_u_mean(none, torch.ones(0, 4)).shape == (0, 4)


# ---- segments and products -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reducer", ["sum", "mean", "max", "min"])
def test_segments(reducer):
    value, seglen = values(E, (3,)), torch.tensor([2, 0, 5, 1, 0])
    parts = value.split(seglen.tolist())
    how = f"a{reducer}" if reducer in ("max", "min") else reducer
    want = torch.stack([getattr(p, how)(0) if len(p) else p.new_zeros(3) for p in parts])
    compare(ops.segment_reduce(seglen, value, reducer), want, value)
    compare(ops.segment_softmax(seglen.int(), value), torch.cat([p.softmax(0) for p in parts]), value)


@pytest.mark.parametrize("itype", [torch.int32, torch.int64])
def test_products(itype):
    a, b = values(E, (3,)), values(4, (3, 5))
    seglen, idx = torch.tensor([3, 0, 4, 1]), torch.tensor([2, 0, 3, 3, 1, 0, 2, 2])
    compare(ops.segment_mm(a, b, seglen.to(itype)), torch.bmm(a[:, None], b[torch.repeat_interleave(torch.arange(4), seglen)])[:, 0], a, b)
    compare(ops.gather_mm(a, b, idx_b=idx.to(itype)), torch.bmm(a[:, None], b[idx])[:, 0], a, b)
    backend = compat._backend
    compare(backend.gather_mm(a, b, torch.tensor([7, 7, 1]), idx[:3]), torch.bmm(a[[7, 7, 1]][:, None], b[idx[:3]])[:, 0], a, b)
    compare(backend.gather_mm(a, b, torch.tensor([7, 7, 1, 0])), torch.bmm(a[[7, 7, 1, 0]][:, None], b)[:, 0], a, b)
    compare(backend.scatter_add(a, idx, 6), torch.zeros(6, 3, dtype=a.dtype).index_add(0, idx, a), a)


# ---- errors ----------------------------------------------------------------------------------------------------------

G = structops.Graph(torch.stack([SRC, DST]), num_src=N, num_dst=M)
X, Y, W = torch.zeros(N, 3), torch.zeros(M, 3), torch.zeros(E, 3)
ERRORS = [
    (TypeError, "DGLGraph", lambda: ops.copy_u_sum(torch.stack([SRC, DST]), X)),
    (ValueError, "reduce_op", lambda: ops.gspmm(G, "mul", "prod", X, W)),
    (ValueError, "op", lambda: ops.gspmm(G, "dot", "sum", X, W)),
    (ValueError, "op", lambda: ops.gsddmm(G, "pow", X, Y)),
    (ValueError, "lhs_target", lambda: ops.gsddmm(G, "add", X, Y, "w")),
    (ValueError, "x of shape", lambda: ops.u_mul_e_sum(G, Y, W)),
    (ValueError, "edge of shape", lambda: ops.u_mul_e_sum(G, X, W[1:])),
    (ValueError, "broadcast", lambda: ops.u_mul_e_sum(G, X, W[:, :2])),
    (TypeError, "x", lambda: ops.copy_u_sum(G, None)),
    (TypeError, "dtype", lambda: ops.u_mul_e_sum(G, X.long(), W)),
    (ValueError, "norm_by", lambda: ops.edge_softmax(G, W, norm_by="u")),
    (ValueError, "logits", lambda: ops.edge_softmax(G, W[1:])),
    (IndexError, "eids", lambda: ops.edge_softmax(G, W[:2], torch.tensor([0, 8]))),
    (IndexError, "eids", lambda: ops.edge_softmax(G, W[:2], torch.tensor([0, -1]))),
    (ValueError, "index", lambda: ops.edge_softmax(G, W[:3], torch.tensor([0, 1]))),
    (ValueError, "reducer", lambda: ops.segment_reduce(torch.tensor([8]), W, "prod")),
    (ValueError, "indptr", lambda: ops.segment_reduce(torch.tensor([3]), W)),
    (ValueError, "indptr", lambda: ops.segment_softmax(torch.tensor([9, -1]), W)),
    (TypeError, "seglen", lambda: ops.segment_reduce([8], W)),
    (ValueError, "ptr", lambda: ops.segment_mm(W, torch.zeros(2, 3, 4), torch.tensor([3, 4]))),
    (IndexError, "types", lambda: ops.gather_mm(W, torch.zeros(2, 3, 4), idx_b=SRC)),
    (ValueError, "weight", lambda: ops.gather_mm(W, torch.zeros(2, 4, 4), idx_b=SRC)),
]


@pytest.mark.parametrize(("kind", "words", "call"), ERRORS)
def test_errors(kind, words, call):
    with pytest.raises(kind, match=words):
        call()


def test_install_without_dgl_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(ImportError):
        compat.install()
