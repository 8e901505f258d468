"""egnn_step: against the concatenated edge network on every edge, derivatives of two orders, symmetries, memory."""

from __future__ import annotations

import itertools

import pytest
import structops
import torch
from rotations import random_graph
from structops.so2 import egnn_step
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import silu

N, E, F, H, M = 6, 17, 3, 5, 4


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def operands(D: int = 3):
    """x, with two coincident nodes; h; the first layer's weight [2 F + 1, H] and bias; edge; the second layer; the coordinate's."""
    x = rand(N, D)
    x[1] = x[2]
    return x, rand(N, F, seed=1), rand(2 * F + 1, H, seed=2), rand(H, seed=3), rand(E, H, seed=4), rand(H, M, seed=5), rand(M, 1, seed=6)


GRAPH = random_graph(N, E)
INDEX = GRAPH.edge_index()


def ours(x, h, w1, b, edge, w2, wx, graph=GRAPH, **options):
    return egnn_step(
        graph, x, h @ w1[F : 2 * F], h @ w1[:F] + b, w1[2 * F], edge,
        message=lambda z: silu(z @ w2), coordinate=lambda m: torch.tanh(m @ wx), **options,
    )  # fmt: skip


def concatenated(x, h, w1, b, edge, w2, wx, reduce="sum", coordinate_reduce="mean", norm_constant=None, **_):
    src, dst = INDEX
    d = x[dst] - x[src]
    square = d.square().sum(1, keepdim=True)
    m = silu(silu(torch.cat([h[dst], h[src], square], 1) @ w1 + b + edge) @ w2)
    if norm_constant is not None:
        d = d / (torch.where(square == 0, 0, torch.where(square == 0, 1, square).sqrt()) + norm_constant)
    count = torch.bincount(dst, minlength=N).clamp(min=1)[:, None]
    out = m.new_zeros(N, M).index_add(0, dst, m)
    move = x.new_zeros(x.shape).index_add(0, dst, d * torch.tanh(m @ wx))
    return x + (move / count if coordinate_reduce == "mean" else move), out / count if reduce == "mean" else out


OPTIONS = [
    {"reduce": r, "coordinate_reduce": c, "norm_constant": n, "recompute": k}
    for (r, c), n, k in itertools.product((("sum", "mean"), ("mean", "sum")), (None, 1.0), (True, False))
]


@pytest.mark.parametrize("D", [1, 2, 3, 5])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_against_the_concatenated_layer(options: dict, D: int) -> None:
    found = []
    for f in (ours, concatenated):
        leaves = [t.requires_grad_() for t in operands(D)]
        out = f(*leaves, **options)
        grads = torch.autograd.grad(out[0].sin().sum() + out[1].cos().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
        found.append([*out, *grads, *second])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-9, rtol=1e-9)


def test_derivatives_at_coincident_nodes() -> None:
    leaves = [t.requires_grad_() for t in operands()]
    assert gradcheck(lambda *a: ours(*a), leaves) and gradgradcheck(lambda *a: ours(*a), leaves)
    # |d| has a corner at 0; away from it, both functions are smooth.
    leaves[0] = rand(N, 3, seed=9).requires_grad_()
    assert gradcheck(lambda *a: ours(*a, norm_constant=0.5), leaves)


@pytest.mark.parametrize("D", [2, 3, 5])
def test_symmetries(D: int) -> None:
    x, h, *w = operands(D)
    Q = torch.linalg.qr(rand(D, D, seed=7)).Q
    moved, out = ours(x, h, *w)
    for R in (Q, Q @ torch.diag(torch.tensor([-1.0] + [1.0] * (D - 1), dtype=torch.float64))):
        a, b = ours(x @ R.T + 3.0, h, *w)
        assert torch.allclose(a, moved @ R.T + 3.0, atol=1e-10) and torch.allclose(b, out, atol=1e-10)
    order = torch.randperm(N)
    graph = structops.Graph(torch.argsort(order)[INDEX], num_nodes=N)
    a, b = ours(x[order], h[order], *w, graph=graph)
    assert torch.allclose(a, moved[order]) and torch.allclose(b, out[order])


def test_without_coordinates_or_message_and_dtypes() -> None:
    x, h, w1, *_ = operands()
    src, dst = INDEX
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        args = [t.to(dtype) for t in (x, h @ w1[:F], h @ w1[F : 2 * F], w1[-1])]
        same, out = egnn_step(GRAPH, *args, activation="elu", reduce="mean")
        assert torch.equal(same, args[0]) and out.dtype == dtype
        z = torch.nn.functional.elu((h @ w1[:F])[src] + (h @ w1[F : 2 * F])[dst] + (x[dst] - x[src]).square().sum(1, keepdim=True) * w1[-1])
        want = z.new_zeros(N, H).index_add(0, dst, z) / GRAPH.in_degrees().clamp(min=1)[:, None]
        assert (out.double() - want).abs().max() < 100 * torch.finfo(dtype).eps
    empty = structops.Graph(torch.zeros(2, 0, dtype=torch.long), num_nodes=2)
    moved, out = egnn_step(empty, x[:2], h[:2], h[:2], h[0], coordinate=lambda m: m[:, :1])
    assert torch.equal(moved, x[:2]) and out.abs().sum() == 0


def test_nothing_of_the_edges_is_kept() -> None:
    leaves = [t.requires_grad_() for t in operands()]
    sizes = {}
    for recompute in (True, False):
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape[0] if t.dim() == 2 else 0) or t, lambda t: t):
            ours(*leaves, recompute=recompute)
        sizes[recompute] = seen.count(E)
    assert sizes[True] <= 1 < sizes[False]  # the caller's own edge terms


def test_compile_and_func() -> None:
    args = operands()
    f = lambda *a: ours(*a)[0].sin().sum() + ours(*a)[1].cos().sum()
    want = torch.autograd.grad(f(*(t.requires_grad_() for t in args)), args)
    got = torch.func.grad(f, tuple(range(7)))(*(t.detach() for t in args))
    leaves = [t.detach().requires_grad_() for t in args]
    compiled = torch.autograd.grad(torch.compile(f, backend="aot_eager")(*leaves), leaves)
    for a, b, c in zip(want, got, compiled, strict=True):
        assert torch.allclose(a, b) and torch.allclose(a, c)


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        (TypeError, "graph", {"graph": INDEX}),
        (ValueError, "square", {"graph": structops.Graph(INDEX, num_src=N, num_dst=N + 1)}),
        (ValueError, r"x of shape \[6", {"x": rand(5, 3)}),
        (TypeError, "x of dtype", {"x": torch.ones(N, 3, dtype=torch.long)}),
        (ValueError, "h_dst", {"h_dst": rand(N, H + 1)}),
        (TypeError, "h_src of dtype", {"h_src": rand(N, H).float()}),
        (ValueError, r"distance of shape \[5\]", {"distance": rand(H + 1)}),
        (ValueError, r"distance of shape \[5\]", {"distance": rand(1, H)}),
        (ValueError, "edge", {"edge": rand(E + 1, H)}),
        (TypeError, "message", {"message": 3}),
        (ValueError, "message to return", {"message": lambda z: z[:2]}),
        (ValueError, "coordinate to return", {"coordinate": lambda m: m}),
        (TypeError, "coordinate to return", {"coordinate": lambda m: m[:, :1].float()}),
        (ValueError, "activation", {"activation": "swish"}),
        (ValueError, "reduce", {"reduce": "max"}),
        (ValueError, "coordinate_reduce", {"coordinate_reduce": "max"}),
        (ValueError, "norm_constant", {"norm_constant": 0}),
        (TypeError, "recompute", {"recompute": 1}),
    ],
)
def test_bad_input(kind, name, change) -> None:
    good = {"graph": GRAPH, "x": rand(N, 3), "h_src": rand(N, H), "h_dst": rand(N, H), "distance": rand(H)}
    with pytest.raises(kind, match=name):
        egnn_step(**(good | change))

def test_bare_activations_form_no_row_per_edge() -> None:
    """Without functions the edge network is summed as it is: what is kept of an edge are indices and its distance."""
    x, h, w1, b, *_ = (t.requires_grad_() for t in operands())
    seen: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        egnn_step(GRAPH, x, h @ w1[F : 2 * F], h @ w1[:F] + b, w1[2 * F], recompute=False)
    assert seen and not any(t.shape[:1] == (E,) and t.numel() > E for t in seen)
