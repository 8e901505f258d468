"""Derivatives of spmm: against autograd through a loop, gradcheck, gradgradcheck, edge cases, and what is saved."""

from __future__ import annotations

import math

import pytest
import structops
import torch
from cases import BINARY, MESSAGES, REDUCES, random_coo, small_integers, spmm_oracle, values
from compare import assert_close
from structops import Graph, spmm
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

NUM_SRC, NUM_DST, EDGES = 7, 6, 16
# features of x and of the edges
SHAPES = {
    "both": ((3,), (3,)), "e_scalar": ((3,), (1,)), "x_scalar": ((1,), (3,)), "heads": ((2, 3), (2, 1)),
    "outer": ((3, 1), (1, 2)), "vectors": ((), ()), "e_vector": ((3,), ()), "rank": ((2, 3), (3,)),
}  # fmt: skip


def small_graph(sort: bool = False) -> tuple[Graph, Tensor]:
    """A rectangular multigraph with an empty row and an isolated source."""
    coo = random_coo(NUM_SRC, NUM_DST, EDGES, seed=3)
    if sort:
        coo = coo[:, torch.sort(coo[1], stable=True).indices]
    graph = Graph(coo, num_src=NUM_SRC, num_dst=NUM_DST)
    assert (graph.in_degrees() == 0).any() and (graph.out_degrees() == 0).any()
    assert coo.unique(dim=1).shape[1] < EDGES
    return graph, coo


def leaves(mode: str, kind: str, dtype: torch.dtype = torch.float64, seed: int = 5) -> tuple[Tensor | None, Tensor | None]:
    fx, fe = SHAPES[mode]
    make = lambda *s, seed: (torch.randn(*s, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    x = None if kind == "copy_e" else make(NUM_SRC, *fx, seed=seed).to(dtype).requires_grad_()
    e = None if kind == "copy_u" else (make(EDGES, *fe, seed=seed + 1).abs() + 0.5).to(dtype).requires_grad_()
    return x, e


def modes_of(kind: str) -> tuple[str, ...]:
    return tuple(SHAPES) if kind in BINARY else ("both", "vectors", "heads")


def first_and_second(out: Tensor, inputs: list[Tensor], seed: int = 9) -> list[Tensor]:
    """The gradient of <out, c> for a random c, and the gradient of <gradient, d> for random d."""
    rng = torch.Generator().manual_seed(seed)
    c = torch.randn(out.shape, generator=rng, dtype=out.dtype)
    first = torch.autograd.grad(out, inputs, c, create_graph=True)
    dot = sum((g * torch.randn(g.shape, generator=rng, dtype=g.dtype)).sum() for g in first)
    if not dot.requires_grad:
        return [*first, *(torch.zeros_like(i) for i in inputs)]
    second = torch.autograd.grad(dot, inputs, allow_unused=True)
    return [*first, *(torch.zeros_like(i) if s is None else s for i, s in zip(inputs, second, strict=True))]


def check_orders(graph: Graph, coo: Tensor, x, e, kind: str, reduce: str, what: object = "") -> None:
    inputs = [t for t in (x, e) if t is not None]
    out = spmm(graph, x, e, kind, reduce)
    expected = spmm_oracle(coo, graph.num_dst, x, e, kind, reduce)
    assert_close(out, expected, terms=32, magnitude=4.0, what=what)
    got = first_and_second(out, inputs)
    want = first_and_second(expected, inputs)
    bulk = max(b.detach().abs().max().item() for b in (*want, torch.ones(1)))
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(a, b, terms=4096, magnitude=bulk, what=(what, f"derivative {i}"))


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", MESSAGES)
def test_two_orders_against_autograd(kind: str, reduce: str, poison: None) -> None:
    for mode in modes_of(kind):
        for sort in (False, True):
            check_orders(*small_graph(sort), *leaves(mode, kind), kind, reduce, (mode, sort))


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", MESSAGES)
def test_gradcheck(kind: str, reduce: str) -> None:
    """Numerical derivatives; gradgradcheck too. Once per message and reduction, broadcast in the way that is hardest for it."""
    graph, _ = small_graph()
    x, e = leaves("heads" if kind in BINARY else "both", kind)
    inputs = tuple(t for t in (x, e) if t is not None)

    def fn(*args: Tensor) -> Tensor:
        it = iter(args)
        return spmm(graph, None if x is None else next(it), None if e is None else next(it), kind, reduce, fill_value=0.25)

    assert gradcheck(fn, inputs, fast_mode=True)
    assert gradgradcheck(fn, inputs, fast_mode=True)


@pytest.mark.parametrize("only", ["x", "edge"])
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", BINARY)
def test_one_operand_needs_a_gradient(kind: str, reduce: str, only: str) -> None:
    graph, coo = small_graph()
    for mode in ("both", "e_scalar", "heads"):
        x, e = leaves(mode, kind)
        if only == "x":
            e = e.detach()
        else:
            x = x.detach()
        wanted = x if only == "x" else e
        got = torch.autograd.grad(spmm(graph, x, e, kind, reduce).square().sum(), wanted)[0]
        want = torch.autograd.grad(spmm_oracle(coo, NUM_DST, x, e, kind, reduce).square().sum(), wanted)[0]
        assert_close(got, want, terms=256, magnitude=max(want.abs().max().item(), 1.0), what=mode)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(("kind", "who"), [("mul", "both"), ("mul", "x"), ("add", "x"), ("div", "both"), ("copy_u", "x"), ("copy_e", "both"), ("sub", "both")])
def test_batches(kind: str, who: str, reduce: str) -> None:
    """A batch of three gives three times the answer of one; an edge without a batch gets the sum of its gradients."""
    graph, coo = small_graph()
    B, F = 3, 2
    x = None if kind == "copy_e" else values(B, NUM_SRC, F, seed=1).requires_grad_()
    e = None if kind == "copy_u" else values(*((B,) if who == "both" else ()), EDGES, F, seed=2).requires_grad_()
    inputs = [t for t in (x, e) if t is not None]
    out = spmm(graph, x, e, kind, reduce, batch_dims=1)
    one = lambda b: spmm_oracle(
        coo, NUM_DST, None if x is None else x[b], None if e is None else e[b] if who == "both" else e, kind, reduce
    )
    expected = torch.stack([one(b) for b in range(B)])
    assert_close(out, expected, terms=32, magnitude=4.0)
    for a, b in zip(first_and_second(out, inputs), first_and_second(expected, inputs), strict=True):
        assert_close(a, b, terms=256, magnitude=max(b.abs().max().item(), 1.0))


@pytest.mark.parametrize("reduce", ["var", "std"])
@pytest.mark.parametrize("features", [(), (1,), (1, 1)])
def test_batches_of_one_feature(features: tuple, reduce: str) -> None:
    g = Graph(random_coo(5, 4, 12, seed=8), num_src=5, num_dst=4)
    x = values(2, 5, *features).requires_grad_()
    call = lambda x: spmm(g, x, reduce=reduce, batch_dims=1)
    gradcheck(call, (x,))
    assert_close(torch.autograd.grad(call(x).sum(), x)[0], torch.stack([apart(g, row, reduce) for row in x]))


def apart(g: Graph, row: Tensor, reduce: str) -> Tensor:
    row = row.detach().requires_grad_()
    return torch.autograd.grad(spmm(g, row, reduce=reduce).sum(), row)[0]


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("kind", ["mul", "div"])
@pytest.mark.parametrize(("batch", "features"), [((), (0,)), ((), (2, 0)), ((2,), (0,)), ((0,), (3,)), ((0,), (0,))])
def test_gradients_of_nothing(batch: tuple, features: tuple, kind: str, reduce: str) -> None:
    g = Graph(random_coo(5, 4, 12, seed=8), num_src=5, num_dst=4)
    x = values(*batch, 5, *features).requires_grad_()
    for weight in (features, (*features[:-1], 1)):
        w = values(12, *weight).requires_grad_()
        out = spmm(g, x, w, kind, reduce, batch_dims=len(batch))
        dx, dw = torch.autograd.grad(out.sum(), (x, w))
        assert dx.shape == x.shape and dw.shape == w.shape and not dw.any()
    out = spmm(g, x, reduce=reduce, batch_dims=len(batch))
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


def test_two_batch_dims() -> None:
    graph, coo = small_graph()
    x = values(2, 3, NUM_SRC, 4, 2).requires_grad_()
    e = values(EDGES, 4, 1).requires_grad_()
    out = spmm(graph, x, e, batch_dims=2)
    expected = torch.stack([torch.stack([spmm_oracle(coo, NUM_DST, x[i, j], e, "mul", "sum") for j in range(3)]) for i in range(2)])
    assert_close(out, expected, terms=16)
    for a, b in zip(first_and_second(out, [x, e]), first_and_second(expected, [x, e]), strict=True):
        assert_close(a, b, terms=256, magnitude=8.0)


@pytest.mark.parametrize("kind", MESSAGES)
def test_product_at_zeros(kind: str) -> None:
    """Rows with no, one, two and three zeros, to second order."""
    deg = 4
    coo = torch.stack([torch.arange(4 * deg), torch.arange(4).repeat_interleave(deg)])
    x, e = values(4 * deg, 2, seed=1), values(4 * deg, 2, seed=2)
    for row in range(4):
        for i in range(row):
            (e if kind == "copy_e" else x)[row * deg + i] = 0
    if kind == "add":
        e = torch.where(x == 0, torch.zeros_like(e), e)
    if kind == "sub":
        x, e = torch.where(x == 0, e, x), e
    if kind == "mul":
        e[1 * deg + 2] = 0  # zeros from both sides
    graph = Graph(coo, num_src=4 * deg, num_dst=4)
    x = None if kind == "copy_e" else x.requires_grad_()
    e = None if kind == "copy_u" else e.requires_grad_()
    check_orders(graph, coo, x, e, kind, "prod")


@pytest.mark.parametrize("kind", MESSAGES)
def test_deviation_of_constant_groups(kind: str) -> None:
    """std is 0 and so are its derivatives; var is smooth there."""
    coo = torch.stack([torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 0, 1, 3])])
    graph = Graph(coo, num_src=3, num_dst=5)
    for reduce in ("std", "var"):
        x = None if kind == "copy_e" else torch.full((3, 2), 1.5, dtype=torch.float64).requires_grad_()
        e = None if kind == "copy_u" else torch.full((5, 2), 0.5, dtype=torch.float64).requires_grad_()
        check_orders(graph, coo, x, e, kind, reduce)


@pytest.mark.parametrize("reduce", ["var", "std"])
@pytest.mark.parametrize("kind", MESSAGES)
def test_moments_of_offset_features(kind: str, reduce: str) -> None:
    """A common offset of 10^4 in float32 costs the gradient no more digits than it costs the differences."""
    coo = random_coo(30, 4, 160, seed=3)
    graph = Graph(coo, num_src=30, num_dst=4)
    for mode in modes_of(kind):
        fx, fe = SHAPES[mode]
        x = None if kind == "copy_e" else (values(30, *fx, seed=1) + 1e4).float().requires_grad_()
        e = values(160, *fe, seed=2)
        e = None if kind == "copy_u" else (e + 1e4 if kind in ("copy_e", "add", "sub") else 2 + e / 1e4).float().requires_grad_()
        inputs = [t for t in (x, e) if t is not None]
        exact = [t.detach().double().requires_grad_() for t in inputs]
        pair = iter(exact)
        expected = spmm_oracle(coo, 4, None if x is None else next(pair), None if e is None else next(pair), kind, reduce)
        weight = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).reshape(expected.shape)
        got = torch.autograd.grad(spmm(graph, x, e, kind, reduce), inputs, weight.float())
        for a, b in zip(got, torch.autograd.grad(expected, exact, weight), strict=True):
            assert (a.double() - b).abs().max() < 2e-3 * b.abs().max(), (mode, a, b)


@pytest.mark.parametrize("reduce", ["var", "std"])
@pytest.mark.parametrize("F", [None, 3, (2, 5)])
def test_moments_of_rows_far_apart(F, reduce: str) -> None:
    """Rows whose sources lie 5e5 apart: float32 gradients keep the digits of the differences within each row."""
    rows, deg = 5, 7
    coo = torch.stack([torch.arange(rows * deg), torch.arange(rows).repeat_interleave(deg)])
    graph = Graph(coo, num_src=rows * deg, num_dst=rows)
    batch, width = (F[:1], F[1:]) if isinstance(F, tuple) else ((), () if F is None else (F,))
    x = (values(*batch, rows * deg, *width) * 4).round() / 4  # exact in float32 beside the offsets
    x = x + 5e5 * coo[1].reshape(-1, *(1 for _ in width))
    grads = []
    for leaf in (x.float().requires_grad_(), x.clone().requires_grad_()):
        out = spmm(graph, leaf, reduce=reduce, batch_dims=len(batch))
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(leaf.dtype)
        (first,) = torch.autograd.grad(out, leaf, weight, create_graph=True)
        (second,) = torch.autograd.grad((first**3).sum(), leaf)
        grads.append((first.detach().double(), second.double()))
    (first, second), (exact, exact_second) = grads
    oracle = x.reshape(*batch, rows, deg, *width).clone().requires_grad_()
    dim = len(batch) + 1
    by_torch = (oracle.var if reduce == "var" else oracle.std)(dim)
    weight = torch.linspace(-1, 1, by_torch.numel(), dtype=torch.float64).reshape(by_torch.shape)
    (expected,) = torch.autograd.grad(by_torch, oracle, weight)
    expected = expected.reshape(x.shape)
    assert (exact - expected).abs().max() < 1e-9 * expected.abs().max()
    assert (first - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (second - exact_second).abs().max() < 1e-4 * exact_second.abs().max()


@pytest.mark.parametrize("kind", ["copy_u", "copy_e", "add"])
def test_logsumexp_with_minus_infinity(kind: str) -> None:
    """Messages of -inf have no weight; a row of only -inf gives -inf and no gradient, not NaN."""
    graph, coo = small_graph()
    x, e = leaves("both", kind)
    target = e if kind == "copy_e" else x
    with torch.no_grad():
        target[::3] = float("-inf")
        row = coo[1].mode().values
        target[(coo[1] == row) if kind == "copy_e" else coo[0][coo[1] == row]] = float("-inf")
    inputs = [t for t in (x, e) if t is not None]
    out = spmm(graph, x, e, kind, "logsumexp")
    expected = spmm_oracle(coo, NUM_DST, x, e, kind, "logsumexp")
    assert_close(out, expected, terms=32)
    finite = expected.detach().isfinite()
    for a, b in zip(
        torch.autograd.grad(out[finite].sum(), inputs), torch.autograd.grad(expected[finite].sum(), inputs), strict=True
    ):
        assert a.isfinite().all()
        assert_close(a, b, terms=64)


@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("kind", MESSAGES[:5])
def test_ties_go_to_the_first_edge(kind: str, reduce: str) -> None:
    graph, coo = small_graph()
    x = None if kind == "copy_e" else small_integers(NUM_SRC, 5).requires_grad_()
    e = None if kind == "copy_u" else small_integers(EDGES, 5, seed=1).requires_grad_()
    check_orders(graph, coo, x, e, kind, reduce)


@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("kind", MESSAGES)
def test_returned_winners(kind: str, reduce: str) -> None:
    """return_arg names the same edges with and without a gradient, and they hold the winning values."""
    for sort in (False, True):
        graph, coo = small_graph(sort)
        x, e = leaves("both", kind)
        out, arg = spmm(graph, x, e, kind, reduce, return_arg=True)
        free = lambda t: None if t is None else t.detach()
        out2, arg2 = spmm(graph, free(x), free(e), kind, reduce, return_arg=True)
        assert arg.dtype == torch.int64 and torch.equal(arg, arg2) and torch.equal(out, out2)
        empty = graph.in_degrees() == 0
        assert (arg[empty] == EDGES).all() and (arg[~empty] < EDGES).all()
        padded = coo[1].new_full((EDGES + 1,), -1)
        padded[:EDGES] = coo[1]
        assert (padded[arg][~empty] == torch.arange(NUM_DST)[~empty][:, None]).all()
        out.sum().backward()


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_gradients(dtype: torch.dtype, reduce: str) -> None:
    graph, coo = small_graph()
    x, e = leaves("e_scalar", "mul", dtype)
    wide = [t.detach().double().requires_grad_() for t in (x, e)]
    got = torch.autograd.grad(spmm(graph, x, e, "mul", reduce).sum(), (x, e))
    want = torch.autograd.grad(spmm_oracle(coo, NUM_DST, *wide, "mul", reduce).sum(), wide)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        scale = max(b.abs().max().item(), 1.0)
        assert (a.double() - b).abs().max() <= 32 * torch.finfo(dtype).eps * scale


def test_third_order() -> None:
    graph, coo = small_graph()
    x, e = leaves("e_scalar", "mul")
    results = []
    for fn in (lambda: spmm(graph, x, e), lambda: spmm_oracle(coo, NUM_DST, x, e, "mul", "sum")):
        y = fn().tanh().sum()
        for _ in range(3):
            y = sum(g.square().sum() for g in torch.autograd.grad(y, (x, e), create_graph=True))
        results.append(y)
    assert math.isclose(results[0].item(), results[1].item(), rel_tol=1e-11)


# ---- memory ----------------------------------------------------------------------------------------------------------


def saved_elements(fn) -> list[int]:
    """Storage sizes, in elements, of what autograd saved while fn ran, one per distinct storage."""
    seen: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = fn()
    out.sum().backward()
    return list(seen.values())


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("kind", ["copy_u", "mul", "add"])
def test_no_message_tensor_is_saved(kind: str, reduce: str) -> None:
    E, N, F = 4000, 50, 32
    graph = Graph(torch.randint(N, (2, E)), num_nodes=N)
    x = torch.randn(N, F, requires_grad=True)
    e = None if kind == "copy_u" else torch.randn(E, 1, requires_grad=True)
    sizes = saved_elements(lambda: spmm(graph, x, e, kind, reduce))
    assert max(sizes, default=0) <= E + N * F < E * F


def test_the_memory_check_sees_a_message_tensor() -> None:
    E, N, F = 400, 50, 32
    graph = Graph(torch.randint(N, (2, E)), num_nodes=N)
    x, e = torch.randn(N, F, requires_grad=True), torch.randn(E, 1, requires_grad=True)
    src, dst = graph.edge_index().long()
    assert max(saved_elements(lambda: torch.zeros(N, F).index_add(0, dst, x[src] * e))) >= E * F


def test_linear_sums_save_no_operand() -> None:
    """The gradient of a plain aggregation reads the structure only."""
    N, F = 50, 64
    graph = Graph(torch.randint(N, (2, 300)), num_nodes=N)
    x = torch.randn(N, F, requires_grad=True)
    assert N * F not in saved_elements(lambda: spmm(graph, x))
    assert structops.spmm(graph, x).grad_fn is not None


@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("width", [1, 4, 70])
def test_rows_without_edges_give_no_gradient(isa: str, width: int, reduce: str) -> None:
    """More sources than edges: E, the winner that empty rows report by edge, is a source too."""
    graph = Graph(torch.tensor([[0, 1], [1, 1]]), num_src=6, num_dst=3)
    x, edge = torch.randn(6, width, requires_grad=True), torch.ones(2, 1)
    skipping = {"skip_nan": True}
    for options in ({}, {"return_arg": True}, skipping, {"edge": edge}):
        out = spmm(graph, x, reduce=reduce, **options)
        (grad,) = torch.autograd.grad((out[0] if isinstance(out, tuple) else out).sum(), x)
        assert not grad[2:].any(), options
        assert grad[:2].sum() == width
    nan = torch.full((6, width), float("nan"), requires_grad=True)
    assert not torch.autograd.grad(spmm(graph, nan, reduce=reduce, skip_nan=True).sum(), nan)[0].any()
