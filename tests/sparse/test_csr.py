"""csr_build, csr_from_coo, csr_transpose and index_range."""

from __future__ import annotations

import pytest
import torch
from cases import INTEGERS, generator
from compare import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from structops.kernels.sparse import csr_ref

ops = torch.ops.structops
csr_build, index_range = ops.csr_build, ops.index_range
SIZES = [(0, 0), (0, 5), (1, 1), (100, 7), (100, 1000), (200_000, 50), (200_000, 300_000), (70_000, 400_000)]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(("edges", "groups"), SIZES)
def test_csr_build(isa: str, edges: int, groups: int, dtype: torch.dtype, poison: None, on_threads) -> None:
    """A stable sort, the same on any number of threads."""
    index = torch.randint(max(groups, 1), (edges,), generator=generator(1)).to(dtype)
    rowptr, perm = on_threads(lambda: csr_build(index, groups))
    for got, expected in zip((rowptr, perm), csr_ref.csr_build(index, groups), strict=True):
        assert_same(got, expected)
    assert rowptr.dtype == perm.dtype == dtype


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(("edges", "groups"), SIZES)
def test_csr_from_coo(isa: str, edges: int, groups: int, dtype: torch.dtype, wide: bool, poison: None, on_threads) -> None:
    """The sources of every destination in the order of the edges, and the numbers of the edges."""
    row, col = (torch.randint(max(groups, 1), (edges,), generator=generator(seed)).to(dtype) for seed in (1, 2))
    found = on_threads(lambda: ops.csr_from_coo(row, col, groups, wide))
    for got, expected in zip(found, csr_ref.csr_from_coo(row, col, groups, wide), strict=True):
        assert_same(got, expected)
    assert {t.dtype for t in found} == {torch.int64 if wide else torch.int32}


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(("edges", "groups"), SIZES)
def test_csr_transpose(isa: str, edges: int, groups: int, dtype: torch.dtype, permuted: bool, poison: None, on_threads) -> None:
    """Rows without edges at the beginning, at the end and in between; twice transposed is the structure again."""
    rows = edges // 3 + 4
    row = torch.randint(2, rows - 1, (edges,), generator=generator(1)).sort().values
    rowptr = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=rows).cumsum(0)]).to(dtype)
    col = torch.randint(max(groups, 1), (edges,), generator=generator(2)).to(dtype)
    eid = torch.randperm(edges, generator=generator(3)).to(dtype) if permuted else None
    found = on_threads(lambda: ops.csr_transpose(rowptr, col, eid, groups))
    for got, expected in zip(found, csr_ref.csr_transpose(rowptr, col, eid, groups), strict=True):
        assert_same(got, expected)
    back = ops.csr_transpose(*found, rows)
    assert_same(back[0], rowptr)
    for part in range(rows if edges <= 100 else 0):
        span = slice(int(rowptr[part]), int(rowptr[part + 1]))
        edge = torch.arange(edges).to(dtype) if eid is None else eid
        of = lambda c, e: sorted(zip(c[span].tolist(), e[span].tolist(), strict=True))
        assert of(back[1], back[2]) == of(col, edge)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=60), st.sampled_from(INTEGERS))
def test_csr_build_of_anything(index: list[int], dtype: torch.dtype) -> None:
    i = torch.tensor(index, dtype=dtype)
    rowptr, perm = csr_build(i, 13)
    ptr, order = rowptr.tolist(), perm.tolist()
    for n in range(13):
        assert order[ptr[n] : ptr[n + 1]] == [k for k, v in enumerate(index) if v == n]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("position", [0, 5, 99_999, 199_999])
@pytest.mark.parametrize("bad", [-1, 50, 2**31 - 1, -(2**31)])
def test_out_of_range_is_an_error(isa: str, dtype: torch.dtype, position: int, bad: int, on_threads) -> None:
    index = torch.randint(50, (200_000,), generator=generator(1)).to(dtype)
    index[position] = bad
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with pytest.raises(RuntimeError, match="csr_build: index out of range"):
            csr_build(index, 50)
        with pytest.raises(RuntimeError, match="csr_from_coo: index out of range"):
            ops.csr_from_coo(index, index, 50, False)
        with pytest.raises(RuntimeError, match="csr_transpose: index out of range"):
            ops.csr_transpose(torch.tensor([0, 200_000], dtype=dtype), index, None, 50)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_index_range(isa: str, dtype: torch.dtype, on_threads) -> None:
    info = torch.iinfo(dtype)
    assert index_range(torch.zeros(0, dtype=dtype)) == (0, -1, True)
    assert index_range(torch.tensor([info.max, info.min], dtype=dtype)) == (info.min, info.max, False)
    assert index_range(torch.tensor([3, 3, 4], dtype=dtype)) == (3, 4, True)
    for size in (1, 65_535, 65_536, 65_537, 200_000):
        ascending = torch.arange(size).to(dtype)
        for at in {0, size // 2, size - 1, min(65_535, size - 1), min(65_536, size - 1)}:
            index = ascending.clone()
            index[at] = -5
            for i in (ascending, index, ascending.flip(0)):
                expected = csr_ref.index_range(i)
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    assert index_range(i) == expected
