"""Activations of the sum of both ends: values, gradients of every order, extremes, identities."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, to_csr
from compare import assert_close
from structops import Graph, spmm
from structops._ladder import with_reverse
from structops.kernels import codes as C
from structops.sparse import add_act_reduce
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

raw, raw_bwd = torch.ops.structops.edge_act, torch.ops.structops.edge_act_bwd
N, M = 24, 19
COO = random_coo(M, N, 130, hub=40)
E = COO.shape[1]
SRC, DST = COO
FUNCTIONS = {
    "identity": lambda z: z,
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.3),
    "elu": lambda z: F.elu(z, 0.3),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).bfloat16().to(dtype)


def dense(x, y, edge, value, scalar, direction, activation: str, coo: Tensor = COO, rows: int = N) -> Tensor:
    """By a loop over destinations."""
    src, dst = coo
    z = x[src] if y is None else x[src] + y[dst]
    z = z if edge is None else z + edge
    m = FUNCTIONS[activation](z if scalar is None else z + scalar[:, None] * direction)
    m = m if value is None else m * value[src]
    return torch.stack([m[v == dst].sum(0) for v in range(rows)])


def test_every_activation_is_here() -> None:
    assert list(FUNCTIONS) == list(C.EDGE_ACTS)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_values_and_gradients(isa: str, activation: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (width, present) in enumerate([(1, (1, 1, 1)), (17, (1, 0, 0)), (64, (0, 1, 1)), (83, (1, 1, 0)), (130, (1, 0, 1))]):
        rows = (N, E, M)
        operands = [randn(M, width, dtype=dtype)] + [
            randn(r, width, seed=k + 1, dtype=dtype) if p else None for k, (r, p) in enumerate(zip(rows, present, strict=True))
        ]
        operands += [randn(E, seed=5, dtype=dtype), randn(width, seed=6, dtype=dtype)] if n % 2 == 0 else [None, None]
        grad = randn(N, width, seed=9, dtype=dtype)
        leaves = [None if t is None else t.double().requires_grad_() for t in operands]
        want = dense(*leaves, activation)
        wanted = iter(torch.autograd.grad(want, [t for t in leaves if t is not None], grad.double()))
        s = to_csr(COO, N, INTEGERS[n % 2])
        back = with_reverse((*s, None, None, None), M)[3:]
        act = C.EDGE_ACTS[activation]
        out, slopes = on_threads(lambda: raw(*operands, *s, None, None, None, act, 0.3, n % 2 == 1))
        assert_close(out, want, dtype, terms=60, magnitude=6.0, what=width)
        assert slopes.numel() == (N * width if n % 2 else 0)
        found = on_threads(lambda: raw_bwd(*operands, grad, *s, *back, act, 0.3, True))
        found = *found[:4], found[4].to(dtype), (found[5] if operands[5] is None else found[5].sum(0)).to(dtype)
        for name, operand, got in zip(("x", "y", "edge", "value", "scalar", "direction"), operands, found, strict=True):
            if operand is None:
                assert got.numel() == 0
            else:
                assert_close(got, next(wanted), dtype, terms=60, magnitude=20.0, what=(name, width))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_hub_rows_and_sources(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Node 1 is the destination, then the source, of most edges: its parts are added in order, without a trace of the threads."""
    size, nodes = 3000, 40
    one, other = torch.ones(size, dtype=torch.int64), torch.arange(size) % nodes
    star = torch.stack([other, one])
    for n, (coo, width, present) in enumerate([(star, 70, (1, 1, 1)), (star, 5, (0, 0, 0)), (star.flip(0), 33, (1, 0, 1))]):
        coo = torch.cat([coo, random_coo(nodes, nodes, 200)], 1)
        rows, sources, edges = nodes, nodes, coo.shape[1]
        operands = [randn(sources, width, dtype=dtype)] + [
            randn(r, width, seed=k + 1, dtype=dtype) if p else None
            for k, (r, p) in enumerate(zip((rows, edges, sources), present, strict=True))
        ]
        operands += [randn(edges, seed=5, dtype=dtype), randn(width, seed=6, dtype=dtype)] if present[1] else [None, None]
        grad = randn(rows, width, seed=9, dtype=dtype)
        leaves = [None if t is None else t.double().requires_grad_() for t in operands]
        want = dense(*leaves, "silu", coo, rows)
        wanted = iter(torch.autograd.grad(want, [t for t in leaves if t is not None], grad.double()))
        s = to_csr(coo, rows, INTEGERS[n % 2])
        back = with_reverse((*s, None, None, None), sources)[3:]
        out, slopes = on_threads(lambda: raw(*operands, *s, None, None, None, C.EDGE_ACTS["silu"], 0.0, n != 1))
        assert_close(out, want, dtype, terms=edges, magnitude=6.0, what=n)
        found = on_threads(lambda: raw_bwd(*operands, grad, *s, *back, C.EDGE_ACTS["silu"], 0.0, True))
        found = *found[:4], found[4].to(dtype), (found[5] if operands[5] is None else found[5].sum(0)).to(dtype)
        for name, operand, got in zip(("x", "y", "edge", "value", "scalar", "direction"), operands, found, strict=True):
            if operand is not None:
                d = next(wanted)
                assert_close(got, d, dtype, terms=edges, magnitude=20.0, what=(n, name))
                if name == "y":
                    assert_close((grad * slopes).to(dtype), d, dtype, terms=edges, magnitude=20.0, what=(n, "slopes"))


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_sums_of_slopes(isa: str, activation: str, on_threads) -> None:
    """They times the gradient are the gradient of the destinations, and the backward leaves that one out."""
    for dtype, width, gated in ((torch.float64, 70, True), (torch.float32, 33, False), (torch.bfloat16, 5, True)):
        x, y, value = (randn(r, width, seed=k, dtype=dtype) for k, r in enumerate((M, N, M)))
        operands = x, y, None, value if gated else None, None, None
        s, act, grad = to_csr(COO, N), C.EDGE_ACTS[activation], randn(N, width, seed=9, dtype=dtype)
        back = with_reverse((*s, None, None, None), M)[3:]
        out, slopes = on_threads(lambda: raw(*operands, *s, None, None, None, act, 0.3, True))
        leaves = [None if t is None else t.double().requires_grad_() for t in operands]
        want = dense(*leaves, activation)
        assert_close(out, want, dtype, terms=60, magnitude=6.0)
        assert slopes.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        (wanted,) = torch.autograd.grad(want, leaves[1], grad.double(), retain_graph=True)
        assert_close((grad * slopes).to(dtype), wanted, dtype, terms=60, magnitude=20.0)
        d_x, d_y, *_ = raw_bwd(*operands, grad, *s, *back, act, 0.3, False)
        assert d_y.numel() == 0
        assert_close(d_x, torch.autograd.grad(want, leaves[0], grad.double())[0], dtype, terms=60, magnitude=20.0)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_first_order_without_edges(activation: str) -> None:
    """The short way, of every subset of operands that asks for a gradient, and through a second derivative."""
    graph = Graph(COO, num_src=M, num_dst=N)
    given = [randn(r, 3, seed=k) + 0.013 for k, r in enumerate((M, N))]
    for wanted in ((0, 1), (1,), (0,)):
        leaves = [t.clone().requires_grad_(k in wanted) for k, t in enumerate(given)]
        fn = lambda *t: add_act_reduce(graph, *t, activation=activation)
        assert gradcheck(fn, leaves, fast_mode=True) and gradgradcheck(fn, leaves, fast_mode=True)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_derivatives(activation: str) -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    shapes = (M, 3), (N, 3), (E, 3), (M, 3), (E,), (3,)
    operands = tuple((randn(*s, seed=k) + 0.013).requires_grad_() for k, s in enumerate(shapes))

    def function(x, y, edge, value, scalar, direction):
        more = {"value": value, "scalar": scalar, "direction": direction}
        return add_act_reduce(graph, x, y, edge, activation=activation, reduce="mean", **more)

    assert gradcheck(function, operands, fast_mode=True)
    assert gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_extremes(activation: str, reduce: str) -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x, y, edge = (randn(r, 4, seed=k).requires_grad_() for k, r in enumerate((M, N, E)))
    for extra in (None, edge):
        z = x[SRC] + y[DST] if extra is None else x[SRC] + y[DST] + extra
        m = FUNCTIONS[activation](z)
        rows = [getattr(m[v == DST], f"a{reduce}")(0) if bool((v == DST).any()) else m.new_zeros(4) for v in range(N)]
        want = torch.stack(rows)
        got = add_act_reduce(graph, x, y, extra, activation=activation, reduce=reduce, slope=0.3)
        torch.testing.assert_close(got, want)
        leaves = (y,) if extra is None else (x, y, edge)  # parallel edges tie in x
        for a, b in zip(torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), leaves), strict=True):
            torch.testing.assert_close(a, b)


def test_scalar_is_a_rank_one_edge_term() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x, y, edge, value = (randn(r, 2, 5, seed=k) for k, r in enumerate((M, N, E, M)))
    scalar, direction = randn(E, seed=7), randn(2, 5, seed=8)
    term = scalar[:, None, None] * direction
    for reduce in ("sum", "mean", "min", "max"):
        for e, v in ((None, None), (edge, value)):
            got = add_act_reduce(graph, x, y, e, value=v, reduce=reduce, scalar=scalar, direction=direction)
            torch.testing.assert_close(got, add_act_reduce(graph, x, y, term if e is None else e + term, value=v, reduce=reduce))
    with pytest.raises(ValueError, match="together"):
        add_act_reduce(graph, x, scalar=scalar)
    with pytest.raises(ValueError, match="direction of shape"):
        add_act_reduce(graph, x, scalar=scalar, direction=randn(10))
    leaf = scalar.requires_grad_()
    no_features = add_act_reduce(graph, x[..., :0], scalar=leaf, direction=direction[:, :0])
    assert not torch.autograd.grad(no_features.sum(), leaf)[0].any()


def test_identities() -> None:
    """The identity is deg * y + A x; without a destination's part relu is the sum of relus."""
    graph = Graph(COO, num_src=M, num_dst=N)
    x, y = randn(M, 2, 5), randn(N, 2, 5, seed=1)
    degree = graph.in_degrees().double()[:, None, None]
    torch.testing.assert_close(add_act_reduce(graph, x, y, activation="identity"), degree * y + spmm(graph, x))
    torch.testing.assert_close(add_act_reduce(graph, x), spmm(graph, torch.relu(x)))


def test_nan_and_empty(isa: str) -> None:
    graph = Graph(torch.tensor([[0, 1], [0, 0]]), num_src=2, num_dst=2)
    for activation in FUNCTIONS:
        out = add_act_reduce(graph, torch.tensor([[float("nan"), 1.0], [1.0, 1.0]]), activation=activation)
        assert out[0, 0].isnan() and out[0, 1].isfinite() and not out[1].any()
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_src=3, num_dst=4)
    x = torch.ones(3, 5, requires_grad=True)
    assert not torch.autograd.grad(add_act_reduce(empty, x, torch.ones(4, 5)).sum(), x)[0].any()
    assert add_act_reduce(graph, torch.ones(2, 0)).shape == (2, 0)


def test_nothing_of_the_edges_is_kept() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x, y = randn(M, 8).requires_grad_(), randn(N, 8).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        add_act_reduce(graph, x, y, activation="gelu")
    assert all(t.numel() <= max(x.numel(), y.numel()) and (t.dim() < 2 or t.shape[0] != E) for t in kept)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda g: add_act_reduce(COO, torch.ones(M, 2)), TypeError, "graph"),
        (lambda g: add_act_reduce(g, torch.ones(M + 1, 2)), ValueError, "x_src"),
        (lambda g: add_act_reduce(g, torch.ones(M, 2), torch.ones(N, 3)), ValueError, "x_dst"),
        (lambda g: add_act_reduce(g, torch.ones(M, 2), edge=torch.ones(E, 2).double()), TypeError, "edge"),
        (lambda g: add_act_reduce(g, torch.ones(M, 2), activation="mish"), ValueError, "activation"),
        (lambda g: add_act_reduce(g, torch.ones(M, 2), reduce="prod"), ValueError, "reduce"),
    ],
)
def test_bad_input(call, kind, text: str) -> None:
    with pytest.raises(kind, match=text):
        call(Graph(COO, num_src=M, num_dst=N))
