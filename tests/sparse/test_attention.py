"""Attention over edges: values, every gradient, second order, edges without weight, and the layers of PyG."""

from __future__ import annotations

import math
from functools import cache

import pytest
import structops
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, to_csr
from compare import assert_close, assert_same
from structops import Graph
from structops._ladder import with_reverse
from structops.kernels import codes as C
from structops.sparse import dot_attention, edge_softmax, gat_attention, gatv2_attention
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

raw, raw_bwd = torch.ops.structops.attention, torch.ops.structops.attention_bwd
N, M, E = 24, 19, 130
COO = random_coo(M, N, E, hub=70)
E = COO.shape[1]
SCORES = {"additive": C.ADDITIVE, "gatv2": C.GATV2, "dot": C.DOT}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers that every dtype holds exactly."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).bfloat16().to(dtype)


def dense(coo, key, query, value, edge, att, score, slope=0.2, scale=0.25):
    """By a loop over destinations, in float64."""
    rows = []
    for v in range(query.shape[0]):
        k = (coo[1] == v).nonzero()[:, 0]
        if len(k) == 0:
            rows.append(torch.zeros_like(value[0]))
            continue
        u = coo[0][k]
        if score == C.DOT:
            s = scale * (key[u] * query[v]).sum(2)
            s = s if edge is None else s + edge[k]
        else:
            z = key[u] + query[v]
            z = z if edge is None else z + edge[k].reshape(len(k), *key.shape[1:])
            z = torch.nn.functional.leaky_relu(z, slope)
            s = z[..., 0] if score == C.ADDITIVE else (z * att).sum(2)
        rows.append((torch.softmax(s, 0)[..., None] * value[u]).sum(0))
    return torch.stack(rows)


@cache
def case(score: int, H: int, K: int, D: int, edges: bool, dtype: torch.dtype):
    """Operands in ``dtype``, and the float64 result and gradients for a random cotangent."""
    K = 1 if score == C.ADDITIVE else K
    shapes = (
        (M, H, K),
        (N, H, K),
        (M, H, D),
        ((E, H, K) if score == C.GATV2 else (E, H)) if edges else None,
        (H, K) if score == C.GATV2 else None,
    )
    operands = [None if s is None else randn(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes)]
    leaves = [None if t is None else t.double().requires_grad_() for t in operands]
    out = dense(COO, *leaves, score)
    grad = randn(N, H, D, seed=9, dtype=dtype)
    found = torch.autograd.grad(out, [t for t in leaves if t is not None], grad.double(), allow_unused=True)
    found = iter(torch.zeros_like(t) if g is None else g for g, t in zip(found, [t for t in leaves if t is not None], strict=True))
    return operands, grad, out.detach(), [None if t is None else next(found) for t in operands]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_values_and_gradients(isa: str, score: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    code = SCORES[score]
    for n, (H, K, D, edges) in enumerate(
        [(4, 32, 32, False), (1, 1, 1, True), (3, 5, 7, True), (2, 33, 17, False), (8, 8, 16, True), (5, 16, 3, True)]
    ):
        operands, grad, want, wanted = case(code, H, K, D, edges, dtype)
        s = to_csr(COO, N, INTEGERS[n % 2])
        back = with_reverse((*s, None, None, None), M)[3:]
        tail = code, 0.2, 0.25
        out, lse = on_threads(lambda: raw(*operands, *s, None, None, None, *tail))
        assert_close(out, want, dtype, terms=200, magnitude=3.0, what=(H, K, D))
        exact = want.to(dtype)  # what the backward is given
        found = on_threads(lambda: raw_bwd(*operands, exact, lse, grad, *s, *back, *tail))
        for name, got, expected in zip(("key", "query", "value", "edge", "att"), found, wanted, strict=True):
            if expected is None:
                continue
            largest = float(expected.abs().max())
            if dtype in (torch.bfloat16, torch.float16):  # <g, out> comes from the rounded result
                assert got.dtype == dtype
                torch.testing.assert_close(got.double(), expected, atol=0.02 * (1 + largest), rtol=0.02, msg=f"{name} {(H, K, D)}")
            else:
                assert_close(got, expected, dtype, terms=400, magnitude=1 + largest, what=(name, H, K, D))


@pytest.mark.parametrize("score", SCORES)
def test_derivatives(score: str) -> None:
    graph, code = Graph(COO, num_src=M, num_dst=N), SCORES[score]
    operands = [None if t is None else (t + 0.01).requires_grad_() for t in case(code, 2, 3, 2, True, torch.float64)[0]]

    def function(*given):
        key, query, value, edge, *att = given
        if code == C.ADDITIVE:
            return gat_attention(graph, value, key[..., 0], query[..., 0], edge)
        if code == C.GATV2:
            return gatv2_attention(graph, key, query, att[0], edge, value=value)
        return dot_attention(graph, query, key, value, edge)

    leaves = tuple(t for t in operands if t is not None)
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


def in_blocks(t: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Rows ``[rows, H, D]`` laid out in blocks of (width, repeat), feature by feature."""
    _, H, _ = t.shape
    order, first = [], 0
    for width, repeat in zip(blocks[::2], blocks[1::2], strict=True):
        for _ in range(repeat):
            order += [(h, first + j) for h in range(H) for j in range(width)]
            first += width
    head, feature = torch.tensor(order).T
    return t[:, head, feature].reshape(t.shape).contiguous()


@pytest.mark.parametrize("score", ("additive", "dot"))
def test_blocks_of_heads(isa: str, score: str, poison: None, on_threads) -> None:
    """Rows whose features of a head are not side by side give what the others give."""
    code = SCORES[score]
    for n, (H, key_blocks, value_blocks) in enumerate(
        [(4, (16, 2), (32, 1, 16, 3)), (2, (3, 1, 5, 6, 0, 2), (7, 5)), (3, (64, 1), (1, 4, 9, 1)), (1, (8, 2), (2, 3, 4, 4))]
    ):
        K = 1 if score == "additive" else sum(w * r for w, r in zip(key_blocks[::2], key_blocks[1::2], strict=True))
        D = sum(w * r for w, r in zip(value_blocks[::2], value_blocks[1::2], strict=True))
        key_blocks = () if score == "additive" else key_blocks
        for dtype in (torch.float32, torch.bfloat16):
            operands, grad, _, _ = case(code, H, K, D, True, dtype)
            turn = lambda t, blocks: in_blocks(t, blocks) if blocks else t
            key, query, value, edge, att = operands
            moved = turn(key, key_blocks), turn(query, key_blocks), in_blocks(value, value_blocks), edge, att
            s = to_csr(COO, N, INTEGERS[n % 2])
            back, tail = with_reverse((*s, None, None, None), M)[3:], (code, 0.2, 0.25)
            blocks = list(key_blocks), list(value_blocks)
            want, lse = raw(*operands, *s, None, None, None, *tail)
            out, got_lse = on_threads(lambda: raw(*moved, *s, None, None, None, *tail, *blocks))
            assert_close(out, in_blocks(want, value_blocks), dtype, terms=200, magnitude=3.0)
            assert_close(got_lse, lse, terms=200, magnitude=3.0)
            wanted = raw_bwd(*operands, want, lse, grad, *s, *back, *tail)
            grads = in_blocks(want, value_blocks), lse, in_blocks(grad, value_blocks)
            found = on_threads(lambda: raw_bwd(*moved, *grads, *s, *back, *tail, *blocks))
            order = key_blocks, key_blocks, value_blocks, ()
            for a, b, o in zip(found, wanted, order, strict=False):
                assert_close(a, turn(b, o), dtype, terms=400, magnitude=1 + float(b.abs().max()))


def test_blocks_must_fit() -> None:
    operands, *_ = case(C.DOT, 2, 4, 6, False, torch.float32)
    s = to_csr(COO, N)
    for blocks in ([3, 1], []), ([], [6]), ([1] * 2 * 17, []), ([-4, -1], []), ([], [6, 2]):
        with pytest.raises(RuntimeError, match="blocks"):
            raw(*operands, *s, None, None, None, C.DOT, 0.0, 1.0, *blocks)


def test_hub_row(isa: str, on_threads) -> None:
    """A row of 20,000 edges whose scores rise: the running maximum moves in every tile."""
    size = 20_000
    src = torch.arange(size)
    graph = Graph(torch.stack([src, torch.ones_like(src)]), num_src=size, num_dst=3)
    value, score = randn(size, 2, 5, dtype=torch.float32), torch.arange(size).float()[:, None] / 500 * torch.tensor([1.0, -1.0])
    out = on_threads(lambda: gat_attention(graph, value, score, torch.zeros(3, 2)))
    weight = torch.softmax(torch.nn.functional.leaky_relu(score.double(), 0.2), 0)
    assert_close(out[1], (weight[..., None] * value.double()).sum(0), terms=50, magnitude=3.0)
    assert not out[[0, 2]].any()


@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_hub_rows_and_sources(isa: str, score: str, on_threads) -> None:
    """Rows and sources of more edges than a piece of the work are cut; their parts are merged in order."""
    size, H, K, D = 1500, 2, 1 if score == "additive" else 5, 3
    one, other = torch.ones(size, dtype=torch.int64), torch.arange(size) % 40
    coo = torch.cat([torch.stack([other, one]), torch.stack([one, other])], 1)  # node 1 is in and at the end of most edges
    s = to_csr(coo, 40, torch.int64)
    back = with_reverse((*s, None, None, None), 40)[3:]
    shapes = (40, H, K), (40, H, K), (40, H, D), (2 * size, H, K) if score == "gatv2" else (2 * size, H), (H, K)
    operands = [randn(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(shapes)]
    operands[4] = operands[4] if score == "gatv2" else None
    leaves = [None if t is None else t.double().requires_grad_() for t in operands]
    want = dense(coo, *leaves, SCORES[score])
    grad = randn(40, H, D, seed=9, dtype=torch.float32)
    present = [t for t in leaves if t is not None]
    wanted = torch.autograd.grad(want, present, grad.double())
    tail = SCORES[score], 0.2, 0.25
    out, lse = on_threads(lambda: raw(*operands, *s, None, None, None, *tail))
    assert_close(out, want, terms=200, magnitude=3.0)
    found = on_threads(lambda: raw_bwd(*operands, out, lse, grad, *s, *back, *tail))
    for a, b in zip(found[: len(present)], wanted, strict=True):
        assert_close(a, b, terms=2000, magnitude=float(b.abs().max()))


def test_masked_and_infinite_scores(isa: str) -> None:
    graph = Graph(torch.tensor([[0, 1, 0, 1, 0], [0, 0, 1, 1, 2]]), num_nodes=4)
    value = torch.tensor([[[1.0]], [[3.0]], [[0.0]], [[0.0]]], requires_grad=True)
    inf = float("inf")
    bias = torch.tensor([[0.0], [-inf], [-inf], [-inf], [inf]], requires_grad=True)
    q = torch.zeros(4, 1, 2)
    out = dot_attention(graph, q, q, value, bias)
    assert out[:2].flatten().tolist() == [1.0, 0.0] and out[2].isnan().all() and out[3].item() == 0
    dv, db = torch.autograd.grad(out[[0, 1, 3]].sum(), (value, bias))
    assert dv[:2].flatten().isfinite().sum() >= 1 and db[:4].flatten().tolist() == [0.0] * 4
    nan = torch.tensor([[0.0, 0.0], [float("nan"), 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    out = dot_attention(graph, torch.zeros(4, 2, 1), torch.zeros(4, 2, 1), torch.ones(4, 2, 1), nan)
    assert out[0, 0].isnan().all() and out[0, 1].item() == 1 and out[1:3].flatten().tolist() == [1.0] * 4


def test_weights_and_softmax() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    value, a, b = randn(M, 2, 3), randn(M, 2, seed=1), randn(N, 2, seed=2)
    out, weight = gat_attention(graph, value, a, b, return_weights=True)
    torch.testing.assert_close(structops.spmm(graph, value, weight[..., None]), out)
    logits = randn(E, 2, seed=3)
    for by, index, size in (("dst", COO[1], N), ("src", COO[0], M)):
        torch.testing.assert_close(edge_softmax(graph, logits, by), structops.scatter_softmax(logits, index, size))
    assert gradgradcheck(lambda t: edge_softmax(graph, t, "src"), (logits.requires_grad_(),), fast_mode=True)


def test_sizes_of_zero(isa: str) -> None:
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_src=3, num_dst=4)
    x = torch.ones(3, 2, 5, requires_grad=True)
    out = gatv2_attention(empty, x, torch.ones(4, 2, 5), torch.ones(2, 5))
    assert out.shape == (4, 2, 5) and not out.any()
    assert not torch.autograd.grad(out.sum(), x)[0].any()
    graph = Graph(COO, num_src=M, num_dst=N)
    assert gat_attention(graph, torch.ones(M, 2, 0), torch.ones(M, 2), torch.ones(N, 2)).shape == (N, 2, 0)
    assert gat_attention(graph, torch.ones(M, 0, 4), torch.ones(M, 0), torch.ones(N, 0)).shape == (N, 0, 4)


def test_instruction_sets_and_threads_agree(on_threads) -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x, y, a = (
        randn(M, 4, 8, dtype=torch.float32),
        randn(N, 4, 8, seed=1, dtype=torch.float32),
        randn(4, 8, seed=2, dtype=torch.float32),
    )
    x.requires_grad_()
    run = lambda: torch.autograd.grad(gatv2_attention(graph, x, y, a).square().sum(), x)[0]
    assert_same(on_threads(run), run())


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda g: gat_attention(COO, torch.ones(M, 2, 3), torch.ones(M, 2), torch.ones(N, 2)), TypeError, "graph"),
        (lambda g: gat_attention(g, torch.ones(M, 2), torch.ones(M, 2), torch.ones(N, 2)), ValueError, "value"),
        (lambda g: gat_attention(g, torch.ones(M, 2, 3), torch.ones(M, 3), torch.ones(N, 2)), ValueError, "src_score"),
        (lambda g: gat_attention(g, torch.ones(M, 2, 3), torch.ones(M, 2), torch.ones(N, 2).double()), TypeError, "dst_score"),
        (lambda g: gatv2_attention(g, torch.ones(M, 2, 3), torch.ones(N, 2, 3), torch.ones(3, 2)), ValueError, "att"),
        (lambda g: dot_attention(g, torch.ones(N, 2, 3), torch.ones(M, 2, 4), torch.ones(M, 2, 3)), ValueError, "query"),
        (
            lambda g: dot_attention(g, torch.ones(N, 2, 3), torch.ones(M, 2, 3), torch.ones(M, 2, 3), torch.ones(4, 2)),
            ValueError,
            "bias",
        ),
        (lambda g: edge_softmax(g, torch.ones(3)), ValueError, "logits"),
        (lambda g: edge_softmax(g, torch.ones(E), "both"), ValueError, "norm_by"),
    ],
)
def test_bad_input(call, kind, text: str) -> None:
    with pytest.raises(kind, match=text):
        call(Graph(COO, num_src=M, num_dst=N))


def test_layers_of_pyg() -> None:
    """GATConv, GATv2Conv and TransformerConv with their own weights."""
    nn = pytest.importorskip("torch_geometric.nn")
    graph, x, y, e = (
        Graph(COO, num_src=M, num_dst=N),
        randn(M, 6, dtype=torch.float32),
        randn(N, 5, seed=1, dtype=torch.float32),
        randn(E, 4, seed=2, dtype=torch.float32),
    )
    H, D = 3, 7
    gat = nn.GATConv((6, 5), D, heads=H, add_self_loops=False, edge_dim=4, bias=False)
    xs, xd = gat.lin_src(x).view(-1, H, D), gat.lin_dst(y).view(-1, H, D)
    score = lambda t, a: (t * a).sum(-1)
    ours = gat_attention(
        graph, xs, score(xs, gat.att_src), score(xd, gat.att_dst), score(gat.lin_edge(e).view(-1, H, D), gat.att_edge)
    )
    torch.testing.assert_close(ours.flatten(1), gat((x, y), COO, e), atol=1e-5, rtol=1e-5)
    v2 = nn.GATv2Conv((6, 5), D, heads=H, add_self_loops=False, edge_dim=4, bias=False)
    ours = gatv2_attention(graph, v2.lin_l(x).view(-1, H, D), v2.lin_r(y).view(-1, H, D), v2.att[0], v2.lin_edge(e).view(-1, H, D))
    torch.testing.assert_close(ours.flatten(1), v2((x, y), COO, e), atol=1e-5, rtol=1e-5)
    former = nn.TransformerConv((6, 5), D, heads=H, root_weight=False, bias=False)
    q, k, v = former.lin_query(y).view(-1, H, D), former.lin_key(x).view(-1, H, D), former.lin_value(x).view(-1, H, D)
    torch.testing.assert_close(
        dot_attention(graph, q, k, v, scale=1 / math.sqrt(D)).flatten(1), former((x, y), COO), atol=1e-5, rtol=1e-5
    )
