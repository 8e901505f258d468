"""structops.compat.pyg_lib.ops against dense torch formulas, and where it differs from torch_scatter."""

from __future__ import annotations

import math

import pytest
import torch
from structops.compat.pyg_lib import ops
from structops.compat.pyg_lib.ops._products import softmax_csr_backward
from torch.autograd import gradcheck, gradgradcheck

inf, nan = math.inf, math.nan
INDEX, SORTED = torch.tensor([2, 0, 2, 4, 0, 2, 4]), torch.tensor([0, 0, 2, 2, 2, 4, 4])
INDPTR = torch.tensor([0, 2, 2, 5, 5, 7])  # the ranges of SORTED
SIZE = 5
PLAIN = ["sum", "mul", "mean", "min", "max"]


def dense(src, index, reduce, size=SIZE):
    """The reduction along dimension 0, group by group."""
    rows = []
    for n in range(size):
        group = src[index == n]
        if reduce in ("min", "max"):
            rows.append(getattr(group, f"a{reduce}")(0) if len(group) else torch.zeros_like(src[0]))
        elif reduce == "mul":
            rows.append(group.prod(0))
        else:
            rows.append(group.sum(0) / (max(len(group), 1) if reduce == "mean" else 1))
    return torch.stack(rows)


def distinct(*shape, dtype=torch.float64):
    """Numbers at least 0.1 apart, none near 0."""
    n = math.prod(shape)
    return ((torch.randperm(n).to(dtype) - n / 2 + 0.25) / 10).reshape(shape)


def values(result):
    return result[0] if isinstance(result, tuple) else result


# ---- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("itype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5)])
@pytest.mark.parametrize("reduce", PLAIN)
def test_reductions(reduce, shape, dtype, itype):
    src = distinct(*shape, dtype=torch.float32).to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype.itemsize >= 4 else {"rtol": 2e-2, "atol": 2e-2}
    want = dense(src.double(), INDEX, reduce)
    got = ops.scatter(src, INDEX.to(itype), 0, None, SIZE, reduce)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, **tolerance)
    assert torch.equal(values(getattr(ops, f"scatter_{reduce}")(src, INDEX.to(itype), 0, None, SIZE)), got)
    if reduce == "mul":
        return
    want = dense(src.double(), SORTED, reduce)
    for got in (
        ops.segment_coo(src, SORTED.to(itype), None, SIZE, reduce),
        ops.segment_csr(src, INDPTR.to(itype), None, reduce),
        values(getattr(ops, f"segment_{reduce}_coo")(src, SORTED.to(itype), None, SIZE)),
        values(getattr(ops, f"segment_{reduce}_csr")(src, INDPTR.to(itype))),
    ):
        torch.testing.assert_close(got.double(), want, **tolerance)


@pytest.mark.parametrize("how", ["scatter", "segment_coo", "segment_csr"])
@pytest.mark.parametrize("reduce", PLAIN)
def test_derivatives(how, reduce):
    if reduce == "mul" and how != "scatter":
        return
    where = {"scatter": (INDEX, 0, None, SIZE), "segment_coo": (SORTED, None, SIZE), "segment_csr": (INDPTR,)}[how]
    function = lambda x: values(getattr(ops, how)(x, *where, reduce=reduce))
    src = distinct(7, 3).requires_grad_()
    assert gradcheck(function, src) and gradgradcheck(function, src)


@pytest.mark.parametrize("name", ["scatter_min", "scatter_max", "segment_min_coo", "segment_max_coo", "segment_min_csr"])
def test_positions(name):
    src = torch.tensor([3.0, 1.0, 3.0, 5.0, 1.0, -2.0, 5.0])
    where = {"coo": (SORTED, None, SIZE), "csr": (INDPTR,)}.get(name[-3:], (INDEX, 0, None, SIZE))
    value, arg = getattr(ops, name)(src, *where)
    filled = arg < 7
    assert filled.tolist() == [True, False, True, False, True] and (arg[~filled] == 7).all()
    assert torch.equal(src[arg[filled]], value[filled]) and not value[~filled].any()
    group = INDEX if name.startswith("scatter") else SORTED
    for n in (0, 2, 4):
        best = src[group == n].min() if "min" in name else src[group == n].max()
        assert arg[n] == ((group == n) & (src == best)).nonzero()[0, 0]


def test_out():
    src = torch.arange(7.0)
    start = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    total = dense(src, SORTED, "sum")
    for call in (
        lambda out: ops.scatter_sum(src, SORTED, 0, out),
        lambda out: ops.segment_sum_coo(src, SORTED, out),
        lambda out: ops.segment_sum_csr(src, INDPTR, out),
        lambda out: ops.segment_csr(src, INDPTR, out, "add"),
    ):
        out = start.clone()
        assert call(out) is out and torch.equal(out, start + total)
    for reduce in ("mean", "min", "max"):
        out = start.clone()
        assert ops.segment_csr(src, INDPTR, out, reduce) is out and torch.equal(out, dense(src, SORTED, reduce))
    out = start.clone()
    assert torch.equal(ops.scatter_mean(src, SORTED, 0, out), (start + total) / torch.tensor([2.0, 1, 3, 1, 2]))
    assert torch.equal(ops.scatter_mul(src, SORTED, 0, start.clone()), start * dense(src, SORTED, "mul"))
    value, arg = ops.scatter_max(src, SORTED, 0, torch.tensor([0.5, 0, 9, 0, 0]))
    assert value.tolist() == [1.0, 0.0, 9.0, 0.0, 6.0] and arg.tolist() == [1, 7, 7, 7, 6]


def test_gather_takes_any_order():
    src = distinct(5, 3)
    assert torch.equal(ops.gather_coo(src, INDEX), src[INDEX])
    assert torch.equal(ops.gather_coo(src.t(), INDEX.expand(3, 7)), src[INDEX].t())
    assert torch.equal(ops.gather_csr(src, INDPTR), src[SORTED])
    out = torch.zeros(7, 3, dtype=src.dtype)
    assert ops.gather_coo(src, INDEX, out) is out and torch.equal(out, src[INDEX])
    for function in (lambda x: ops.gather_coo(x, INDEX), lambda x: ops.gather_csr(x, INDPTR)):
        assert gradcheck(function, src.requires_grad_()) and gradgradcheck(function, src)


def test_scatter_along_another_dimension_and_empty():
    src = distinct(3, 7, 2)
    assert torch.allclose(ops.scatter_sum(src, INDEX, 1), dense(src.transpose(0, 1), INDEX, "sum").transpose(0, 1))
    none = torch.empty(0, dtype=torch.int64)
    for reduce in PLAIN:
        want = torch.full((3, 4), 1.0 if reduce == "mul" else 0.0)
        assert torch.equal(ops.scatter(torch.empty(0, 4), none, 0, None, 3, reduce), want)
    assert ops.segment_csr(torch.empty(0, 4), torch.zeros(4, dtype=torch.int64)).shape == (3, 4)
    assert ops.scatter_sum(torch.empty(0, 4), none, 0).shape == (0, 4)


# ---- composites ------------------------------------------------------------------------------------------------------


def softmax(src, index, log=False):
    out = torch.empty_like(src)
    for n in index.unique():
        out[index == n] = (torch.log_softmax if log else torch.softmax)(src[index == n], 0)
    return out


@pytest.mark.parametrize("unbiased", [True, False])
def test_composites(unbiased):
    src = distinct(7, 3)
    torch.testing.assert_close(ops.scatter_softmax(src, INDEX, 0), softmax(src, INDEX))
    torch.testing.assert_close(ops.scatter_log_softmax(src, INDEX, 0, SIZE), softmax(src, INDEX, True))
    std = torch.stack([src[n == INDEX].std(0, unbiased) if n in INDEX else torch.zeros(3) for n in range(SIZE)])
    torch.testing.assert_close(ops.scatter_std(src, INDEX, 0, unbiased=unbiased), std.double(), rtol=1e-12, atol=1e-12)
    total = torch.stack([src[n == INDEX].logsumexp(0) if n in INDEX else torch.zeros(3) for n in range(SIZE)])
    torch.testing.assert_close(ops.scatter_logsumexp(src, INDEX, 0), total.double())
    src.requires_grad_()
    for function in (
        lambda x: ops.scatter_softmax(x, INDEX, 0),
        lambda x: ops.scatter_log_softmax(x, INDEX, 0),
        lambda x: ops.scatter_std(x, INDEX, 0, unbiased=unbiased),
        lambda x: ops.scatter_logsumexp(x, INDEX, 0),
    ):
        assert gradcheck(function, src) and gradgradcheck(function, src)


def test_logsumexp_of_infinities():
    src = torch.tensor([1.0, 1.0, -inf, -inf, inf, nan])
    index, held = torch.tensor([0, 0, 1, 1, 3, 4]), torch.arange(10.0, 15.0)
    plain = ops.scatter_logsumexp(src, index, 0)
    assert plain[1:4].tolist() == [0.0, 0.0, 0.0] and plain[4].isnan() and plain[0].item() == pytest.approx(1 + math.log(2))
    out = held.clone()
    assert ops.scatter_logsumexp(src, index, 0, out) is out
    assert torch.equal(out[1:4], held[1:4]) and out[0] == plain[0] and out[4].isnan()


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax_csr(dim):
    shape = [2, 3, 4]
    shape[dim] = 7
    src = distinct(*shape).requires_grad_()
    want = softmax(src.movedim(dim, 0), SORTED).movedim(0, dim)
    got = ops.softmax_csr(src, INDPTR, dim)
    torch.testing.assert_close(got, want)
    function = lambda x: ops.softmax_csr(x, INDPTR, dim)
    assert gradcheck(function, src) and gradgradcheck(function, src)
    g = torch.randn_like(got)
    torch.testing.assert_close(softmax_csr_backward(got, g, INDPTR, dim), torch.autograd.grad(got, src, g)[0])


# ---- products, values by index, sorting ------------------------------------------------------------------------------


def test_matmul():
    x, ptr = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 2, 2, 7])
    w, b = torch.randn(3, 3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    want = torch.cat([x[:2] @ w[0] + b[0], x[2:] @ w[2] + b[2]])
    torch.testing.assert_close(ops.segment_matmul(x, ptr, w, b), want)
    torch.testing.assert_close(torch.ops.pyg.segment_matmul(x, ptr.int(), w), want - b[[0, 0, 2, 2, 2, 2, 2]])
    inputs = [t.requires_grad_() for t in (x, w, b)]
    assert gradcheck(lambda x, w, b: ops.segment_matmul(x, ptr, w, b), inputs)
    xs, ws = [torch.randn(4, 2), torch.randn(0, 3), torch.randn(2, 5)], [torch.randn(2, 3), torch.randn(3, 2), torch.randn(5, 1)]
    biases = [torch.randn(3), torch.randn(2), torch.randn(1)]
    for i, got in enumerate(ops.grouped_matmul(xs, ws, biases)):
        torch.testing.assert_close(got, xs[i] @ ws[i] + biases[i])
    assert [list(t.shape) for t in torch.ops.pyg.grouped_matmul(xs, ws)] == [[4, 3], [0, 2], [2, 1]]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_sampled(name):
    left, right = distinct(5, 3).requires_grad_(), distinct(4, 3).requires_grad_()
    u, v = INDEX, torch.tensor([3, 3, 0, 1, 2, 0, 3])
    function = getattr(ops, f"sampled_{name}")
    plain = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[name]
    torch.testing.assert_close(function(left, right, u, v), plain(left[u], right[v]))
    torch.testing.assert_close(function(left[u], right, None, v.int()), plain(left[u], right[v]))
    torch.testing.assert_close(function(left[:4], right), plain(left[:4], right))
    torch.testing.assert_close(torch.ops.pyg.sampled_op(left, right, u, v, name), plain(left[u], right[v]))
    assert torch.equal(function(torch.arange(1, 6), torch.arange(1, 5), u, v), plain(torch.arange(1, 6)[u], torch.arange(1, 5)[v]))
    sampled = lambda a, b: function(a, b, u, v)
    assert gradcheck(sampled, (left, right)) and gradgradcheck(sampled, (left, right))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("high", [1, 3, 50, 10**6])
def test_index_sort(high, dtype):
    for low in (0, -high):
        inputs = torch.randint(low, high, (40,), dtype=dtype)
        for given in (inputs, inputs.sort()[0], inputs[:0]):
            want = torch.sort(given, stable=True)
            got = ops.index_sort(given, max_value=high)
            assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
            assert not given.numel() or got[0].data_ptr() != given.data_ptr()


def test_fused_scatter_reduce():
    src = distinct(7, 3).requires_grad_()
    names = ["max", "sum", "min", "mean"]
    got = ops.fused_scatter_reduce(src, INDEX, SIZE, names)
    torch.testing.assert_close(got, torch.cat([dense(src, INDEX, name) for name in names], 1))
    assert gradcheck(lambda x: ops.fused_scatter_reduce(x, INDEX, SIZE, names), src)


# ---- errors ----------------------------------------------------------------------------------------------------------

X, W = torch.zeros(7, 3), torch.zeros(2, 3, 4)
ERRORS = [
    (ValueError, "reduce", lambda: ops.scatter(X, INDEX, 0, reduce="median")),
    (ValueError, "reduce", lambda: ops.segment_coo(X, SORTED, reduce="mul")),
    (ValueError, "reduce", lambda: ops.segment_csr(X, INDPTR, reduce="mul")),
    (IndexError, "index", lambda: ops.scatter_sum(X, INDEX, 0, None, 3)),
    (IndexError, "index", lambda: ops.gather_coo(X[:3], INDEX)),
    (ValueError, "ascending", lambda: ops.segment_sum_coo(X, INDEX)),
    (ValueError, "out", lambda: ops.segment_sum_csr(X, INDPTR, torch.zeros(4, 3))),
    (TypeError, "out", lambda: ops.segment_sum_csr(X, INDPTR, torch.zeros(5, 3, dtype=torch.float64))),
    (ValueError, "floating", lambda: ops.scatter_std(X.long(), INDEX, 0)),
    (ValueError, "floating", lambda: ops.scatter_logsumexp(X.long(), INDEX, 0)),
    (ValueError, "ptr", lambda: ops.softmax_csr(X, torch.tensor([0, 3]))),
    (ValueError, "ptr", lambda: softmax_csr_backward(X, X, torch.tensor([0, 3]))),
    (ValueError, "ptr", lambda: ops.segment_matmul(X, torch.tensor([0, 3, 6]), W)),
    (ValueError, "weight", lambda: ops.segment_matmul(X, torch.tensor([0, 7]), W[0])),
    (ValueError, "others", lambda: ops.grouped_matmul([X], [])),
    (ValueError, "matrices", lambda: ops.grouped_matmul([X], [X])),
    (TypeError, "inputs", lambda: ops.grouped_matmul([X.long()], [W[0]])),
    (IndexError, "left_index", lambda: ops.sampled_add(X, X, INDEX + 3, INDEX)),
    (IndexError, "right_index", lambda: ops.sampled_mul(X, X, INDEX, INDEX - 1)),
    (ValueError, "left_index", lambda: ops.sampled_mul(X, X, INDEX[:, None], INDEX)),
    (ValueError, "op", lambda: torch.ops.pyg.sampled_op(X, X, INDEX, INDEX, "pow")),
    (RuntimeError, "inputs", lambda: ops.index_sort(INDEX[:, None])),
    (TypeError, "inputs", lambda: ops.index_sort(X[:, 0])),
    (ValueError, "reduce_list", lambda: ops.fused_scatter_reduce(X, INDEX, 5, ["sum", "sum"])),
    (ValueError, "reduce_list", lambda: ops.fused_scatter_reduce(X, INDEX, 5, ["var"])),
    (IndexError, "index", lambda: ops.fused_scatter_reduce(X, INDEX, 3, ["sum"])),
    (NotImplementedError, "knn", lambda: ops.knn),
    (NotImplementedError, "biased", lambda: torch.ops.pyg.random_walk(INDPTR, INDEX, INDEX, 3, 1.0, 2.0)),
]


@pytest.mark.parametrize(("kind", "words", "call"), ERRORS)
def test_errors(kind, words, call):
    with pytest.raises(kind, match=words):
        call()
