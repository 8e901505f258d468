"""Attention along typed edges: against a loop over destinations, on compact rows, with nothing of the size of the edges."""

from __future__ import annotations

import pytest
import structops
import torch
from cases import FLOATS, generator, random_coo, values
from compare import assert_close
from structops import Graph
from structops.sparse import RelationPlan, gat_attention, typed_attention, typed_matmul
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

M, N, E, R, H = 9, 8, 90, 4, 2
COO = random_coo(M, N, E, seed=11)
KIND = torch.randint(0, R - 1, (E,), generator=generator(5))  # the last relation has no edges
PLAN = RelationPlan(Graph(COO, num_src=M, num_dst=N), KIND, R)
SHAPES = (N, H, 5), (M, H, 3), (M, H, 4), (R, H, 3, 5), (R, H, 4, 6), (R, H), (E, H)


def dense(q: Tensor, k: Tensor, v: Tensor, wk: Tensor, wv: Tensor, prior: Tensor, bias: Tensor) -> Tensor:
    """Messages of every edge, destination by destination."""
    src, dst = COO
    keys = torch.einsum("ehk,ehkq->ehq", k[src], wk[KIND])
    messages = torch.einsum("ehc,ehcd->ehd", v[src], wv[KIND])
    score = 5**-0.5 * prior[KIND] * (keys * q[dst]).sum(2) + bias
    rows = [(torch.softmax(score[dst == i], 0)[..., None] * messages[dst == i]).sum(0) for i in range(N)]
    return torch.stack(rows)


def operands(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [(values(*s, dtype=dtype, seed=i) / 2).requires_grad_() for i, s in enumerate(SHAPES)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_and_gradients(dtype: torch.dtype) -> None:
    inputs = operands(dtype)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    out, want = typed_attention(PLAN, *inputs), dense(*exact)
    grad = values(N, H, 6, dtype=dtype, seed=9)
    found, wanted = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(want, exact, grad.double())
    half = dtype in (torch.bfloat16, torch.float16)  # the compact rows are rounded
    for a, b in ((out, want), *zip(found, wanted, strict=True)):
        if half:
            torch.testing.assert_close(a.double(), b, atol=0.05 * float(b.detach().abs().max()), rtol=0.02)
        else:
            assert_close(a, b, dtype, terms=200, magnitude=1 + float(b.detach().abs().max()))


def test_two_orders() -> None:
    inputs = tuple(operands())
    assert gradcheck(lambda *t: typed_attention(PLAN, *t), inputs, fast_mode=True)
    assert gradgradcheck(lambda *t: typed_attention(PLAN, *t), inputs, fast_mode=True)
    assert gradgradcheck(lambda *t: typed_attention(PLAN, *t), inputs[:5], fast_mode=True)


def test_weights() -> None:
    inputs = operands()
    out, weight = typed_attention(PLAN, *inputs, return_weights=True)
    messages = torch.einsum("ehc,ehcd->ehd", inputs[2][COO[0]], inputs[4][KIND])
    torch.testing.assert_close(structops.spmm(PLAN.graph, None, weight[..., None] * messages), out)


def test_compact_rows() -> None:
    assert PLAN.row_graph.num_edges == E and PLAN.row_src.numel() == PLAN.unique_src < E
    x, w = values(M, 3), values(R, 3, 7, seed=1)
    rows = typed_matmul(x, w, PLAN.rows())
    torch.testing.assert_close(rows, torch.einsum("uk,ukn->un", x[PLAN.row_src], w[PLAN.row_type]))
    of_edge = PLAN.row_graph.edge_index()[0].long()
    assert torch.equal(PLAN.row_src[of_edge], COO[0]) and torch.equal(PLAN.row_type[of_edge], KIND)


def test_gat_over_compact_rows() -> None:
    """RGAT: scores and values of (source, relation)."""
    x, w, a, b = values(M, 3), values(R, 3, 8, seed=1), values(R, H, 4, seed=2), values(N, H, seed=3)
    z = typed_matmul(x, w, PLAN.rows()).view(-1, H, 4)
    got = gat_attention(PLAN.row_graph, z, (z * a[PLAN.row_type]).sum(2), b)
    messages = torch.einsum("ek,ekn->en", x[COO[0]], w[KIND]).view(E, H, 4)
    score = torch.nn.functional.leaky_relu((messages * a[KIND]).sum(2) + b[COO[1]], 0.2)
    want = [(torch.softmax(score[COO[1] == i], 0)[..., None] * messages[COO[1] == i]).sum(0) for i in range(N)]
    torch.testing.assert_close(got, torch.stack(want))


def test_nothing_of_the_size_of_the_edges_is_saved() -> None:
    inputs, sizes = operands(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        typed_attention(PLAN, *inputs)
    assert max(sizes) <= PLAN.unique_src * H * 6 < E * H * 3
    assert typed_attention(PLAN, *inputs).grad_fn is not None


@pytest.mark.parametrize(
    "change, kind, text",
    [
        ({0: torch.ones(N, H)}, ValueError, "query"),
        ({1: torch.ones(M, H + 1, 3)}, ValueError, "key"),
        ({2: torch.ones(M - 1, H, 4)}, ValueError, "value"),
        ({3: torch.ones(R, H, 3, 4)}, ValueError, "key_weight"),
        ({4: torch.ones(R + 1, H, 4, 6)}, ValueError, "value_weight"),
        ({4: torch.ones(R, H, 4, 6, dtype=torch.float64)}, TypeError, "value_weight"),
        ({5: torch.ones(H)}, ValueError, "prior"),
        ({6: torch.ones(E)}, ValueError, "bias"),
    ],
)
def test_bad_input(change: dict, kind: type[Exception], text: str) -> None:
    inputs = [change.get(i, torch.ones(s)) for i, s in enumerate(SHAPES)]
    with pytest.raises(kind, match=text):
        typed_attention(PLAN, *inputs)


def test_not_a_plan() -> None:
    with pytest.raises(TypeError, match="RelationPlan"):
        typed_attention(PLAN.graph, *(torch.ones(s) for s in SHAPES))
