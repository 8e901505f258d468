"""Sparse matrices with empty rows and columns, and their dense counterparts."""

from __future__ import annotations

import torch
from structops.compat.torch_sparse import SparseTensor

SIZES = [(5, 7), (7, 5), (6, 6), (1, 4), (4, 1), (3, 0), (0, 3), (0, 0)]


def entries(M, N, seed=0, share=0.4):
    """row and col [E] of distinct places, shuffled."""
    g = torch.Generator().manual_seed(seed)
    row, col = (torch.rand(M, N, generator=g) < share).nonzero(as_tuple=True)
    order = torch.randperm(row.numel(), generator=g)
    return row[order], col[order]


def matrix(M, N, dtype=torch.float64, features=(), seed=0, has_value=True):
    """A SparseTensor and its dense counterpart, whose values are never 0."""
    row, col = entries(M, N, seed)
    g = torch.Generator().manual_seed(seed + 1)
    value = torch.randint(1, 9, (row.numel(), *features), generator=g)
    value = (value / 4).to(dtype) if dtype.is_floating_point else value.to(dtype)
    if not has_value:
        value = torch.ones(row.numel(), dtype=dtype)
    dense = torch.zeros(M, N, *features, dtype=dtype)
    dense[row, col] = value
    return SparseTensor(row=row, col=col, value=value if has_value else None, sparse_sizes=(M, N)), dense


def same(sparse, dense):
    """The same sizes and numbers, in order."""
    row, col, value = sparse.coo()
    assert sparse.sizes() == list(dense.shape)
    assert sparse.is_coalesced() and bool((row[1:] >= row[:-1]).all())
    torch.testing.assert_close(sparse.to_dense(dense.dtype), dense)
    rowptr, col_csr, _ = sparse.csr()
    assert torch.equal(col_csr, col) and torch.equal(rowptr.diff(), (row[:, None] == torch.arange(dense.shape[0])).sum(0))
    colptr, row_csc, value_csc = sparse.csc()
    assert torch.equal(colptr.diff(), (col[:, None] == torch.arange(dense.shape[1])).sum(0))
    col_csc = torch.repeat_interleave(torch.arange(dense.shape[1]), colptr.diff())
    if value is not None:
        torch.testing.assert_close(value_csc, dense[row_csc, col_csc])
    storage = sparse.storage
    order = storage.csr2csc()
    assert torch.equal(order[storage.csc2csr()], torch.arange(row.numel()))
    assert torch.equal(row[order], row_csc) and torch.equal(col[order], col_csc)
    assert torch.equal(storage.rowcount(), rowptr.diff()) and torch.equal(storage.colcount(), colptr.diff())
