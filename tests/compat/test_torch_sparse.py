"""structops.compat.torch_sparse against dense torch: structure, layouts, indexing, conversions, sums and products by entries."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import structops.compat.torch_sparse as ts
import torch
from sparse_samples import SIZES, entries, matrix, same
from structops.compat.torch_sparse import SparseStorage, SparseTensor
from structops.compat.torch_sparse.reduce import reduction

# ---- construction and layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("features", [(), (3,), (2, 3)])
def test_layouts(size, features):
    same(*matrix(*size, features=features))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_construction(index):
    a, dense = matrix(5, 7)
    row, col, value = a.coo()
    rowptr = a.storage.rowptr()
    row, col, rowptr = row.to(index), col.to(index), rowptr.to(index)
    shuffled = torch.randperm(row.numel())
    for other in (
        SparseTensor(row, rowptr, col, value, (5, 7), is_sorted=True),
        SparseTensor(None, rowptr, col, value, (None, 7), is_sorted=True),
        SparseTensor(row[shuffled], None, col[shuffled], value[shuffled], (5, 7)),
        SparseTensor.from_edge_index(torch.stack([row, col]), value, (5, 7)),
        SparseTensor.from_storage(SparseStorage(row, None, col, value, (5, 7))),
        SparseTensor.from_dense(dense),
        SparseTensor.from_torch_sparse_coo_tensor(dense.to_sparse()),
        SparseTensor.from_torch_sparse_csr_tensor(dense.to_sparse_csr()),
    ):
        assert other == a and other.coo()[0].dtype == torch.int64
        same(other, dense)
    assert SparseTensor.from_dense(dense, has_value=False).storage.value() is None
    assert SparseTensor(row=row, col=col).sizes() == [int(row.max()) + 1, int(col.max()) + 1]
    assert SparseStorage.empty().sparse_sizes() == (0, 0)


def test_duplicates_are_kept_until_coalesced():
    row, col, value = torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 2, 0]), torch.tensor([1.0, 2.0, 5.0, 7.0])
    a = SparseTensor(row=row, col=col, value=value, sparse_sizes=(2, 3))
    assert a.nnz() == 4 and not a.is_coalesced() and a.storage.value().tolist() == [2, 7, 1, 5]
    for reduce, want in {"sum": 6, "add": 6, "mean": 3, "min": 1, "max": 5}.items():
        assert a.coalesce(reduce).to_dense().tolist() == [[2, 0, 0], [7, 0, want]]
    assert ts.coalesce(torch.stack([row, col]), value, 2, 3, "max")[1].tolist() == [2, 7, 5]
    x = torch.rand(3, 4)
    torch.testing.assert_close(a @ x, a.coalesce() @ x)


def test_caches():
    a, _ = matrix(5, 7)
    assert a.storage.cached_keys() == []
    a.fill_cache_()
    assert a.storage.cached_keys() == ["rowcount", "colptr", "colcount", "csr2csc", "csc2csr"]
    graph = a.storage.graph()
    assert a.set_value(None).storage.graph() is graph and a.copy().storage.graph() is graph
    assert ts.mul(a, torch.ones(5, 1, dtype=torch.float64)).storage.graph() is graph
    assert ts.cat([a, a], dim=(0, 1)).storage.num_cached_keys() == 5
    assert a.clear_cache_().storage.num_cached_keys() == 0 and a.storage.graph() is not graph


@pytest.mark.parametrize("size", SIZES)
def test_eye(size):
    for fill in (False, True):
        same(SparseTensor.eye(*size, dtype=torch.float64, fill_cache=fill), torch.eye(*size, dtype=torch.float64))
    assert not SparseTensor.eye(3, has_value=False).has_value()
    index, value = ts.eye(3, torch.float16)
    assert index.tolist() == [[0, 1, 2]] * 2 and value.dtype == torch.float16


# ---- shape and structure ---------------------------------------------------------------------------------------------


def test_shape():
    a, _ = matrix(5, 7, features=(2,))
    assert (a.sparse_sizes(), a.sizes(), a.size(-1), a.dim(), a.numel()) == ((5, 7), [5, 7, 2], 2, 3, 2 * a.nnz())
    assert a.density() == a.nnz() / 35 and a.sparsity() == 1 - a.density()
    assert a.avg_row_length() == a.nnz() / 5 and a.avg_col_length() == a.nnz() / 7
    row, col, _ = a.coo()
    off = (row - col).abs()
    assert a.bandwidth() == off.max() and a.avg_bandwidth() == pytest.approx(float(off.double().mean()))
    assert a.bandwidth_proportion(2) == pytest.approx(float((off <= 2).double().mean()))
    assert not a.is_quadratic() and not a.is_symmetric()
    assert repr(a).startswith("SparseTensor(row=tensor([") and f"size=(5, 7, 2), nnz={a.nnz()}, density=" in repr(a)


def test_symmetric():
    a, dense = matrix(6, 6)
    b = a.to_symmetric()
    assert b.is_symmetric() and not a.is_symmetric()
    same(b, dense + dense.T)
    assert a.to_symmetric("max").to_dense().equal(torch.maximum(dense, dense.T))
    c, dense = matrix(4, 6, has_value=False)
    wide = torch.zeros(6, 6, dtype=torch.float64)
    wide[:4] = dense
    assert c.to_symmetric().to_dense(torch.float64).equal(torch.maximum(wide, wide.T))


def test_resize_and_reshape():
    a, dense = matrix(5, 7)
    b = a.sparse_resize((6, 9))
    wide = torch.zeros(6, 9, dtype=torch.float64)
    wide[:5, :7] = dense
    same(b, wide)
    a.fill_cache_()
    same(a.sparse_resize((5, 9)), wide[:5])
    same(a.sparse_resize((6, 7)), wide[:, :7])
    same(a.sparse_reshape(7, 5), dense.reshape(7, 5))
    same(a.sparse_reshape(-1, 35), dense.reshape(1, 35))
    assert a.sparse_reshape(5, -1) == a
    with pytest.raises(IndexError):
        b.sparse_resize((6, 2))
    with pytest.raises(ValueError, match="product 35"):
        a.sparse_reshape(4, -1)


def test_reverse_cuthill_mckee():
    a, dense = matrix(6, 6)
    b, perm = a.reverse_cuthill_mckee()
    same(b, (dense + dense.T)[perm][:, perm])
    b, perm = a.to_symmetric().reverse_cuthill_mckee(is_symmetric=True)
    assert sorted(perm.tolist()) == list(range(6))


# ---- selection -------------------------------------------------------------------------------------------------------

PICKS = [
    (slice(1, 4),),
    (slice(None), slice(-3, None)),
    (slice(4, 2), slice(2, 100)),
    (torch.tensor([3, 0, 3]),),
    (torch.tensor([3, 0, 3]), torch.tensor([6, 6, 1])),
    (slice(None), torch.tensor([5, 0, 0, 2])),
    ([True, False, True, True, False], [0, 2]),
    (np.array([1, 2]), np.array([True] * 3 + [False] * 4)),
    (Ellipsis, slice(0, 1)),
    (slice(2, 3), Ellipsis),
    (slice(None), slice(None), torch.tensor([1, 0])),
    (slice(None), slice(None), torch.tensor([True, False])),
]


@pytest.mark.parametrize("pick", range(len(PICKS)))
@pytest.mark.parametrize("filled", [False, True])
def test_getitem(pick, filled):
    a, dense = matrix(5, 7, features=(2,))
    if filled:
        a.fill_cache_()
    pick = PICKS[pick]
    want = dense
    full = pick
    if Ellipsis in [p for p in pick if not isinstance(p, (torch.Tensor, np.ndarray))]:
        at = pick.index(Ellipsis)
        full = pick[:at] + (slice(None),) * (3 - len(pick) + 1) + pick[at + 1 :]
    for dim, p in enumerate(full):
        want = want[(slice(None),) * dim + (torch.as_tensor(p) if not isinstance(p, slice) else p,)]
    same(a[pick], want)


def test_integer_keeps_the_dimension():
    a, dense = matrix(5, 7)
    same(a[2], dense[2:3])
    same(a[-1, 3], dense[-1:, 3:4])
    same(a.select(1, -2), dense[:, 5:6])


@pytest.mark.parametrize("size", SIZES)
def test_transpose_permute_narrow(size):
    a, dense = matrix(*size)
    for _ in range(2):  # with and without known layouts
        same(a.t(), dense.T)
        same(a.t().t(), dense)
        for dim in (0, 1):
            n = size[dim]
            same(a.narrow(dim, n // 3, n // 2), dense.narrow(dim, n // 3, n // 2))
            same(a.narrow(dim, 0, 0), dense.narrow(dim, 0, 0))
        a.fill_cache_()
    if size[0] == size[1]:
        perm = torch.randperm(size[0])
        same(a.permute(perm), dense[perm][:, perm])


def test_getitem_of_nothing():
    a, dense = matrix(5, 7)
    same(a[[]], dense[:0])
    same(a[:, ()], dense[:, :0])


def test_index_select_and_mask_entries():
    a, dense = matrix(5, 7)
    row, col, value = a.coo()
    idx = torch.tensor([4, 0, 2])
    want = torch.zeros_like(dense)
    want[row[idx], col[idx]] = value[idx]
    same(a.index_select_nnz(idx, "coo"), want)
    mask = torch.rand(a.nnz()) < 0.5
    want = torch.zeros_like(dense)
    want[row[mask], col[mask]] = value[mask]
    same(a.masked_select_nnz(mask, layout="csr"), want)
    order = a.storage.csr2csc()
    same(a.masked_select_nnz(mask[order], layout="csc"), want)
    chosen = a.index_select_nnz(torch.tensor([1]), "csc")
    assert chosen.coo()[0].item() == row[order][1] and chosen.coo()[2].item() == value[order][1]
    assert a.set_value(value[order], "csc") == a and a.copy().set_value_(value[order], "csc") == a


@pytest.mark.parametrize("filled", [False, True])
def test_cat(filled):
    (a, da), (b, db) = matrix(5, 7), matrix(3, 4, seed=3)
    if filled:
        a.fill_cache_(), b.fill_cache_()
    wide = lambda t, m, n: torch.nn.functional.pad(t, (0, n - t.shape[1], 0, m - t.shape[0]))
    same(ts.cat([a, b], 0), torch.cat([da, wide(db, 3, 7)], 0))
    same(ts.cat([a, b], 1), torch.cat([da, wide(db, 5, 4)], 1))
    both = ts.cat([a, b], (0, 1))
    same(both, torch.block_diag(da, db))
    same(both.__narrow_diag__((5, 7), (3, 4)), db)
    assert both.__narrow_diag__((0, 0), (5, 7)) == a
    c, dc = matrix(5, 7, features=(2,))
    same(ts.cat([c, c], -1), torch.cat([dc, dc], -1))
    assert not ts.cat([a, b.set_value(None)], 0).has_value()


# ---- diagonals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(-6, 8))
@pytest.mark.parametrize("size", [(5, 7), (7, 5), (4, 4), (3, 0)])
@pytest.mark.parametrize("filled", [False, True])
def test_diagonals(size, k, filled):
    a, dense = matrix(*size)
    if filled:
        a.fill_cache_()
    M, N = size
    on = torch.arange(N)[None] - torch.arange(M)[:, None] == k
    same(a.remove_diag(k), dense.masked_fill(on, 0))
    same(a.fill_diag(2.5, k), dense.masked_fill(on, 2.5))
    same(a.set_diag(k=k), dense.masked_fill(on, 1))
    values = torch.rand(int(on.sum()), dtype=torch.float64)
    same(a.set_diag(values, k), dense.masked_scatter(on, values))
    assert a.get_diag().equal(dense.diagonal())
    same(a.set_value(None).fill_diag(2.5, k), (dense != 0).double().masked_fill(on, 1))


def test_diagonals_of_features_and_duplicates():
    a, dense = matrix(4, 4, features=(2,))
    values = torch.rand(4, 2, dtype=torch.float64)
    want = dense.clone()
    want[range(4), range(4)] = values
    same(a.set_diag(values), want)
    assert a.get_diag().equal(dense.diagonal().T)
    twice = SparseTensor(row=torch.tensor([0, 0, 1]), col=torch.tensor([0, 0, 0])).fill_cache_()
    assert twice.remove_diag().storage.rowcount().tolist() == [0, 1] and twice.remove_diag().storage.colcount().tolist() == [1]
    with pytest.raises(ValueError, match="set_diag"):
        a.set_diag(torch.ones(3))


# ---- sums and products by entries ------------------------------------------------------------------------------------


def test_add_and_mul_dense():
    a, dense = matrix(5, 7)
    held, pattern = dense != 0, a.set_value(None)
    for other in (torch.rand(5, 1, dtype=torch.float64), torch.rand(1, 7, dtype=torch.float64)):
        same(a * other, dense * other)
        same(other * a, dense * other)
        same(ts.mul(a, other), dense * other)
        same(a + other, (dense + other) * held)
        same(pattern * other, held * other)
        same(pattern + other, (1 + other) * held)
        kept = other.clone()
        b, c = a.clone(), a.clone()
        b *= other
        c += other
        same(b, dense * other)
        same(c, (dense + other) * held)
        assert other.equal(kept) and a.to_dense().equal(dense)
    nnz = torch.rand(a.nnz(), dtype=torch.float64)
    assert a.mul_nnz(nnz, "coo").storage.value().equal(a.storage.value() * nnz)
    assert a.add_nnz(nnz, "csr").storage.value().equal(a.storage.value() + nnz)
    assert pattern.mul_nnz(nnz, "coo").storage.value().equal(nnz)
    by_column = nnz[a.storage.csr2csc()]
    for name in ("mul_nnz", "add_nnz", "mul_nnz_", "add_nnz_"):
        assert getattr(a.clone(), name)(by_column, "csc") == getattr(a.clone(), name)(nnz, "coo")
        assert getattr(pattern.clone(), name)(by_column, "csc") == getattr(pattern.clone(), name)(nnz, "coo")
    assert a.clone().mul_nnz_(nnz, "coo") == a.mul_nnz(nnz, "coo")
    assert a.clone().add_nnz_(nnz, "coo") == a.add_nnz(nnz, "coo")


def test_add_and_mul_sparse():
    (a, da), (b, db) = matrix(5, 7), matrix(5, 7, seed=5)
    same(a + b, da + db)
    same(ts.mul(a, b), da * db)
    c, dc = matrix(3, 9, seed=7)
    pad = torch.nn.functional.pad
    same(a + c, pad(da, (0, 2)) + pad(dc, (0, 0, 0, 2)))
    same(a + b.set_value(None), da + (db != 0))
    assert not (a.set_value(None) + b.set_value(None)).has_value()
    index, value = ts.spadd(torch.stack(a.coo()[:2]), a.coo()[2], torch.stack(b.coo()[:2]), b.coo()[2], 5, 7)
    same(SparseTensor.from_edge_index(index, value, (5, 7)), da + db)
    with pytest.raises(ValueError, match="with values"):
        ts.mul(a, b.set_value(None))


# ---- conversions, copies, devices ------------------------------------------------------------------------------------


def test_torch_sparse():
    a, dense = matrix(5, 7)
    for mat in (a.to_torch_sparse_coo_tensor(), a.to_torch_sparse_csr_tensor(), a.to_torch_sparse_csc_tensor()):
        assert mat.to_dense().equal(dense)
    ones = a.set_value(None).to_torch_sparse_csc_tensor(torch.float16)
    assert ones.dtype == torch.float16 and ones.to_dense().equal((dense != 0).half())
    index, value = ts.from_torch_sparse(dense.to_sparse())
    assert ts.to_torch_sparse(index, value, 5, 7).to_dense().equal(dense)
    index, value = ts.transpose(index, value, 5, 7)
    assert SparseTensor.from_edge_index(index, value, (7, 5), is_sorted=True) == a.t()


def test_scipy():
    pytest.importorskip("scipy")
    a, dense = matrix(5, 7)
    for layout in ("coo", "csr", "csc"):
        mat = a.to_scipy(layout)
        assert mat.format == layout and (mat.toarray() == dense.numpy()).all()
        assert SparseTensor.from_scipy(mat) == a
        assert SparseTensor.from_scipy(mat, has_value=False) == a.set_value(None)
    assert a.set_value(None).to_scipy("csr", torch.int32).dtype == np.int32
    index, value = ts.from_scipy(ts.to_scipy(torch.stack(a.coo()[:2]), a.coo()[2], 5, 7))
    assert SparseTensor.from_edge_index(index, value, (5, 7)) == a


def test_casts():
    a, _ = matrix(5, 7)
    for name, dtype in {"half": torch.half, "bfloat16": torch.bfloat16, "float": torch.float, "int": torch.int, "long": torch.long,
                        "bool": torch.bool, "byte": torch.uint8, "char": torch.int8, "short": torch.short}.items():  # fmt: skip
        assert getattr(a, name)().dtype() == dtype
    assert a.double() is a and a.to(torch.float).dtype() == torch.float and a.type_as(torch.ones(1)).dtype() == torch.float
    assert a.to("cpu") is a and a.cpu() is a and a.device_as(torch.ones(1)) is a
    meta = a.fill_cache_().to("meta")
    assert meta.device().type == "meta" and meta.nnz() == a.nnz() and not a.is_cuda()
    assert a.set_value(None).dtype() == torch.float and a.is_floating_point() and not a.int().is_floating_point()


def test_copies():
    a, _ = matrix(5, 7)
    a.fill_cache_()
    for b in (copy.deepcopy(a), pickle.loads(pickle.dumps(a)), a.clone()):
        assert b == a and b.storage.value().data_ptr() != a.storage.value().data_ptr()
        assert b.storage.num_cached_keys() == 5
    for b in (copy.copy(a.storage), a.storage.copy()):
        assert b is not a.storage and b.value().data_ptr() == a.storage.value().data_ptr()
    assert a.copy().set_value_(None) != a and a.has_value()
    assert a != a.fill_value(3.0) and a != a.t() and a != 3
    b = a.clone().share_memory_()
    assert b.is_shared() and not a.is_shared() and not a.is_pinned() and hash(a) != hash(b)


def test_requires_grad():
    a, _ = matrix(5, 7)
    assert not a.requires_grad() and a.requires_grad_().requires_grad() and not a.detach().requires_grad()
    b = a.set_value(None).requires_grad_(dtype=torch.float64)
    assert b.requires_grad() and b.dtype() == torch.float64 and not b.detach_().requires_grad()
    assert not a.set_value(None).requires_grad_(False).has_value()


# ---- errors ----------------------------------------------------------------------------------------------------------

A = matrix(5, 7)[0]
ROW, COL, VALUE = A.coo()
ERRORS = [
    (ValueError, "expected col", lambda: SparseTensor(row=ROW)),
    (ValueError, "row and rowptr that agree", lambda: SparseTensor(row=torch.tensor([0]), rowptr=torch.tensor([0, 0, 1]), col=COL[:1])),
    (ValueError, "row or rowptr", lambda: SparseTensor(col=COL)),
    (TypeError, "dtype int64", lambda: SparseTensor(row=ROW.float(), col=COL)),
    (ValueError, "row of shape", lambda: SparseTensor(row=ROW[1:], col=COL)),
    (ValueError, "value of shape", lambda: SparseTensor(row=ROW, col=COL, value=VALUE[1:])),
    (ValueError, "rowptr of shape", lambda: SparseTensor(row=ROW, rowptr=torch.tensor([0, 1]), col=COL, sparse_sizes=(5, 7))),
    (IndexError, "row < 2", lambda: SparseTensor(row=ROW, col=COL, sparse_sizes=(2, 7))),
    (IndexError, "col < 2", lambda: SparseTensor(row=ROW, col=COL, sparse_sizes=(5, 2))),
    (IndexError, "row >= 0", lambda: SparseTensor(row=ROW - 1, col=COL)),
    (ValueError, "ascending", lambda: SparseTensor(row=ROW.flip(0), col=COL, is_sorted=True)),
    (ValueError, "non-decreasing", lambda: SparseTensor(rowptr=torch.tensor([0, 3, 1]), col=COL[:1], is_sorted=True)),
    (ValueError, "run from 0 to 1", lambda: SparseTensor(rowptr=torch.tensor([0, 3]), col=COL[:1])),
    (IndexError, "col < 2", lambda: SparseTensor(ROW, None, COL, None, (5, 2), True, True) @ torch.ones(2, 1)),
    (ValueError, "ascending", lambda: SparseTensor(ROW.flip(0), None, COL, None, (5, 7), True, True) @ torch.ones(7, 1)),
    (ValueError, "matrix", lambda: SparseTensor.from_dense(VALUE)),
    (ValueError, "edge_index", lambda: SparseTensor.from_edge_index(ROW)),
    (ValueError, "layout", lambda: A.set_value(VALUE, "bsr")),
    (ValueError, "set_value", lambda: A.set_value(VALUE[1:], "coo")),
    (ValueError, "one of sum", lambda: reduction(A, 1, "prod")),
    (IndexError, "dim in", lambda: A.sum(2)),
    (IndexError, "dim in", lambda: A.narrow(2, 0, 1)),
    (IndexError, "a range", lambda: A.narrow(0, 4, 2)),
    (IndexError, "idx < 5", lambda: A[torch.tensor([5])]),
    (IndexError, "idx >= 0", lambda: A.index_select(1, torch.tensor([-1]))),
    (IndexError, "at most 2", lambda: A[0, 0, 0]),
    (ValueError, "mask", lambda: A.masked_select(0, torch.ones(4, dtype=torch.bool))),
    (ValueError, "mask", lambda: A.masked_select_nnz(VALUE, "coo")),
    (ValueError, "without a step", lambda: A[::2]),
    (ValueError, r"\[5, 1, \*\]", lambda: A * torch.ones(7)),
    (ValueError, "square", lambda: A.permute(torch.arange(5))),
    (NotImplementedError, "SparseTensor", lambda: A + 1),
    (ValueError, "square", lambda: A.partition(2)),
    (ValueError, "sequence", lambda: ts.cat([], 0)),
    (ValueError, "other of shape", lambda: A @ torch.ones(5, 1)),
    (TypeError, "dtype", lambda: A @ torch.ones(7, 1, dtype=torch.complex64)),
    (ValueError, "reduce", lambda: A.matmul(torch.ones(7, 1), "prod")),
    (ValueError, "values of shape", lambda: matrix(5, 7, features=(2,))[0] @ torch.ones(7, 1)),
    (ValueError, "7 rows", lambda: A @ A),
    (NotImplementedError, "sum", lambda: A.matmul(A.t(), "max")),
    (ValueError, "Tensor or a SparseTensor", lambda: A.matmul(3)),
    (ValueError, "an empty one", lambda: SparseTensor(row=ROW[:0], col=COL[:0], sparse_sizes=(1, 1)).sample(1)),
]


@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_errors(case):
    kind, message, call = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()


def test_layout_unset_warns():
    with pytest.warns(UserWarning, match="layout"):
        A.set_value(VALUE)


def test_samples_are_what_the_tests_need():
    row, _ = entries(5, 7)
    assert row.numel() and not torch.equal(row, row.sort()[0])
    assert (matrix(7, 5)[1].count_nonzero(1) == 0).any() or (matrix(5, 7)[1].count_nonzero(0) == 0).any()
