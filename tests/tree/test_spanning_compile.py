"""torch.compile and torch.func of the non-projective operators."""

from __future__ import annotations

import pytest
import torch
from cases import values
from compare import assert_close, assert_same
from structops import backends, tree
from structops.tree import MatrixTreeCRF
from torch import Tensor

pytestmark = pytest.mark.skipif(backends.native is None, reason="an operator in a graph needs the compiled library")
LENGTHS = torch.tensor([5, 0, 3])
HEADS = torch.tensor([[0, 4, 1, 0, 3, 2], [0] * 6, [0, 2, 0, 2, 0, 0]])
PART = torch.tensor([[-1, -1, 1, -1, -1, 3], [-1] * 6, [-1, 2, -1, -1, -1, -1]])


def functions() -> dict:
    arc = values(3, 6, 6)
    return {
        "logz": (lambda a: MatrixTreeCRF(a, LENGTHS).log_partition, (arc,)),
        "marginals": (lambda a: MatrixTreeCRF(a, LENGTHS, multiroot=True).marginals, (arc,)),
        "log_prob": (lambda a: MatrixTreeCRF(a, LENGTHS).log_prob(HEADS), (arc,)),
        "partial": (lambda a: MatrixTreeCRF(a, LENGTHS, multiroot=True).log_prob(PART, partial=True), (arc,)),
        "entropy": (lambda a: MatrixTreeCRF(a, LENGTHS).entropy(), (arc,)),
        "kl": (lambda a, b: MatrixTreeCRF(a, LENGTHS).kl_divergence(MatrixTreeCRF(b, LENGTHS)), (arc, arc.flip(0))),
        "max": (lambda a: MatrixTreeCRF(a, LENGTHS).max, (arc,)),
        "spanning tree": (lambda a: tree.maximum_spanning_tree(a, LENGTHS)[0], (arc,)),
    }


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", functions())
def test_compile(name: str) -> None:
    """One graph, the same values, the same gradients."""
    fn, inputs = functions()[name]
    results = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = f(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
        assert_close(f(*(t.detach() for t in leaves)), out.detach(), terms=32)
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=256, magnitude=8.0)


def test_compiled_trees() -> None:
    def decode(a: Tensor, heads: Tensor) -> tuple[Tensor, ...]:
        crf = MatrixTreeCRF(a, LENGTHS)
        return crf.argmax, crf.mbr(), crf.max_marginals(), tree.is_tree(heads, LENGTHS), tree.is_projective(heads, LENGTHS)

    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(values(3, 6, 6), HEADS), decode(values(3, 6, 6), HEADS), strict=True):
        assert_same(a, b)


def test_func_grad() -> None:
    fn = lambda a: MatrixTreeCRF(a, LENGTHS).log_prob(HEADS).sin().sum()
    leaf = values(3, 6, 6).requires_grad_()
    (want,) = torch.autograd.grad(fn(leaf), leaf)
    assert_close(torch.func.grad(fn)(leaf.detach()), want, terms=64)
