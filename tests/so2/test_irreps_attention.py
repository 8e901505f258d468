"""Attention over irreps: per node and edge in dense form, equivariance, derivatives, memory."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from rotations import act, random_graph, random_rotation
from structops import Graph, so2
from structops.so2 import Irreps
from torch.autograd import gradcheck, gradgradcheck

KEYS, VALUES = Irreps("4x0e+2x1o"), Irreps("2x0e+4x1o+2x2e+2x1e")
N, E = 7, 31


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def copies(irreps: Irreps, x: torch.Tensor, head: int, heads: int, layout: str) -> list[torch.Tensor]:
    """The copies of a head, ``[..., mul / heads, d]``, term by term."""
    found = []
    for t, s in zip(irreps, irreps.slices(), strict=True):
        block = (
            x[..., s].unflatten(-1, (t.mul, t.dim))
            if layout == "mul_ir"
            else x[..., s].unflatten(-1, (t.dim, t.mul)).transpose(-1, -2)
        )
        found.append(block[..., head * t.mul // heads : (head + 1) * t.mul // heads, :])
    return found


def reference(graph: Graph, query, key, value, bias, heads: int, layout: str, per_edge: bool) -> torch.Tensor:
    """Head by head, node by node."""
    src, dst = graph.edge_index().long()
    at = torch.arange(graph.num_edges) if per_edge else src
    out = []
    for v in range(graph.num_dst):
        into = torch.nonzero(dst == v)[:, 0]
        terms: list[list[torch.Tensor]] = [[] for _ in VALUES]
        for h in range(heads):
            logits = value.new_zeros(len(into)) if bias is None else bias[into, h]
            if query is not None:
                q, k = (copies(KEYS, t, h, heads, layout) for t in (query[v], key[at[into]]))
                logits = logits + sum((a * b).sum((1, 2)) for a, b in zip(q, k, strict=True)) / (KEYS.dim / heads) ** 0.5
            weights = torch.softmax(logits, 0)
            for found, block in zip(terms, copies(VALUES, value[at[into]], h, heads, layout), strict=True):
                found.append((weights[:, None, None] * block).sum(0))
        blocks = [torch.cat(t) for t in terms]
        out.append(torch.cat([(b if layout == "mul_ir" else b.T).flatten() for b in blocks]))
    return torch.stack(out)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("per_edge", [False, True])
def test_node_by_node(heads: int, layout: str, per_edge: bool) -> None:
    graph = random_graph(N, E)
    rows = E if per_edge else N
    query, key, value, bias = (
        rand(N, KEYS.dim),
        rand(rows, KEYS.dim, seed=1),
        rand(rows, VALUES.dim, seed=2),
        rand(E, heads, seed=3),
    )
    options = {"key_irreps": KEYS, "heads": heads, "layout": layout, "per_edge": per_edge}
    for q, k, b in ((query, key, bias), (query, key, None), (None, None, bias)):
        got = so2.irreps_attention(graph, q, k, value, VALUES, bias=b, **options)
        assert_close(got, reference(graph, q, k, value, b, heads, layout, per_edge), terms=256, magnitude=4)


@pytest.mark.parametrize("heads", [1, 3])
def test_stacked_rows(heads: int) -> None:
    """Rows [(lmax + 1)^2, C] are flat rows of layout ir_mul."""
    graph, C = random_graph(N, E), 6
    q, k, v = rand(N, 9, C), rand(N, 9, C, seed=1), rand(N, 9, C, seed=2)
    irreps = Irreps([(C, l, 1) for l in range(3)])
    want = so2.irreps_attention(graph, q.flatten(1), k.flatten(1), v.flatten(1), irreps, heads=heads, layout="ir_mul")
    assert_close(so2.irreps_attention(graph, q, k, v, 2, heads=heads), want.reshape(v.shape))


@pytest.mark.parametrize("inversion", [False, True])
def test_equivariance(inversion: bool) -> None:
    """Scores are invariant: rows of zero degree stay, the others turn with the values."""
    graph, R = random_graph(N, E), random_rotation(1)
    q, k, v = rand(N, KEYS.dim), rand(E, KEYS.dim, seed=1), rand(E, VALUES.dim, seed=2)
    f = lambda q, k, v: so2.irreps_attention(graph, q, k, v, VALUES, key_irreps=KEYS, heads=2, per_edge=True)
    turned = f(*(act(i, t, R, inversion) for i, t in ((KEYS, q), (KEYS, k), (VALUES, v))))
    assert_close(turned, act(VALUES, f(q, k, v), R, inversion), terms=256)


def test_masked_and_isolated() -> None:
    """An edge of bias -inf does not count; a node without edges gets 0."""
    graph = Graph(torch.tensor([[0, 1, 2], [1, 1, 1]]), num_nodes=3)
    v = rand(3, 4)
    bias = torch.tensor([[0.0], [0.0], [float("-inf")]], dtype=torch.float64)
    got = so2.irreps_attention(graph, None, None, v, "0e+1o", bias=bias)
    assert_close(got, torch.stack([torch.zeros(4, dtype=torch.float64), (v[0] + v[1]) / 2, torch.zeros(4, dtype=torch.float64)]))


@pytest.mark.parametrize("per_edge", [False, True])
def test_derivatives(per_edge: bool) -> None:
    graph, keys, values = random_graph(3, 6), "2x0e+2x1o", "2x1o+2x0e"
    rows = 6 if per_edge else 3
    leaves = [t.requires_grad_() for t in (rand(3, 8), rand(rows, 8, seed=1), rand(rows, 8, seed=2), rand(6, 2, seed=3))]

    def fn(q, k, v, b):
        return so2.irreps_attention(graph, q, k, v, values, key_irreps=keys, heads=2, bias=b, per_edge=per_edge)

    assert gradcheck(fn, leaves, fast_mode=True) and gradgradcheck(fn, leaves, fast_mode=True)
    fn = lambda v, b: so2.irreps_attention(graph, None, None, v, values, heads=2, bias=b, per_edge=per_edge)
    assert gradcheck(fn, leaves[2:], fast_mode=True) and gradgradcheck(fn, leaves[2:], fast_mode=True)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("irreps,layout", [(3, "mul_ir"), ("32x0e+32x1o", "mul_ir"), ("64x0e+32x1o", "ir_mul")])
def test_saves_the_operands_alone(irreps, layout: str, heads: int) -> None:
    """Operands are read in place, and nothing of size E is kept for the backward beyond them and the result."""
    graph, shape = random_graph(5, 400), (5, 16, 32) if irreps == 3 else (5, Irreps(irreps).dim)
    q, k, v = (rand(*shape, seed=s).requires_grad_() for s in range(3))
    saved = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.update({t.data_ptr(): t.numel()} if t.is_floating_point() else {}) or t, lambda t: t
    ):
        out = so2.irreps_attention(graph, q, k, v, irreps, layout=layout, heads=heads)
    for known in (q, k, v, out):
        del saved[known.data_ptr()]
    assert sum(saved.values()) == 5 * heads


def test_many_kinds_of_terms() -> None:
    """More runs of blocks than the kernels take."""
    irreps = Irreps([(2 * (i + 1), i % 3, 1) for i in range(20)])
    graph, q, k, v = random_graph(N, E), rand(N, irreps.dim), rand(N, irreps.dim, seed=1), rand(N, irreps.dim, seed=2)
    got = so2.irreps_attention(graph, q, k, v, irreps, heads=2, layout="ir_mul")
    kept = [
        torch.cat([b[:, :, h * b.shape[-1] // 2 : (h + 1) * b.shape[-1] // 2].flatten(1) for b in blocks], 1)
        for h in range(2) for blocks in ([t[:, s].unflatten(1, (i.dim, i.mul)) for i, s in zip(irreps, irreps.slices(), strict=True)]
                                         for t in (q, k, v))
    ]  # fmt: skip
    half = Irreps([(t.mul // 2, t.l, t.p) for t in irreps])
    for h in range(2):
        want = so2.irreps_attention(graph, *kept[3 * h : 3 * h + 3], half, layout="ir_mul")
        at = 0
        for t, s in zip(irreps, irreps.slices(), strict=True):
            block = got[:, s].unflatten(1, (t.dim, t.mul))[:, :, h * t.mul // 2 : (h + 1) * t.mul // 2].flatten(1)
            assert_close(block, want[:, at : at + block.shape[1]], terms=256)
            at += block.shape[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    graph = random_graph(N, E)
    q, k, v = (rand(N, 9, 4, seed=s, dtype=dtype) / 4 for s in range(3))
    want = so2.irreps_attention(graph, q.double(), k.double(), v.double(), 2)
    assert_close(so2.irreps_attention(graph, q, k, v, 2), want, dtype, terms=64)


@pytest.mark.parametrize("per_edge", [False, True])
def test_compiled(per_edge: bool) -> None:
    """Once a call has analysed the graph."""
    graph = random_graph(N, E)
    q, k = rand(N, 9, 4).requires_grad_(), rand(E if per_edge else N, 9, 4, seed=1).requires_grad_()
    fn = lambda q, k: so2.irreps_attention(graph, q, k, k, 2, heads=2, per_edge=per_edge)
    want = fn(q, k)
    grads = torch.autograd.grad(want.sin().sum(), (q, k))
    got = torch.compile(fn, fullgraph=True, backend="aot_eager")(q, k)
    for a, b in zip((got, *torch.autograd.grad(got.sin().sum(), (q, k))), (want, *grads), strict=True):
        assert_close(a, b.detach(), terms=64)


def test_empty() -> None:
    none = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=3)
    x = rand(3, 4)
    assert (so2.irreps_attention(none, x, x, x, "0e+1o") == 0).all()
    assert so2.irreps_attention(none, x, rand(0, 4), rand(0, 4), "0e+1o", per_edge=True).shape == (3, 4)
    nothing = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0)
    assert so2.irreps_attention(nothing, rand(0, 4), rand(0, 4), rand(0, 4), "0e+1o").shape == (0, 4)


X, G = torch.zeros(7, 8), random_graph(N, E)


@pytest.mark.parametrize(
    "change,error,name",
    [
        ({"graph": None}, TypeError, "graph"),
        ({"query": torch.zeros(6, 8)}, ValueError, "query"),
        ({"query": None}, TypeError, "query"),
        ({"query": None, "key": None}, TypeError, "bias"),
        ({"key": torch.zeros(6, 8)}, ValueError, "key"),
        ({"key": torch.zeros(7, 7)}, ValueError, "key"),
        ({"value": torch.zeros(7, 9)}, ValueError, "value"),
        ({"value": torch.zeros(8, 8)}, ValueError, "value"),
        ({"value": torch.zeros(7, 8).double()}, TypeError, "key"),
        ({"per_edge": True}, ValueError, "value"),
        ({"per_edge": 1}, TypeError, "per_edge"),
        ({"heads": 3}, ValueError, "heads"),
        ({"heads": 0}, ValueError, "heads"),
        ({"bias": torch.zeros(E, 2)}, ValueError, "bias"),
        ({"layout": "x"}, ValueError, "layout"),
        ({"irreps": 2}, ValueError, "value"),
    ],
)
def test_bad_input(change, error, name) -> None:
    given = {"graph": G, "query": X, "key": X, "value": X, "irreps": "2x0e+2x1o", **change}
    with pytest.raises(error, match=name):
        so2.irreps_attention(**given)
