"""structops.compat.torch_sparse against dense torch: products and reductions, and the gradients of everything."""

from __future__ import annotations

import pytest
import structops.compat.torch_sparse as ts
import torch
from sparse_samples import SIZES, matrix, same
from structops import backends
from structops.compat.torch_sparse import SparseTensor
from structops.compat.torch_sparse.matmul import spmm_max, spmm_min
from torch.autograd import gradcheck, gradgradcheck

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTS = [torch.int32, torch.int64, torch.int16]
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-5}


def close(a, b):
    t = TOLERANCE.get(a.dtype, 1e-12)
    torch.testing.assert_close(a, b.to(a.dtype), rtol=t, atol=t)


def reduced(dense, other, reduce, held):
    """The product by the definition, message by message: dense, held [M, N], other [*, N, K]."""
    messages = dense[:, :, None] * other.unsqueeze(-3)
    held = held[:, :, None].expand(messages.shape)
    if reduce in ("sum", "add"):
        return (messages * held).sum(-2)
    if reduce == "mean":
        total = (messages * held).sum(-2)
        count = held.sum(-2).clamp(min=1)
        return total / count if total.is_floating_point() else total.div(count, rounding_mode="floor")
    if messages.shape[-2] == 0:
        return messages.sum(-2)
    big = torch.iinfo(messages.dtype).max if not messages.is_floating_point() else torch.inf
    filled = messages.masked_fill(~held, big if reduce == "min" else -big)
    return getattr(filled, f"a{reduce}")(-2).masked_fill(~held.any(-2), 0)


# ---- sparse times dense ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("has_value", [True, False])
def test_spmm_sizes(size, reduce, has_value):
    a, dense = matrix(*size, has_value=has_value)
    held = dense != 0
    for shape in ((size[1], 3), (size[1], 1), (size[1], 0), (2, size[1], 3), (2, 2, size[1], 3)):
        other = torch.randn(shape, dtype=torch.float64)
        close(ts.matmul(a, other, reduce), reduced(dense, other, reduce, held))
    other = torch.randn(size[1], dtype=torch.float64)
    close(a.spmm(other, reduce), reduced(dense, other[:, None], reduce, held)[:, 0])


@pytest.mark.parametrize("dtype", FLOATS + INTS)
@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("has_value", [True, False])
def test_spmm_dtypes(dtype, reduce, has_value):
    a, dense = matrix(6, 7, dtype=dtype, has_value=has_value)
    other = torch.randint(-6, 7, (7, 5)).to(dtype)
    out = a.matmul(other, reduce)
    assert out.dtype == dtype
    wide = torch.float64 if dtype.is_floating_point else torch.int64
    close(out, reduced(dense.to(wide), other.to(wide), reduce, dense != 0).to(dtype))
    assert a.double().matmul(other, reduce).dtype == dtype


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("has_value", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (2, 7, 3), (7,)])
def test_spmm_gradients(reduce, has_value, shape):
    a, dense = matrix(6, 7)
    value = torch.randn(a.nnz(), dtype=torch.float64, requires_grad=True)
    other = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def product(value, other):
        return a.set_value(value if has_value else None, "coo").matmul(other, reduce)

    def by_dense(value, other):
        row, col, _ = a.coo()
        full = torch.zeros(6, 7, dtype=torch.float64).index_put((row, col), value if has_value else torch.ones_like(value))
        out = reduced(full, other if other.dim() > 1 else other[:, None], reduce, dense != 0)
        return out if other.dim() > 1 else out[:, 0]

    inputs = (value, other) if has_value else (other,)
    weight = torch.randn_like(product(value, other).detach())
    got = torch.autograd.grad((product(value, other) * weight).sum(), inputs)
    want = torch.autograd.grad((by_dense(value, other) * weight).sum(), inputs)
    for g, w in zip(got, want, strict=True):
        close(g, w)
    run = product if has_value else lambda other: product(None, other)
    assert gradcheck(run, inputs) and gradgradcheck(run, inputs)


def test_spmm_winners():
    a, dense = matrix(6, 7)
    other = torch.randint(-2, 3, (7, 4)).double()
    row, col, value = a.coo()
    for run, reduce in ((spmm_min, "min"), (spmm_max, "max")):
        out, arg = run(a, other)
        close(out, reduced(dense, other, reduce, dense != 0))
        raw = getattr(torch.ops.torch_sparse, f"spmm_{reduce}")(a.storage.rowptr(), col, value, other)
        assert torch.equal(raw[0], out) and torch.equal(raw[1], arg)
        for i in range(6):
            for j in range(4):
                on = (row == i).nonzero().flatten()
                tied = [e for e in on.tolist() if value[e] * other[col[e], j] == out[i, j]]
                assert arg[i, j] == (tied[0] if tied else a.nnz())


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_dispatcher_products(reduce):
    a, dense = matrix(6, 7)
    row, col, value = a.coo()
    value.requires_grad_()
    other = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    rowptr, colptr, csr2csc = a.storage.rowptr(), a.storage.colptr(), a.storage.csr2csc()
    run = getattr(torch.ops.torch_sparse, f"spmm_{reduce}")
    rest = (colptr, csr2csc, other) if reduce == "sum" else (None, colptr, csr2csc, other)
    out = run(row, rowptr, col, value, *rest)
    close(out, reduced(dense, other, reduce, dense != 0))
    assert all(g is not None for g in torch.autograd.grad(out.sum(), (value, other)))
    rest = (None, None, other) if reduce == "sum" else (None, None, None, other)
    assert torch.equal(run(None, rowptr, col, value, *rest), out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_functional_spmm(dtype):
    a, dense = matrix(6, 7, dtype=dtype)
    order = torch.randperm(a.nnz())
    row, col, value = (t[order] for t in a.coo())
    index = torch.stack([row, col])
    for shape in ((7, 3), (2, 7, 3)):
        other = torch.randint(-5, 6, shape).to(dtype)
        out = ts.spmm(index, value, 6, 7, other)
        assert out.dtype == dtype
        wide = torch.int64 if dtype == torch.int64 else torch.float64
        close(out, dense.to(wide) @ other.to(wide))
    twice = ts.spmm(torch.cat([index, index], 1), torch.cat([value, value]), 6, 7, other)
    close(twice, 2 * out)
    if dtype.is_floating_point:
        value, other = value.double().requires_grad_(), torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
        assert gradcheck(lambda v, x: ts.spmm(index, v, 6, 7, x), (value, other))
        assert ts.spmm(index, value, 6, 7, other.long()).dtype == torch.float64
    with pytest.raises(IndexError):
        ts.spmm(index, value, 6, int(col.max()), torch.ones(int(col.max()), 1))


def test_spmm_skips_nan_and_holds_no_messages():
    a = SparseTensor(row=torch.tensor([0, 0, 1]), col=torch.tensor([0, 1, 0]))
    x = torch.tensor([[torch.nan], [2.0]])
    assert a.matmul(x, "max").tolist() == [[2.0], [0.0]]
    big, wide = 4000, 64
    g = SparseTensor(row=torch.randint(50, (big,)), col=torch.randint(50, (big,)), value=torch.rand(big), sparse_sizes=(50, 50))
    x, value = torch.rand(50, wide, requires_grad=True), g.storage.value().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        for reduce in ("sum", "mean", "max"):
            g.matmul(x, reduce)
    assert max(saved) < big * wide // 8 and value.requires_grad


# ---- sparse times sparse ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64])
@pytest.mark.parametrize("sizes", [(5, 7, 6), (1, 3, 1), (4, 0, 3), (0, 4, 3), (4, 3, 0)])
def test_spspmm(sizes, dtype):
    m, k, n = sizes
    (a, da), (b, db) = matrix(m, k, dtype), matrix(k, n, dtype, seed=4)
    out = a @ b
    assert out.dtype() == dtype and out.sizes() == [m, n] and out.is_coalesced()
    close(out.to_dense(), da.double() @ db.double())
    pattern = a.set_value(None) @ b.set_value(None)
    assert not pattern.has_value() and torch.equal(pattern.to_dense() != 0, (da != 0).double() @ (db != 0).double() != 0)
    close((a.set_value(None) @ b).to_dense(), (da != 0).double() @ db.double())
    close((a @ b.set_value(None)).to_dense(), da.double() @ (db != 0).double())
    shuffle = torch.randperm(a.nnz())
    index, value = ts.spspmm(torch.stack(a.coo()[:2])[:, shuffle], a.coo()[2][shuffle], torch.stack(b.coo()[:2]), b.coo()[2], m, k, n)
    assert SparseTensor.from_edge_index(index, value, (m, n), is_sorted=True) == out


def test_spspmm_of_duplicates():
    row, col = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 1, 0, 2, 2])
    for value in (torch.rand(5), torch.rand(5, requires_grad=True), None):
        a = SparseTensor(row=row, col=col, value=value, sparse_sizes=(3, 3))
        merged = a.coalesce() if value is not None else a.fill_value(1.0).coalesce()
        out = a @ a
        assert out.is_coalesced() and out.has_value() == (value is not None)
        if value is not None:
            close(out.to_dense().detach(), (merged.to_dense() @ merged.to_dense()).detach())


@pytest.mark.parametrize("rowptr", [[0, 1, 5], [0, 5, 2], [-1, 1, 2], [1, 1, 2]])
@pytest.mark.parametrize("reverse", [False, True])
def test_spspmm_refuses_trusted_pointers_that_are_wrong(rowptr, reverse):
    index, value = torch.tensor([1, 0]), torch.ones(2)
    wrong = ts.SparseTensor(rowptr=torch.tensor(rowptr), col=index, value=value, sparse_sizes=(2, 2), is_sorted=True, trust_data=True)
    right = ts.SparseTensor(row=torch.tensor([0, 1]), col=index, value=value, sparse_sizes=(2, 2))
    with pytest.raises(ValueError, match="rowptr"):
        right @ wrong if reverse else wrong @ right


def test_spspmm_gradients():
    (a, da), (b, db) = matrix(5, 7), matrix(7, 4, seed=4)

    def product(x, y):
        return (a.set_value(x, "coo") @ b.set_value(y, "coo")).to_dense()

    x, y = (torch.randn(s.nnz(), dtype=torch.float64, requires_grad=True) for s in (a, b))
    assert gradcheck(product, (x, y)) and gradgradcheck(product, (x, y))
    full = [torch.zeros_like(d).index_put(s.coo()[:2], v) for s, d, v in ((a, da, x), (b, db, y))]
    weight = torch.randn(5, 4, dtype=torch.float64)
    got = torch.autograd.grad((product(x, y) * weight).sum(), (x, y))
    want = torch.autograd.grad(((full[0] @ full[1]) * weight).sum(), (x, y))
    for g, w in zip(got, want, strict=True):
        close(g, w)


# ---- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 7), (7, 5), (3, 0), (0, 3)])
@pytest.mark.parametrize("features", [(), (3,)])
def test_reductions(size, features):
    a, dense = matrix(*size, features=features)
    held = dense != 0
    for dim in (0, 1):
        count = held.sum(dim).clamp(min=1)
        close(ts.sum(a, dim), dense.sum(dim))
        close(a.mean(dim - a.dim()), dense.sum(dim) / count)
        empty = ~held.any(dim)
        if size[dim]:
            close(a.min(dim), dense.masked_fill(~held, torch.inf).amin(dim).masked_fill(empty, 0))
            close(a.max(dim), dense.masked_fill(~held, -torch.inf).amax(dim).masked_fill(empty, 0))
    if a.nnz():
        value = a.storage.value()
        for reduce in ("sum", "mean", "min", "max"):
            close(getattr(a, reduce)(), getattr(value, reduce)())
    for dim in range(2, a.dim()):
        close(a.sum(dim), a.storage.value().sum(dim - 1))
        close(a.mean(dim), a.storage.value().mean(dim - 1))
        close(a.max(dim), a.storage.value().amax(dim - 1))
        close(a.min(dim), a.storage.value().amin(dim - 1))


def test_reductions_without_values():
    a, dense = matrix(5, 7, has_value=False)
    for dim in (0, 1):
        assert torch.equal(a.sum(dim), dense.sum(dim).float())
        for reduce in (a.mean, a.min, a.max):
            assert torch.equal(reduce(dim), torch.ones(dense.shape[1 - dim]))
    assert a.sum() == a.nnz() and a.mean() == a.min() == a.max() == 1


# ---- gradients of the rest -------------------------------------------------------------------------------------------

COLUMN = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
ROW = torch.rand(1, 7, dtype=torch.float64, requires_grad=True)
DIAGONAL = torch.rand(5, dtype=torch.float64, requires_grad=True)
BASE = matrix(5, 7)[0]
OTHER = matrix(5, 7, seed=3)[0]
GRADIENTS = {
    "mul column": (lambda a, t: ts.mul(a, t), COLUMN),
    "mul row": (lambda a, t: a * t, ROW),
    "add column": (lambda a, t: a + t, COLUMN),
    "add row": (lambda a, t: ts.add(a, t), ROW),
    "add sparse": (lambda a, t: a + OTHER.set_value(OTHER.storage.value() * t[0], "coo"), DIAGONAL),
    "mul sparse": (lambda a, t: ts.mul(a, OTHER.set_value(OTHER.storage.value() * t[0], "coo")), DIAGONAL),
    "set_diag": (lambda a, t: a.set_diag(t), DIAGONAL),
    "fill_diag": (lambda a, t: a.fill_diag(2.0) * t[:, None], DIAGONAL),
    "remove_diag": (lambda a, t: a.remove_diag(1) * t[:, None], DIAGONAL),
    "transpose": (lambda a, t: a.t() * t[None], DIAGONAL),
    "index_select": (lambda a, t: a[torch.tensor([1, 1, 4]), torch.tensor([6, 0, 2, 2])] * t[:3, None], DIAGONAL),
    "masked_select": (lambda a, t: a[:, torch.tensor([True, False] * 3 + [True])] * t[:, None], DIAGONAL),
    "narrow": (lambda a, t: a[1:4, 2:] * t[:3, None], DIAGONAL),
    "cat": (lambda a, t: ts.cat([a * t[:, None], a], (0, 1)), DIAGONAL),
    "symmetric": (lambda a, t: (a * t[:, None]).to_symmetric(), DIAGONAL),
    "csc": (lambda a, t: a.set_value(a.csc()[2], "csc") * t[:, None], DIAGONAL),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    function, t = GRADIENTS[name]
    value = BASE.storage.value().clone().requires_grad_()
    run = lambda v, t: function(BASE.set_value(v, "coo"), t).to_dense()
    assert gradcheck(run, (value, t)) and gradgradcheck(run, (value, t))


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_reduction_gradients(reduce, dim):
    value = torch.randn(BASE.nnz(), dtype=torch.float64, requires_grad=True)
    run = lambda v: getattr(ts, reduce)(BASE.set_value(v, "coo"), dim)
    assert gradcheck(run, (value,)) and gradgradcheck(run, (value,))


def test_coalesce_and_get_diag_gradients():
    index = torch.tensor([[0, 1, 0, 0, 1], [0, 1, 0, 1, 1]])
    value = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    for op in ("add", "mean", "min", "max"):
        assert gradcheck(lambda v, op=op: ts.coalesce(index, v, 2, 2, op)[1], (value,))
    assert gradcheck(lambda v: SparseTensor.from_edge_index(index, v).get_diag(), (value,))


# ---- torch.compile ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(backends.native is None, reason="an operator in a graph needs the compiled library")
def test_compile():
    a, dense = matrix(6, 7)
    a.requires_grad_().fill_cache_()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def layer(a, x):
        return torch.relu(a.matmul(x)) + a.matmul(x, "max")

    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(a, x)
    close(out, layer(a, x))
    got = torch.autograd.grad(out.sum(), (x, a.storage.value()))
    for g, w in zip(got, torch.autograd.grad(layer(a, x).sum(), (x, a.storage.value())), strict=True):
        close(g, w)
    same(a.detach(), dense)
