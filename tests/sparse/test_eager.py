"""The short ways of eager mode give what the full operators give, to every order and under every transform of autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compare import assert_close
from structops import Graph, backends, scatter_reduce, segment_reduce, spmm
from structops.kernels import codes as C
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

N, E, F = 7, 40, 3
REDUCES = ("sum", "mean", "min", "max")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def structure(itype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor, Graph]:
    """A sorted index with empty groups, its pointers, and a graph with these destinations."""
    gen = torch.Generator().manual_seed(1)
    index = torch.randint(1, N - 1, (E,), generator=gen).sort().values
    indptr = torch.cat([index.new_zeros(1), torch.bincount(index, minlength=N).cumsum(0)])
    graph = Graph(torch.stack([torch.randint(0, N, (E,), generator=gen), index]), num_nodes=N)
    return index.to(itype), indptr.to(itype), graph


def calls(reduce: str, itype: torch.dtype = torch.int64) -> dict[str, tuple[int, Callable, Callable]]:
    """Operator -> (rows of its operand, the short call, the same call the full way: an operand [rows, F, 1])."""
    index, indptr, graph = structure(itype)
    return {
        "spmm": (N, lambda x: spmm(graph, x, None, None, reduce), lambda x: spmm(graph, x[..., None], None, None, reduce)[..., 0]),
        "segment": (E, lambda x: segment_reduce(x, indptr, reduce), lambda x: segment_reduce(x[..., None], indptr, reduce)[..., 0]),
        "scatter": (E, lambda x: scatter_reduce(x, index, N, reduce), lambda x: scatter_reduce(x[..., None], index, N, reduce)[..., 0]),
    }


OPS = ("spmm", "segment", "scatter")
each = pytest.mark.parametrize("reduce", REDUCES)
every = pytest.mark.parametrize("op", OPS)


def operand(rows: int, width: int = F, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


@every
@each
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("itype", (torch.int32, torch.int64), ids=str)
def test_same_as_the_full_way(op: str, reduce: str, dtype: torch.dtype, itype: torch.dtype) -> None:
    for width in (F, 300):  # on either side of the sizes that torch's own sums take
        rows, short, full = calls(reduce, itype)[op]
        x = operand(rows, width, dtype).requires_grad_()
        y = x.detach().clone().requires_grad_()
        out, want = short(x), full(y)
        assert_close(out, want, terms=E)
        assert_close(short(x.detach()), want, terms=E)
        g = operand(N, width, dtype).flip(0)
        assert_close(torch.autograd.grad(out, x, g)[0], torch.autograd.grad(want, y, g)[0], terms=E)


@pytest.mark.parametrize("backend", ("cpp", "numba", "reference"))
@pytest.mark.parametrize("code", range(8))
def test_copy_reduce_is_spmm_of_copies(backend: str, code: int, isa: str) -> None:
    """With an index the copies are of sources, without one of edges; rows without edges get the usual fill."""
    _, _, graph = structure()
    other = (None,) * 4
    for batch in ((), (2,)):
        for rows, index, message in ((N, graph.col, C.COPY_U), (E, None, C.COPY_E)):
            x = torch.stack([operand(rows) + b for b in range(2)]) if batch else operand(rows)
            pair = (x, None) if message == C.COPY_U else (None, x)
            want = backends._implementation("spmm", "reference")(
                *pair, graph.rowptr, index, *other, None, message, code, C.ARG_NONE, C.EMPTY[code], False, True
            )[0]  # fmt: skip
            assert want[..., 0, :].eq(C.EMPTY[code]).all()
            assert_close(backends._implementation("copy_reduce", backend)(x, graph.rowptr, index, code), want, terms=E)


def test_backend_of_spmm_is_that_of_its_frequent_case() -> None:
    _, _, graph = structure()
    with backends.override(spmm="reference"):
        assert backends.implementation("copy_reduce") is backends._implementation("copy_reduce", "reference")
        with backends.override(copy_reduce="cpp"):
            assert backends.implementation("copy_reduce") is torch.ops.structops.copy_reduce.default
    assert backends.implementation("copy_reduce") is torch.ops.structops.copy_reduce.default
    bad = (operand(N), graph.rowptr, graph.col, 9)
    with pytest.raises(RuntimeError, match="unknown code"):
        torch.ops.structops.copy_reduce(*bad)


@pytest.mark.parametrize("op", ("spmm", "segment"))
@pytest.mark.parametrize("reduce", ("sum", "mean"))
def test_traced_calls_keep_their_derivatives(op: str, reduce: str) -> None:
    """What a trace without gradients records is differentiable when it is replayed."""
    rows, short, _ = calls(reduce)[op]
    traced = make_fx(short)(operand(rows))
    assert any(node.target is torch.ops.structops.spmm.default for node in traced.graph.nodes)
    x = operand(rows).requires_grad_()
    want, got = short(x), traced(x)
    assert torch.equal(got, want)
    assert_close(torch.autograd.grad(got.sum(), x)[0], torch.autograd.grad(want.sum(), x)[0], terms=E)


@every
@each
def test_second_order(op: str, reduce: str) -> None:
    rows, short, _ = calls(reduce)[op]
    for width in (2, 300) if reduce == "sum" else (2,):
        x = operand(rows, width).requires_grad_()
        g = operand(N, width).flip(0).requires_grad_()
        (dx,) = torch.autograd.grad(short(x), x, g, create_graph=True)
        (back,) = torch.autograd.grad(dx, g, x.detach())
        assert_close(back, short(x.detach()), terms=E)  # all four are homogeneous: the Jacobian times x is the result
    assert torch.autograd.gradcheck(short, operand(rows).requires_grad_())
    assert torch.autograd.gradgradcheck(short, operand(rows).requires_grad_())


@every
@each
def test_batched_gradients(op: str, reduce: str) -> None:
    rows, short, _ = calls(reduce)[op]
    x = operand(rows, 1).requires_grad_()
    want = torch.stack([torch.autograd.grad(short(x), x, row)[0] for row in torch.eye(N, dtype=x.dtype)[..., None]])
    (got,) = torch.autograd.grad(short(x), x, torch.eye(N, dtype=x.dtype)[..., None], is_grads_batched=True)
    assert_close(got, want)
    jacobian = torch.func.jacrev(short)(x.detach())
    assert_close(jacobian[:, 0], want)


@every
@each
def test_checkpoint(op: str, reduce: str) -> None:
    rows, short, _ = calls(reduce)[op]
    x = operand(rows).requires_grad_()
    (want,) = torch.autograd.grad(short(x * x).sum(), x)
    (got,) = torch.autograd.grad(checkpoint(lambda t: short(t * t), x, use_reentrant=False).sum(), x)
    assert torch.equal(got, want)


@every
@each
def test_a_tensor_that_left_a_transform(op: str, reduce: str) -> None:
    rows, short, _ = calls(reduce)[op]
    kept: list[Tensor] = []
    torch.func.grad(lambda t: (kept.append(t * 2), t.sum())[1])(operand(rows))
    (x,) = kept
    assert_close(short(x), short(operand(rows) * 2))


@pytest.mark.parametrize("op", ("segment", "scatter"))
def test_a_changed_index_is_noticed(op: str) -> None:
    index, indptr, _ = structure()
    x = operand(E, 300).requires_grad_()
    out = segment_reduce(x, indptr) if op == "segment" else scatter_reduce(x, index, N)
    (indptr if op == "segment" else index).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@each
def test_fake_tensors(reduce: str) -> None:
    if backends.native is None:
        pytest.skip("no compiled library, no operator to be fake")
    index, *_ = structure()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(operand(E)).requires_grad_()
        out = scatter_reduce(x, mode.from_tensor(index), N, reduce)
        out.sum().backward()
        assert out.shape == (N, F) and x.grad.shape == (E, F)


def test_overrides_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named backend runs whatever the size."""
    index, indptr, graph = structure()
    x = operand(E, dtype=torch.float32).requires_grad_()
    want = scatter_reduce(x, index, N)
    seen = []
    found = backends._implementation

    def spy(op: str, backend: str):
        fn = found(op, backend)
        return (lambda *args: (seen.append((op, backend)), fn(*args))[1]) if fn else None

    monkeypatch.setattr(backends, "_implementation", spy)
    with backends.override("reference"):
        assert_close(scatter_reduce(x, index, N), want)
        segment_reduce(x, indptr).sum().backward()
        spmm(graph, x.detach()[:N])
    assert {("scatter", "reference"), ("copy_reduce", "reference"), ("sddmm", "reference"), ("index_range", "reference")} <= set(seen)
