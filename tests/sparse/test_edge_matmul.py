"""edge_matmul, edge_matmul_hgrad, edge_matmul_wgrad: a matrix per edge, combined from a few."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, to_csr, values
from compare import assert_close, assert_same
from structops import Graph
from structops.kernels.sparse import edge_matmul_ref as ref
from structops.sparse import edge_conditioned_matmul, typed_matmul
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.structops
M, N, E = 20, 25, 160
COO = random_coo(M, N, E, seed=5)
SHAPES = (
    (1, 1, 1),
    (5, 3, 7),
    (16, 32, 32),
    (17, 40, 33),
    (40, 90, 20),
    (300, 9, 4),
    (2, 1700, 3),
)  # the last three in chunks of k


def by_edges(x: Tensor, h: Tensor, w: Tensor, bias: Tensor | None = None, coo: Tensor = COO, n: int = N) -> Tensor:
    """Every edge's matrix."""
    matrices = torch.einsum("ek,kio->eio", h, w) + (0 if bias is None else bias)
    return x.new_zeros(n, w.shape[2]).index_add(0, coo[1], torch.einsum("ei,eio->eo", x[coo[0]], matrices))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_raw_values(isa: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (K, I, O) in enumerate(SHAPES):
        rowptr, col, eid = to_csr(COO, N, INTEGERS[n % 2])
        s = (rowptr, col, None if n % 3 == 2 else eid, None, None, None)
        x, h = values(M, I, dtype=dtype), values(E, K, dtype=dtype, seed=1)
        w, y = values(K, I, O, dtype=dtype, seed=2), values(N, O, dtype=dtype, seed=3)
        for name, args, terms in (
            ("edge_matmul", (x, h, w), 20 * K * I), ("edge_matmul_hgrad", (x, y, w), I * O), ("edge_matmul_wgrad", (x, h, y), E),
        ):  # fmt: skip
            out = on_threads(lambda: getattr(ops, name)(*args, *s))
            want = getattr(ref, name)(*(t.double() for t in args), *s)
            assert_close(out, want, dtype, terms=terms, magnitude=4.0, what=(name, K, I, O))


def test_hub_and_many_rows(isa: str, on_threads) -> None:
    coo = random_coo(500, 3000, 9000, seed=2, hub=2000)
    graph = Graph(coo, num_src=500, num_dst=3000)
    x, h, w, y = values(500, 6), values(11_000, 9, seed=1), values(9, 6, 10, seed=2), values(3000, 10, seed=3)
    s = (*graph.structure[:3], None, None, None)
    out = on_threads(lambda: edge_conditioned_matmul(graph, x, h, w))
    assert_close(out, by_edges(x, h, w, None, coo, 3000), terms=2000 * 54, magnitude=3.0)
    dw = on_threads(lambda: ops.edge_matmul_wgrad(x, h, y, *s))
    assert_close(dw, torch.einsum("ek,ei,eo->kio", h, x[coo[0]], y[coo[1]]), terms=11_000, magnitude=3.0)
    dh = on_threads(lambda: ops.edge_matmul_hgrad(x, y, w, *s))
    assert_close(dh, torch.einsum("ei,kio,eo->ek", x[coo[0]], w, y[coo[1]]), terms=60, magnitude=4.0)


def test_gradients(poison: None) -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    leaves = [values(M, 5), values(E, 4, seed=1), values(4, 5, 6, seed=2), values(5, 6, seed=3)]
    leaves = [t.requires_grad_() for t in leaves]
    g = values(N, 6, seed=4)
    ours, theirs = edge_conditioned_matmul(graph, *leaves), by_edges(*leaves)
    assert_close(ours, theirs.detach(), terms=600, magnitude=4.0)
    for _ in range(2):
        a = torch.autograd.grad((ours * g).sum(), leaves, create_graph=True)
        b = torch.autograd.grad((theirs * g).sum(), leaves, create_graph=True)
        for p, q in zip(a, b, strict=True):
            assert_close(p, q.detach(), terms=8 * E, magnitude=30.0)
        ours, theirs = (sum((p.sin() * 0.1).sum() for p in v) * g for v in (a, b))


def test_gradchecks() -> None:
    coo = torch.tensor([[0, 1, 2, 0, 3, 3, 0], [2, 0, 2, 2, 1, 1, 0]])
    graph = Graph(coo, num_src=5, num_dst=4)
    leaf = lambda *s, seed=0: values(*s, seed=seed).requires_grad_()
    inputs = leaf(5, 3), leaf(7, 2, seed=1), leaf(2, 3, 2, seed=2), leaf(3, 2, seed=3)
    fn = lambda *t: edge_conditioned_matmul(graph, *t)
    assert gradcheck(fn, inputs)
    assert gradgradcheck(fn, inputs)
    s = (*graph.structure[:3], *graph.reversed_structure)
    from structops._ladder import _typed_matmul as products

    y = leaf(4, 2, seed=4)
    assert gradcheck(lambda x, y, w: products.edge_matmul_hgrad(x, y, w, *s), (inputs[0], y, inputs[2]))
    assert gradcheck(lambda x, h, y: products.edge_matmul_wgrad(x, h, y, *s), (inputs[0], inputs[1], y))


def test_one_hot_features_are_types() -> None:
    kind = torch.randint(0, 3, (E,), generator=generator(1))
    x, w = values(M, 6), values(3, 6, 5, seed=1)
    out = edge_conditioned_matmul(Graph(COO, num_src=M, num_dst=N), x, torch.nn.functional.one_hot(kind, 3).double(), w)
    message = typed_matmul(x, w, kind, COO[0])
    assert_close(out, x.new_zeros(N, 5).index_add(0, COO[1], message), terms=200)


def test_saves_the_operands_only() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    leaves = [values(M, 8), values(E, 4), values(4, 8, 8)]
    leaves = [t.requires_grad_() for t in leaves]
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(t.numel() if t.is_floating_point() else 0), t)[1], lambda t: t
    ):
        edge_conditioned_matmul(graph, *leaves)
    assert sum(saved) == sum(t.numel() for t in leaves)


def test_special_values_and_order() -> None:
    graph = Graph(torch.tensor([[0, 1, 1], [0, 0, 2]]), num_nodes=3)
    h, w = torch.ones(3, 2), torch.ones(2, 2, 2)
    out = edge_conditioned_matmul(graph, torch.tensor([[float("nan"), 1.0], [1.0, 2.0], [float("inf"), 0.0]]), h, w)
    assert out[0].isnan().all() and (out[1] == 0).all() and (out[2] == 6).all()
    big = Graph(COO, num_src=M, num_dst=N)
    x, h, w = values(M, 5), values(E, 3, seed=1), values(3, 5, 4, seed=2)
    order = torch.randperm(N, generator=generator(3))
    moved = Graph(torch.stack([COO[0], order[COO[1]]]), num_src=M, num_dst=N)
    assert_same(edge_conditioned_matmul(moved, x, h, w)[order], edge_conditioned_matmul(big, x, h, w))


def test_zero_sizes(poison: None) -> None:
    for n, e, k, i, o in ((0, 0, 2, 3, 4), (3, 0, 2, 3, 4), (3, 5, 0, 3, 4), (3, 5, 2, 0, 4), (3, 5, 2, 3, 0)):
        graph = Graph(torch.zeros(2, e, dtype=torch.int64), num_nodes=n)
        leaves = [torch.ones(s, requires_grad=True) for s in ((n, i), (e, k), (k, i, o))]
        out = edge_conditioned_matmul(graph, *leaves)
        assert out.shape == (n, o) and (out[:1] == e * k * i).all() and (out[1:] == 0).all()
        for t, g in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
            assert g.shape == t.shape and g.isfinite().all()


def test_bad_input() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x, h, w = torch.ones(M, 3), torch.ones(E, 2), torch.ones(2, 3, 4)
    for error, match, call in (
        (TypeError, "structops.Graph", lambda: edge_conditioned_matmul(None, x, h, w)),
        (ValueError, "h of shape", lambda: edge_conditioned_matmul(graph, x, h[1:], w)),
        (ValueError, "x of shape", lambda: edge_conditioned_matmul(graph, x[1:], h, w)),
        (ValueError, "weight of shape", lambda: edge_conditioned_matmul(graph, x, h, w[1:])),
        (TypeError, "h of dtype", lambda: edge_conditioned_matmul(graph, x, h.double(), w)),
        (ValueError, "bias of shape", lambda: edge_conditioned_matmul(graph, x, h, w, torch.ones(3))),
    ):
        with pytest.raises(error, match=match):
            call()


def test_compile() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    graph.reversed_structure  # noqa: B018
    fn = lambda *t: edge_conditioned_matmul(graph, *t)
    results = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [t.requires_grad_() for t in (values(M, 5), values(E, 4, seed=1), values(4, 5, 6, seed=2), values(5, 6, seed=3))]
        out = f(*leaves)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaves)))
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=E, magnitude=60.0)
    torch._dynamo.reset()
