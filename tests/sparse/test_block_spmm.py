"""block_spmm, block_sddmm, block_matmul, and SciPy's BSR."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, random_coo, to_csr, values
from compare import assert_close
from structops import Graph, sparse
from structops.kernels.sparse import block_spmm_ref as ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.structops
M, N, E = 17, 13, 90
COO = random_coo(M, N, E)
NONE = (None, None, None)
SHAPES = [
    (1, 1, 1),
    (2, 2, 16),
    (3, 3, 64),
    (4, 4, 17),
    (5, 5, 65),
    (3, 2, 33),
    (8, 8, 7),
    (7, 6, 130),
    (11, 9, 20),
    (6, 1, 8),
    (1, 4, 3),
    (32, 32, 70),
    (20, 37, 6),
]


def batched(t: Tensor) -> Tensor:
    """[rows, q, f] with the batch f first."""
    return t.movedim(2, 0).contiguous()


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in tensors]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (p, q, f) in enumerate(SHAPES):
        rowptr, col, eid = to_csr(COO, N, INTEGERS[n % 2])
        transpose, alpha = bool(n % 3), (1.0, -1.5)[n % 2]
        m = values(E, *((q, p) if transpose else (p, q)), dtype=dtype)
        x, g = values(M, q, f, dtype=dtype, seed=1), values(N, p, f, dtype=dtype, seed=2)
        for e in (eid, None):
            s = (rowptr, col, e, *NONE)
            want = ref.block_spmm(*wide(x, m), None, *s, alpha, transpose, False)
            outer = ref.block_sddmm(*wide(g, x), *s, E, alpha, transpose, False)
            for first in (False, True):
                xs, gs, to = (batched(x), batched(g), batched(want)) if first else (x, g, want)
                out = on_threads(lambda: ops.block_spmm(xs, m, None, *s, alpha, transpose, first))
                assert_close(out, to, dtype, terms=60 * q, what=(p, q, f, first))
                out = on_threads(lambda: ops.block_sddmm(gs, xs, *s, E, alpha, transpose, first))
                assert_close(out, outer, dtype, terms=4 * f, what=(p, q, f, first))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_diagonal_blocks_and_rows_of_positions(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """D_v x_v beside the edges, and sources that are the positions themselves."""
    rowptr, col, eid = to_csr(random_coo(N, N, E), N)
    for p, f in ((3, 64), (5, 19), (9, 4)):
        m, diag, x = values(E, p, p, dtype=dtype), values(N, p, p, dtype=dtype, seed=1), values(N, p, f, dtype=dtype, seed=2)
        for transpose in (False, True):
            args = (m, diag, rowptr, col, eid, *NONE, -1.0, transpose)
            want = ref.block_spmm(*wide(x, m, diag), *args[2:], False)
            assert_close(on_threads(lambda: ops.block_spmm(x, *args, False)), want, dtype, terms=60 * p)
            assert_close(on_threads(lambda: ops.block_spmm(batched(x), *args, True)), batched(want), dtype, terms=60 * p)
        edge = values(E, p, f, dtype=dtype, seed=3)
        args = (edge, m, None, rowptr, None, None, *NONE, 1.0, False, False)
        assert_close(ops.block_spmm(*args), ref.block_spmm(*wide(edge, m), *args[2:]), dtype, terms=60 * p)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_small_products(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    pair = torch.arange(E).reshape(-1, 2).flip(1).reshape(-1)
    for n, (p, r, q) in enumerate([(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5), (6, 6, 6), (2, 5, 3)]):
        for code in range(16):
            pa, pb, ta, tb = (bool(code >> i & 1) for i in range(4))
            a = values(E, *((r, p) if ta else (p, r)), dtype=dtype)
            b = values(E, *((q, r) if tb else (r, q)), dtype=dtype, seed=1)
            args = (pair.to(INTEGERS[n % 2]), pa, pb, ta, tb)
            out = on_threads(lambda: ops.block_matmul(a, b, *args))
            assert_close(out, ref.block_matmul(*wide(a, b), *args), dtype, terms=4 * r, what=(p, r, q, code))


def dense_product(coo: Tensor, num_dst: int, m: Tensor, x: Tensor) -> Tensor:
    """Through the dense block matrix."""
    p, q = m.shape[1:]
    matrix = m.new_zeros(num_dst, x.shape[0], p, q).index_put((coo[1], coo[0]), m, accumulate=True)
    return torch.einsum("vupq,uqf->vpf", matrix, x)


def test_public_product_and_gradients() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    for p, q, f in ((2, 2, 5), (3, 4, 1), (4, 4, 40)):
        m, x, c = values(E, p, q).requires_grad_(), values(M, q, f, seed=1).requires_grad_(), values(N, p, f, seed=2)
        ours, theirs = sparse.block_spmm(graph, m, x), dense_product(COO, N, m, x)
        assert_close(ours, theirs.detach(), terms=200)
        back = sparse.block_spmm(graph, m.mT.contiguous(), x, transpose=True)
        assert_close(back, theirs.detach(), terms=200)
        for _ in range(3):  # three orders
            a = torch.autograd.grad((ours * (c if ours.shape == c.shape else 1)).sum(), (m, x), create_graph=True)
            b = torch.autograd.grad((theirs * (c if theirs.shape == c.shape else 1)).sum(), (m, x), create_graph=True)
            for i, j in zip(a, b, strict=True):
                assert_close(i, j.detach(), terms=2000, magnitude=8.0)
            ours, theirs = a[0].sin().sum() + a[1].sin().sum(), b[0].sin().sum() + b[1].sin().sum()


def test_numbers_and_diagonals() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    w, d, x = values(E), values(E, 3, seed=1), values(M, 3, 4, seed=2)
    assert_close(sparse.block_spmm(graph, w, x), dense_product(COO, N, w[:, None, None] * torch.eye(3).double(), x), terms=60)
    assert_close(sparse.block_spmm(graph, d, x), dense_product(COO, N, torch.diag_embed(d), x), terms=60)
    assert_close(sparse.block_spmm(graph, torch.diag_embed(d), x[:, :, 0]), sparse.block_spmm(graph, d, x[:, :, 0]), terms=60)


def test_raw_gradients() -> None:
    coo = random_coo(5, 5, 9)
    rowptr, col, eid = to_csr(coo, 5)
    leaf = lambda *shape, seed=0: values(*shape, seed=seed).requires_grad_()
    for transpose in (False, True):
        shape = (3, 2) if transpose else (2, 3)
        product = lambda x, m, t=transpose: ops.block_spmm(x, m, None, rowptr, col, eid, *NONE, -0.5, t, False)
        outer = lambda a, b, t=transpose: ops.block_sddmm(a, b, rowptr, col, eid, *NONE, 9, -0.5, t, False)
        both = lambda x, m, d, t=transpose: ops.block_spmm(x, m, d, rowptr, col, eid, *NONE, -0.5, t, False)
        edges = lambda x, m, t=transpose: ops.block_spmm(x, m, None, rowptr, None, None, *NONE, 2.0, t, False)
        first = lambda x, m, d, t=transpose: ops.block_spmm(x, m, d, rowptr, col, eid, *NONE, -0.5, t, True)
        outer_first = lambda a, b, t=transpose: ops.block_sddmm(a, b, rowptr, col, eid, *NONE, 9, -0.5, t, True)
        cases = [
            (product, (leaf(5, 3, 2), leaf(9, *shape, seed=1))), (outer, (leaf(5, 2, 3), leaf(5, 3, 3, seed=1))),
            (both, (leaf(5, 2, 2), leaf(9, 2, 2, seed=1), leaf(5, 2, 2, seed=2))), (edges, (leaf(9, 3, 2), leaf(9, *shape, seed=1))),
            (first, (leaf(2, 5, 2), leaf(9, 2, 2, seed=1), leaf(5, 2, 2, seed=2))), (outer_first, (leaf(3, 5, 2), leaf(3, 5, 3, seed=1))),
        ]  # fmt: skip
        for fn, inputs in cases:
            assert gradcheck(fn, inputs)
            assert gradgradcheck(fn, inputs)
    pair = torch.tensor([1, 0, 3, 2])
    for code in range(16):
        pa, pb, ta, tb = (bool(code >> i & 1) for i in range(4))
        a, b = leaf(4, *((3, 2) if ta else (2, 3))), leaf(4, *((4, 3) if tb else (3, 4)), seed=1)
        assert gradgradcheck(lambda a, b, f=(pa, pb, ta, tb): ops.block_matmul(a, b, pair, *f), (a, b))


def test_public_outer_product() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    a, b = values(N, 3, 2, 4), values(M, 2, 2, 4, seed=1)
    want = torch.einsum("epxf,eqxf->epq", a[COO[1]], b[COO[0]])
    assert_close(sparse.block_sddmm(graph, a, b), want, terms=32)


def test_special_values(isa: str) -> None:
    """NaN and infinities reach the rows and features they belong to, and no others."""
    graph = Graph(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_nodes=4)
    m, x = torch.ones(3, 2, 2), torch.ones(3 + 1, 2, 20)
    x[0, 1, 3], x[1, 0, 19] = float("nan"), float("inf")
    out = sparse.block_spmm(graph, m, x)
    want = torch.full((4, 2, 20), 2.0)
    want[3] = 0
    want[0, :, 3], want[1, :, 19] = float("nan"), float("inf")
    assert_close(out, want.double(), torch.float32)


def test_zero_sizes(poison: None) -> None:
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=3)
    out = sparse.block_spmm(empty, torch.zeros(0, 2, 2), torch.ones(3, 2, 4))
    assert torch.equal(out, torch.zeros(3, 2, 4))
    assert sparse.block_sddmm(empty, torch.ones(3, 2, 4), torch.ones(3, 2, 4)).shape == (0, 2, 2)
    graph = Graph(COO, num_src=M, num_dst=N)
    assert sparse.block_spmm(graph, torch.zeros(E, 2, 2), torch.ones(M, 2, 0)).shape == (N, 2, 0)
    assert torch.equal(sparse.block_spmm(graph, torch.zeros(E, 2, 0), torch.ones(M, 0, 3)), torch.zeros(N, 2, 3))
    assert torch.equal(sparse.block_sddmm(graph, torch.ones(N, 2, 0), torch.ones(M, 3, 0)), torch.zeros(E, 2, 3))
    assert ops.block_matmul(torch.zeros(0, 2, 2), torch.zeros(0, 2, 2), None, False, False, False, False).shape == (0, 2, 2)
    assert sparse.block_spmm(
        Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0), torch.zeros(0, 2, 2), torch.zeros(0, 2, 3)
    ).shape == (0, 2, 3)


def test_bad_input() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    m, x = torch.zeros(E, 2, 3), torch.zeros(M, 3, 4)
    for bad in ((m, x[:, :2]), (m[1:], x), (m, x[1:]), (m[..., None], x), (torch.zeros(E, 2), x), (m, torch.zeros(M))):
        with pytest.raises(ValueError, match="block_spmm"):
            sparse.block_spmm(graph, *bad)
    xb = torch.zeros(4, M, 3)
    for bad in ((m, x), (m, xb[:, 1:]), (m, xb[..., 1:]), (m, torch.zeros(M)), (m[:, 0], xb), (m[:, 0, 0], xb)):
        with pytest.raises(ValueError, match="block_spmm"):
            sparse.block_spmm(graph, *bad, batch_first=True)
    for bad in ((m.double(), x), (m.int(), x), (None, x)):
        with pytest.raises(TypeError, match="block_spmm"):
            sparse.block_spmm(graph, *bad)
    with pytest.raises(TypeError, match="graph"):
        sparse.block_spmm(COO, m, x)
    with pytest.raises(ValueError, match="block_sddmm"):
        sparse.block_sddmm(graph, torch.zeros(N, 2, 3), torch.zeros(M, 2, 4))


def test_scipy_blocks() -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    dense = values(6, 8).numpy()
    dense[:2, 2:6] = 0
    graph, blocks = sparse.from_bsr(scipy_sparse.bsr_array(dense, blocksize=(2, 2)))
    x = values(4, 2, 3, seed=1)
    want = torch.as_tensor(dense) @ x.reshape(8, 3)
    assert graph.num_edges == 10
    assert_close(sparse.block_spmm(graph, blocks, x).reshape(6, 3), want, terms=32)
    for bad in (scipy_sparse.csr_array(dense), dense, scipy_sparse.bsr_array(dense.astype(int), blocksize=(2, 2))):
        with pytest.raises(TypeError, match="from_bsr"):
            sparse.from_bsr(bad)


def test_many_rows_and_a_hub(isa: str, poison: None, on_threads) -> None:
    """Enough rows for several pieces of work, one of which a single row fills."""
    coo = random_coo(50, 700, 3000, hub=2500)
    rowptr, col, eid = to_csr(coo, 700, torch.int32)
    edges = coo.shape[1]
    for p, f in ((2, 64), (3, 20)):
        m, x, g = values(edges, p, p), values(50, p, f, seed=1), values(700, p, f, seed=2)
        s = (rowptr, col, eid, *NONE)
        for dtype in (torch.float32, torch.float64):
            out = on_threads(lambda: ops.block_spmm(x.to(dtype), m.to(dtype), None, *s, 1.0, False, False))
            want = ref.block_spmm(x, m, None, *s, 1.0, False, False)
            assert_close(out, want, dtype, terms=2500 * p)
            out = on_threads(lambda: ops.block_spmm(batched(x.to(dtype)), m.to(dtype), None, *s, 1.0, False, True))
            assert_close(out, batched(want), dtype, terms=2500 * p)
            out = on_threads(lambda: ops.block_sddmm(g.to(dtype), x.to(dtype), *s, edges, 1.0, False, False))
            assert_close(out, ref.block_sddmm(g, x, *s, edges, 1.0, False, False), dtype, terms=4 * f)
