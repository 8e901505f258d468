"""torch.compile and torch.func of the tree functions and distributions."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_same
from structops import backends, tree
from structops.tree import DependencyCRF, SpanCRF
from torch import Tensor
from tree_cases import chart

needs_cpp = pytest.mark.skipif(backends.native is None, reason="an operator in a graph needs the compiled library")
LENGTHS = torch.tensor([5, 0, 3])
HEADS = torch.tensor([[0, 0, 1, 1, 3, 3], [0] * 6, [0, 2, 0, 2, 0, 0]])
PART = torch.tensor([[-1, -1, 1, -1, -1, 3], [-1] * 6, [-1, 2, -1, -1, -1, -1]])
SPANS = torch.tensor([[[0, 5]], [[-1, -1]], [[0, 2]]])


def functions() -> dict:
    arc, sib = chart(3, 6, True)
    score = torch.stack([arc, arc + 1], -1)
    return {
        "logz": (lambda a: tree.dependency_log_partition(a, LENGTHS), (arc,)),
        "logz second": (lambda a, s: tree.dependency_log_partition(a, LENGTHS, s, True), (arc, sib)),
        "marginals": (lambda a: tree.dependency_marginals(a, LENGTHS), (arc,)),
        "marginals second": (lambda a, s: torch.cat([t.flatten() for t in tree.dependency_marginals(a, LENGTHS, s)]), (arc, sib)),
        "span": (lambda a: tree.span_log_partition(a, LENGTHS), (arc,)),
        "span labels": (lambda a: tree.span_log_partition(a, LENGTHS), (score,)),
        "log_prob": (lambda a, s: DependencyCRF(a, LENGTHS, s).log_prob(HEADS), (arc, sib)),
        "partial": (lambda a: DependencyCRF(a, LENGTHS, multiroot=True).log_prob(PART, partial=True), (arc,)),
        "spans": (lambda a: SpanCRF(a, LENGTHS).log_prob(SPANS, partial=True), (arc,)),
        "entropy": (lambda a: DependencyCRF(a, LENGTHS).entropy(), (arc,)),
        "kl": (lambda a, b: SpanCRF(a, LENGTHS).kl_divergence(SpanCRF(b, LENGTHS)), (arc, arc.flip(0))),
        "max": (lambda a: DependencyCRF(a, LENGTHS).max, (arc,)),
    }


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield
    torch._dynamo.reset()


@needs_cpp
@pytest.mark.parametrize("name", functions())
def test_compile(name: str) -> None:
    """One graph, the same values, the same gradients."""
    fn, inputs = functions()[name]
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    results = []
    for f in (fn, compiled):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = f(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
        assert_close(f(*(t.detach() for t in leaves)), out.detach(), terms=32)
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=256, magnitude=8.0)


@needs_cpp
def test_compiled_trees() -> None:
    arc = chart(3, 6)[0].requires_grad_()

    def decode(a: Tensor) -> tuple[Tensor, ...]:
        d = DependencyCRF(a, LENGTHS, multiroot=True)
        return d.argmax, d.mbr(), tree.dependency_best(a, LENGTHS, k=3)[1], SpanCRF(a, LENGTHS).argmax

    for a, b in zip(torch.compile(decode, fullgraph=True, backend="aot_eager")(arc), decode(arc), strict=True):
        assert_same(a, b)


@needs_cpp
def test_one_call_forward_and_none_backward() -> None:
    """Of first order the posteriors come with the log-partition: no operator is left for the backward pass."""
    seen: list[str] = []

    def backend(graph, inputs):
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        def inner(g, _):
            seen.append(" ".join(str(n.target) for n in g.graph.nodes if "structops" in str(n.target)))
            return make_boxed_func(g)

        return aot_autograd(fw_compiler=inner, bw_compiler=inner)(graph, inputs)

    arc = chart(3, 6)[0].requires_grad_()
    torch.compile(lambda a: tree.dependency_log_partition(a, LENGTHS), fullgraph=True, backend=backend)(arc).sum().backward()
    assert seen == ["structops.chart_marginals.default", ""]


@needs_cpp
def test_dynamic_shapes() -> None:
    compiled = torch.compile(lambda a, n: tree.dependency_log_partition(a, n), fullgraph=True, backend="aot_eager", dynamic=True)
    for B, N in ((3, 6), (2, 9), (5, 4)):
        arc, lengths = chart(B, N)[0], torch.arange(B).clamp(max=N - 1)
        assert_close(compiled(arc, lengths), tree.dependency_log_partition(arc, lengths))


def test_func_grad() -> None:
    for name, (fn, inputs) in functions().items():
        if name in ("max", "entropy", "kl", "marginals", "marginals second"):
            continue
        every = tuple(range(len(inputs)))
        got = torch.func.grad(lambda *a, f=fn: f(*a).sin().sum(), every)(*inputs)
        leaves = [t.clone().requires_grad_() for t in inputs]
        want = torch.autograd.grad(fn(*leaves).sin().sum(), leaves)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, terms=64)


def test_export() -> None:
    if backends.native is None:
        pytest.skip("an operator in a graph needs the compiled library")

    class Loss(torch.nn.Module):
        def forward(self, arc: Tensor, lengths: Tensor, heads: Tensor) -> Tensor:
            return -DependencyCRF(arc, lengths).log_prob(heads)

    arc = chart(3, 6)[0]
    program = torch.export.export(Loss(), (arc, LENGTHS, HEADS))
    assert_close(program.module()(arc, LENGTHS, HEADS), Loss()(arc, LENGTHS, HEADS))
