"""Powers of differences along edges: total variation, p-Laplacian, distances, diffusion."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, random_coo, small_integers, to_csr, values
from compare import assert_close
from structops import Graph, sparse
from structops.kernels.sparse import difference_ref as ref
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.structops
M, N, E = 17, 13, 90
COO = random_coo(M, N, E)
SQUARE = random_coo(9, 9, 60)
SQUARE = SQUARE[:, SQUARE[0] != SQUARE[1]][:, :40]  # a self-loop is a tie
NONE = (None, None, None)
POWERS = (0.0, 1.0, 2.0, 0.5, 1.5, 3.0, -0.5)


def wide(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in tensors]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """All powers, both parities, with and without weights and factors; integers in, so that ties occur."""
    for n, F in enumerate((1, 3, 8, 16, 17, 64, 77)):
        rowptr, col, eid = to_csr(COO, N, INTEGERS[n % 2])
        x, y = small_integers(M, F, dtype=dtype), small_integers(N, F, dtype=dtype, seed=1)
        w, hu, hv = values(E, dtype=dtype), values(M, F, dtype=dtype, seed=2), values(N, F, dtype=dtype, seed=3)
        for i, power in enumerate(POWERS):
            for odd in (False, True):
                s = (rowptr, col, eid if (n + i) % 2 else None, *NONE)
                weight, h, g = (w, None)[(n + i) % 2], (hu, None)[i % 2], (hv, None)[odd]
                what, size = (F, power, odd), 6.0 ** max(power, 0) * 4
                out = on_threads(lambda: ops.difference_rows(x, y, weight, h, *s, power, odd))
                want = ref.difference_rows(*wide(x, y, weight, h), *s, power, odd)
                assert_close(out, want, dtype, terms=60, magnitude=size, what=what)
                out = on_threads(lambda: ops.difference_edges(x, y, g, h, *s, E, power, odd))
                want = ref.difference_edges(*wide(x, y, g, h), *s, E, power, odd)
                assert_close(out, want, dtype, terms=2 * F, magnitude=size, what=what)


def test_special_values(isa: str) -> None:
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[nan], [inf], [0.0], [1e-40], [2.0]])
    y = torch.zeros(5, 1)
    s = (torch.arange(6), torch.arange(5), None, *NONE)
    for dtype in FLOATS:
        for power in POWERS:
            for odd in (False, True):
                got = ops.difference_rows(x.to(dtype), y.to(dtype), None, None, *s, power, odd)
                d = y - x
                want = ref.term(d.double(), power, odd)
                if power not in (0.0, 1.0, 2.0):
                    want[3] = 0  # below the normal numbers of float32: a tie
                if dtype in (torch.float64, torch.float16):  # 1e-40 is normal in the one, 0 in the other
                    got, want = got[[0, 1, 2, 4]], want[[0, 1, 2, 4]]
                if power not in (0.0,):
                    assert_close(got, want, dtype, terms=8, what=(dtype, power, odd))
                else:
                    assert_close(got[:3], want[:3], dtype, terms=8, what=(dtype, power, odd))


def away_from_ties(*shape: int, seed: int = 0) -> Tensor:
    return torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(seed)).double().reshape(shape) / 30


def test_raw_gradients() -> None:
    coo = random_coo(4, 5, 9)
    rowptr, col, eid = to_csr(coo, 5)
    s = (rowptr, col, eid, *NONE)
    leaf = lambda t: t.requires_grad_()
    x, y = leaf(away_from_ties(4, 2)), leaf(away_from_ties(5, 2, seed=1) + 0.01)
    w, hu, hv = leaf(values(9)), leaf(values(4, 2, seed=2)), leaf(values(5, 2, seed=3))
    for power in (0.0, 1.0, 2.0, 1.5, 3.0):
        for odd in (False, True):
            rows = lambda *a, p=power, o=odd: ops.difference_rows(*a, *s, p, o)
            edges = lambda *a, p=power, o=odd: ops.difference_edges(*a, *s, 9, p, o)
            assert gradcheck(rows, (x, y, w, hu)) and gradgradcheck(rows, (x, y, w, hu))
            assert gradcheck(edges, (x, y, hv, hu)) and gradgradcheck(edges, (x, y, hv, hu))
            assert gradcheck(lambda x, y, f=rows: f(x, y, None, None), (x, y))
            assert gradcheck(lambda x, y, f=edges: f(x, y, None, None), (x, y))


def messages(x: Tensor) -> Tensor:
    return x[SQUARE[1]] - x[SQUARE[0]]


def collect(m: Tensor) -> Tensor:
    return m.new_zeros(9, *m.shape[1:]).index_add(0, SQUARE[1], m)


def functions(p: float) -> dict:
    """Public function and the same on stored differences."""
    graph = Graph(SQUARE, num_nodes=9)
    column = lambda w: w.reshape(-1, 1, 1)
    length = lambda d: d.square().sum((1, 2)).sqrt()
    norm = lambda d: (d.abs() ** p).sum((1, 2)) ** (1 / p)
    return {
        "variation": (
            lambda x, w: sparse.total_variation(graph, x, w, p),
            lambda x, w: (column(w) * messages(x).abs() ** p).sum(),
        ),
        "variation of features": (
            lambda x, w: sparse.total_variation(graph, x, w, p, per_feature=True),
            lambda x, w: (column(w) * messages(x).abs() ** p).sum(0),
        ),
        "feature Laplacian": (
            lambda x, w: sparse.p_laplacian(graph, x, w, p),
            lambda x, w: collect(column(w) * messages(x).abs() ** (p - 1) * messages(x).sign()),
        ),
        "vector Laplacian": (
            lambda x, w: sparse.p_laplacian(graph, x, w, p, norm="vector"),
            lambda x, w: collect(column(w * length(messages(x)) ** (p - 2)) * messages(x)),
        ),
        "distance": (lambda x, w: w * sparse.lp_distance(graph, x, p=p), lambda x, w: w * norm(messages(x))),
        "sum of powers": (
            lambda x, w: w * sparse.lp_distance(graph, x, p=p, root=False),
            lambda x, w: w * (messages(x).abs() ** p).sum((1, 2)),
        ),
        "step": (
            lambda x, w: sparse.difference_step(graph, x, w, step=0.3, p=p, eps=1.5),
            lambda x, w: x - 0.3 * collect(column(w / norm(messages(x)).clamp(min=1.5)) * messages(x)),
        ),
        "gradient": (lambda x, w: sparse.graph_gradient(graph, x, w), lambda x, w: -column(w) * messages(x)),
    }  # fmt: skip


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("name", functions(2.0))
def test_public_functions(name: str, p: float) -> None:
    """Values and two orders of gradients against stored differences. No edge of the graph is a self-loop or a tie."""
    ours, theirs = functions(p)[name]
    x, w = away_from_ties(9, 2, 3).requires_grad_(), values(40).abs().requires_grad_()
    a, b = ours(x, w), theirs(x, w)
    assert_close(a, b.detach(), terms=2000, magnitude=8.0)
    c = values(1, *a.shape, seed=5)[0]
    for _ in range(2):
        a = torch.autograd.grad((a * c).sum(), (x, w), create_graph=True, materialize_grads=True)
        b = torch.autograd.grad((b * c).sum(), (x, w), create_graph=True, materialize_grads=True)
        for i, j in zip(a, b, strict=True):
            assert_close(i, j.detach(), terms=4000, magnitude=16.0, what=name)
        if not (a[0].requires_grad and b[0].requires_grad):
            break
        a, b, c = a[0].sin() + a[1].sum(), b[0].sin() + b[1].sum(), torch.ones(())


def test_ties_have_no_slope() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    for p in (1.0, 1.5, 2.0, 3.0):
        x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        results = [
            sparse.total_variation(graph, x, None, p), sparse.lp_distance(graph, x, p=p), sparse.difference_step(graph, x, p=p) - x,
            sparse.p_laplacian(graph, x, None, p), sparse.p_laplacian(graph, x, None, p, norm="vector"),
        ]  # fmt: skip
        for r in results:
            assert torch.equal(r.detach(), torch.zeros_like(r))
            (first,) = torch.autograd.grad(r.sum(), x, create_graph=True, materialize_grads=True)
            assert torch.equal(first.detach(), torch.zeros_like(x))


def test_backward_keeps_no_differences() -> None:
    graph = Graph(SQUARE, num_nodes=9)
    x = torch.randn(9, 64, requires_grad=True)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        sparse.total_variation(graph, x, torch.ones(40), 1.5)
        sparse.p_laplacian(graph, x, torch.ones(40), 1.5)
    assert max(saved) == 9 * 64


def test_zero_sizes_and_rectangles(poison: None) -> None:
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=3)
    x = torch.ones(3, 2)
    assert sparse.total_variation(empty, x) == 0
    assert torch.equal(sparse.p_laplacian(empty, x), torch.zeros(3, 2))
    assert sparse.lp_distance(empty, x).shape == (0,)
    assert sparse.p_laplacian(Graph(SQUARE, num_nodes=9), torch.ones(9, 0)).shape == (9, 0)
    assert torch.equal(sparse.lp_distance(Graph(SQUARE, num_nodes=9), torch.ones(9, 0)), torch.zeros(40))
    rectangle = Graph(COO, num_src=M, num_dst=N)
    a, b = values(M, 5), values(N, 5, seed=1)
    assert_close(sparse.lp_distance(rectangle, a, b, p=1.0), (b[COO[1]] - a[COO[0]]).abs().sum(1), terms=16)
    with pytest.raises(ValueError, match="square"):
        sparse.lp_distance(rectangle, a)


def test_bad_input() -> None:
    graph = Graph(SQUARE, num_nodes=9)
    x, w = torch.ones(9, 2), torch.ones(40)
    for fn in (sparse.total_variation, sparse.p_laplacian, sparse.difference_step, sparse.graph_gradient):
        for bad in ((x[1:], w), (x, w[1:]), (x, w[:, None])):
            with pytest.raises(ValueError, match=fn.__name__):
                fn(graph, *bad)
        for bad in ((x, w.double()), (x.int(), w), (None, w)):
            with pytest.raises(TypeError, match=fn.__name__):
                fn(graph, *bad)
    for p in (0.5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="p <"):
            sparse.total_variation(graph, x, w, p)
    with pytest.raises(ValueError, match="norm"):
        sparse.p_laplacian(graph, x, w, norm="max")
    with pytest.raises(ValueError, match="eps"):
        sparse.difference_step(graph, x, w, eps=0)


def test_many_rows_and_a_hub(isa: str, poison: None, on_threads) -> None:
    """Enough rows for several pieces of work, one of which a single row fills."""
    coo = random_coo(50, 700, 3000, hub=2500)
    s = (*to_csr(coo, 700, torch.int32), *NONE)
    edges = coo.shape[1]
    x, y, w = values(50, 70), values(700, 70, seed=1), values(edges, seed=2)
    for power, odd in ((1.0, True), (1.5, False)):
        for dtype in (torch.float32, torch.float64):
            a, b, c = x.to(dtype), y.to(dtype), w.to(dtype)
            out = on_threads(lambda: ops.difference_rows(a, b, c, None, *s, power, odd))
            assert_close(out, ref.difference_rows(x, y, w, None, *s, power, odd), dtype, terms=2500, magnitude=6.0)
            out = on_threads(lambda: ops.difference_edges(a, b, None, None, *s, edges, power, odd))
            assert_close(out, ref.difference_edges(x, y, None, None, *s, edges, power, odd), dtype, terms=280, magnitude=6.0)
