"""typed_matmul, typed_matmul_wgrad: rows times the matrix of their type, and relational convolutions."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, values
from compare import assert_close, assert_same
from structops import Graph
from structops.kernels.sparse import typed_matmul_ref as ref
from structops.sparse import RelationPlan, TypePlan, rgcn_aggregate, segment_matmul, typed_matmul
from structops.sparse import _typed_plan as plans
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

raw, raw_wgrad = torch.ops.structops.typed_matmul, torch.ops.structops.typed_matmul_wgrad
M, N, E, R = 40, 30, 700, 6
COO = random_coo(M, N, E, seed=11)
KIND = torch.randint(0, R - 1, (E,), generator=generator(5))  # the last type has no rows
GRAPH = Graph(COO, num_src=M, num_dst=N)
SHAPES = ((1, 1), (3, 70), (16, 16), (33, 40), (64, 32), (300, 17))


def by_edges(x: Tensor, w: Tensor, c: Tensor | None = None, coo: Tensor = COO, kind: Tensor = KIND, n: int = N) -> Tensor:
    """One product for every edge."""
    message = torch.einsum("ek,eko->eo", x[coo[0]], w[kind])
    return x.new_zeros(n, w.shape[2]).index_add(0, coo[1], message if c is None else c[:, None] * message)


def mean_coefficients(coo: Tensor, kind: Tensor, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    key = coo[1] * (int(kind.max()) + 1 if kind.numel() else 1) + kind
    return 1 / torch.bincount(key)[key].to(dtype)


def lists_of(form: str, index: torch.dtype, wide: torch.dtype) -> tuple[tuple, int, int]:
    """((scale, scale_t, lists, lists_t), rows of x, rows of out)."""
    cast = lambda ls: tuple(t if t is None else t.to(index) for t in ls)
    none = plans.NOTHING
    if form == "segments":
        return (None, None, torch.tensor([0, 0, 97, 98, 350, E, E], dtype=index), *none[1:], *none), E, E
    if form == "rows":
        plan = TypePlan(KIND, R, COO[0], M)
        return (None, None, *cast(plan.lists), *none), M, E
    plan = RelationPlan(GRAPH, KIND, R)
    scale = plan.mean_scales(wide)[0] if form == "mean" else None
    return (scale, None, *cast(plan.lists), *none), M, N


@pytest.mark.parametrize("form", ["segments", "rows", "sums", "mean"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, form: str, poison: None, on_threads) -> None:
    for n, (K, O) in enumerate(SHAPES):
        lists, x_rows, rows = lists_of(form, INTEGERS[n % 2], torch.float64 if dtype == torch.float64 else torch.float32)
        x, w, g = values(x_rows, K, dtype=dtype), values(R, K, O, dtype=dtype, seed=1), values(rows, O, dtype=dtype, seed=2)
        bias = values(R, O, dtype=dtype, seed=3) if form in ("segments", "rows") and n % 2 else None
        out = on_threads(lambda: raw(x, w, bias, *lists, rows))
        want = ref.typed_matmul(x.double(), w.double(), bias if bias is None else bias.double(), *lists, rows)
        assert_close(out, want, dtype, terms=60 * K, magnitude=2.0, what=(K, O))
        back = on_threads(lambda: raw_wgrad(x, g, *lists, R))
        want = ref.typed_matmul_wgrad(x.double(), g.double(), *lists, R)
        assert_close(back, want, dtype, terms=E, magnitude=4.0, what=(K, O))


def test_large_types(isa: str, on_threads) -> None:
    """Types of several tiles and pieces, and a plan of several blocks."""
    n = 30_000
    types = torch.randint(0, 3, (n,), generator=generator(1))
    x, w, g = values(n, 20), values(3, 20, 34, seed=1), values(n, 34, seed=2)
    plan = TypePlan(types, 3)
    out = on_threads(lambda: typed_matmul(x, w, plan))
    assert_close(out, torch.einsum("nk,nko->no", x, w[types]), terms=20, magnitude=3.0)
    dw = on_threads(lambda: raw_wgrad(x, g, None, None, *plan.lists, *plan.lists_t, 3))
    assert_close(dw, torch.stack([x[types == t].T @ g[types == t] for t in range(3)]), terms=n)
    coo = random_coo(900, 800, 20_000, seed=4, hub=3000)
    kind = torch.randint(0, 3, (coo.shape[1],), generator=generator(2))
    graph = Graph(coo, num_src=900, num_dst=800)
    edges = RelationPlan(graph, kind, 3)
    assert edges.lists.blocks is not None and edges.lists.blocks.numel() > 4 and edges.lists.gptr is not None
    y = values(900, 20)
    for form in ("direct", "compact"):
        out = on_threads(lambda: rgcn_aggregate(graph, y, edges, w, None, form))
        assert_close(out, by_edges(y, w, None, coo, kind, 800), terms=20_000, magnitude=3.0, what=form)


def test_rows_do_not_depend_on_others() -> None:
    ptr = torch.tensor([0, 100, 300])
    x, w = values(300, 33, dtype=torch.float32), values(2, 33, 50, dtype=torch.float32, seed=1)
    whole = segment_matmul(x, ptr, w)
    assert_same(segment_matmul(x[5:9], torch.tensor([0, 4, 4]), w), whole[5:9])
    rows = torch.tensor([150, 299, 150])
    assert_same(typed_matmul(x, w, torch.tensor([1, 1, 1]), rows), whole[rows])
    dirty = x.clone()
    dirty[7], dirty[120] = float("nan"), float("inf")
    out = segment_matmul(dirty, ptr, w)
    assert out[7].isnan().all()
    clean = torch.ones(300, dtype=torch.bool)
    clean[[7, 120]] = False
    assert_same(out[clean], whole[clean])


def test_unused_matrices_are_not_read() -> None:
    w = torch.full((3, 4, 5), float("nan"))
    w[1] = 1
    w.requires_grad_()
    out = segment_matmul(torch.ones(6, 4), torch.tensor([0, 0, 6, 6]), w)
    assert (out == 4).all()
    out.sum().backward()
    assert (w.grad[[0, 2]] == 0).all() and (w.grad[1] == 6).all()


@pytest.mark.parametrize("form", ["direct", "compact"])
def test_rgcn_values_and_gradients(form: str, poison: None) -> None:
    for norm in ("mean", None, "edge"):
        c = mean_coefficients(COO, KIND, N) if norm == "mean" else values(E, seed=7) if norm == "edge" else None
        x, w = values(M, 9).requires_grad_(), values(R, 9, 13, seed=1).requires_grad_()
        given = c if norm == "edge" else norm
        ours, theirs = rgcn_aggregate(GRAPH, x, KIND, w, given, form), by_edges(x, w, c)
        assert_close(ours, theirs.detach(), terms=600, magnitude=4.0)
        g = values(N, 13, seed=4)
        for _ in range(2):
            a = torch.autograd.grad((ours * g).sum(), (x, w), create_graph=True)
            b = torch.autograd.grad((theirs * g).sum(), (x, w), create_graph=True)
            for p, q in zip(a, b, strict=True):
                assert_close(p, q.detach(), terms=4 * E, magnitude=20.0, what=(norm, form))
            ours, theirs = (sum((p.sin() * 0.1).sum() for p in v) * g for v in (a, b))


def test_gradient_of_coefficients() -> None:
    x, w, c = values(M, 5).requires_grad_(), values(R, 5, 4, seed=1).requires_grad_(), values(E, seed=2).requires_grad_()
    g = values(N, 4, seed=3)
    a = torch.autograd.grad((rgcn_aggregate(GRAPH, x, KIND, w, c) * g).sum(), (x, w, c))
    b = torch.autograd.grad((by_edges(x, w, c) * g).sum(), (x, w, c))
    for p, q in zip(a, b, strict=True):
        assert_close(p, q, terms=4 * E, magnitude=4.0)


def test_gradchecks() -> None:
    kind = torch.tensor([1, 0, 1, 1, 0, 3, 1])
    coo = torch.tensor([[0, 1, 2, 0, 3, 3, 0], [2, 0, 2, 2, 1, 1, 0]])
    graph = Graph(coo, num_src=5, num_dst=4)
    leaf = lambda *s, seed=0: values(*s, seed=seed).requires_grad_()
    x, w, b, c = leaf(5, 3), leaf(4, 3, 2, seed=1), leaf(4, 2, seed=2), leaf(7, seed=3)
    rows, few = TypePlan(kind, 4, coo[0], 5), leaf(7, 3, seed=4)
    ptr = torch.tensor([0, 2, 2, 3, 5])
    for fn, inputs in (
        (lambda x, w, b: segment_matmul(x, ptr, w, b), (x, w, b)),
        (lambda x, w, b: typed_matmul(x, w, rows, bias=b), (x, w, b)),
        (lambda x, w, b: typed_matmul(x, w, kind, bias=b), (few, w, b)),
        (lambda x, w: rgcn_aggregate(graph, x, kind, w, form="direct"), (x, w)),
        (lambda x, w, c: rgcn_aggregate(graph, x, kind, w, c), (x, w, c)),
    ):
        assert gradcheck(fn, inputs)
        assert gradgradcheck(fn, inputs)


def test_nothing_of_the_size_of_the_edges_is_saved() -> None:
    graph = Graph(torch.randint(0, 50, (2, 4000), generator=generator(1)), num_nodes=50)
    plan = RelationPlan(graph, torch.randint(0, 4, (4000,), generator=generator(2)), 4)
    x, w = values(50, 8, dtype=torch.float32).requires_grad_(), values(4, 8, 8, dtype=torch.float32).requires_grad_()
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(t.numel() if t.is_floating_point() else 0), t)[1], lambda t: t
    ):
        rgcn_aggregate(graph, x, plan, w, None, "direct")
    assert sum(saved) == 50 * 8 + 4 * 64


def test_zero_sizes(poison: None) -> None:
    for M_, K, O, T in ((0, 3, 4, 2), (5, 0, 4, 2), (5, 3, 0, 2), (0, 0, 0, 0)):
        x, w = torch.ones(M_, K, requires_grad=True), torch.ones(T, K, O, requires_grad=True)
        types = torch.arange(M_) % max(T, 1)
        ptr = torch.tensor([0, *torch.bincount(types, minlength=T).cumsum(0).tolist()]) if T else torch.tensor([0])
        for out in (segment_matmul(x, ptr, w), typed_matmul(x, w, types), typed_matmul(x, w, types, torch.arange(M_))):
            assert out.shape == (M_, O) and (out == K).all()
            dx, dw = torch.autograd.grad(out.sum(), (x, w))
            assert (dx == O).all() and dw.shape == w.shape and dw.isfinite().all()
        graph = Graph(torch.zeros(2, 0, dtype=torch.int64), num_src=M_, num_dst=4)
        for form in ("direct", "compact"):
            out = rgcn_aggregate(graph, x, torch.zeros(0, dtype=torch.int64), w, form=form)
            assert out.shape == (4, O) and (out == 0).all()
            assert (torch.autograd.grad(out.sum(), w)[0] == 0).all()


def test_choice_of_the_form() -> None:
    """Many edges of few sources: transforming the sources is less; and the other way round."""
    src, dst = torch.arange(600) % 3, torch.arange(600)
    x, w = values(600, 16), values(1, 16, 16, seed=1)
    kind = torch.zeros(600, dtype=torch.int64)
    for index, compact in ((torch.stack([src, dst]), True), (torch.stack([dst, src]), False)):
        plan = RelationPlan(Graph(index, num_nodes=600), kind)
        rgcn_aggregate(plan.graph, x, plan, w)
        assert (plan._compact is not None) == compact


def test_bad_input() -> None:
    x, w, ptr = torch.ones(5, 3), torch.ones(2, 3, 4), torch.tensor([0, 2, 5])
    for error, match, call in (
        (ValueError, "weight of shape", lambda: segment_matmul(x, ptr, torch.ones(2, 4, 4))),
        (TypeError, "weight of dtype", lambda: segment_matmul(x, ptr, w.double())),
        (ValueError, "ptr of shape", lambda: segment_matmul(x, ptr[:2], w)),
        (ValueError, "ptr to run", lambda: segment_matmul(x, torch.tensor([0, 2, 4]), w)),
        (ValueError, "non-decreasing", lambda: segment_matmul(x, torch.tensor([0, 6, 5]), w)),
        (ValueError, "bias of shape", lambda: segment_matmul(x, ptr, w, torch.ones(4))),
        (IndexError, "types < 2", lambda: typed_matmul(x, w, torch.tensor([0, 1, 2, 0, 0]))),
        (IndexError, "gather < 5", lambda: typed_matmul(x, w, torch.tensor([0]), torch.tensor([5]))),
        (IndexError, "types >= 0", lambda: typed_matmul(x, w, torch.tensor([0, -1, 0, 0, 0]))),
        (ValueError, "x of shape", lambda: typed_matmul(x, w, torch.tensor([0]))),
        (TypeError, "structops.Graph", lambda: rgcn_aggregate(None, x, KIND, w)),
        (ValueError, "norm to be one of", lambda: rgcn_aggregate(GRAPH, values(M, 3), KIND, values(R, 3, 4), "sum")),
        (ValueError, "edge_type of shape", lambda: rgcn_aggregate(GRAPH, values(M, 3), KIND[:3], values(R, 3, 4))),
        (ValueError, "norm of shape", lambda: rgcn_aggregate(GRAPH, values(M, 3), KIND, values(R, 3, 4), values(3))),
    ):
        with pytest.raises(error, match=match):
            call()
    with pytest.raises(RuntimeError, match="without blocks every row"):
        raw(x, w, None, None, None, ptr, *plans.NOTHING[1:], *plans.NOTHING, 4)


def test_compile() -> None:
    plan, rows = RelationPlan(GRAPH, KIND, R), TypePlan(KIND, R, COO[0], M)
    plan.compact()
    plan.mean_scales(torch.float64)
    ptr = torch.tensor([0, 4, 4, 9, 20, 33, M])
    for fn in (
        lambda x, w: rgcn_aggregate(GRAPH, x, plan, w, form="direct"),
        lambda x, w: rgcn_aggregate(GRAPH, x, plan, w, None, form="compact"),
        lambda x, w: typed_matmul(x, w, rows),
        lambda x, w: segment_matmul(x, ptr, w),
    ):
        torch._dynamo.reset()
        results = []
        for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
            x, w = values(M, 5).requires_grad_(), values(R, 5, 4, seed=1).requires_grad_()
            out = f(x, w)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), (x, w))))
        for a, b in zip(*results, strict=True):
            assert_close(b, a, terms=E, magnitude=20.0)
